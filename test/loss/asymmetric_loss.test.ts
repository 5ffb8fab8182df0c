import assert from 'node:assert/strict';
import { tensor } from 'surprisal';
import {
  AsymmetricLossMultiLabel,
  AsymmetricLossSingleLabel,
  BinaryCrossEntropy,
  LabelSmoothingCrossEntropy,
  type AsymmetricLossMultiLabelOptions,
} from 'surprisal/loss';
import { assertSameTensor } from '../support/bits.js';
import { close } from '../support/close.js';
import { Samples } from '../support/random.js';
import { rowOf, softmax } from '../support/reference.js';

const { exp, log } = Math;

const sigmoid = (x: number) => 1 / (1 + exp(-x));
const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

describe('AsymmetricLossMultiLabel', () => {
  const x = [1.5, -0.5, 0.25, -4, 0, 3];
  const y = [1, 0, 0, 0, 1, 0];
  const input = tensor(Float64Array.from(x), { shape: [2, 3] });
  const target = tensor(Float64Array.from(y), { shape: [2, 3] });
  const evaluate = (options?: AsymmetricLossMultiLabelOptions) =>
    new AsymmetricLossMultiLabel(options).valueAndGrad(input, target);

  /** −log p̂·(1 − p̂)^γ with p̂ the probability of what is true, a negative's raised by the clip. */
  const truth = (i: number, clip: number) =>
    y[i] === 1 ? sigmoid(x[i]!) : Math.min(sigmoid(-x[i]!) + clip, 1);
  const element = (i: number, clip: number, gammaPos: number, gammaNeg: number) => {
    const p = truth(i, clip);
    return -log(p) * (1 - p) ** (y[i] === 1 ? gammaPos : gammaNeg);
  };

  it("has timm's defaults: gammaNeg 4, gammaPos 1, clip 0.05, eps 1e-8, summed", () => {
    const expected = evaluate({
      gammaNeg: 4,
      gammaPos: 1,
      clip: 0.05,
      eps: 1e-8,
      disableTorchGradFocalLoss: false,
    });
    const { value, grad } = evaluate();
    assertSameTensor(value, expected.value, 'loss');
    assertSameTensor(grad, expected.grad, 'gradient');
    close(value, sum(x.map((_, i) => element(i, 0.05, 1, 4))));
  });

  it('takes other exponents, broken ones too', () => {
    close(
      evaluate({ gammaPos: 2.5, gammaNeg: 0.5 }).value,
      sum(x.map((_, i) => element(i, 0.05, 2.5, 0.5))),
      1e-14,
    );
  });

  it('without focus and clip is binary cross entropy, summed', () => {
    const { value, grad } = evaluate({ gammaNeg: 0, gammaPos: 0, clip: 0 });
    const expected = new BinaryCrossEntropy({ reduction: 'sum' }).valueAndGrad(input, target);
    close(value, expected.value.item());
    close(grad, expected.grad.data as Float64Array);
  });

  it('clip 0 and null are both no clip', () => {
    const expected = evaluate({ clip: 0 });
    const { value, grad } = evaluate({ clip: null });
    assertSameTensor(value, expected.value, 'loss');
    assertSameTensor(grad, expected.grad, 'gradient');
    close(value, sum(x.map((_, i) => element(i, 0, 1, 4))));
    assert.notEqual(value.item(), evaluate().value.item());
  });

  it('an easy negative below the clip has neither loss nor gradient', () => {
    // σ(−4) = 0.018 < 0.05
    const { value, grad } = new AsymmetricLossMultiLabel().valueAndGrad(
      tensor([[-4]], { dtype: 'float64' }),
      tensor([[0]]),
    );
    close(value, 0);
    close(grad, 0);
  });

  it('disableTorchGradFocalLoss holds the weight constant in the gradient', () => {
    const plain = evaluate();
    const { value, grad } = evaluate({ disableTorchGradFocalLoss: true });
    assertSameTensor(value, plain.value, 'loss');
    // w·d(−log p̂)/dx, with w = (1 − p̂)^γ as it is.
    const expected = x.map((z, i) => {
      const p = truth(i, 0.05);
      const w = (1 - p) ** (y[i] === 1 ? 1 : 4);
      const slope = sigmoid(z) * sigmoid(-z);
      if (y[i] === 1) return (-w * slope) / p;
      return p < 1 ? (w * slope) / p : 0;
    });
    close(grad, expected);
    assert.notDeepEqual([...(grad.data as Float64Array)], [...(plain.grad.data as Float64Array)]);
  });

  it('eps is the floor of the probability in the logarithm, below which no gradient passes', () => {
    const options = { gammaPos: 0, gammaNeg: 0, clip: 0, eps: 0.01 };
    const { value, grad } = new AsymmetricLossMultiLabel(options).valueAndGrad(
      tensor([[-10, 10, 0]], { dtype: 'float64' }),
      tensor([[1, 0, 1]]),
    );
    close(value, -2 * log(0.01) + Math.LN2);
    close(grad, [0, 0, -0.5]);
  });
});

describe('AsymmetricLossSingleLabel', () => {
  const [rows, classes] = [5, 8];
  const values = new Samples(80).normals(rows * classes, 2);
  const input = tensor(values, { shape: [rows, classes] });
  const labels = new Samples(81).labels(rows, classes);

  /** Σ −q_c·log p_c·w_c, w = (1 − p)^γ₊ of the label and p^γ₋ of the others. */
  const row = (r: number, gammaPos: number, gammaNeg: number, eps: number) =>
    softmax(rowOf(values, r, classes)).reduce((total, p, c) => {
      const isLabel = c === labels[r];
      const q = eps / classes + (isLabel ? 1 - eps : 0);
      return total - q * log(p) * (isLabel ? (1 - p) ** gammaPos : p ** gammaNeg);
    }, 0);
  const losses = (gammaPos: number, gammaNeg: number, eps: number) =>
    Array.from({ length: rows }, (_, r) => row(r, gammaPos, gammaNeg, eps));

  it("has timm's defaults: gammaPos 1, gammaNeg 4, eps 0.1, mean", () => {
    const explicit = new AsymmetricLossSingleLabel({ gammaPos: 1, gammaNeg: 4, eps: 0.1, reduction: 'mean' });
    const expected = explicit.valueAndGrad(input, labels);
    const { value, grad } = new AsymmetricLossSingleLabel().valueAndGrad(input, labels);
    assertSameTensor(value, expected.value, 'loss');
    assertSameTensor(grad, expected.grad, 'gradient');
    close(value, sum(losses(1, 4, 0.1)) / rows);
  });

  it('reduces to one value a row, their sum, and their mean', () => {
    const reduced = (reduction: 'none' | 'sum' | 'mean') =>
      new AsymmetricLossSingleLabel({ gammaPos: 2, gammaNeg: 1.5, eps: 0.2, reduction }).forward(
        input,
        labels,
      );
    const expected = losses(2, 1.5, 0.2);
    close(reduced('none'), expected, 1e-14);
    close(reduced('sum'), sum(expected), 1e-14);
    close(reduced('mean'), sum(expected) / rows, 1e-14);
  });

  it('without focus is label smoothing cross entropy', () => {
    const { value, grad } = new AsymmetricLossSingleLabel({ gammaPos: 0, gammaNeg: 0 }).valueAndGrad(
      input,
      labels,
    );
    const expected = new LabelSmoothingCrossEntropy({ smoothing: 0.1 }).valueAndGrad(input, labels);
    close(value, expected.value.item());
    close(grad, expected.grad.data as Float64Array);
  });

  it('gives a confident right row next to nothing', () => {
    const { value } = new AsymmetricLossSingleLabel({ eps: 0 }).valueAndGrad(
      tensor([[10, 0]], { dtype: 'float64' }),
      [0],
    );
    const p = sigmoid(10);
    close(value, -log(p) * (1 - p), 1e-20);
  });
});
