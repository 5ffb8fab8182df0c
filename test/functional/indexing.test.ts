import assert from 'node:assert/strict';
import { tensor, type DType, type TypedArray } from 'surprisal';
import * as F from 'surprisal/functional';
import { CrossEntropyLoss } from 'surprisal/loss';
import { assertSameBits } from '../support/bits.js';
import { floatTensor } from '../support/float_formats.js';
import { Samples } from '../support/random.js';

const integerArrays: readonly (readonly [DType, (values: readonly number[]) => TypedArray])[] = [
  ['int8', (values) => Int8Array.from(values)],
  ['uint8', (values) => Uint8Array.from(values)],
  ['int16', (values) => Int16Array.from(values)],
  ['uint16', (values) => Uint16Array.from(values)],
  ['int32', (values) => Int32Array.from(values)],
  ['uint32', (values) => Uint32Array.from(values)],
  ['int64', (values) => BigInt64Array.from(values, BigInt)],
  ['uint64', (values) => BigUint64Array.from(values, BigInt)],
];

describe('oneHot', () => {
  const expected = [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
    [1, 0, 0],
  ];

  for (const [dtype, array] of integerArrays) {
    it(`of ${dtype}`, () => {
      const result = F.oneHot(array([0, 1, 2, 0]));
      assert.equal(result.dtype, 'float32');
      assert.deepEqual(result.shape, [4, 3]);
      assert.deepEqual(result.toArray(), expected);
    });
  }

  it('of plain numbers and bigints', () => {
    assert.deepEqual(F.oneHot([0, 1, 2, 0]).toArray(), expected);
    assert.deepEqual(F.oneHot([0n, 1n, 2n, 0n]).toArray(), expected);
  });

  it('with more classes than the labels name', () => {
    assert.deepEqual(F.oneHot([1, 0], 4).toArray(), [
      [0, 1, 0, 0],
      [1, 0, 0, 0],
    ]);
  });

  it('adds a dimension to any shape', () => {
    assert.deepEqual(F.oneHot(1, 3).toArray(), [0, 1, 0]);
    assert.deepEqual(F.oneHot([[2], [0]]).toArray(), [[[0, 0, 1]], [[1, 0, 0]]]);
    const cube = F.oneHot({ data: Int32Array.from({ length: 24 }, (_, i) => i % 5), shape: [2, 3, 4] });
    assert.deepEqual(cube.shape, [2, 3, 4, 5]);
    assert.deepEqual(
      Array.from(cube.data, Number),
      Array.from({ length: 120 }, (_, i) => (i % 5 === Math.floor(i / 5) % 5 ? 1 : 0)),
    );
  });

  it('of no labels, where the classes are given', () => {
    const result = F.oneHot(new Int32Array(0), 3);
    assert.deepEqual(result.shape, [0, 3]);
    assert.equal(result.data.length, 0);
  });

  it('of strided labels', () => {
    const columns = { data: Int32Array.of(0, 9, 2, 9, 1, 9), shape: [3], strides: [2] };
    assert.deepEqual(F.oneHot(columns).toArray(), [
      [1, 0, 0],
      [0, 0, 1],
      [0, 1, 0],
    ]);
  });

  it('is the dense form of class indices', () => {
    const input = floatTensor(new Samples(4).normals(35), [5, 7], 'float64');
    const labels = [3, 0, 6, 6, 1];
    const loss = new CrossEntropyLoss();
    const hard = loss.forward(input, labels).item();
    const dense = loss.forward(input, F.oneHot(labels, 7)).item();
    // Σq·lse − Σq·z instead of log1p: the same in exact arithmetic, a few roundings of 1e-16 apart.
    assert.ok(Math.abs(hard - dense) <= 1e-14, `${hard} and ${dense}`);
  });
});

/** torch.gather by its definition: result[i][j] = input[i][index[i][j]], and so on for every rank. */
function gatherOf(
  values: ArrayLike<number>,
  shape: readonly number[],
  index: ArrayLike<number>,
  indexShape: readonly number[],
  axis: number,
): number[] {
  return Array.from(index, (pick, flat) => {
    const place: number[] = [];
    for (let d = indexShape.length - 1, rest = flat; d >= 0; d--) {
      place[d] = rest % indexShape[d]!;
      rest = Math.floor(rest / indexShape[d]!);
    }
    place[axis] = pick;
    return values[place.reduce((offset, at, d) => offset * shape[d]! + at, 0)]!;
  });
}

describe('gather', () => {
  it("gives the example of torch's documentation", () => {
    const t = [
      [1, 2],
      [3, 4],
    ];
    const index = [
      [0, 0],
      [1, 0],
    ];
    assert.deepEqual(F.gather(t, index, { dim: 1 }).toArray(), [
      [1, 1],
      [4, 3],
    ]);
  });

  const samples = new Samples(8);
  const cases: readonly (readonly [shape: readonly number[], indexShape: readonly number[]])[] = [
    [[7], [3]],
    [[7], [12]],
    [
      [4, 3],
      [4, 1],
    ],
    [
      [4, 3],
      [2, 8],
    ],
    [
      [3, 4, 5],
      [3, 4, 5],
    ],
    [
      [3, 4, 5],
      [2, 2, 2],
    ],
    [
      [2, 3, 4, 2],
      [1, 3, 2, 2],
    ],
  ];
  for (const [shape, indexShape] of cases) {
    it(`of [${shape.join(', ')}] by [${indexShape.join(', ')}]`, () => {
      const size = shape.reduce((n, s) => n * s, 1);
      const values = Float32Array.from(samples.normals(size));
      let tried = 0;
      for (let dim = 0; dim < shape.length; dim++) {
        if (indexShape.some((s, d) => d !== dim && s > shape[d]!)) continue;
        tried++;
        const picks = samples.labels(
          indexShape.reduce((n, s) => n * s, 1),
          shape[dim]!,
        );
        const expected = Float32Array.from(gatherOf(values, shape, picks, indexShape, dim));
        for (const named of [dim, dim - shape.length]) {
          const result = F.gather(
            { data: values, shape },
            { data: picks, shape: indexShape },
            { dim: named },
          );
          assert.deepEqual(result.shape, indexShape);
          assert.equal(result.dtype, 'float32');
          assertSameBits(result.data, expected, `dim ${named}`);
        }
      }
      assert.ok(tried > 0);
    });
  }

  it('takes the last dimension unless told', () => {
    assert.deepEqual(F.gather([[5, 6, 7]], [[2, 0]]).toArray(), [[7, 5]]);
  });

  for (const [dtype, array] of integerArrays) {
    it(`by an index of ${dtype}, of values of ${dtype}`, () => {
      const index = { data: array([2, 0, 1, 1]), shape: [2, 2] };
      assert.deepEqual(
        F.gather(
          [
            [5, 6, 7],
            [8, 9, 10],
          ],
          index,
        ).toArray(),
        [
          [7, 5],
          [9, 9],
        ],
      );
      const picked = F.gather({ data: array([5, 6, 7]), shape: [3] }, [2, 2, 0]);
      assert.equal(picked.dtype, dtype);
      assertSameBits(picked.data, array([7, 7, 5]), dtype);
    });
  }

  for (const dtype of ['float16', 'bfloat16', 'float64', 'bool'] as const) {
    it(`copies the bits of ${dtype}`, () => {
      const data =
        dtype === 'float64'
          ? Float64Array.of(0.1, -0, NaN)
          : dtype === 'bool'
            ? Uint8Array.of(1, 0, 1)
            : Uint16Array.of(0x3c01, 0x8000, 0x7e01);
      const result = F.gather({ data, shape: [3], dtype }, [1, 2, 0]);
      assert.equal(result.dtype, dtype);
      assertSameBits(
        result.data,
        (data as Float64Array).map((_, i) => data[(i + 1) % 3]!),
        dtype,
      );
    });
  }

  const Float16 = (globalThis as { Float16Array?: { from(values: readonly number[]): ArrayBufferView } })
    .Float16Array;
  if (Float16 !== undefined) {
    it('copies the bits of a Float16Array', () => {
      const result = F.gather({ data: Float16.from([1, 0.5, -2]), shape: [3] }, [2, 0]);
      assert.equal(result.dtype, 'float16');
      assert.deepEqual(result.toArray(), [-2, 1]);
    });
  }

  it('of strided values by a strided index', () => {
    // Columns of a [3, 2] matrix, and every second number of the index.
    const input = tensor(Float32Array.of(1, 2, 3, 4, 5, 6), { shape: [2, 3], strides: [1, 2] });
    const index = tensor(Int32Array.of(2, -1, 0, -1, 1, -1, 1, -1), { shape: [2, 2], strides: [4, 2] });
    assert.deepEqual(F.gather(input, index).toArray(), [
      [5, 1],
      [4, 4],
    ]);
    assert.deepEqual(F.gather(input, [[1, 0, 1]], { dim: 0 }).toArray(), [[2, 3, 6]]);
  });

  it('by no index gives nothing', () => {
    const result = F.gather([[1, 2, 3]], { data: new Int32Array(0), shape: [1, 0] });
    assert.deepEqual(result.shape, [1, 0]);
    assert.equal(result.data.length, 0);
  });

  it('of a number', () => {
    const result = F.gather(5, 0);
    assert.deepEqual(result.shape, []);
    assert.equal(result.item(), 5);
  });

  it('leaves its arguments alone', () => {
    const values = Float32Array.of(1, 2, 3);
    const picks = Int32Array.of(2, 0);
    const result = F.gather(values, picks);
    (result.data as Float32Array).fill(9);
    assert.deepEqual([...values, ...picks], [1, 2, 3, 2, 0]);
  });

  it("picks the labels' log probabilities, whose negative mean is the cross entropy", () => {
    const input = floatTensor(new Samples(12).normals(60, 3), [6, 10], 'float64');
    const labels = [1, 9, 0, 4, 4, 7];
    const picked = F.gather(
      F.logSoftmax(input),
      labels.map((label) => [label]),
    );
    const mean = -(picked.data as Float64Array).reduce((sum, x) => sum + x, 0) / 6;
    // The same sum by two ways in float64.
    assert.ok(Math.abs(mean - F.crossEntropy(input, labels).item()) <= 1e-14);
  });
});
