import assert from 'node:assert/strict';
import { getNumThreads, setNumThreads, tensor, type FloatDType, type Tensor } from 'surprisal';
import * as F from 'surprisal/functional';
import { assertSameBits, assertSameTensor } from '../support/bits.js';
import { allocate, floatDTypes, floatTensor, halfUlp, isHalf, valuesOf } from '../support/float_formats.js';
import { Samples } from '../support/random.js';
import * as reference from '../support/reference.js';

const product = (sizes: readonly number[]): number => sizes.reduce((n, size) => n * size, 1);

/** Applies a function of rows along one dimension of contiguous values. */
function along(
  shape: readonly number[],
  dim: number,
  inputs: readonly Float64Array[],
  map: (...rows: Float64Array[]) => Float64Array,
): Float64Array {
  const axis = dim < 0 ? dim + Math.max(shape.length, 1) : dim;
  const classes = shape[axis] ?? 1;
  const inner = product(shape.slice(axis + 1));
  const result = new Float64Array(inputs[0]!.length);
  for (let outer = 0; outer < result.length / (classes * inner); outer++) {
    for (let i = 0; i < inner; i++) {
      const place = (c: number) => (outer * classes + c) * inner + i;
      const row = (values: Float64Array) =>
        Float64Array.from({ length: classes }, (_, c) => values[place(c)]!);
      map(...inputs.map(row)).forEach((x, c) => (result[place(c)] = x));
    }
  }
  return result;
}

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);

/** What float32 and float64 probabilities sum to, 1 but for rounding, is divided out; coarser ones are taken as given. */
const total = (p: Float64Array): number => {
  const sum = p.reduce((a, b) => a + b, 0);
  return Math.abs(sum - 1) < 1e-5 ? sum : 1;
};

const logSoftmaxBackward = (g: Float64Array, logP: Float64Array): Float64Array => {
  const sum = g.reduce((a, b) => a + b, 0) / total(logP.map(Math.exp));
  return g.map((x, c) => x - Math.exp(logP[c]!) * sum);
};

const softmaxBackward = (g: Float64Array, p: Float64Array): Float64Array => {
  const mean = dot(g, p) / total(p);
  return g.map((x, c) => p[c]! * (x - mean));
};

/**
 * Relative to the largest value of a result. float32: the house's 3e-7, five roundings of 2^-24. float64: sums of up to
 * a thousand terms lose ten bits of 53, 1e-13; ten times that, and still far from a float32 step's 6e-8.
 */
const tolerance = (dtype: FloatDType): number => (dtype === 'float64' ? 1e-12 : 3e-7);

function assertClose(actual: Tensor, expected: Float64Array, scale: number, what: string): void {
  const values = valuesOf(actual);
  const dtype = actual.dtype as FloatDType;
  assert.equal(values.length, expected.length, what);
  expected.forEach((wanted, i) => {
    // Half precision rounds a float32 result once more.
    const rounding = isHalf(dtype) ? halfUlp(wanted, dtype) : 0;
    const error = Math.abs(values[i]! - wanted);
    assert.ok(
      error <= tolerance(dtype) * scale + rounding,
      `${what}: element ${i}: expected ${wanted}, got ${values[i]}`,
    );
  });
}

const largest = (values: Float64Array): number => values.reduce((max, x) => Math.max(max, Math.abs(x)), 0);

const shapes = [[1], [5], [3, 7], [2, 3, 4], [4, 1, 33], [2, 3, 4, 5], [3, 1003]];

describe('softmax and logSoftmax along every dimension', () => {
  for (const dtype of floatDTypes) {
    for (const shape of shapes) {
      it(`[${shape.join(', ')}] ${dtype}`, () => {
        const input = floatTensor(new Samples(5).normals(product(shape), 4), shape, dtype);
        const gradOutput = floatTensor(new Samples(6).normals(product(shape)), shape, dtype);
        const x = valuesOf(input);
        const g = valuesOf(gradOutput);
        for (let dim = -shape.length; dim < shape.length; dim++) {
          const p = F.softmax(input, { dim });
          const logP = F.logSoftmax(input, { dim });
          const dp = F.softmaxBackward(gradOutput, p, { dim });
          const dlogP = F.logSoftmaxBackward(gradOutput, logP, { dim });
          for (const result of [p, logP, dp, dlogP]) {
            assert.deepEqual(result.shape, shape);
            assert.equal(result.dtype, dtype);
            assert.equal(result.data.length, product(shape));
          }
          assertClose(p, along(shape, dim, [x], reference.softmax), 1, `softmax, dim ${dim}`);
          const expected = along(shape, dim, [x], reference.logSoftmax);
          assertClose(logP, expected, Math.max(largest(expected), 1), `logSoftmax, dim ${dim}`);

          // The gradients of what came out, as it was rounded.
          const slope = along(shape, dim, [g, valuesOf(p)], softmaxBackward);
          assertClose(dp, slope, largest(g), `softmaxBackward, dim ${dim}`);
          const logSlope = along(shape, dim, [g, valuesOf(logP)], logSoftmaxBackward);
          // Σg of a row multiplies the error of exp: up to the row's length times one g.
          const sums = along(shape, dim, [g.map(Math.abs)], (row) =>
            row.fill(row.reduce((a, b) => a + b, 0)),
          );
          assertClose(dlogP, logSlope, largest(sums), `logSoftmaxBackward, dim ${dim}`);
        }
      });
    }
  }

  it('takes the last dimension unless told', () => {
    const input = floatTensor(new Samples(1).normals(24, 3), [2, 3, 4], 'float32');
    const p = F.softmax(input);
    const logP = F.logSoftmax(input, {});
    assertSameTensor(p, F.softmax(input, { dim: 2 }), 'softmax');
    assertSameTensor(logP, F.logSoftmax(input, { dim: -1 }), 'logSoftmax');
    assertSameTensor(F.softmaxBackward(input, p), F.softmaxBackward(input, p, { dim: 2 }), 'softmaxBackward');
    assertSameTensor(
      F.logSoftmaxBackward(input, logP, { dim: undefined }),
      F.logSoftmaxBackward(input, logP, { dim: 2 }),
      'logSoftmaxBackward',
    );
  });

  it('takes a number as a row of one class', () => {
    for (const dim of [-1, 0]) {
      assert.equal(F.softmax(3, { dim }).item(), 1);
      assert.equal(F.logSoftmax(3, { dim }).item(), 0);
      assert.deepEqual(F.softmax(3, { dim }).shape, []);
    }
  });
});

describe('softmax and logSoftmax of views', () => {
  const rows = 6;

  // Rows of 5 classes are worked at in one way whatever their strides. Longer ones are where their classes are
  // neighbours in memory, and where they are not, sums are taken in another order: only then may a last place differ.
  for (const classes of [5, 37]) {
    const values = new Samples(9).normals(rows * classes, 4);
    const assertEqual = (actual: Tensor, expected: Tensor, what: string) => {
      if (classes === 5) assertSameBits(actual.data, expected.data, what);
      const wanted = valuesOf(expected);
      assertClose(actual, wanted, largest(wanted), what);
    };

    for (const dtype of floatDTypes) {
      const plain = floatTensor(values, [rows, classes], dtype);
      const transposed = (source: Tensor) => {
        const memory = allocate(dtype, rows * classes);
        for (let i = 0; i < rows; i++) {
          for (let c = 0; c < classes; c++) memory[c * rows + i] = Number(source.data[i * classes + c]);
        }
        return memory;
      };
      /** The same elements through strides that leave gaps, run backwards through memory order, or repeat. */
      const gaps = () => {
        const memory = allocate(dtype, rows * (classes + 5) * 2).fill(7);
        for (let i = 0; i < rows; i++) {
          for (let c = 0; c < classes; c++)
            memory[(i * (classes + 5) + c) * 2] = Number(plain.data[i * classes + c]);
        }
        return memory;
      };
      const views: readonly (readonly [string, Tensor])[] = [
        [
          'a transposed one',
          tensor(transposed(plain), { shape: [rows, classes], strides: [1, rows], dtype }),
        ],
        ['one with gaps', tensor(gaps(), { shape: [rows, classes], strides: [(classes + 5) * 2, 2], dtype })],
        [
          'one that does not collapse to rows',
          tensor(transposed(plain), { shape: [2, 3, classes], strides: [3, 1, rows], dtype }),
        ],
      ];

      for (const [name, view] of views) {
        it(`${dtype}, ${classes} classes: ${name} gives what a contiguous one does`, () => {
          for (const [owner, map] of [
            ['softmax', F.softmax],
            ['logSoftmax', F.logSoftmax],
          ] as const) {
            assertEqual(map(view), map(plain), owner);
          }
          const output = F.logSoftmax(plain);
          const shaped = tensor(output.data, { shape: view.shape, dtype });
          assertEqual(
            F.logSoftmaxBackward(view, shaped),
            F.logSoftmaxBackward(plain, output),
            'logSoftmaxBackward of strided gradOutput',
          );
          const strided = tensor(transposed(output), { shape: [rows, classes], strides: [1, rows], dtype });
          assertEqual(
            F.softmaxBackward(plain, strided),
            F.softmaxBackward(plain, output),
            'softmaxBackward of a strided output',
          );
        });
      }

      it(`${dtype}, ${classes} classes: along dimension 0 gives what the transposed one does along dimension 1`, () => {
        const columns = tensor(transposed(plain), { shape: [classes, rows], dtype });
        const shape = [classes, rows];
        const turned = (result: Tensor) => tensor(transposed(result), { shape, dtype });
        assertEqual(F.softmax(columns, { dim: 0 }), turned(F.softmax(plain)), 'softmax');
        assertEqual(F.logSoftmax(columns, { dim: -2 }), turned(F.logSoftmax(plain)), 'logSoftmax');
      });
    }
  }

  const classes = 37;
  const values = new Samples(9).normals(rows * classes, 4);

  it('a row repeated by a stride of 0', () => {
    const row = floatTensor(new Samples(3).normals(classes, 4), [classes], 'float32');
    const repeated = tensor(row.data, { shape: [3, classes], strides: [0, 1] });
    const once = F.softmax(row).data as Float32Array;
    assertSameBits(F.softmax(repeated).data, Float32Array.of(...once, ...once, ...once), 'softmax');
  });

  it('a view into the middle of a buffer, and shared memory', () => {
    const plain = floatTensor(values, [rows, classes], 'float32');
    const shared = new Float32Array(new SharedArrayBuffer(4 * (rows * classes + 10)), 20, rows * classes);
    shared.set(plain.data as Float32Array);
    assertSameBits(
      F.softmax(tensor(shared, { shape: [rows, classes] })).data,
      F.softmax(plain).data,
      'softmax',
    );
  });

  it('gradOutput and output of different dtypes: the result has that of gradOutput', () => {
    const gradOutput = floatTensor(values, [rows, classes], 'float16');
    const output = F.softmax(floatTensor(values, [rows, classes], 'float32'));
    const grad = F.softmaxBackward(gradOutput, output);
    assert.equal(grad.dtype, 'float16');
    const g = valuesOf(gradOutput);
    assertClose(
      grad,
      along([rows, classes], -1, [g, valuesOf(output)], softmaxBackward),
      largest(g),
      'softmaxBackward',
    );
  });
});

describe('softmax and logSoftmax: special rows', () => {
  for (const dtype of floatDTypes) {
    it(`${dtype}: −Infinity is a class that cannot be`, () => {
      const input = floatTensor([1, -Infinity, 2, -Infinity], [1, 4], dtype);
      const without = floatTensor([1, 2], [1, 2], dtype);
      const p = valuesOf(F.softmax(input));
      const logP = valuesOf(F.logSoftmax(input));
      assert.deepEqual([p[1], p[3], logP[1], logP[3]], [0, 0, -Infinity, -Infinity]);
      const expected = valuesOf(F.softmax(without));
      assert.deepEqual([p[0], p[2]], [...expected]);
    });

    it(`${dtype}: NaN, and rows without a finite maximum, are NaN and leave other rows alone`, () => {
      const bad = [
        [NaN, 1, 2],
        [Infinity, 1, 2],
        [-Infinity, -Infinity, -Infinity],
      ];
      const input = floatTensor([[0, 1, 2], ...bad, [3, 1, 2]].flat(), [5, 3], dtype);
      for (const map of [F.softmax, F.logSoftmax]) {
        const values = valuesOf(map(input));
        assert.ok(values.subarray(3, 12).every(Number.isNaN), 'the bad rows are NaN');
        const good = valuesOf(map(floatTensor([0, 1, 2, 3, 1, 2], [2, 3], dtype)));
        assertSameBits(
          Float64Array.of(...values.subarray(0, 3), ...values.subarray(12)),
          good,
          'the good rows',
        );
      }
    });
  }

  it('keeps the digits of a log probability near 0', () => {
    for (const gap of [5, 20, 40, 80]) {
      const expected = -Math.log1p(Math.exp(-gap));
      const value = Number(F.logSoftmax([gap, 0]).data[0]);
      // float32: a rounding each for e^-gap and for the result, and the polynomial's.
      assert.ok(
        Math.abs(value - expected) <= 3e-7 * Math.abs(expected),
        `gap ${gap}: expected ${expected}, got ${value}`,
      );
    }
  });

  it('does not change with an offset of the row that its dtype holds exactly', () => {
    const near = floatTensor([0.25, 1, -3.5, 2], [1, 4], 'float32');
    const far = floatTensor([10000.25, 10001, 9996.5, 10002], [1, 4], 'float32');
    assertSameTensor(F.logSoftmax(far), F.logSoftmax(near), 'logSoftmax');
    assertSameTensor(F.softmax(far), F.softmax(near), 'softmax');
  });
});

describe('softmaxBackward and logSoftmaxBackward are the derivatives', () => {
  const shape = [3, 5, 4];
  const x = new Samples(21).normals(60, 2);
  const g = new Samples(22).normals(60);

  for (const [name, map, backward] of [
    ['softmax', F.softmax, F.softmaxBackward],
    ['logSoftmax', F.logSoftmax, F.logSoftmaxBackward],
  ] as const) {
    for (const dim of [0, 1, 2]) {
      it(`${name}, dim ${dim}`, () => {
        const at = (values: Float64Array) => map(floatTensor(values, shape, 'float64'), { dim });
        const analytic = backward(floatTensor(g, shape, 'float64'), at(x), { dim }).data;
        const step = 1e-5;
        for (let i = 0; i < x.length; i++) {
          const moved = (h: number) => dot(g, valuesOf(at(x.map((v, j) => (j === i ? v + h : v)))));
          const numeric = (moved(step) - moved(-step)) / (2 * step);
          // Central differences: step² times a third derivative of order 1, and 1e-16·10/step from rounding.
          const error = Math.abs(numeric - Number(analytic[i]));
          assert.ok(error <= 1e-9, `element ${i}: analytic ${analytic[i]}, numeric ${numeric}`);
        }
      });
    }
  }
});

describe('softmax and logSoftmax on every number of threads', () => {
  const before = getNumThreads();
  afterEach(() => setNumThreads(before));

  for (const shape of [
    [600, 1003],
    [5, 100_003],
  ]) {
    it(`[${shape.join(', ')}] gives the same bits`, () => {
      const input = floatTensor(new Samples(2).normals(product(shape), 4), shape, 'float32');
      const gradOutput = floatTensor(new Samples(3).normals(product(shape)), shape, 'float32');
      const run = () => {
        const p = F.softmax(input);
        const logP = F.logSoftmax(input);
        return [
          p,
          logP,
          F.softmax(input, { dim: 0 }),
          F.softmaxBackward(gradOutput, p),
          F.logSoftmaxBackward(gradOutput, logP),
        ];
      };
      setNumThreads(1);
      const single = run();
      for (const count of [2, 3, 8]) {
        setNumThreads(count);
        run().forEach((result, i) => assertSameTensor(result, single[i]!, `result ${i} on ${count} threads`));
      }
    });
  }
});
