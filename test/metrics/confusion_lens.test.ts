import assert from 'node:assert/strict';
import { tensor } from 'surprisal';
import { LensedCrossEntropy } from 'surprisal/loss';
import { ClassificationEvaluator, ConfusionLens } from 'surprisal/metrics';
import { close } from '../support/close.js';
import { floatTensor } from '../support/float_formats.js';

const counts = [
  [8, 1, 1],
  [0, 0, 0],
  [1, 0, 3],
];
const options = { dtype: 'float64' } as const;

describe('ConfusionLens.from', () => {
  it('gives the frequencies of predictions by label, and a label without rows itself', () => {
    close(ConfusionLens.from(counts, options), [0.8, 0.1, 0.1, 0, 1, 0, 0.25, 0, 0.75]);
  });

  it('takes the softmax of log frequencies over the temperature', () => {
    for (const temperature of [0.5, 2, 10]) {
      const wanted = counts.flatMap((row, y) => {
        const total = row.reduce((a, b) => a + b, 0);
        if (total === 0) return row.map((_, c) => (c === y ? 1 : 0));
        const e = row.map((n) => Math.exp(Math.log(n / total) / temperature));
        const sum = e.reduce((a, b) => a + b, 0);
        return e.map((x) => x / sum);
      });
      close(ConfusionLens.from(counts, { ...options, temperature }), wanted);
    }
  });

  it('keeps every class at the floor, and rows at a sum of 1', () => {
    const lens = ConfusionLens.from(counts, { ...options, floor: 0.1 });
    close(lens, [0.1 + 0.7 * 0.8, 0.17, 0.17, 0.1, 0.8, 0.1, 0.1 + 0.7 * 0.25, 0.1, 0.1 + 0.7 * 0.75]);
    close(ConfusionLens.from(counts, { ...options, floor: 1 / 3 }), new Array<number>(9).fill(1 / 3));
  });

  it('does not overflow or vanish at any temperature', () => {
    const lens = ConfusionLens.from(
      [
        [1e300, 1e-300],
        [5e-324, 1],
      ],
      { ...options, temperature: 1e-3 },
    );
    close(lens, [1, 0, 0, 1]);
  });

  it('takes counts of any dtype and strides', () => {
    const wanted = ConfusionLens.from(counts, options);
    const flat = counts.flat();
    for (const dtype of ['float32', 'float64', 'float16', 'bfloat16'] as const) {
      close(ConfusionLens.from(floatTensor(flat, [3, 3], dtype), options), Array.from(wanted.data, Number));
    }
    close(
      ConfusionLens.from(tensor(BigInt64Array.from(flat, BigInt), { shape: [3, 3] }), options),
      Array.from(wanted.data, Number),
    );
    const turned = tensor(Float64Array.from([8, 0, 1, 1, 0, 0, 1, 0, 3]), { shape: [3, 3], strides: [1, 3] });
    close(ConfusionLens.from(turned, options), Array.from(wanted.data, Number));
  });

  it("is LensedCrossEntropy's lens of an evaluator's confusion matrix", () => {
    const { confusionMatrix } = new ClassificationEvaluator({ numClasses: 3 })
      .update(
        [
          [2, 0, 1],
          [0, 2, 1],
          [1, 2, 0],
        ],
        [0, 1, 2],
      )
      .compute();
    const confusionLens = ConfusionLens.from(confusionMatrix!);
    assert.equal(confusionLens.dtype, 'float32');
    // Class 2 was taken for 1: that is what its lens expects, and what costs nothing.
    const logits = [[0, 40, 0]];
    const loss = new LensedCrossEntropy({ confusionLens }).forward(logits, [2]).item();
    assert.ok(loss < 1e-15, String(loss));
  });

  it('refuses what is no confusion matrix', () => {
    const refused: readonly (readonly [unknown, string])[] = [
      [[[1, 2]], 'ERR_SHAPE'],
      [[1, 2], 'ERR_SHAPE'],
      [
        [
          [1, -1],
          [0, 1],
        ],
        'ERR_OPTION',
      ],
      [
        [
          [1, NaN],
          [0, 1],
        ],
        'ERR_OPTION',
      ],
      [
        [
          [1, Infinity],
          [0, 1],
        ],
        'ERR_OPTION',
      ],
      ['matrix', 'ERR_DTYPE'],
    ];
    for (const [matrix, code] of refused) assert.throws(() => ConfusionLens.from(matrix as never), { code });
    assert.throws(
      () =>
        ConfusionLens.from([
          [1, 0],
          [-2, 1],
        ]),
      { message: /\[1, 0\] is -2/ },
    );
  });

  it('refuses options out of range', () => {
    const refused = [
      { temperature: 0 },
      { temperature: -1 },
      { temperature: NaN },
      { floor: -0.1 },
      { floor: 0.34 },
      { dtype: 'float16' },
      { epsilon: 1 },
    ];
    for (const given of refused) {
      assert.throws(
        () => ConfusionLens.from(counts, given as never),
        { code: 'ERR_OPTION' },
        JSON.stringify(given),
      );
    }
  });
});
