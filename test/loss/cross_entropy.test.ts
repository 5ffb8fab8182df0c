import assert from 'node:assert/strict';
import { tensor } from 'surprisal';
import {
  CrossEntropyLoss,
  KLDivLoss,
  LabelSmoothingCrossEntropy,
  NLLLoss,
  SoftTargetCrossEntropy,
} from 'surprisal/loss';
import { assertSameTensor } from '../support/bits.js';
import { assertNear, close } from '../support/close.js';
import { floatDTypes, floatTensor, halfUlp, isHalf, valuesOf } from '../support/float_formats.js';
import { Samples } from '../support/random.js';

const { log } = Math;

/** Logits whose probabilities are these, in float64. */
const logits = (...rows: readonly (readonly number[])[]) =>
  tensor(
    rows.map((row) => row.map((p) => log(p) + 3)),
    { dtype: 'float64' },
  );

const p = [
  [0.1, 0.2, 0.7],
  [0.25, 0.25, 0.5],
] as const;

describe('CrossEntropyLoss', () => {
  it('is -log p of the label, mean over rows, with gradient (p - onehot)/N', () => {
    const { value, grad } = new CrossEntropyLoss().valueAndGrad(logits(...p), [2, 0]);
    close(value, -(log(0.7) + log(0.25)) / 2);
    close(grad, [0.05, 0.1, -0.15, -0.375, 0.125, 0.25]);
    assert.deepEqual(value.shape, []);
  });

  it("has torch's defaults", () => {
    const input = tensor(new Samples(1).normals(12), { shape: [4, 3] });
    const labels = [0, -100, 2, 1];
    const explicit = new CrossEntropyLoss({ ignoreIndex: -100, reduction: 'mean', labelSmoothing: 0 });
    const expected = explicit.valueAndGrad(input, labels);
    const { value, grad } = new CrossEntropyLoss().valueAndGrad(input, labels);
    assertSameTensor(value, expected.value, 'loss');
    assertSameTensor(grad, expected.grad, 'gradient');
    const counted = (input.data as Float64Array).filter((_, i) => i < 3 || i >= 6);
    close(new CrossEntropyLoss().forward(tensor(counted, { shape: [3, 3] }), [0, 2, 1]), value.item());
  });

  it('reduces to one value a row, their sum, and their mean', () => {
    const rows = [-log(0.7), -log(0.25)];
    const reduced = (reduction: 'none' | 'sum' | 'mean') =>
      new CrossEntropyLoss({ reduction }).forward(logits(...p), [2, 0]);
    close(reduced('none'), rows);
    assert.deepEqual(reduced('none').shape, [2]);
    close(reduced('sum'), rows[0]! + rows[1]!);
    close(reduced('mean'), (rows[0]! + rows[1]!) / 2);
  });

  it('the mean divides by the weights of the rows that count', () => {
    const weight = [1, 2, 5];
    const mean = new CrossEntropyLoss({ weight, ignoreIndex: 1 }).valueAndGrad(
      logits(...p, [0.5, 0.3, 0.2]),
      [2, 0, 1],
    );
    close(mean.value, (-5 * log(0.7) - 1 * log(0.25)) / 6);
    const [a, b] = [5 / 6, 1 / 6];
    close(mean.grad, [0.1 * a, 0.2 * a, -0.3 * a, -0.75 * b, 0.25 * b, 0.5 * b, 0, 0, 0]);
    const sum = new CrossEntropyLoss({ weight, reduction: 'sum' }).forward(logits(...p), [2, 0]);
    close(sum, -5 * log(0.7) - log(0.25));
    const none = new CrossEntropyLoss({ weight, reduction: 'none' }).forward(logits(...p), [2, 0]);
    close(none, [-5 * log(0.7), -log(0.25)]);
  });

  it('keeps a copy of its weight', () => {
    const weight = Float32Array.of(1, 2, 5);
    const loss = new CrossEntropyLoss({ weight });
    weight.fill(0);
    close(loss.forward(logits(...p), [2, 0]), (-5 * log(0.7) - log(0.25)) / 6);
  });

  it('ignored rows are 0 and out of the mean', () => {
    const { value, grad } = new CrossEntropyLoss({ ignoreIndex: 2 }).valueAndGrad(logits(...p), [2, 0]);
    close(value, -log(0.25));
    close(grad, [0, 0, 0, -0.75, 0.25, 0.5]);
    const none = new CrossEntropyLoss({ ignoreIndex: 2, reduction: 'none' }).forward(logits(...p), [2, 0]);
    close(none, [0, -log(0.25)]);
  });

  it('smooths: (1 - ε)·(-log p_y) + ε·mean(-log p)', () => {
    const { value, grad } = new CrossEntropyLoss({ labelSmoothing: 0.3 }).valueAndGrad(logits(p[0]), [2]);
    close(value, -0.7 * log(0.7) - 0.1 * (log(0.1) + log(0.2) + log(0.7)));
    close(grad, [0.1 - 0.1, 0.2 - 0.1, 0.7 - 0.8]);
  });

  it('smooths with weights as torch does: each class by its own, the mean by the labels’', () => {
    const weight = [1, 2, 5];
    const loss = new CrossEntropyLoss({ labelSmoothing: 0.3, weight }).forward(logits(...p), [2, 0]);
    const row = (q: readonly number[], label: number) =>
      -0.7 * weight[label]! * log(q[label]!) - 0.1 * q.reduce((sum, x, c) => sum + weight[c]! * log(x), 0);
    close(loss, (row(p[0], 2) + row(p[1], 0)) / 6);
  });

  it('takes class probabilities, and divides their mean by N', () => {
    const q = [
      [0.2, 0.3, 0.5],
      [0, 1, 0],
    ] as const;
    const row = (a: readonly number[], b: readonly number[], w = [1, 1, 1]) =>
      -b.reduce((sum, x, c) => sum + w[c]! * x * log(a[c]!), 0);
    const plain = new CrossEntropyLoss().valueAndGrad(logits(...p), tensor(q, { dtype: 'float64' }));
    close(plain.value, (row(p[0], q[0]) + row(p[1], q[1])) / 2);
    close(
      plain.grad,
      [0.1 - 0.2, 0.2 - 0.3, 0.7 - 0.5, 0.25, 0.25 - 1, 0.5].map((x) => x / 2),
    );
    const weight = [1, 2, 5];
    const weighted = new CrossEntropyLoss({ weight }).forward(logits(...p), tensor(q, { dtype: 'float64' }));
    close(weighted, (row(p[0], q[0], weight) + row(p[1], q[1], weight)) / 2);
    const smooth = new CrossEntropyLoss({ labelSmoothing: 0.3 }).forward(
      logits(p[0]),
      tensor([q[0]], { dtype: 'float64' }),
    );
    close(
      smooth,
      row(
        p[0],
        q[0].map((x) => 0.7 * x + 0.1),
      ),
    );
  });

  it('class probabilities that are one-hot equal class indices', () => {
    const input = tensor(new Samples(2).normals(5 * 40, 3), { shape: [5, 40] });
    const labels = [3, 0, 39, 17, 17];
    const onehot = tensor(
      labels.map((y) => Array.from({ length: 40 }, (_, c) => (c === y ? 1 : 0))),
      { dtype: 'float64' },
    );
    for (const labelSmoothing of [0, 0.1]) {
      for (const reduction of ['none', 'mean', 'sum'] as const) {
        const loss = new CrossEntropyLoss({ labelSmoothing, reduction });
        const expected = loss.valueAndGrad(input, labels);
        const { value, grad } = loss.valueAndGrad(input, onehot);
        close(value, [...(expected.value.data as Float64Array)]);
        close(grad, [...(expected.grad.data as Float64Array)]);
      }
    }
  });

  it('takes one row without a batch: input [C], target 0-d', () => {
    const input = tensor(p[0].map(log), { dtype: 'float64' });
    for (const target of [2, tensor(Int32Array.of(2), { shape: [] }), 2n]) {
      const { value, grad } = new CrossEntropyLoss().valueAndGrad(input, target);
      close(value, -log(0.7));
      close(grad, [0.1, 0.2, -0.3]);
      assert.deepEqual(grad.shape, [3]);
    }
    const none = new CrossEntropyLoss({ reduction: 'none' }).forward(input, 2);
    assert.deepEqual(none.shape, []);
    close(none, -log(0.7));
    close(
      new CrossEntropyLoss().forward(input, tensor([0.5, 0.5, 0], { dtype: 'float64' })),
      -log(0.1 * 0.2) / 2,
    );
  });

  it('takes classes in dimension 1: input (N, C, d1)', () => {
    // Two positions whose class columns are the rows of p.
    const input = tensor([[0, 1, 2].map((c) => [log(p[0][c]!), log(p[1][c]!)])], { dtype: 'float64' });
    const { value, grad } = new CrossEntropyLoss({ reduction: 'none' }).valueAndGrad(input, [[2, 0]]);
    assert.deepEqual(value.shape, [1, 2]);
    close(value, [-log(0.7), -log(0.25)]);
    close(grad, [0.1, -0.75, 0.2, 0.25, -0.3, 0.5]);
  });

  // 3 images of 35 positions: rows side by side in memory, in tiles of any width with some left over, and across images.
  for (const dtype of floatDTypes) {
    for (const classes of [1, 3, 21, 200]) {
      it(`${dtype}: (N, C, d1) with ${classes} classes is what its rows one after the other are`, () => {
        const shape = [3, classes, 5, 7];
        const places = 35;
        const input = floatTensor(new Samples(4).normals(3 * classes * places, 3), shape, dtype);
        const values = valuesOf(input);
        const at = (row: number, c: number) =>
          (Math.floor(row / places) * classes + c) * places + (row % places);
        const rows = Array.from({ length: 3 * places }, (_, row) => row);
        const each = Array.from({ length: classes }, (_, c) => c);
        const flat = floatTensor(
          rows.flatMap((row) => each.map((c) => values[at(row, c)]!)),
          [rows.length, classes],
          dtype,
        );
        const labels = Int32Array.from(rows, (row) => (row % 11 === 3 ? -100 : (row * 7) % classes));
        const weight = each.map((c) => 0.5 + (c % 3));
        // float32: the house's 3e-7 on losses near 5; what half precision rounds off a gradient comes on top.
        const tolerance = dtype === 'float64' ? 1e-12 : 2e-6;
        for (const reduction of ['none', 'mean'] as const) {
          const criterion = new CrossEntropyLoss({ weight, labelSmoothing: 0.1, reduction });
          const got = criterion.valueAndGrad(input, tensor(labels, { shape: [3, 5, 7] }));
          const wanted = criterion.valueAndGrad(flat, labels);
          close(got.value, valuesOf(wanted.value), tolerance);
          const grad = valuesOf(wanted.grad);
          const gotGrad = valuesOf(got.grad);
          rows.forEach((row, i) =>
            each.forEach((c) => {
              const x = grad[i * classes + c]!;
              const allowed = tolerance + (isHalf(dtype) ? 2 * halfUlp(x, dtype) : 0);
              assertNear(gotGrad[at(row, c)]!, x, allowed, () => `row ${row}, class ${c}`);
            }),
          );
        }
      });
    }
  }

  it('gradOutput scales rows', () => {
    const { grad } = new CrossEntropyLoss({ reduction: 'none' }).valueAndGrad(logits(...p), [2, 0], {
      gradOutput: [2, -1],
    });
    close(grad, [0.2, 0.4, -0.6, 0.75, -0.25, -0.5]);
    const mean = new CrossEntropyLoss().valueAndGrad(logits(...p), [2, 0], { gradOutput: 2 });
    close(mean.grad, [0.1, 0.2, -0.3, -0.75, 0.25, 0.5]);
  });

  it('one class has loss 0 and gradient 0', () => {
    const { value, grad } = new CrossEntropyLoss().valueAndGrad(tensor([[7], [-3]]), [0, 0]);
    assert.equal(value.item(), 0);
    assert.ok([...(grad.data as Float32Array)].every((x) => x === 0));
  });
});

describe('LabelSmoothingCrossEntropy', () => {
  it('is (1 - ε)·(-log p_y) + ε·mean(-log p), mean over rows', () => {
    const row = (q: readonly number[], y: number, e: number) =>
      -(1 - e) * log(q[y]!) - (e * q.reduce((sum, x) => sum + log(x), 0)) / q.length;
    close(
      new LabelSmoothingCrossEntropy().forward(logits(...p), [2, 0]),
      (row(p[0], 2, 0.1) + row(p[1], 0, 0.1)) / 2,
    );
    close(new LabelSmoothingCrossEntropy({ smoothing: 0.4 }).forward(logits(p[0]), [1]), row(p[0], 1, 0.4));
  });

  it("equals CrossEntropyLoss's labelSmoothing bit by bit", () => {
    const input = tensor(new Float32Array(new Samples(3).normals(6 * 30, 3)), { shape: [6, 30] });
    const labels = new Samples(4).labels(6, 30);
    for (const smoothing of [0, 0.1, 0.9]) {
      const expected = new CrossEntropyLoss({ labelSmoothing: smoothing }).valueAndGrad(input, labels);
      const { value, grad } = new LabelSmoothingCrossEntropy({ smoothing }).valueAndGrad(input, labels);
      assertSameTensor(value, expected.value, `smoothing ${smoothing}: loss`);
      assertSameTensor(grad, expected.grad, `smoothing ${smoothing}: gradient`);
    }
  });

  it('takes -100 for the label that it is: out of range', () => {
    assert.throws(() => new LabelSmoothingCrossEntropy().forward(logits(p[0]), [-100]), {
      code: 'ERR_TARGET_OUT_OF_RANGE',
    });
  });
});

describe('SoftTargetCrossEntropy', () => {
  it('is Σ -q·log p, mean over rows, with gradient (p·Σq - q)/N', () => {
    const q = [
      [0.2, 0.3, 0.5],
      [1, 2, 0],
    ];
    const { value, grad } = new SoftTargetCrossEntropy().valueAndGrad(
      logits(...p),
      tensor(q, { dtype: 'float64' }),
    );
    const first = -(0.2 * log(0.1) + 0.3 * log(0.2) + 0.5 * log(0.7));
    close(value, (first - 3 * log(0.25)) / 2);
    close(
      grad,
      [-0.1, -0.1, 0.2, 0.75 - 1, 0.75 - 2, 1.5].map((x) => x / 2),
    );
  });

  it('takes any leading dimensions, the classes last', () => {
    const input = tensor([[p[0].map(log), p[1].map(log)]], { dtype: 'float64' });
    const q = tensor(
      [
        [
          [0, 0, 1],
          [1, 0, 0],
        ],
      ],
      { dtype: 'float64' },
    );
    close(new SoftTargetCrossEntropy().forward(input, q), -(log(0.7) + log(0.25)) / 2);
  });

  it('a target of 0 or of an ignored label’s value is a target like any other', () => {
    const { value, grad } = new SoftTargetCrossEntropy().valueAndGrad(logits(p[0]), tensor([[0, 0, 0]]));
    assert.equal(value.item(), 0);
    close(grad, [0, 0, 0]);
  });
});

describe('NLLLoss', () => {
  const input = tensor([
    [-1, -2, -3],
    [-4, -5, -6],
  ]);

  it('is -weight[y]·input[y], and reads nothing else of a row', () => {
    const { value, grad } = new NLLLoss({ reduction: 'none' }).valueAndGrad(
      tensor([
        [NaN, -2, Infinity],
        [-4, -5, -6],
      ]),
      [1, 0],
    );
    assert.deepEqual(value.toArray(), [2, 4]);
    close(grad, [0, -1, 0, -1, 0, 0]);
  });

  it('divides its mean by the weights of the rows that count', () => {
    const weight = [3, 1, 4];
    const { value, grad } = new NLLLoss({ weight }).valueAndGrad(input, [1, 0]);
    close(value, (1 * 2 + 3 * 4) / 4, 1e-6);
    close(grad, [0, -1 / 4, 0, -3 / 4, 0, 0], 1e-6);
    close(new NLLLoss({ weight, reduction: 'sum' }).forward(input, [1, 0]), 14);
    close(new NLLLoss({ weight, ignoreIndex: 1 }).forward(input, [1, 0]), 4);
    close(new NLLLoss().forward(input, [1, -100]), 2);
  });

  it('of log probabilities is the cross entropy', () => {
    const { value } = new NLLLoss().valueAndGrad(
      tensor(
        p.map((row) => row.map(log)),
        { dtype: 'float64' },
      ),
      [2, 0],
    );
    close(value, -(log(0.7) + log(0.25)) / 2);
  });

  it('takes input [C] with a 0-d target, and (N, C, d1)', () => {
    close(new NLLLoss().forward(tensor([-1, -2, -3]), 2), 3);
    const image = tensor([
      [
        [-1, -4],
        [-2, -5],
        [-3, -6],
      ],
    ]);
    assert.deepEqual(new NLLLoss({ reduction: 'none' }).forward(image, [[1, 0]]).toArray(), [[2, 4]]);
  });
});

describe('KLDivLoss', () => {
  const x = [
    [log(0.5), log(0.25), log(0.25)],
    [log(0.1), log(0.1), log(0.8)],
  ];
  const t = [
    [0.25, 0.75, 0],
    [0.1, 0.1, 0.8],
  ];
  const elements = [0.25 * log(0.25 / 0.5), 0.75 * log(0.75 / 0.25), 0, 0, 0, 0];
  const total = elements.reduce((a, b) => a + b, 0);
  const input = tensor(x, { dtype: 'float64' });
  const target = tensor(t, { dtype: 'float64' });

  it("is target·(log target - input), and its mean divides by elements, torch's default", () => {
    close(new KLDivLoss({ reduction: 'none' }).forward(input, target), elements);
    close(new KLDivLoss().forward(input, target), total / 6);
    close(new KLDivLoss({ reduction: 'mean' }).forward(input, target), total / 6);
    close(new KLDivLoss({ reduction: 'batchmean' }).forward(input, target), total / 2);
    close(new KLDivLoss({ reduction: 'sum' }).forward(input, target), total);
    const { grad } = new KLDivLoss({ reduction: 'batchmean' }).valueAndGrad(input, target);
    close(
      grad,
      t.flat().map((q) => -q / 2),
    );
  });

  it('takes the logarithm of the target', () => {
    const q = [0.25, 0.75, 1e-300, 0.1, 0.1, 0.8];
    const loss = new KLDivLoss({ logTarget: true, reduction: 'none' });
    const { value, grad } = loss.valueAndGrad(input, tensor(Float64Array.from(q, log), { shape: [2, 3] }));
    close(value, elements);
    close(
      grad,
      q.map((x) => -x),
    );
  });

  it('takes any rank: [C], and batchmean divides by the first dimension', () => {
    const one = tensor(x[0]!, { dtype: 'float64' });
    close(new KLDivLoss({ reduction: 'sum' }).forward(one, tensor(t[0]!, { dtype: 'float64' })), total);
    const cube = { data: input.data, shape: [2, 1, 3] };
    close(
      new KLDivLoss({ reduction: 'batchmean' }).forward(cube, { data: target.data, shape: [2, 1, 3] }),
      total / 2,
    );
  });
});
