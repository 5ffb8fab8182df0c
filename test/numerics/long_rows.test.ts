/**
 * Rows that do not fit a cache are read chunk by chunk, each relative to the largest logit so far: whatever the order
 * of their logits, what comes of them is that of the row as a whole. Where the classes lie apart in memory rows are not
 * cut, so the same logits in that layout are one truth, and plain formulas in float64 are another.
 */
import assert from 'node:assert/strict';
import { tensor, type FloatDType, type Tensor } from 'surprisal';
import * as F from 'surprisal/functional';
import {
  AsymmetricLossMultiLabel,
  BinaryCrossEntropy,
  CrossEntropyLoss,
  KLDivLoss,
  SoftTargetCrossEntropy,
} from 'surprisal/loss';
import { assertSameTensor } from '../support/bits.js';
import { assertNear } from '../support/close.js';
import { allocate, floatDTypes, floatTensor, halfUlp, isHalf, valuesOf } from '../support/float_formats.js';
import {
  formsOf,
  isOverSoftmax,
  lossClasses,
  makeTarget,
  nativeBinding,
  rowsPerSample,
} from '../support/losses.js';
import { Samples } from '../support/random.js';
import { hardCrossEntropy, rowOf, softmax } from '../support/reference.js';

/** Several chunks of 2048, and a rest that is not of whole vectors. */
const classes = 7003;
const samples = 4;

/** Where a row's largest logits are. The range of 80 makes most of the early chunks' exponentials vanish. */
const orders: Readonly<Record<string, (draws: Float64Array) => Float64Array>> = {
  'in any order': (z) => z,
  rising: (z) => z.toSorted(),
  'rising steeply': (z) => z.toSorted().map((x, c) => x + (80 * c) / classes),
  falling: (z) => z.toSorted().reverse(),
  'of one value': (z) => z.fill(z[0]!),
  'with the largest at the end': (z) => z.with(classes - 1, 30),
  'around 1e4': (z) => z.toSorted().map((x) => 1e4 + Math.round(x * 64) / 64),
};

const rowsIn = (order: string, rows: number, dtype: FloatDType): Tensor => {
  const draw = new Samples(31);
  const values = Array.from({ length: rows }, () => [...orders[order]!(draw.normals(classes, 3))]).flat();
  return floatTensor(Float64Array.from(values), [rows, classes], dtype);
};

/** The same logits with their classes apart in memory. */
function apart(input: Tensor): Tensor {
  const [rows, columns] = input.shape as [number, number];
  const data = allocate(input.dtype as FloatDType, rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < columns; c++) data[c * rows + row] = input.data[row * columns + c] as number;
  }
  return tensor(data, { shape: [rows, columns], strides: [1, rows], dtype: input.dtype });
}

const largest = (values: Float64Array): number => values.reduce((m, x) => Math.max(m, Math.abs(x)), 0);

/** The golden tolerance: 3e-7 of a tensor's largest, float64 1e-12, half formats a rounding more. */
function assertClose(actual: Tensor, expected: Float64Array, what: string): void {
  const dtype = actual.dtype as FloatDType;
  const scale = (dtype === 'float64' ? 1e-12 : 3e-7) * largest(expected);
  valuesOf(actual).forEach((x, i) => {
    const wanted = expected[i]!;
    // Two numbers that are equal but for `scale` may be rounded to either side.
    const allowed = scale + (isHalf(dtype) ? 2 * halfUlp(wanted, dtype) : 0);
    assertNear(x, wanted, allowed, () => `${what}, element ${i}`);
  });
}

describe('long rows', () => {
  const binding = nativeBinding();
  afterEach(() => binding.setInstructionSet(binding.instructionSets[0]!));

  const overSoftmax = lossClasses.filter((Class) => isOverSoftmax(Class.create(classes)));
  it('are tried on every loss over a softmax', () => assert.ok(overSoftmax.length >= 5));

  for (const Class of overSoftmax) {
    it(`${Class.name} gives what it does where classes are apart, and forward the bits of valueAndGrad`, () => {
      const loss = Class.create(classes);
      const rows = samples * rowsPerSample(Class);
      for (const dtype of floatDTypes) {
        for (const order of Object.keys(orders)) {
          const input = rowsIn(order, rows, dtype);
          for (const form of formsOf(Class)) {
            const target = makeTarget(form, form === 'indices' ? samples : rows, classes, dtype);
            const got = loss.valueAndGrad(input, target);
            const expected = loss.valueAndGrad(apart(input), target);
            const what = `${form}, ${dtype}, ${order}`;
            assertClose(got.value, valuesOf(expected.value), `${what}: loss`);
            assertClose(got.grad, valuesOf(expected.grad), `${what}: gradient`);
            assertSameTensor(loss.forward(input, target), got.value, `${what}: forward`);
          }
        }
      }
    });
  }

  for (const name of binding.instructionSets) {
    it(`take dense targets of any dtype and layout for the same, ${name}`, () => {
      binding.setInstructionSet(name);
      // Between 0 and 1, and exact in every dtype.
      const draws = new Samples(7).normals(samples * classes);
      const target = draws.map((x) => Math.min(Math.floor(64 * Math.abs(x)), 128) / 128);
      const input = rowsIn('in any order', samples, 'float32');
      for (const Class of [SoftTargetCrossEntropy, BinaryCrossEntropy, AsymmetricLossMultiLabel, KLDivLoss]) {
        const loss = new Class();
        const expected = loss.valueAndGrad(input, floatTensor(target, [samples, classes], 'float32'));
        for (const dtype of floatDTypes) {
          const given = floatTensor(target, [samples, classes], dtype);
          for (const [layout, dense] of Object.entries({ 'side by side': given, apart: apart(given) })) {
            const got = loss.valueAndGrad(input, dense);
            const what = `${Class.name}, ${dtype}, classes ${layout}`;
            assertSameTensor(got.value, expected.value, `${what}: loss`);
            assertSameTensor(got.grad, expected.grad, `${what}: gradient`);
          }
        }
      }
    });

    it(`give cross entropy and softmax their digits, ${name}`, () => {
      binding.setInstructionSet(name);
      const loss = new CrossEntropyLoss({ reduction: 'none' });
      const labels = [0, 2047, 2048, classes - 1];
      for (const dtype of ['float32', 'float64'] as const) {
        for (const order of Object.keys(orders)) {
          const input = rowsIn(order, samples, dtype);
          const { value, grad } = loss.valueAndGrad(input, labels);
          const p = F.softmax(input);
          const logits = valuesOf(input);
          // A row's sums in the reference are of thousands of terms, each rounded: 1e-12 of float64.
          const tolerance = dtype === 'float64' ? 1e-12 : 4e-7;
          labels.forEach((label, row) => {
            const truth = hardCrossEntropy(rowOf(logits, row, classes), label);
            const what = `${dtype}, ${order}, row ${row}`;
            assertNear(valuesOf(value)[row]!, truth.loss, tolerance * truth.loss, () => `${what}: loss`);
            const gradient = rowOf(valuesOf(grad), row, classes);
            const scale = largest(truth.grad);
            gradient.forEach((g, c) =>
              assertNear(g, truth.grad[c]!, tolerance * scale, () => `${what}: gradient of class ${c}`),
            );
            // Each probability of itself, as far as float32 has normal numbers.
            const expected = softmax(rowOf(logits, row, classes));
            rowOf(valuesOf(p), row, classes).forEach((x, c) =>
              assertNear(
                x,
                expected[c]!,
                tolerance * expected[c]! + 1.2e-38,
                () => `${what}: p of class ${c}`,
              ),
            );
          });
        }
      }
    });
  }

  it('may begin with masked classes, many of them or all, and end with NaN or infinity', () => {
    const loss = new CrossEntropyLoss({ reduction: 'none' });
    const smoothed = new CrossEntropyLoss({ reduction: 'none', labelSmoothing: 0.1 });
    const label = classes - 2;
    for (const dtype of ['float32', 'float64'] as const) {
      const draws = new Samples(5).normals(classes, 3);
      const row = (change: (z: Float64Array) => Float64Array) => change(draws.slice());
      const logits = [
        row((z) => z.fill(-Infinity, 0, 2048)),
        row((z) => z.fill(-Infinity, 0, classes - 3)),
        row((z) => z.fill(-Infinity, 2048, 6144)),
        row((z) => z.fill(-Infinity)),
        row((z) => z.with(classes - 1, NaN)),
        row((z) => z.with(classes - 1, Infinity)),
        row((z) => z),
      ];
      const input = floatTensor(
        Float64Array.from(logits.flatMap((z) => [...z])),
        [logits.length, classes],
        dtype,
      );
      const labels = logits.map(() => label);
      const { value, grad } = loss.valueAndGrad(input, labels);
      const values = valuesOf(value);
      const tolerance = dtype === 'float64' ? 1e-12 : 4e-7;
      for (const i of [0, 1, 2, 6]) {
        const truth = hardCrossEntropy(rowOf(valuesOf(input), i, classes), label);
        assertNear(values[i]!, truth.loss, tolerance * truth.loss, () => `${dtype}, row ${i}: loss`);
        const allowed = tolerance * largest(truth.grad);
        rowOf(valuesOf(grad), i, classes).forEach((g, c) => {
          const what = () => `${dtype}, row ${i}: gradient of class ${c}`;
          assertNear(g, truth.grad[c]!, allowed, what);
          if (logits[i]![c] === -Infinity) assert.equal(g, 0, what());
        });
      }
      for (const i of [3, 4, 5]) {
        assert.ok(Number.isNaN(values[i]), `${dtype}, row ${i}: ${values[i]}`);
        assert.ok(
          rowOf(valuesOf(grad), i, classes).every((g) => Number.isNaN(g)),
          `${dtype}, row ${i}`,
        );
      }
      // Smoothing gives masked classes a share of the target.
      const expected = [Infinity, Infinity, Infinity, NaN, NaN, NaN];
      assert.deepEqual([...valuesOf(smoothed.forward(input, labels))].slice(0, 6), expected);
      assert.ok(Number.isFinite(valuesOf(smoothed.forward(input, labels))[6]));
    }
  });

  it('of float64 may span more than its range', () => {
    const data = new Float64Array(classes).fill(-1e308, 0, 4000).fill(1e308, 4000);
    const target = new Float64Array(classes);
    target[classes - 1] = 1;
    const { value, grad } = new CrossEntropyLoss().valueAndGrad(
      { data, shape: [1, classes] },
      { data: target, shape: [1, classes] },
    );
    const rest = classes - 4000;
    assertNear(value.item(), Math.log(rest), 1e-12, () => 'the loss');
    assertNear(grad.data[4000] as number, 1 / rest, 1e-15, () => 'a gradient at the maximum');
    assert.equal(grad.data[0], 0);
  });
});
