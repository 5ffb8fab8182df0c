import assert from 'node:assert/strict';
import { tensor } from 'surprisal';
import { CrossEntropyLoss, JsdCrossEntropy, LabelSmoothingCrossEntropy } from 'surprisal/loss';
import { assertSameTensor } from '../support/bits.js';
import { close } from '../support/close.js';
import { Samples } from '../support/random.js';
import { jsd } from '../support/reference.js';

const [batch, classes] = [4, 9];
const values = new Samples(70).normals(3 * batch * classes, 2);
const input = tensor(values, { shape: [3 * batch, classes] });
const labels = Int32Array.of(3, 0, 8, 5);

/** Rows `from` to `to` − 1 of the input. */
const rows = (from: number, to: number) =>
  tensor(values.slice(from * classes, to * classes), { shape: [to - from, classes] });

describe('JsdCrossEntropy', () => {
  it("has timm's defaults: three splits, alpha 12, smoothing 0.1", () => {
    const expected = new JsdCrossEntropy({ numSplits: 3, alpha: 12, smoothing: 0.1 }).valueAndGrad(
      input,
      labels,
    );
    const { value, grad } = new JsdCrossEntropy().valueAndGrad(input, labels);
    assertSameTensor(value, expected.value, 'loss');
    assertSameTensor(grad, expected.grad, 'gradient');
    close(value, jsd(values, classes, labels, { numSplits: 3, alpha: 12, smoothing: 0.1 }).loss);
    const other = new JsdCrossEntropy({ alpha: 11 }).forward(input, labels);
    assert.notEqual(other.item(), value.item());
  });

  it('equals the formula, gradient too, for any number of splits', () => {
    for (const numSplits of [1, 2, 3, 4, 6, 12]) {
      const options = { numSplits, alpha: 5, smoothing: 0.2 };
      const target = new Samples(71).labels((3 * batch) / numSplits, classes);
      const expected = jsd(values, classes, target, options);
      const { value, grad } = new JsdCrossEntropy(options).valueAndGrad(input, target);
      close(value, expected.loss, 1e-14);
      close(grad, expected.grad, 1e-14);
    }
  });

  it('splits as torch does: sample i is rows i, i + B, i + 2B', () => {
    const a = [2, 0, -1];
    const b = [-1, 3, 0];
    const loss = new JsdCrossEntropy({ numSplits: 2, alpha: 12, smoothing: 0 });
    const plain = new CrossEntropyLoss().forward(tensor([a, b], { dtype: 'float64' }), [0, 1]);
    const same = loss.forward(tensor([a, b, a, b], { dtype: 'float64' }), [0, 1]);
    close(same, plain.item());
    const interleaved = loss.forward(tensor([a, a, b, b], { dtype: 'float64' }), [0, 1]);
    assert.ok(interleaved.item() > plain.item() + 1, 'neighbours are not views of one sample');
  });

  it('uses only the first B labels, and the first split for the cross entropy', () => {
    const loss = new JsdCrossEntropy();
    const expected = loss.valueAndGrad(input, labels);
    const longer = Int32Array.from({ length: 3 * batch }, (_, i) => labels[i] ?? (i * 5) % classes);
    const { value, grad } = loss.valueAndGrad(input, longer);
    assertSameTensor(value, expected.value, 'loss');
    assertSameTensor(grad, expected.grad, 'gradient');

    const first = new JsdCrossEntropy({ alpha: 0 }).valueAndGrad(input, labels);
    const smoothed = new LabelSmoothingCrossEntropy({ smoothing: 0.1 }).valueAndGrad(rows(0, batch), labels);
    close(first.value, smoothed.value.item());
    close(first.grad, [...(smoothed.grad.data as Float64Array), ...new Float64Array(2 * batch * classes)]);
  });

  it('smoothing 0 is plain cross entropy', () => {
    const { value } = new JsdCrossEntropy({ alpha: 0, smoothing: 0 }).valueAndGrad(input, labels);
    close(value, new CrossEntropyLoss().forward(rows(0, batch), labels).item());
  });

  it('grows linearly with alpha', () => {
    const at = (alpha: number) => new JsdCrossEntropy({ alpha }).forward(input, labels).item();
    const divergence = at(1) - at(0);
    assert.ok(divergence > 0);
    assert.ok(Math.abs(at(12) - at(0) - 12 * divergence) < 1e-13, 'sums of some hundred float64 roundings');
  });

  it('divides the divergence by splits and samples', () => {
    // Two opposite certainties of one sample: the mixture is (½, ½), each KL is ln 2, and their mean is ln 2.
    const opposite = [
      [0, -800],
      [-800, 0],
    ];
    const loss = new JsdCrossEntropy({ numSplits: 2, alpha: 1, smoothing: 0 });
    close(loss.forward(tensor(opposite, { dtype: 'float64' }), [0]), Math.LN2);
    const twice = [opposite[0]!, opposite[0]!, opposite[1]!, opposite[1]!];
    close(loss.forward(tensor(twice, { dtype: 'float64' }), [0, 0]), Math.LN2);
    const once = [opposite[0]!, [0, -800], opposite[1]!, [0, -800]];
    close(loss.forward(tensor(once, { dtype: 'float64' }), [0, 0]), Math.LN2 / 2);
  });

  it('clamps the mixture at 1e-7, below which the gradient has its own term', () => {
    const low = [
      [0, -20, -1],
      [0, -25, 2],
    ];
    const options = { numSplits: 2, alpha: 12, smoothing: 0 };
    const expected = jsd(Float64Array.from(low.flat()), 3, [0], options);
    const { value, grad } = new JsdCrossEntropy(options).valueAndGrad(tensor(low, { dtype: 'float64' }), [0]);
    close(value, expected.loss);
    close(grad, expected.grad, 1e-15);
    // p ≈ 1.5e-9 of a mixture held at 1e-7: α/K·p·(ln(p/1e-7) + 1), where the unclamped term would be near α/K·p·ln 2.
    const p = Math.exp(-20) / (1 + Math.exp(-20) + Math.exp(-1));
    const sum = expected.grad[1]! - 6 * p * (Math.log(p / 1e-7) + 1) - p;
    const coupled = (grad.data as Float64Array)[1]! - 6 * p * (Math.log(p / 1e-7) + 1) - p;
    assert.ok(Math.abs(coupled - sum) < 1e-20);
  });

  it('one split has no divergence', () => {
    const { value, grad } = new JsdCrossEntropy({ numSplits: 1 }).valueAndGrad(rows(0, batch), labels);
    const expected = new LabelSmoothingCrossEntropy().valueAndGrad(rows(0, batch), labels);
    close(value, expected.value.item());
    close(grad, expected.grad.data as Float64Array);
  });

  it('refuses a batch that the splits do not divide', () => {
    assert.throws(() => new JsdCrossEntropy().forward(rows(0, 4), [0]), { code: 'ERR_SHAPE' });
  });
});
