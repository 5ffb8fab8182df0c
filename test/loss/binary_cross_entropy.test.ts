import assert from 'node:assert/strict';
import { tensor, type TensorLike } from 'surprisal';
import { BinaryCrossEntropy, type BinaryCrossEntropyOptions } from 'surprisal/loss';
import { assertSameTensor } from '../support/bits.js';
import { close } from '../support/close.js';

const { exp, log1p } = Math;

const sigmoid = (x: number) => 1 / (1 + exp(-x));

/** −[w·t·log σ(x) + (1 − t)·log(1 − σ(x))] with w the weight of positives. */
const element = (x: number, t: number, w = 1) => w * t * log1p(exp(-x)) + (1 - t) * log1p(exp(x));

const x = [
  [1.5, -0.5, 0.25],
  [-2, 0, 3],
] as const;
const input = tensor(x, { dtype: 'float64' });
const flat = x.flat();
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** Every element's loss. */
const elements = (target: TensorLike, options: BinaryCrossEntropyOptions = {}) =>
  new BinaryCrossEntropy({ ...options, reduction: 'none' }).valueAndGrad(input, target);

describe('BinaryCrossEntropy', () => {
  it("smooths class indices by timm's default 0.1: 1 - ε + ε/C and ε/C", () => {
    const [on, off] = [0.9 + 0.1 / 3, 0.1 / 3];
    const t = [off, on, off, on, off, off];
    const losses = flat.map((z, i) => element(z, t[i]!));
    const { value, grad } = elements([1, 0]);
    close(value, losses);
    close(
      grad,
      flat.map((z, i) => sigmoid(z) - t[i]!),
    );
    close(new BinaryCrossEntropy().forward(input, [1, 0]), mean(losses));
    close(
      new BinaryCrossEntropy({ smoothing: 0 }).forward(input, [1, 0]),
      mean(flat.map((z, i) => element(z, [0, 1, 0, 1, 0, 0][i]!))),
    );
  });

  it("the defaults are timm's", () => {
    const explicit = new BinaryCrossEntropy({
      smoothing: 0.1,
      targetThreshold: null,
      weight: null,
      reduction: 'mean',
      sumClasses: false,
      posWeight: null,
    }).valueAndGrad(input, [1, 0]);
    const { value, grad } = new BinaryCrossEntropy().valueAndGrad(input, [1, 0]);
    assertSameTensor(value, explicit.value, 'loss');
    assertSameTensor(grad, explicit.grad, 'gradient');
  });

  it('does not smooth dense targets', () => {
    const t = [0, 1, 0.25, 1, 0, 0.5];
    const { value, grad } = elements({ data: Float64Array.from(t), shape: [2, 3] });
    close(
      value,
      flat.map((z, i) => element(z, t[i]!)),
    );
    close(
      grad,
      flat.map((z, i) => sigmoid(z) - t[i]!),
    );
  });

  it('takes multi-hot integers as dense targets', () => {
    const t = [0, 1, 1, 1, 0, 0];
    const expected = elements({ data: Float64Array.from(t), shape: [2, 3] });
    for (const data of [Uint8Array.from(t), Int32Array.from(t), BigInt64Array.from(t, BigInt)]) {
      assertSameTensor(elements({ data, shape: [2, 3] }).value, expected.value, data.constructor.name);
    }
    assertSameTensor(
      elements({ data: Uint8Array.from(t), shape: [2, 3], dtype: 'bool' }).value,
      expected.value,
      'bool',
    );
    assertSameTensor(
      elements([
        [0, 1, 1],
        [1, 0, 0],
      ]).value,
      expected.value,
      'nested numbers',
    );
  });

  it('a logit of 0 costs ln 2 whatever the target', () => {
    const zeros = tensor([[0, 0, 0]], { dtype: 'float64' });
    const { value, grad } = new BinaryCrossEntropy({ reduction: 'none' }).valueAndGrad(
      zeros,
      tensor([[0, 0.5, 1]]),
    );
    close(value, [Math.LN2, Math.LN2, Math.LN2]);
    close(grad, [0.5, 0, -0.5]);
  });

  it('targetThreshold makes what is above it 1 and the rest 0, smoothed labels included', () => {
    const t = [0.2, 0.5, 0.50001, 1, 0, 0.7];
    const hard = [0, 0, 1, 1, 0, 1];
    const { value, grad } = elements({ data: Float64Array.from(t), shape: [2, 3] }, { targetThreshold: 0.5 });
    close(
      value,
      flat.map((z, i) => element(z, hard[i]!)),
    );
    close(
      grad,
      flat.map((z, i) => sigmoid(z) - hard[i]!),
    );
    const labels = elements([1, 0], { targetThreshold: 0.5, smoothing: 0.3 });
    close(
      labels.value,
      flat.map((z, i) => element(z, [0, 1, 0, 1, 0, 0][i]!)),
    );
    const everything = elements([1, 0], { targetThreshold: 0.05, smoothing: 0.3 });
    close(
      everything.value,
      flat.map((z) => element(z, 1)),
    );
  });

  it('sumClasses sums over classes and averages over rows, whatever the reduction', () => {
    const t = { data: Float64Array.of(0, 1, 0, 1, 0, 0), shape: [2, 3] };
    const plain = new BinaryCrossEntropy().valueAndGrad(input, t);
    for (const reduction of ['mean', 'sum', 'none'] as const) {
      const { value, grad } = new BinaryCrossEntropy({ sumClasses: true, reduction }).valueAndGrad(input, t);
      assert.deepEqual(value.shape, []);
      close(value, 3 * plain.value.item());
      close(
        grad,
        (plain.grad.data as Float64Array).map((g) => 3 * g),
      );
    }
  });

  it('posWeight scales the positive part, one a class or one for all', () => {
    const t = [0, 1, 0.25, 1, 0, 0.5];
    const target = { data: Float64Array.from(t), shape: [2, 3] };
    for (const [posWeight, of] of [
      [2.5, () => 2.5],
      [[2, 0.5, 3], (c: number) => [2, 0.5, 3][c]!],
    ] as const) {
      const { value, grad } = elements(target, { posWeight });
      close(
        value,
        flat.map((z, i) => element(z, t[i]!, of(i % 3))),
      );
      close(
        grad,
        flat.map((z, i) => (1 - t[i]!) * sigmoid(z) - of(i % 3) * t[i]! * sigmoid(-z)),
      );
    }
  });

  it('weight scales elements, broadcast, and does not enter the mean’s denominator', () => {
    const t = [0, 1, 0.25, 1, 0, 0.5];
    const target = { data: Float64Array.from(t), shape: [2, 3] };
    const plain = flat.map((z, i) => element(z, t[i]!));
    for (const [weight, of] of [
      [3, () => 3],
      [[2, 0.5, 4], (i: number) => [2, 0.5, 4][i % 3]!],
      [[[2], [0.5]], (i: number) => [2, 0.5][Math.floor(i / 3)]!],
      [
        [
          [1, 2, 3],
          [4, 5, 6],
        ],
        (i: number) => i + 1,
      ],
    ] as const) {
      const losses = plain.map((loss, i) => of(i) * loss);
      const { value, grad } = elements(target, { weight });
      close(value, losses);
      close(
        grad,
        flat.map((z, i) => of(i) * (sigmoid(z) - t[i]!)),
      );
      close(new BinaryCrossEntropy({ weight }).forward(input, target), mean(losses));
      close(
        new BinaryCrossEntropy({ weight, reduction: 'sum' }).forward(input, target),
        losses.reduce((a, b) => a + b, 0),
      );
    }
  });

  it('does not overflow: the loss of a logit of ±1000 is 1000 or 0', () => {
    for (const dtype of ['float32', 'float64'] as const) {
      const logits = tensor([[1000, 1000, -1000, -1000]], { dtype });
      const { value, grad } = new BinaryCrossEntropy({ reduction: 'none' }).valueAndGrad(logits, [
        [1, 0, 1, 0],
      ]);
      assert.deepEqual([...(value.data as Float32Array)], [0, 1000, 1000, 0]);
      close(grad, [0, 1, -1, 0]);
    }
  });
});
