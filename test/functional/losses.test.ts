import assert from 'node:assert/strict';
import { tensor, type TensorLike } from 'surprisal';
import * as F from 'surprisal/functional';
import { CrossEntropyLoss, KLDivLoss, LensedCrossEntropy, NLLLoss, type Reduction } from 'surprisal/loss';
import { assertSameTensor } from '../support/bits.js';
import { floatTensor, valuesOf } from '../support/float_formats.js';
import { Samples } from '../support/random.js';

const [rows, classes] = [9, 6];
const samples = new Samples(31);
const input = floatTensor(samples.normals(rows * classes, 2), [rows, classes], 'float32');
const labels = samples.labels(rows, classes);
const probabilities = floatTensor(samples.probabilities(rows, classes), [rows, classes], 'float32');
const weight = Float32Array.from({ length: classes }, (_, c) => 0.5 + c / 4);
const lens = floatTensor(samples.probabilities(classes, classes), [classes, classes], 'float32');
const reductions: readonly (Reduction | undefined)[] = [undefined, 'none', 'mean', 'sum'];

describe('functional losses give the bits of their classes', () => {
  it('crossEntropy', () => {
    for (const reduction of reductions) {
      for (const options of [
        { reduction },
        { reduction, weight },
        { reduction, ignoreIndex: labels[0] },
        { reduction, labelSmoothing: 0.2, weight, ignoreIndex: labels[3] },
      ]) {
        const expected = new CrossEntropyLoss(options).forward(input, labels);
        assertSameTensor(F.crossEntropy(input, labels, options), expected, JSON.stringify(options));
      }
      const expected = new CrossEntropyLoss({ reduction }).forward(input, probabilities);
      assertSameTensor(F.crossEntropy(input, probabilities, { reduction }), expected, 'class probabilities');
    }
    assertSameTensor(
      F.crossEntropy(input, labels),
      new CrossEntropyLoss().forward(input, labels),
      'defaults',
    );
  });

  it('crossEntropy of pixels, with the classes in dimension 1', () => {
    const image = floatTensor(samples.normals(2 * 5 * 12), [2, 5, 3, 4], 'float32');
    const target = tensor(samples.labels(24, 5), { shape: [2, 3, 4] });
    for (const reduction of reductions) {
      const expected = new CrossEntropyLoss({ reduction }).forward(image, target);
      assertSameTensor(F.crossEntropy(image, target, { reduction }), expected, String(reduction));
    }
  });

  it('nllLoss', () => {
    const logP = F.logSoftmax(input);
    for (const reduction of reductions) {
      for (const options of [{ reduction }, { reduction, weight, ignoreIndex: labels[1] }]) {
        const expected = new NLLLoss(options).forward(logP, labels);
        assertSameTensor(F.nllLoss(logP, labels, options), expected, JSON.stringify(options));
      }
    }
    assertSameTensor(F.nllLoss(logP, labels), new NLLLoss().forward(logP, labels), 'defaults');
  });

  it('klDiv', () => {
    const logP = F.logSoftmax(input);
    const logTarget = floatTensor(valuesOf(probabilities).map(Math.log), [rows, classes], 'float32');
    for (const reduction of [...reductions, 'batchmean' as const]) {
      const plain = new KLDivLoss({ reduction }).forward(logP, probabilities);
      assertSameTensor(F.klDiv(logP, probabilities, { reduction }), plain, String(reduction));
      const logged = new KLDivLoss({ reduction, logTarget: true }).forward(logP, logTarget);
      assertSameTensor(F.klDiv(logP, logTarget, { reduction, logTarget: true }), logged, `log ${reduction}`);
    }
    assertSameTensor(F.klDiv(logP, probabilities), new KLDivLoss().forward(logP, probabilities), 'defaults');
  });

  it('lensedCrossEntropy', () => {
    for (const reduction of reductions) {
      const expected = new LensedCrossEntropy({ confusionLens: lens, reduction }).forward(input, labels);
      assertSameTensor(F.lensedCrossEntropy(input, labels, lens, { reduction }), expected, String(reduction));
    }
    const expected = new LensedCrossEntropy({ confusionLens: lens }).forward(input, labels);
    assertSameTensor(F.lensedCrossEntropy(input, labels, lens), expected, 'defaults');
  });
});

describe('functional losses among themselves', () => {
  /** In float64, so that two ways to one number differ by a few roundings of 1e-16 of numbers below 100. */
  const tolerance = 1e-13;
  const x = floatTensor(valuesOf(input), [rows, classes], 'float64');
  const close = (a: number, b: number) => assert.ok(Math.abs(a - b) <= tolerance, `${a} and ${b}`);

  for (const reduction of ['mean', 'sum'] as const) {
    it(`crossEntropy is nllLoss of logSoftmax, ${reduction}`, () => {
      close(
        F.crossEntropy(x, labels, { weight, reduction }).item(),
        F.nllLoss(F.logSoftmax(x), labels, { weight, reduction }).item(),
      );
    });

    it(`lensedCrossEntropy is klDiv of the labels' rows of the lens, ${reduction}`, () => {
      const index = Array.from(labels, (label) => new Array<number>(classes).fill(label));
      const target: TensorLike = F.gather(lens, index, { dim: 0 });
      close(
        F.lensedCrossEntropy(x, labels, lens, { reduction }).item(),
        F.klDiv(F.logSoftmax(x), target, { reduction: reduction === 'mean' ? 'batchmean' : 'sum' }).item(),
      );
    });
  }

  it('lensedCrossEntropy through the identity is crossEntropy', () => {
    const identity = F.oneHot(Array.from({ length: classes }, (_, c) => c));
    close(F.lensedCrossEntropy(x, labels, identity).item(), F.crossEntropy(x, labels).item());
  });
});
