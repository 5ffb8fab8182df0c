import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { tensor, Tensor, type DType, type TensorLike, type TypedArray } from 'surprisal';
import { CrossEntropyLoss, SoftTargetCrossEntropy } from 'surprisal/loss';
import { assertSameBits, assertSameTensor } from './support/bits.js';
import {
  floatDTypes,
  floatTensor,
  fromBits,
  roundTo,
  toBits,
  valuesOf,
  type HalfDType,
} from './support/float_formats.js';
import { Samples } from './support/random.js';

const halves: readonly HalfDType[] = ['float16', 'bfloat16'];
const softTarget = new SoftTargetCrossEntropy();
const crossEntropy = new CrossEntropyLoss({ reduction: 'none' });

describe('tensor()', () => {
  it('takes a typed array as it is', () => {
    const data = Float32Array.of(1, 2, 3, 4, 5, 6);
    const t = tensor(data, { shape: [2, 3] });
    assert.ok(t instanceof Tensor);
    assert.equal(t.data, data);
    assert.deepEqual(t.shape, [2, 3]);
    assert.deepEqual(t.strides, [3, 1]);
    assert.equal(t.dtype, 'float32');
    assert.equal(t.device, 'cpu');
    data[5] = 60;
    assert.deepEqual(t.toArray(), [
      [1, 2, 3],
      [4, 5, 60],
    ]);
  });

  it('takes a typed array as a vector', () => {
    assert.deepEqual(tensor(Float64Array.of(1, 2, 3)).shape, [3]);
    assert.deepEqual(tensor(new Float32Array(0)).shape, [0]);
  });

  const natural: readonly (readonly [TypedArray, DType])[] = [
    [new Float32Array(2), 'float32'],
    [new Float64Array(2), 'float64'],
    [new Int8Array(2), 'int8'],
    [new Uint8Array(2), 'uint8'],
    [new Uint8ClampedArray(2), 'uint8'],
    [Buffer.alloc(2), 'uint8'],
    [new Int16Array(2), 'int16'],
    [new Uint16Array(2), 'uint16'],
    [new Int32Array(2), 'int32'],
    [new Uint32Array(2), 'uint32'],
    [new BigInt64Array(2), 'int64'],
    [new BigUint64Array(2), 'uint64'],
  ];
  for (const [data, dtype] of natural) {
    it(`${data.constructor.name} is ${dtype}`, () => {
      const t = tensor(data);
      assert.equal(t.dtype, dtype);
      assert.equal(t.data, data);
      assert.deepEqual(t.toArray(), [0, 0]);
    });
  }

  it('holds float16 and bfloat16 in a Uint16Array, and bool in a Uint8Array', () => {
    const bits = Uint16Array.of(0x3c00, 0x3f80);
    assert.deepEqual(tensor(bits, { dtype: 'float16' }).toArray(), [1, 1.875]);
    assert.deepEqual(tensor(bits, { dtype: 'bfloat16' }).toArray(), [0.0078125, 1]);
    const flags = Uint8Array.of(1, 0);
    assert.equal(tensor(flags, { dtype: 'bool' }).data, flags);
  });

  it('makes float32 of nested arrays and numbers unless told', () => {
    const t = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    assert.equal(t.dtype, 'float32');
    assert.deepEqual(t.shape, [2, 3]);
    assert.ok(t.data instanceof Float32Array);
    assert.equal(tensor(7).item(), 7);
    assert.deepEqual(tensor(7).shape, []);
    assert.deepEqual(tensor([[[]]]).shape, [1, 1, 0]);
    assert.equal(tensor([1n, 2n], { dtype: 'int64' }).data[1], 2n);
    assert.equal(tensor([1, 2], { dtype: 'uint64' }).data[1], 2n);
    assert.ok(tensor([1, 0], { dtype: 'bool' }).data instanceof Uint8Array);
    assert.deepEqual(tensor([0.1], { dtype: 'float64' }).toArray(), [0.1]);
    assert.deepEqual(tensor([1, 2, 3, 4], { shape: [2, 2] }).toArray(), [
      [1, 2],
      [3, 4],
    ]);
  });

  it('gives back a tensor, and another view of it', () => {
    const t = tensor([1, 2, 3, 4, 5, 6]);
    assert.equal(tensor(t), t);
    const matrix = tensor(t, { shape: [2, 3] });
    assert.equal(matrix.data, t.data);
    assert.deepEqual(tensor(t, { shape: [3, 2], strides: [1, 3] }).toArray(), [
      [1, 4],
      [2, 5],
      [3, 6],
    ]);
  });

  it('does not follow a shape that the caller changes later', () => {
    const shape = [2, 3];
    const t = tensor(new Float32Array(6), { shape });
    shape[0] = 1;
    assert.deepEqual(t.shape, [2, 3]);
  });

  it('counts strides in elements, and allows 0', () => {
    const data = Float32Array.of(1, 2, 3, 4, 5, 6);
    assert.deepEqual(tensor(data, { shape: [2, 2], strides: [3, 2] }).toArray(), [
      [1, 3],
      [4, 6],
    ]);
    assert.deepEqual(tensor(data, { shape: [2, 2], strides: [0, 1] }).toArray(), [
      [1, 2],
      [1, 2],
    ]);
    assert.deepEqual(tensor(data, { shape: [0, 9], strides: [100, 100] }).toArray(), []);
  });
});

describe('tensor arguments', () => {
  const values = [1, -2, 0.5, 3, 0.25, -1];
  const target = [2, 0];
  const expected = crossEntropy.forward(tensor(values, { shape: [2, 3] }), target);
  const rows = [
    [1, -2, 0.5],
    [3, 0.25, -1],
  ];
  const padded = (buffer: ArrayBufferLike) => {
    const array = new Float32Array(buffer, 12, 6);
    array.set(values);
    return array;
  };

  const inputs: Readonly<Record<string, TensorLike>> = {
    'a Tensor': tensor(Float32Array.from(values), { shape: [2, 3] }),
    '{ data, shape }': { data: Float32Array.from(values), shape: [2, 3] },
    '{ data, shape, dtype }': { data: Float32Array.from(values), shape: [2, 3], dtype: 'float32' },
    '{ data, shape, strides }': {
      data: Float32Array.of(1, 3, -2, 0.25, 0.5, -1),
      shape: [2, 3],
      strides: [1, 2],
    },
    '{ data, dims, type }': { data: Float32Array.from(values), dims: [2, 3], type: 'float32' },
    "{ data, dims, type, location: 'cpu' }": {
      data: Float32Array.from(values),
      dims: [2, 3],
      type: 'float32',
      location: 'cpu',
    },
    "{ data, dims, type, location: 'cpu-pinned' }": {
      data: Float32Array.from(values),
      dims: [2, 3],
      type: 'float32',
      location: 'cpu-pinned',
    },
    'nested arrays': rows,
    'a view with a byteOffset': { data: padded(new ArrayBuffer(64)), shape: [2, 3] },
    'a view of a SharedArrayBuffer': { data: padded(new SharedArrayBuffer(64)), shape: [2, 3] },
    'a subarray': { data: Float32Array.of(9, 9, ...values, 9).subarray(2, 8), shape: [2, 3] },
  };
  for (const [name, input] of Object.entries(inputs)) {
    it(`input: ${name}`, async () => {
      assertSameTensor(crossEntropy.forward(input, target), expected, 'forward');
      assertSameTensor(await crossEntropy.forwardAsync(input, target), expected, 'forwardAsync');
    });
  }

  it('input: whatever has the members of a tensor of onnxruntime-node', () => {
    class OrtTensor {
      readonly cpuData = Float32Array.from(values);
      readonly dims = [2, 3];
      readonly type = 'float32';
      readonly size = 6;
      readonly location = 'cpu';
      get data() {
        return this.cpuData;
      }
    }
    assertSameTensor(crossEntropy.forward(new OrtTensor(), target), expected, 'forward');
    const labels = { data: BigInt64Array.of(2n, 0n), dims: [2], type: 'int64' };
    assertSameTensor(crossEntropy.forward(new OrtTensor(), labels), expected, 'int64 labels');
    const half = { data: floatTensor(values, [2, 3], 'float16').data, dims: [2, 3], type: 'float16' };
    // These values are float16 numbers: nothing is rounded on the way.
    assertSameTensor(crossEntropy.forward(half, target), expected, 'float16');
  });

  const labels: Readonly<Record<string, TensorLike>> = {
    'plain numbers': [2, 0],
    bigints: [2n, 0n],
    int8: Int8Array.of(2, 0),
    uint8: Uint8Array.of(2, 0),
    'uint8, clamped': Uint8ClampedArray.of(2, 0),
    int16: Int16Array.of(2, 0),
    uint16: Uint16Array.of(2, 0),
    int32: Int32Array.of(2, 0),
    uint32: Uint32Array.of(2, 0),
    int64: BigInt64Array.of(2n, 0n),
    uint64: BigUint64Array.of(2n, 0n),
    'with strides': { data: Int32Array.of(2, 7, 0), shape: [2], strides: [2] },
    'with a byteOffset': new Int16Array(Int16Array.of(5, 2, 0).buffer, 2),
    'in a SharedArrayBuffer': (() => {
      const array = new Int32Array(new SharedArrayBuffer(8));
      array.set([2, 0]);
      return array;
    })(),
  };
  for (const [name, given] of Object.entries(labels)) {
    it(`class indices: ${name}`, () => {
      assertSameTensor(crossEntropy.forward(rows, given), expected, name);
    });
  }

  it('the same probabilities in every dtype', () => {
    const q = [0.5, 0.25, 0.25, 0, 1, 0];
    const reference = softTarget.forward(rows, tensor(q, { shape: [2, 3] }));
    for (const dtype of floatDTypes) {
      assertSameTensor(softTarget.forward(rows, floatTensor(q, [2, 3], dtype)), reference, dtype);
    }
  });

  // Node 24 and later have Float16Array; before that a Uint16Array is the only form of float16.
  const Float16 = (globalThis as { Float16Array?: { from(values: readonly number[]): ArrayBufferView } })
    .Float16Array;
  if (Float16 !== undefined) {
    it('a Float16Array', () => {
      const data = Float16.from(values);
      const t = tensor(data as TypedArray, { shape: [2, 3] });
      assert.equal(t.dtype, 'float16');
      assert.equal(t.data, data);
      assert.deepEqual(t.toArray(), rows);
      assertSameTensor(crossEntropy.forward(t, target), expected, 'forward');
      const columns = tensor(Float16.from([1, 3, -2, 0.25, 0.5, -1]) as TypedArray, {
        shape: [2, 3],
        strides: [1, 2],
      });
      assert.deepEqual(columns.toArray(), rows);
      assertSameTensor(crossEntropy.forward(columns, target), expected, 'with strides');
      const batch = [1, 3, 2, 0, 5, -1, 4, 0.5, -2, 6, 3, 1].map((x) => [x]);
      const apart = tensor(Float16.from(batch.flatMap((x) => [...x, 9])) as TypedArray, {
        shape: [2, 2, 3],
        strides: [2, 12, 4],
      });
      const together = tensor(apart.toArray(), { dtype: 'float16' });
      assertSameTensor(
        softTarget.forward(apart, together),
        softTarget.forward(together, together),
        'no rows in memory',
      );
      const grad = tensor(Float16.from([0, 0, 0, 0, 0, 0]) as TypedArray, { shape: [2, 3] });
      softTarget.valueAndGrad(t, rows, { out: { grad } });
      const bits = softTarget.valueAndGrad(floatTensor(values, [2, 3], 'float16'), rows).grad;
      assertSameBits(
        new Uint16Array(grad.data.buffer as ArrayBuffer),
        bits.data,
        'gradient in a Float16Array',
      );
    });
  }
});

describe('results', () => {
  it('are in the memory that out gives', () => {
    for (const dtype of floatDTypes) {
      const input = floatTensor(new Samples(1).normals(12, 2), [4, 3], dtype);
      const expected = softTarget.valueAndGrad(input, input).grad;
      const out = floatTensor(new Float64Array(12), [4, 3], dtype);
      const { grad } = softTarget.valueAndGrad(input, input, { out: { grad: out } });
      assert.equal(grad.data, out.data);
      assertSameTensor(grad, expected, dtype);
    }
  });

  it('are the input itself where out is the input', () => {
    const input = floatTensor(new Samples(1).normals(12, 2), [4, 3], 'float32');
    const target = floatTensor(new Samples(2).probabilities(4, 3), [4, 3], 'float32');
    const expected = softTarget.valueAndGrad(input, target);
    const { value, grad } = softTarget.valueAndGrad(input, target, { out: { grad: input } });
    assert.equal(grad.data, input.data);
    assertSameTensor(grad, expected.grad, 'gradient');
    assertSameTensor(value, expected.value, 'value');
  });

  it('leave the gaps of a strided out alone', () => {
    const input = floatTensor(new Samples(1).normals(12, 2), [4, 3], 'float32');
    const expected = softTarget.valueAndGrad(input, input).grad;
    const memory = new Float32Array(40).fill(7);
    const out = { data: memory.subarray(2), shape: [4, 3], strides: [8, 2] };
    const { grad } = softTarget.valueAndGrad(input, input, { out: { grad: out } });
    assert.deepEqual(grad.toArray(), expected.toArray());
    const written = new Set(Array.from({ length: 12 }, (_, i) => 2 + Math.floor(i / 3) * 8 + (i % 3) * 2));
    memory.forEach((x, i) => assert.ok(written.has(i) || x === 7, `element ${i} was written to`));
  });

  it('copy nothing of a view that spans half a gigabyte', () => {
    // 6 numbers in memory that is only reserved: a copy would touch all of it, which the peak of resident memory shows.
    const script = `
      const { LabelSmoothingCrossEntropy } = await import('surprisal/loss');
      const criterion = new LabelSmoothingCrossEntropy();
      const length = 2 ** 27 + 3;
      for (const Buffer of [ArrayBuffer, SharedArrayBuffer]) {
        const data = new Float32Array(new Buffer(length * 4));
        data.set([1, 2, 3], 2 ** 27);
        const input = { data, shape: [2, 3], strides: [2 ** 27, 1] };
        const before = process.resourceUsage().maxRSS;
        const { value } = criterion.valueAndGrad(input, [0, 1]);
        await criterion.forwardAsync(input, [0, 1]);
        const grown = process.resourceUsage().maxRSS - before;
        console.log(JSON.stringify({ value: value.item(), grown }));
      }
    `;
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    assert.equal(status, 0, stderr);
    const lines = stdout.trim().split('\n');
    assert.equal(lines.length, 2);
    for (const line of lines) {
      const { value, grown } = JSON.parse(line) as { value: number; grown: number };
      assert.ok(value > 1 && value < 1.5, `the loss of these rows is between log 3 and log 4, got ${value}`);
      // Kilobytes. A copy takes 524,288; the call itself a few hundred (its code, a thread's stack).
      assert.ok(grown < 65_536, `resident memory grew by ${grown} kB`);
    }
  });
});

describe('item() and toArray()', () => {
  it('give numbers of every dtype', () => {
    const one: readonly (readonly [TypedArray, DType])[] = [
      [Float32Array.of(2), 'float32'],
      [Float64Array.of(2), 'float64'],
      [Uint16Array.of(0x4000), 'float16'],
      [Uint16Array.of(0x4000), 'bfloat16'],
      [Int8Array.of(2), 'int8'],
      [Uint8Array.of(2), 'uint8'],
      [Int16Array.of(2), 'int16'],
      [Uint16Array.of(2), 'uint16'],
      [Int32Array.of(2), 'int32'],
      [Uint32Array.of(2), 'uint32'],
      [BigInt64Array.of(2n), 'int64'],
      [BigUint64Array.of(2n), 'uint64'],
    ];
    for (const [data, dtype] of one) {
      assert.strictEqual(tensor(data, { shape: [], dtype }).item(), 2, dtype);
      assert.strictEqual(tensor(data, { shape: [], dtype }).toArray(), 2, dtype);
      assert.deepEqual(tensor(data, { shape: [1, 1], dtype }).toArray(), [[2]], dtype);
      assert.strictEqual(tensor(data, { shape: [1, 1], dtype }).item(), 2, dtype);
    }
  });

  it('of a view take its elements', () => {
    const data = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    const cube = tensor(data, { shape: [2, 2, 2], strides: [1, 4, 2] });
    assert.deepEqual(cube.toArray(), [
      [
        [1, 3],
        [5, 7],
      ],
      [
        [2, 4],
        [6, 8],
      ],
    ]);
    assert.deepEqual(tensor(data.subarray(3), { shape: [2], strides: [3] }).toArray(), [4, 7]);
    for (const dtype of halves) {
      const half = floatTensor([1, 2, 3, 4], [4], dtype);
      assert.deepEqual(tensor(half.data, { shape: [2, 2], strides: [1, 2], dtype }).toArray(), [
        [1, 3],
        [2, 4],
      ]);
    }
  });

  it('of nothing is nothing', () => {
    assert.deepEqual(tensor([]).toArray(), []);
    for (const dtype of [...floatDTypes, 'int32', 'int64'] as const) {
      const empty = tensor([], { dtype });
      assert.equal(empty.dtype, dtype);
      assert.deepEqual(empty.toArray(), [], dtype);
      assert.deepEqual(tensor([[], []], { dtype }).toArray(), [[], []], dtype);
    }
  });
});

describe('to() and dispose()', () => {
  it('to the CPU is the tensor itself', async () => {
    const t = tensor([1, 2]);
    assert.equal(t.to('cpu'), t);
    assert.equal(await t.toAsync('cpu'), t);
  });

  it('toAsync rejects as to() throws', async () => {
    const t = tensor([1, 2]);
    await assert.rejects(t.toAsync('cuda'), { name: 'Error', code: 'ERR_CUDA_UNAVAILABLE' });
    await assert.rejects(t.toAsync('tpu' as never), { name: 'TypeError', code: 'ERR_OPTION' });
    t.dispose();
    await assert.rejects(t.toAsync('cpu'), { name: 'TypeError', code: 'ERR_DISPOSED' });
  });

  it('dispose() lets go of the data and nothing else', () => {
    const data = Float32Array.of(1, 2);
    const t = tensor(data);
    const other = tensor(data);
    t.dispose();
    assert.throws(() => t.data, { name: 'TypeError', code: 'ERR_DISPOSED' });
    assert.deepEqual(t.shape, [2]);
    assert.equal(t.dtype, 'float32');
    assert.deepEqual(other.toArray(), [1, 2]);
    assert.deepEqual([...data], [1, 2]);
  });

  it('dispose() may be called twice', () => {
    const t = tensor([1]);
    t.dispose();
    assert.doesNotThrow(() => t.dispose());
  });

  it('Symbol.dispose is dispose()', () => {
    assert.equal(typeof Symbol.dispose, 'symbol');
    let seen: Tensor;
    {
      using t = tensor([1, 2]);
      seen = t;
      assert.equal(t.data.length, 2);
    }
    assert.throws(() => seen.data, { code: 'ERR_DISPOSED' });
  });

  it('a result can be disposed while its input lives on', () => {
    const input = tensor([[1, 2, 3]]);
    const { value, grad } = crossEntropy.valueAndGrad(input, [1]);
    value.dispose();
    grad.dispose();
    assert.equal(crossEntropy.forward(input, [1]).shape.length, 1);
  });
});

describe('float16 and bfloat16', () => {
  for (const dtype of halves) {
    it(`${dtype}: all 65536 patterns have their value`, () => {
      const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
      const values = tensor(bits, { dtype }).toArray() as readonly number[];
      assert.equal(values.length, 65536);
      let nans = 0;
      values.forEach((value, i) => {
        const expected = fromBits(i, dtype);
        if (Number.isNaN(expected)) nans++;
        assert.ok(Object.is(value, expected), `0x${i.toString(16)}: expected ${expected}, got ${value}`);
      });
      // Both signs, every significand but that of infinity.
      assert.equal(nans, dtype === 'float16' ? 2 * 1023 : 2 * 127);
    });

    const encode = (values: readonly number[]) => tensor(values, { dtype }).data as Uint16Array;
    const assertEncodes = (values: readonly number[]) => {
      const bits = encode(values);
      values.forEach((value, i) => {
        const expected = toBits(roundTo(value, dtype), dtype);
        assert.equal(
          bits[i],
          expected,
          `${value}: expected 0x${expected.toString(16)} (${fromBits(expected, dtype)}), ` +
            `got 0x${bits[i]!.toString(16)} (${fromBits(bits[i]!, dtype)})`,
        );
      });
    };

    it(`${dtype}: every value that it has keeps its bits`, () => {
      const numbers: number[] = [];
      for (let i = 0; i < 65536; i++) if (!Number.isNaN(fromBits(i, dtype))) numbers.push(i);
      const bits = encode(numbers.map((i) => fromBits(i, dtype)));
      assertSameBits(bits, Uint16Array.from(numbers), dtype);
    });

    it(`${dtype}: NaN stays NaN`, () => {
      assert.ok(Number.isNaN(fromBits(encode([NaN])[0]!, dtype)));
    });

    it(`${dtype}: halfway between neighbours goes to the even one, and next to halfway to the nearer`, () => {
      const values: number[] = [];
      const infinity = toBits(Infinity, dtype);
      for (let i = 0; i < infinity; i++) {
        const low = fromBits(i, dtype);
        // Past the largest number halfway is where infinity begins.
        const high = i + 1 < infinity ? fromBits(i + 1, dtype) : low + (low - fromBits(i - 1, dtype));
        const middle = (low + high) / 2;
        const below = middle * (1 - 2 ** -53);
        const above = middle * (1 + 2 ** -52);
        assert.ok(below < middle && middle < above);
        values.push(middle, -middle, below, -below, above, -above);
      }
      assertEncodes(values);
    });

    it(`${dtype}: a double is rounded once, not to float32 first`, () => {
      const step = dtype === 'float16' ? 2 ** -10 : 2 ** -7;
      // To float32 these are halfway, which would go to the even side; the double knows better.
      const values = [1 + step / 2 + 2 ** -40, 1 + 1.5 * step - 2 ** -40, 2 + step + 2 ** -50];
      values.forEach((value) => {
        const twice = roundTo(Math.fround(value), dtype);
        assert.notEqual(roundTo(value, dtype), twice, 'the two ways differ');
      });
      assertEncodes(values);
    });

    it(`${dtype}: random doubles of every size`, () => {
      const samples = new Samples(dtype === 'float16' ? 16 : 17);
      const [low, high] = dtype === 'float16' ? [-27, 18] : [-137, 130];
      const values = Array.from({ length: 20000 }, () => {
        const size = 2 ** (low + samples.uniform() * (high - low));
        return samples.integer(2) === 0 ? size : -size;
      });
      assertEncodes([
        ...values,
        0,
        -0,
        Number.MIN_VALUE,
        -Number.MIN_VALUE,
        Number.MAX_VALUE,
        Infinity,
        -Infinity,
      ]);
    });

    it(`${dtype}: a gradient is rounded once from float32`, () => {
      // Of equal logits p is 1/4: p·Σq − q is exact in float32 for these q.
      const input = floatTensor([0, 0, 0, 0], [1, 4], dtype);
      const target = tensor([[2 ** -14, 0.25, 1, 0.7001953125]]);
      const criterion = new SoftTargetCrossEntropy();
      const { grad } = criterion.valueAndGrad(input, target);
      const sum = 2 ** -14 + 0.25 + 1 + 0.7001953125;
      const expected = [2 ** -14, 0.25, 1, 0.7001953125].map((q) => roundTo(sum / 4 - q, dtype));
      assert.deepEqual([...valuesOf(grad)], expected);
    });
  }
});
