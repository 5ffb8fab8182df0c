import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { tensor, type FloatDType, type Tensor } from 'surprisal';
import { CrossEntropyLoss, NLLLoss } from 'surprisal/loss';
import { makeBatch, select } from '../support/batches.js';
import { assertSameBits, assertSameTensor } from '../support/bits.js';
import { assertNear } from '../support/close.js';
import {
  allocate,
  bytesPerElement,
  floatDTypes,
  floatTensor,
  halfUlp,
  isHalf,
  valuesOf,
  type FloatArray,
} from '../support/float_formats.js';
import {
  formsOf,
  lossClasses,
  nativeBinding,
  rowsPerSample,
  unless,
  type LossClass,
  type Options,
} from '../support/losses.js';
import { Samples } from '../support/random.js';

const [samples, classes] = [20, 45];

/** Rows of so few classes are worked at in one way, whatever their strides, with every instruction set. */
const fewClasses = 5;

/** The default reduction, and one value a row where the loss can give it. */
const reductionsOf = (Class: LossClass): readonly Options[] =>
  [{}, { reduction: 'none' }].filter((options) => unless(['ERR_OPTION'], () => Class.create(2, options)));

/** The same matrix with other strides: rows apart by more than a row, or columns first. */
const layouts: Readonly<Record<string, (rows: number, columns: number) => readonly [number, number]>> = {
  'padded rows': (_, columns) => [columns + 5, 1],
  transposed: (rows) => [1, rows],
  'every second column': (_, columns) => [2 * columns, 2],
};

/** A copy of a contiguous matrix in other strides, with `filler` between the elements. */
function relayout(from: Tensor, strides: readonly [number, number], filler = 0): Tensor {
  const [rows, columns] = from.shape as [number, number];
  const dtype = from.dtype as FloatDType;
  const memory = allocate(dtype, (rows - 1) * strides[0] + (columns - 1) * strides[1] + 1).fill(filler);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      memory[r * strides[0] + c * strides[1]] = (from.data as FloatArray)[r * columns + c]!;
    }
  }
  return tensor(memory, { shape: from.shape, dtype, strides });
}

/**
 * Where a long row's classes lie apart in memory, its sums are taken in another order than where they are neighbours.
 * Then results are within the house's tolerances of each other, relative to the largest: 3e-7, five roundings of
 * float32, and 1e-12, a thousand terms' of float64; half precision rounds such a result once more.
 */
function assertSameNumbers(actual: Tensor, expected: Tensor, what: string): void {
  assert.deepEqual(actual.shape, expected.shape, `${what}: shapes differ`);
  const wanted = valuesOf(expected);
  const dtype = expected.dtype as FloatDType;
  const largest = wanted.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
  const tolerance = (dtype === 'float64' ? 1e-12 : 3e-7) * largest;
  valuesOf(actual).forEach((got, i) => {
    const rounding = isHalf(dtype) ? 2 * halfUlp(wanted[i]!, dtype) : 0;
    assertNear(got, wanted[i]!, tolerance + rounding, () => `${what}: element ${i}`);
  });
}

/** The contiguous copy of a strided matrix. */
function gathered({ data, shape, strides, dtype }: Tensor): FloatArray {
  const [rows, columns] = shape as [number, number];
  return allocate(dtype as FloatDType, rows * columns).map(
    (_, i) => (data as FloatArray)[Math.floor(i / columns) * strides[0]! + (i % columns) * strides[1]!]!,
  );
}

describe('memory: strides', () => {
  for (const Class of lossClasses) {
    for (const classes of [fewClasses, 45])
      it(`${Class.name} of ${classes} classes gives the same for other layouts of input, target and out.grad`, () => {
        const loss = Class.create(classes);
        for (const dtype of floatDTypes) {
          for (const form of formsOf(Class)) {
            const { input, target } = makeBatch(form, samples, rowsPerSample(Class), classes, dtype);
            const expected = loss.valueAndGrad(input, target);
            for (const [name, stridesOf] of Object.entries(layouts)) {
              const what = `${name}, ${form}, ${dtype}`;
              const strides = stridesOf(input.shape[0]!, classes);
              const strided = relayout(input, strides);
              const { value, grad } = loss.valueAndGrad(strided, target);
              const sameOrder = classes === fewClasses || strides[1] === 1;
              const assertSame = sameOrder ? assertSameTensor : assertSameNumbers;
              assertSame(value, expected.value, `${what}: loss`);
              assertSame(grad, expected.grad, `${what}: gradient`);
              assertSameTensor(loss.forward(strided, target), value, `${what}: forward`);

              if (form !== 'indices') {
                const other = loss.valueAndGrad(input, relayout(target, strides));
                assertSameTensor(other.value, expected.value, `${what}: loss, strided target`);
                assertSameTensor(other.grad, expected.grad, `${what}: gradient, strided target`);
              }

              // What stands between the elements must stay.
              const filler = 77;
              const memory = relayout(expected.grad, strides, filler);
              const blank = memory.data.slice() as FloatArray;
              (memory.data as FloatArray).fill(filler);
              const written = loss.valueAndGrad(input, target, { out: { grad: memory } });
              assert.equal(written.grad.data, memory.data);
              assertSameBits(gathered(written.grad), expected.grad.data, `${what}: out.grad`);
              assertSameBits(memory.data, blank, `${what}: between the elements of out.grad`);
            }
          }
        }
      });
  }

  for (const Class of [CrossEntropyLoss, NLLLoss]) {
    for (const classes of [fewClasses, 45])
      it(`${Class.name}: ${classes} classes in dimension 1 of (N, C, d1, d2) as rows of (N·d1·d2, C)`, () => {
        const [n, height, width] = [3, 7, 9];
        const plane = height * width;
        const source = new Samples(41);
        const labels = source.labels(n * plane, classes);
        labels[5] = -100;
        const values = source.normals(n * classes * plane, 3);
        const weight = Float64Array.from({ length: classes }, () => 0.5 + source.uniform());
        /** Where element (row, class) of the matrix stands in the image. */
        const at = (row: number, c: number) =>
          (Math.floor(row / plane) * classes + c) * plane + (row % plane);
        const asRows = (from: ArrayLike<number>, to: FloatArray) => {
          for (let i = 0; i < to.length; i++) to[i] = from[at(Math.floor(i / classes), i % classes)]!;
          return to;
        };
        for (const dtype of floatDTypes) {
          for (const reduction of ['none', 'mean', 'sum'] as const) {
            for (const options of [{}, { weight }]) {
              const loss = new Class({ reduction, ...options });
              const image = floatTensor(values, [n, classes, height, width], dtype);
              const rows = tensor(asRows(image.data as FloatArray, allocate(dtype, values.length)), {
                shape: [n * plane, classes],
                dtype,
              });
              const strided = loss.valueAndGrad(image, { data: labels, shape: [n, height, width] });
              const flat = loss.valueAndGrad(rows, labels);
              const what = `${dtype}, ${reduction}, ${Object.keys(options).join()}`;
              assert.deepEqual(strided.value.shape, reduction === 'none' ? [n, height, width] : []);
              assert.deepEqual(strided.grad.shape, image.shape);
              const assertSame = classes === fewClasses ? assertSameTensor : assertSameNumbers;
              const value = tensor(strided.value.data, { shape: flat.value.shape, dtype: flat.value.dtype });
              assertSame(value, flat.value, `${what}: loss`);
              const moved = asRows(strided.grad.data as FloatArray, allocate(dtype, values.length));
              assertSame(tensor(moved, { shape: flat.grad.shape, dtype }), flat.grad, `${what}: gradient`);
            }
          }
        }
      });
  }
});

/** Of so many that a row's classes are read where they stand, if its neighbours lie beside them. */
describe('memory: many classes that lie apart', () => {
  const binding = nativeBinding();
  afterEach(() => binding.setInstructionSet(binding.instructionSets[0]!));
  // Tiles of 16 rows or fewer, and some rows that fill none.
  const [samples, classes] = [37, 150];

  for (const Class of lossClasses) {
    it(`${Class.name} gives for rows side by side the bits of rows that are copied, and writes over them`, () => {
      const loss = Class.create(classes);
      for (const name of binding.instructionSets) {
        binding.setInstructionSet(name);
        for (const dtype of floatDTypes) {
          for (const form of formsOf(Class)) {
            const { input, target } = makeBatch(form, samples, rowsPerSample(Class), classes, dtype);
            const rows = input.shape[0]!;
            const what = `${form}, ${dtype}, ${name}`;
            const expected = loss.valueAndGrad(relayout(input, [2, 2 * rows]), target);
            const beside = relayout(input, [1, rows]);
            const { value, grad } = loss.valueAndGrad(beside, target);
            assertSameTensor(value, expected.value, `${what}: loss`);
            assertSameTensor(grad, expected.grad, `${what}: gradient`);
            assertSameTensor(loss.forward(beside, target), value, `${what}: forward`);
            loss.valueAndGrad(beside, target, { out: { grad: beside } });
            assertSameBits(gathered(beside), expected.grad.data, `${what}: gradient in place`);
          }
        }
      }
    });
  }
});

describe('memory: out.grad', () => {
  for (const Class of lossClasses) {
    it(`${Class.name} in place gives the same bits as in separate memory`, () => {
      const loss = Class.create(classes);
      for (const dtype of floatDTypes) {
        for (const form of formsOf(Class)) {
          const { input, target } = makeBatch(form, samples, rowsPerSample(Class), classes, dtype);
          const what = `${form}, ${dtype}`;
          const expected = loss.valueAndGrad(input, target);

          const memory = allocate(dtype, input.data.length);
          const separate = loss.valueAndGrad(input, target, {
            out: { grad: tensor(memory, { shape: input.shape, dtype }) },
          });
          assert.equal(separate.grad.data, memory, `${what}: grad.data is the caller's array`);
          assertSameTensor(separate.value, expected.value, `${what}: loss`);
          assertSameBits(memory, expected.grad.data, `${what}: gradient`);

          const inPlace = loss.valueAndGrad(input, target, { out: { grad: input } });
          assert.equal(inPlace.grad.data, input.data, `${what}: grad.data is the input's array`);
          assertSameTensor(inPlace.value, expected.value, `${what}: loss in place`);
          assertSameBits(input.data, expected.grad.data, `${what}: gradient in place`);
        }
      }
    });
  }
});

/** Written past the caches where these hold less than three times as much, as the last of most processors' do. */
describe('memory: a gradient of 24 MB', () => {
  // Rows begin at every place within a cache line.
  const longRow = 8209;
  const distinct = 12;

  for (const Class of lossClasses) {
    if (Class.perClassOptions) continue; // a lens of so many classes has 270 MB
    it(`${Class.name} gives each row the bits that it has in a small batch`, () => {
      for (const dtype of floatDTypes) {
        const size = bytesPerElement[dtype];
        const group = rowsPerSample(Class);
        for (const form of formsOf(Class)) {
          const batch = makeBatch(form, distinct, group, longRow, dtype);
          const ignored = Class.name === 'CrossEntropyLoss' && form === 'indices';
          if (ignored) batch.target.data[5] = -100;
          const repeats = Math.ceil(24e6 / (distinct * group * longRow * size));
          const order = Array.from({ length: distinct * repeats }, (_, i) => i % distinct);
          const large = select(batch, order);
          const loss = Class.create(longRow);
          const small = loss.valueAndGrad(batch.input, batch.target);
          const expected = small.grad.data as FloatArray;
          // So many times the mean of as many more rows, or their sum.
          const value = loss.forward(large.input, large.target).item();
          const gradOutput = Math.round((repeats * small.value.item()) / value);
          const memory = allocate(dtype, large.input.data.length + 1);
          const grad = tensor(memory.subarray(1), { shape: large.input.shape, dtype });
          loss.valueAndGrad(large.input, large.target, { out: { grad }, gradOutput });
          const part = distinct * longRow;
          for (let at = 0; at < memory.length - 1; at += part) {
            const split = Math.floor(at / (part * repeats));
            assertSameBits(
              memory.subarray(1 + at, 1 + at + part),
              expected.subarray(split * part, (split + 1) * part),
              `${form}, ${dtype}: elements from ${at} on`,
            );
          }
          assert.equal(memory[0], 0, `${form}, ${dtype}: the element before the gradient`);
        }
      }
    });
  }
});

describe('memory: out.value', () => {
  for (const Class of lossClasses) {
    it(`${Class.name} writes the loss into the caller's memory, with the same bits, in all four calls`, async () => {
      for (const options of reductionsOf(Class)) {
        const loss = Class.create(classes, options);
        for (const dtype of floatDTypes) {
          for (const form of formsOf(Class)) {
            const { input, target } = makeBatch(form, samples, rowsPerSample(Class), classes, dtype);
            const expected = loss.valueAndGrad(input, target);
            const { shape, dtype: valueDType } = expected.value;
            const { length } = expected.value.data;
            const around = 3;
            for (const call of ['forward', 'forwardAsync', 'valueAndGrad', 'valueAndGradAsync'] as const) {
              const what = `${call}, ${form}, ${dtype}, ${loss.reduction}`;
              const memory = allocate(valueDType as FloatDType, length + 2 * around).fill(77);
              const value = tensor(memory.subarray(around, around + length), { shape, dtype: valueDType });
              const grad = tensor(input.data.slice(), { shape: input.shape, dtype });
              const isForward = call.startsWith('forward');
              const result = await loss[call](input, target, {
                out: isForward ? { value } : { value, grad },
              });
              const written = 'grad' in result ? result.value : result;
              assert.equal(written, value, `${what}: the tensor itself comes back`);
              assertSameTensor(value, expected.value, `${what}: loss`);
              if ('grad' in result) {
                assert.equal(result.grad, grad);
                assertSameTensor(grad, expected.grad, `${what}: gradient`);
              }
              const gaps = [...memory.subarray(0, around), ...memory.subarray(around + length)];
              assert.deepEqual(gaps, new Array(2 * around).fill(77), `${what}: memory around the loss`);
            }
          }
        }
      }
    });
  }

  it('takes a typed array of one loss a row', () => {
    const loss = new CrossEntropyLoss({ reduction: 'none' });
    const logits = [
      [1, 2, 3],
      [3, 1, 2],
    ];
    const memory = new Float32Array(2);
    const value = loss.forward(logits, [2, 1], { out: { value: memory } });
    assert.equal(value.data, memory);
    assert.deepEqual([...memory], loss.forward(logits, [2, 1]).toArray());
  });

  it('is left as it was where a label is out of range', async () => {
    for (const reduction of ['none', 'mean'] as const) {
      const loss = new CrossEntropyLoss({ reduction });
      const memory = new Float32Array(reduction === 'none' ? 2 : 1).fill(77);
      const value = tensor(memory, { shape: reduction === 'none' ? [2] : [] });
      const logits = [
        [1, 2, 3],
        [3, 1, 2],
      ];
      const code = 'ERR_TARGET_OUT_OF_RANGE';
      assert.throws(() => loss.forward(logits, [0, 3], { out: { value } }), { code });
      await assert.rejects(loss.forwardAsync(logits, [0, 3], { out: { value } }), { code });
      assert.ok(memory.every((x) => x === 77));
    }
  });
});

describe('memory: small calls', () => {
  /** Bytes of array buffers that 200 calls make: the most of ten tries, as a garbage collection hides some. */
  function bytesOfBuffers(call: () => unknown): number {
    const made = Array.from({ length: 10 }, () => {
      const before = process.memoryUsage().arrayBuffers;
      for (let i = 0; i < 200; i++) call();
      return process.memoryUsage().arrayBuffers - before;
    });
    return Math.max(...made);
  }

  for (const Class of lossClasses) {
    it(`${Class.name} makes no array buffer where out is given, nor for a loss that is one number`, () => {
      for (const options of reductionsOf(Class)) {
        const loss = Class.create(classes, options);
        for (const form of formsOf(Class)) {
          const { input, target } = makeBatch(form, 1, rowsPerSample(Class), classes, 'float32');
          // Small arrays get their buffers when native code first looks at them: these by this call.
          const out = loss.valueAndGrad(input, target);
          const { value } = out;
          loss.valueAndGrad(input, target, { out });
          const what = `${form}, ${loss.reduction}`;
          assert.equal(
            bytesOfBuffers(() => loss.forward(input, target, { out: { value } })),
            0,
            what,
          );
          assert.equal(
            bytesOfBuffers(() => loss.valueAndGrad(input, target, { out })),
            0,
            what,
          );
          const own = bytesOfBuffers(() => loss.forward(input, target));
          if (loss.reduction === 'none') assert.ok(own >= 200 * 4, `${what}: ${own} bytes without out`);
          else assert.equal(own, 0, `${what}: without out`);
        }
      }
    });
  }

  it('stay in the memory that they began with, over ten million calls', function () {
    this.timeout(900_000);
    // A young generation of the least size does not grow meanwhile.
    const { stdout, stderr, status } = spawnSync(
      process.execPath,
      [
        '--max-semi-space-size=1',
        '--input-type=module',
        '-e',
        `
        const { tensor } = await import('surprisal');
        const { CrossEntropyLoss } = await import('surprisal/loss');
        const criterion = new CrossEntropyLoss();
        const input = tensor(Float32Array.from({ length: 10 }, (_, i) => i / 3), { shape: [1, 10] });
        const target = tensor(new Int32Array([3]), { shape: [1] });
        const value = tensor(new Float32Array(1), { shape: [] });
        const grad = tensor(new Float32Array(10), { shape: [1, 10] });
        const forward = { out: { value } }, both = { out: { value, grad } };
        const million = () => {
          for (let i = 0; i < 500_000; i++) {
            criterion.forward(input, target, forward);
            criterion.valueAndGrad(input, target, both);
          }
          return process.memoryUsage.rss();
        };
        million();
        console.log(JSON.stringify(Array.from({ length: 11 }, million)));
        `,
      ],
      {
        encoding: 'utf8',
        // Under AddressSanitizer freed blocks are kept back, V8's own too, up to a quarter of a gigabyte.
        env: { ...process.env, ASAN_OPTIONS: `${process.env['ASAN_OPTIONS'] ?? ''}:quarantine_size_mb=0` },
      },
    );
    assert.equal(status, 0, stderr);
    const [first, ...later] = JSON.parse(stdout) as [number, ...number[]];
    // malloc takes 16 bytes or more for the smallest block: one lost in forty calls would be 4 MB. Where none is lost
    // the figures were seen to lie within 0.3 MB of each other.
    const grown = Math.max(...later) - first;
    assert.ok(grown < 4e6, `grew by ${grown} bytes: ${stdout}`);
  });
});

describe('memory: arrays are used where they are', () => {
  const buffers: Readonly<Record<string, (bytes: number) => ArrayBufferLike>> = {
    ArrayBuffer: (bytes) => new ArrayBuffer(bytes),
    SharedArrayBuffer: (bytes) => new SharedArrayBuffer(bytes),
  };
  for (const [kind, makeBuffer] of Object.entries(buffers)) {
    for (const Class of lossClasses) {
      it(`${Class.name} reads and writes views at an offset of a ${kind}`, () => {
        const loss = Class.create(classes);
        for (const dtype of floatDTypes) {
          const size = bytesPerElement[dtype];
          for (const form of formsOf(Class)) {
            const plain = makeBatch(form, samples, rowsPerSample(Class), classes, dtype);
            const expected = loss.valueAndGrad(plain.input, plain.target);
            const { length } = plain.input.data;
            // Offset by three elements: no vector's alignment.
            const buffer = makeBuffer((2 * length + 9) * size);
            const view = allocate(dtype, length, buffer, 3 * size);
            const grad = allocate(dtype, length, buffer, (length + 6) * size);
            view.set(plain.input.data as FloatArray);
            const input = tensor(view, { shape: plain.input.shape, dtype });
            assert.equal(input.data, view, 'a tensor holds the array it was given');

            const what = `${form}, ${dtype}`;
            const out = tensor(grad, { shape: plain.input.shape, dtype });
            const result = loss.valueAndGrad(input, plain.target, { out: { grad: out } });
            assert.equal(result.grad.data, grad);
            assertSameTensor(result.value, expected.value, `${what}: loss`);
            assertSameBits(grad, expected.grad.data, `${what}: gradient`);
            assertSameBits(view, plain.input.data, `${what}: the input is left as it was`);
            const around = [0, length + 3, 2 * length + 6].map((at) => allocate(dtype, 3, buffer, at * size));
            for (const gap of around)
              assert.ok(
                gap.every((x) => x === 0),
                `${what}: memory around the views`,
              );

            // The next call sees what was written through another view of the same memory.
            const changed = makeBatch(form, samples, rowsPerSample(Class), classes, dtype, 77);
            const alias = allocate(dtype, length, buffer, 3 * size);
            alias.set(changed.input.data as FloatArray);
            const afterwards = loss.forward(input, plain.target);
            assertSameTensor(
              afterwards,
              loss.forward(changed.input, plain.target),
              `${what}: after a change`,
            );
            assert.notDeepEqual([...afterwards.data], [...expected.value.data]);
          }
        }
      });
    }
  }

  it('targets and gradOutput are read where they are', () => {
    const buffer = new SharedArrayBuffer(256);
    const labels = new Int32Array(buffer, 8, 2);
    const soft = new Float32Array(buffer, 64, 6);
    const gradOutput = new Float32Array(buffer, 128, 2);
    const logits = tensor([
      [1, 2, 3],
      [3, 1, 2],
    ]);
    const loss = new CrossEntropyLoss({ reduction: 'none' });
    const target = tensor(labels, { shape: [2] });
    const dense = tensor(soft, { shape: [2, 3] });
    const weights = tensor(gradOutput);
    const results = () => [
      loss.forward(logits, target).toArray(),
      loss.forward(logits, dense).toArray(),
      loss.valueAndGrad(logits, target, { gradOutput: weights }).grad.toArray(),
    ];
    const before = results();
    labels.set([2, 1]);
    soft.set([1, 0, 0, 0, 0, 1]);
    gradOutput.set([1, 2]);
    const now = results();
    for (const [i, result] of now.entries()) assert.notDeepEqual(result, before[i]);
    const copied = loss.forward(logits, [2, 1]);
    assert.deepEqual(now[0], copied.toArray());
  });
});
