import assert from 'node:assert/strict';
import { tensor } from 'surprisal';
import { klDiv, lensedCrossEntropy, logSoftmax } from 'surprisal/functional';
import { CrossEntropyLoss, LensedCrossEntropy, SoftTargetCrossEntropy } from 'surprisal/loss';
import { assertSameTensor } from '../support/bits.js';
import { close } from '../support/close.js';
import { floatDTypes, floatTensor, valuesOf } from '../support/float_formats.js';
import { Samples } from '../support/random.js';

const { log } = Math;

const classes = 6;
const rows = 9;
const input = tensor(new Samples(90).normals(rows * classes, 2), { shape: [rows, classes] });
const labels = new Samples(91).labels(rows, classes);
const identity = floatTensor(
  Float64Array.from({ length: classes * classes }, (_, i) => (i % (classes + 1) === 0 ? 1 : 0)),
  [classes, classes],
  'float64',
);
const lens = tensor(new Samples(92).probabilities(classes, classes), { shape: [classes, classes] });

/** The lens's rows of the labels, as a soft target. */
const targets = tensor(
  Float64Array.from(
    { length: rows * classes },
    (_, i) => lens.data[labels[Math.floor(i / classes)]! * classes + (i % classes)] as number,
  ),
  { shape: [rows, classes] },
);

describe('LensedCrossEntropy', () => {
  it('with the identity is cross entropy', () => {
    for (const reduction of ['none', 'mean', 'sum'] as const) {
      const expected = new CrossEntropyLoss({ reduction }).valueAndGrad(input, labels);
      const { value, grad } = new LensedCrossEntropy({ confusionLens: identity, reduction }).valueAndGrad(
        input,
        labels,
      );
      close(value, expected.value.data as Float64Array);
      close(grad, expected.grad.data as Float64Array);
    }
  });

  it('forgives the confusion of a pair: KL((½, ½, 0, 0) ‖ (0.4, 0.3, 0.2, 0.1))', () => {
    const pair = [
      [0.5, 0.5, 0, 0],
      [0.5, 0.5, 0, 0],
      [0, 0, 1, 0],
      [0, 0, 0, 1],
    ];
    const p = [0.4, 0.3, 0.2, 0.1];
    const logits = tensor([p.map(log)], { dtype: 'float64' });
    const { value, grad } = new LensedCrossEntropy({ confusionLens: pair }).valueAndGrad(logits, [1]);
    close(value, 0.5 * log(0.5 / 0.4) + 0.5 * log(0.5 / 0.3));
    close(grad, [-0.1, -0.2, 0.2, 0.1]);
  });

  it('is 0, with no gradient, where the prediction is the lens row', () => {
    const logits = tensor(
      Float64Array.from(lens.data as Float64Array, (q) => log(q) + 5),
      { shape: [classes, classes] },
    );
    const everyLabel = Int32Array.from({ length: classes }, (_, i) => i);
    const { value, grad } = new LensedCrossEntropy({ confusionLens: lens }).valueAndGrad(logits, everyLabel);
    close(value, 0);
    close(grad, new Float64Array(classes * classes));
  });

  it('subtracts the entropy of the lens row from the soft cross entropy', () => {
    const { value, grad } = new LensedCrossEntropy({ confusionLens: lens }).valueAndGrad(input, labels);
    const soft = new SoftTargetCrossEntropy().valueAndGrad(input, targets);
    const entropies = valuesOf(targets).reduce((sum, q) => sum + q * log(q), 0) / rows;
    close(value, soft.value.item() + entropies);
    close(grad, soft.grad.data as Float64Array);
  });

  it('is klDiv of logSoftmax and the rows of the lens, mean over N', () => {
    const divergence = klDiv(logSoftmax(input), targets, { reduction: 'batchmean' });
    close(new LensedCrossEntropy({ confusionLens: lens }).forward(input, labels), divergence.item());
    const sum = klDiv(logSoftmax(input), targets, { reduction: 'sum' });
    close(
      new LensedCrossEntropy({ confusionLens: lens, reduction: 'sum' }).forward(input, labels),
      sum.item(),
    );
    assertSameTensor(
      lensedCrossEntropy(input, labels, lens),
      new LensedCrossEntropy({ confusionLens: lens }).forward(input, labels),
      'the function',
    );
  });

  it('takes a lens of any floating dtype, and keeps a copy', () => {
    const eighths = Float64Array.from({ length: 4 }, (_, i) => [0.75, 0.25, 0.125, 0.875][i]!);
    const logits = tensor([[1, 0.5]], { dtype: 'float64' });
    const expected = new LensedCrossEntropy({
      confusionLens: [
        [0.75, 0.25],
        [0.125, 0.875],
      ],
    }).forward(logits, [1]);
    for (const dtype of floatDTypes) {
      const matrix = floatTensor(eighths, [2, 2], dtype);
      const loss = new LensedCrossEntropy({ confusionLens: matrix });
      (matrix.data as Float64Array).fill(0);
      const value = loss.forward(logits, [1]);
      close(value, expected.item());
      assert.ok(value.item() > 0);
    }
  });
});
