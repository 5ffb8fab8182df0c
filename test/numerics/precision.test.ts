import assert from 'node:assert/strict';
import { tensor, type FloatDType } from 'surprisal';
import { CrossEntropyLoss, JsdCrossEntropy } from 'surprisal/loss';
import { makeBatch } from '../support/batches.js';
import { assertNear } from '../support/close.js';
import {
  floatDTypes,
  floatTensor,
  fromBits,
  halfUlp,
  isHalf,
  roundTo,
  toBits,
  valuesOf,
} from '../support/float_formats.js';
import { formsOf, isOverSoftmax, lossClasses, makeTarget, rowsPerSample } from '../support/losses.js';
import { Samples } from '../support/random.js';
import { hardCrossEntropy, jsd, rowOf } from '../support/reference.js';

describe('precision: the mean of a large batch (pytorch issue 55657)', () => {
  it('of 128x2x768x768 logits is within 1e-7 of the float64 mean', () => {
    const [images, plane] = [128, 768 * 768];
    const samples = new Samples(55657);
    // Short tables of draws, whose lengths have no common factor, walked through at different speeds.
    const first = Float32Array.from({ length: 4093 }, () => samples.normal(2));
    const second = Float32Array.from({ length: 4099 }, () => samples.normal(2));
    const logits = new Float32Array(images * 2 * plane);
    const labels = new Uint8Array(images * plane);
    let sum = 0;
    for (let image = 0, row = 0; image < images; image++) {
      const at = image * 2 * plane;
      for (let pixel = 0; pixel < plane; pixel++, row++) {
        const a = first[row % 4093]!;
        const b = second[row % 4099]!;
        const label = (row ^ (row >> 7)) & 1;
        logits[at + pixel] = a;
        logits[at + plane + pixel] = b;
        labels[row] = label;
        const margin = label === 0 ? a - b : b - a;
        sum += Math.log1p(Math.exp(-margin));
      }
    }
    // 75 million additions in float64 are off by 75e6·1.1e-16 = 8e-9 at the very most, relative to the sum.
    const expected = sum / labels.length;
    const loss = new CrossEntropyLoss().forward(
      { data: logits, shape: [images, 2, 768, 768] },
      { data: labels, shape: [images, 768, 768] },
    );
    // The promise. A float32 result near 1 is itself rounded by up to 6e-8.
    assertNear(loss.item(), expected, 1e-7 * expected, () => 'the mean');
  });
});

describe('precision: a common offset of 1e4', () => {
  const offset = 1e4;
  const classes = 103;
  const overSoftmax = lossClasses.filter((Class) => isOverSoftmax(Class.create(classes)));

  it('is tried on every loss over a softmax', () => {
    assert.ok(overSoftmax.length >= 5, `found ${overSoftmax.length}`);
  });

  for (const Class of overSoftmax) {
    it(`costs ${Class.name} no digits`, () => {
      // At 1e4 float32 has steps of 2^-10: multiples of it add to the offset exactly, so the rows' differences are
      // the same. Exponentials are taken of these differences, apart from the logits' size; only their last bit may
      // depend on it. The golden tolerance holds on: of 3e-7 (float64: 1e-12), relative to the largest of a tensor.
      const rows = 30;
      const logits = new Samples(5).normals(rows * classes, 3).map((x) => Math.round(x * 1024) / 1024);
      const shifted = logits.map((x) => x + offset);
      assert.ok(shifted.every((x, i) => Math.fround(x) - offset === logits[i]));
      for (const dtype of ['float32', 'float64'] as const) {
        const loss = Class.create(classes);
        for (const form of formsOf(Class)) {
          const target = makeTarget(form, rows, classes, dtype);
          const plain = loss.valueAndGrad(floatTensor(logits, [rows, classes], dtype), target);
          const moved = loss.valueAndGrad(floatTensor(shifted, [rows, classes], dtype), target);
          for (const part of ['value', 'grad'] as const) {
            const expected = valuesOf(plain[part]);
            const allowed = (dtype === 'float32' ? 3e-7 : 1e-12) * Math.max(...expected.map(Math.abs));
            valuesOf(moved[part]).forEach((x, i) =>
              assertNear(x, expected[i]!, allowed, () => `${form}, ${dtype}: ${part}, element ${i}`),
            );
          }
        }
      }
    });
  }
});

describe('precision: confident rows', () => {
  // The promise for what is computed in float32. In float64 the same formula is as good as its exponential, a few ulp.
  const tolerances: Readonly<Record<FloatDType, number>> = {
    float32: 4e-7,
    float16: 4e-7,
    bfloat16: 4e-7,
    float64: 1e-14,
  };
  // What the logits of a row stand around: where z − m is a float32 number, and where it is not.
  const levels: Readonly<Record<string, (samples: Samples) => number>> = {
    'around 4': () => 4,
    'around any value': (samples) => samples.normal(3),
  };
  const cases = floatDTypes.flatMap((dtype) =>
    [1e-3, 1e-9, 1e-20].flatMap((size) => Object.keys(levels).map((level) => ({ dtype, size, level }))),
  );
  for (const { dtype, size, level } of cases) {
    it(`a loss near ${size} of logits ${level}, and the gradient, are right to ${tolerances[dtype]} of themselves, ${dtype}`, () => {
      const samples = new Samples(8);
      const loss = new CrossEntropyLoss({ reduction: 'none' });
      for (const classes of [2, 3, 10, 37, 1003]) {
        // Every place of a vector, and of the tail.
        const rows = Math.min(classes, 70);
        const labels = Int32Array.from({ length: rows }, (_, i) =>
          i % 2 === 0 ? i : classes - 1 - (i >> 1),
        );
        // (C − 1)·e^−distance = size. The truth is that of the logits as they are rounded to the dtype.
        const distance = Math.log((classes - 1) / size);
        const values = Array.from({ length: rows }, () => levels[level]!(samples));
        const logits = Float64Array.from({ length: rows * classes }, (_, i) => {
          const row = Math.floor(i / classes);
          const offset = i % classes === labels[row] ? 0 : samples.normal(0.2) - distance;
          return roundTo(values[row]! + offset, dtype);
        });
        const input = floatTensor(logits, [rows, classes], dtype);
        const { value, grad } = loss.valueAndGrad(input, tensor(labels));
        const losses = valuesOf(value);
        const gradients = valuesOf(grad);
        for (let row = 0; row < rows; row++) {
          const label = labels[row]!;
          const truth = hardCrossEntropy(rowOf(logits, row, classes), label);
          assert.ok(truth.loss > size / 4 && truth.loss < size * 4, `the case has a loss of ${truth.loss}`);
          const what = `C = ${classes}, label ${label}`;
          assertNear(losses[row]!, truth.loss, tolerances[dtype] * truth.loss, () => `${what}: the loss`);
          for (let c = 0; c < classes; c++) {
            const got = gradients[row * classes + c]!;
            const wanted = truth.grad[c]!;
            // The label's is the row's largest, and the others' scale. In float16 and bfloat16 it is rounded once more.
            const scale = Math.abs(truth.grad[label]!);
            const allowed = tolerances[dtype] * scale + (isHalf(dtype) ? halfUlp(wanted, dtype) : 0);
            assertNear(got, wanted, allowed, () => `${what}: the gradient of class ${c}`);
          }
        }
      }
    });
  }
});

describe('precision: float16 and bfloat16 gradients are rounded once', () => {
  for (const dtype of ['float16', 'bfloat16'] as const) {
    for (const Class of lossClasses) {
      it(`${Class.name}, ${dtype}`, () => {
        const [samples, classes] = [40, 301];
        const loss = Class.create(classes);
        for (const form of formsOf(Class)) {
          const group = rowsPerSample(Class);
          const { input, target } = makeBatch(form, samples, group, classes, dtype);
          // Takes the mean's denominator back, so that gradients stay clear of float16's subnormal numbers.
          const options = { gradOutput: loss.reduction === 'mean' ? samples : 1 };
          const truth = valuesOf(
            loss.valueAndGrad(floatTensor(valuesOf(input), input.shape, 'float64'), target, options).grad,
          );
          const got = loss.valueAndGrad(input, target, options).grad.data as Uint16Array;
          const scale = truth.reduce((m, x) => Math.max(m, Math.abs(x)), 0);

          let differing = 0;
          for (const [i, exact] of truth.entries()) {
            const once = roundTo(exact, dtype);
            if (got[i] === toBits(once, dtype)) continue;
            differing++;
            // A float32 result, off by up to 3e-7 of the gradient's scale, may fall on the other side of the middle
            // between two neighbours.
            const given = fromBits(got[i]!, dtype);
            assertNear(given, exact, halfUlp(exact, dtype) + 3e-7 * scale, () => `${form}: element ${i}`);
          }
          // That happens to a share of 2·error/ulp. With an error of 1e-6 of the element (float32's few roundings,
          // more where p − q cancels) and float16's ulp of 5e-4 to 1e-3 this is 4e-3; two roundings to float16, or q
          // taken off a rounded p, would change every second element.
          const share = differing / truth.length;
          const allowed = 2e-6 / (2 * halfUlp(1, dtype) * 0.5);
          assert.ok(share <= allowed, `${form}: ${differing} of ${truth.length} elements differ`);
        }
      });
    }
  }
});

describe('precision: JSD of probabilities that underflow in float32', () => {
  const options = { numSplits: 3, alpha: 12, smoothing: 0.1 };

  /** Logits whose probabilities go down to e^−depth, each split with another order. */
  function spread(samples: number, classes: number, depth: number): Float64Array {
    return Float64Array.from({ length: 3 * samples * classes }, (_, i) => {
      const row = Math.floor(i / classes);
      const place = ((i % classes) * (1 + 2 * Math.floor(row / samples)) + row) % classes;
      return Math.fround((-depth * place) / (classes - 1));
    });
  }

  // e^−104 is below the smallest subnormal float32, e^−746 below float64's, where the true gradient ends up too.
  for (const depth of [90, 104, 150, 400, 1000, 10_000]) {
    it(`logits down to -${depth}`, () => {
      for (const [samples, classes] of [
        [2, 4],
        [3, 19],
        [2, 101],
      ] as const) {
        const logits = spread(samples, classes, depth);
        const labels = new Samples(9).labels(samples, classes);
        const truth = jsd(logits, classes, labels, options);
        const loss = new JsdCrossEntropy(options);
        const input = floatTensor(logits, [3 * samples, classes], 'float32');
        const { value, grad } = loss.valueAndGrad(input, tensor(labels));
        assert.ok(Number.isFinite(truth.loss) && truth.grad.every(Number.isFinite));
        // The promise for float32, as for golden cases: of the loss, and of the largest gradient.
        assertNear(value.item(), truth.loss, 3e-7 * truth.loss, () => `C = ${classes}: the loss`);
        const scale = truth.grad.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
        for (const [i, got] of valuesOf(grad).entries()) {
          assertNear(got, truth.grad[i]!, 3e-7 * scale, () => `C = ${classes}: gradient ${i}`);
        }
      }
    });
  }
});
