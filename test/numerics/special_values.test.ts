import assert from 'node:assert/strict';
import { tensor, type Tensor } from 'surprisal';
import {
  AsymmetricLossMultiLabel,
  BinaryCrossEntropy,
  CrossEntropyLoss,
  JsdCrossEntropy,
  LensedCrossEntropy,
  NLLLoss,
  SoftTargetCrossEntropy,
  AsymmetricLossSingleLabel,
} from 'surprisal/loss';
import { makeBatch, rowsOf } from '../support/batches.js';
import { assertSameBits } from '../support/bits.js';
import { assertNear } from '../support/close.js';
import { floatDTypes, floatTensor, valuesOf, type FloatArray } from '../support/float_formats.js';
import { formsOf, isOverSoftmax, lossClasses, rowsPerSample, unless } from '../support/losses.js';
import { Samples } from '../support/random.js';

describe('masked classes: 30% of the logits are -Infinity', () => {
  const [rows, classes] = [24, 50];
  const samples = new Samples(21);
  // The first and the last of some rows are among them, and a whole vector's width in a row.
  const isMasked = Array.from({ length: rows }, (_, row) => {
    const masked = Array.from({ length: classes }, (_, c) => row % 2 === 0 && c < 17 && c !== 3);
    let left = 15 - masked.filter(Boolean).length;
    while (left > 0) {
      const c = samples.integer(classes);
      if (c === 3 || masked[c]) continue;
      masked[c] = true;
      left--;
    }
    return masked;
  });
  const logits = Float64Array.from({ length: rows * classes }, (_, i) =>
    isMasked[Math.floor(i / classes)]![i % classes] ? -Infinity : Math.fround(samples.normal(3)),
  );
  /** The classes that are left, in order; 3 is one of them everywhere. */
  const kept = (row: number) => isMasked[row]!.flatMap((masked, c) => (masked ? [] : [c]));
  const label = 3;
  const labels = new Int32Array(rows).fill(label);

  /** Rows whose targets have nothing at masked classes. */
  function softTarget(): Float64Array {
    const q = samples.probabilities(rows, classes).map((x, i) => (logits[i] === -Infinity ? 0 : x));
    return q.map(Math.fround);
  }
  const q = softTarget();

  interface Result {
    readonly value: Tensor;
    readonly grad: Tensor;
  }

  /**
   * A row with masked classes against the same row without them, in float64; the gradient of the masked ones is 0.
   * Tolerances are those of golden cases: 3e-7 of a loss and of a gradient's scale in float32; in float64 another order
   * of summation, some hundred roundings of 1.1e-16.
   */
  function assertSameWithoutMasked(whole: Result, without: (row: number) => Result, group = 1): void {
    const gradients = valuesOf(whole.grad);
    const losses = valuesOf(whole.value);
    const tolerance = whole.grad.dtype === 'float64' ? 1e-14 : 3e-7;
    assert.ok(losses.every(Number.isFinite), `losses are finite: ${losses.join()}`);
    for (let row = 0; row < rows / group; row++) {
      const alone = without(row);
      if (losses.length === rows / group) {
        const wanted = alone.value.item();
        const allowed = tolerance * Math.max(Math.abs(wanted), 0.05);
        assertNear(losses[row]!, wanted, allowed, () => `row ${row}: the loss`);
      }
      const expected = valuesOf(alone.grad);
      const scale = expected.reduce((m, x) => Math.max(m, Math.abs(x)), 0.05);
      const classesLeft = kept(row);
      for (let c = 0; c < classes; c++) {
        const at = classesLeft.indexOf(c);
        const wanted = at < 0 ? 0 : expected[at]!;
        const allowed = at < 0 ? 0 : tolerance * scale;
        assertNear(
          gradients[row * classes + c]!,
          wanted,
          allowed,
          () => `row ${row}: the gradient of class ${c}`,
        );
      }
    }
  }

  const rowLogits = (row: number) => kept(row).map((c) => logits[row * classes + c]!);

  for (const dtype of ['float32', 'float64'] as const) {
    const input = floatTensor(logits, [rows, classes], dtype);

    it(`CrossEntropyLoss with labels, ${dtype}`, () => {
      const loss = new CrossEntropyLoss({ reduction: 'none' });
      assertSameWithoutMasked(loss.valueAndGrad(input, labels), (row) =>
        loss.valueAndGrad(floatTensor(rowLogits(row), [1, kept(row).length], 'float64'), [
          kept(row).indexOf(label),
        ]),
      );
    });

    it(`CrossEntropyLoss with class probabilities, ${dtype}`, () => {
      const loss = new CrossEntropyLoss({ reduction: 'none' });
      assertSameWithoutMasked(loss.valueAndGrad(input, floatTensor(q, [rows, classes], dtype)), (row) => {
        const shape = [1, kept(row).length];
        const target = kept(row).map((c) => q[row * classes + c]!);
        return loss.valueAndGrad(
          floatTensor(rowLogits(row), shape, 'float64'),
          floatTensor(target, shape, 'float64'),
        );
      });
    });

    it(`SoftTargetCrossEntropy, ${dtype}`, () => {
      const loss = new SoftTargetCrossEntropy();
      const whole = loss.valueAndGrad(input, floatTensor(q, [rows, classes], dtype), { gradOutput: rows });
      assertSameWithoutMasked(whole, (row) => {
        const shape = [1, kept(row).length];
        const target = kept(row).map((c) => q[row * classes + c]!);
        return loss.valueAndGrad(
          floatTensor(rowLogits(row), shape, 'float64'),
          floatTensor(target, shape, 'float64'),
        );
      });
    });

    it(`LensedCrossEntropy with the identity, ${dtype}`, () => {
      const identity = (n: number) =>
        floatTensor(
          Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0)),
          [n, n],
          dtype,
        );
      const make = (n: number) => new LensedCrossEntropy({ confusionLens: identity(n), reduction: 'none' });
      assertSameWithoutMasked(make(classes).valueAndGrad(input, labels), (row) => {
        const n = kept(row).length;
        return make(n).valueAndGrad(floatTensor(rowLogits(row), [1, n], 'float64'), [
          kept(row).indexOf(label),
        ]);
      });
    });

    it(`AsymmetricLossSingleLabel without smoothing, ${dtype}`, () => {
      const loss = new AsymmetricLossSingleLabel({ eps: 0, reduction: 'none' });
      assertSameWithoutMasked(loss.valueAndGrad(input, labels), (row) =>
        loss.valueAndGrad(floatTensor(rowLogits(row), [1, kept(row).length], 'float64'), [
          kept(row).indexOf(label),
        ]),
      );
    });

    it(`JsdCrossEntropy without smoothing, ${dtype}`, () => {
      // Three views of a sample with the same classes masked: those of the first third of the rows.
      const loss = new JsdCrossEntropy({ smoothing: 0 });
      const third = rows / 3;
      const views = logits.map((x, i) => {
        const masked = logits[i % (third * classes)] === -Infinity;
        return masked ? -Infinity : x === -Infinity ? 0.5 : x;
      });
      const whole = loss.valueAndGrad(floatTensor(views, [rows, classes], dtype), labels.subarray(0, third), {
        gradOutput: third,
      });
      assertSameWithoutMasked(
        whole,
        (row) => {
          const values = [row, row + third, row + 2 * third].flatMap((r) =>
            kept(row).map((c) => views[r * classes + c]!),
          );
          const n = kept(row).length;
          return loss.valueAndGrad(floatTensor(values, [3, n], 'float64'), [kept(row).indexOf(label)]);
        },
        3,
      );
    });

    it(`classes masked in one view only leave JsdCrossEntropy finite, ${dtype}`, () => {
      const loss = new JsdCrossEntropy({ smoothing: 0 });
      const { value, grad } = loss.valueAndGrad(input, labels.subarray(0, rows / 3));
      assert.ok(Number.isFinite(value.item()), `loss ${value.item()}`);
      for (const [i, g] of valuesOf(grad).entries()) {
        assert.ok(Number.isFinite(g), `gradient ${i}: ${g}`);
        if (logits[i] === -Infinity) assert.equal(Math.abs(g), 0, `gradient ${i} of a masked class`);
      }
    });

    it(`BinaryCrossEntropy and AsymmetricLossMultiLabel where the target is 0, ${dtype}`, () => {
      const target = floatTensor(
        Float64Array.from(logits, (x, i) => (x === -Infinity || i % 3 > 0 ? 0 : 1)),
        [rows, classes],
        dtype,
      );
      const cases = {
        BinaryCrossEntropy: new BinaryCrossEntropy({ reduction: 'sum' }),
        AsymmetricLossMultiLabel: new AsymmetricLossMultiLabel(),
      };
      for (const [name, loss] of Object.entries(cases)) {
        const { value, grad } = loss.valueAndGrad(input, target);
        // A logit of -200 has p = e^-200 and adds nothing that float64 could see.
        const low = logits.map((x) => Math.max(x, -200));
        const reference = loss.valueAndGrad(floatTensor(low, [rows, classes], dtype), target);
        const tolerance = dtype === 'float64' ? 1e-14 : 3e-7;
        const expected = reference.value.item();
        assertNear(value.item(), expected, tolerance * Math.abs(expected), () => `${name}: the loss`);
        const gradients = valuesOf(grad);
        for (const [i, wanted] of valuesOf(reference.grad).entries()) {
          const masked = logits[i] === -Infinity;
          assertNear(gradients[i]!, masked ? 0 : wanted, 0, () => `${name}: gradient ${i}`);
        }
      }
    });
  }

  it('the label itself masked: the loss is Infinity, the gradient finite', () => {
    const { value, grad } = new CrossEntropyLoss({ reduction: 'none' }).valueAndGrad(
      tensor([[-Infinity, 0, 0]]),
      [0],
    );
    assert.deepEqual(value.toArray(), [Infinity]);
    assert.deepEqual(grad.toArray(), [[-1, 0.5, 0.5]]);
  });
});

describe('a NaN row beside good rows', () => {
  const classes = 37;
  for (const Class of lossClasses) {
    const perRow = unless(['ERR_OPTION'], () => Class.create(2, { reduction: 'none' })) !== undefined;
    const options = perRow ? { reduction: 'none' } : {};
    for (const dtype of floatDTypes) {
      it(`${Class.name}, ${dtype}`, () => {
        const loss = Class.create(classes, options);
        const group = rowsPerSample(Class);
        const bad = 5;
        for (const form of formsOf(Class, options)) {
          const batch = makeBatch(form, 12, group, classes, dtype);
          const good = loss.valueAndGrad(batch.input, batch.target);
          const other = makeBatch(form, 12, group, classes, dtype, 99);
          const gradientOfOther = loss.valueAndGrad(other.input, batch.target).grad;
          // A loss that is linear in its input has a gradient that no NaN of the input reaches.
          const isLinear = Buffer.compare(bytes(good.grad), bytes(gradientOfOther)) === 0;
          const badRows = rowsOf(batch, [bad]);

          // Alone in a row at its ends and in between, and a whole row.
          for (const columns of [
            [0],
            [18],
            [32],
            [classes - 1],
            Array.from({ length: classes }, (_, c) => c),
          ]) {
            const values = valuesOf(batch.input);
            for (const c of columns) values[bad * classes + c] = NaN;
            const input = floatTensor(values, batch.input.shape, dtype);
            const { value, grad } = loss.valueAndGrad(input, batch.target);
            const what = `${form}, NaN in ${columns.length === 1 ? `column ${columns[0]}` : 'every column'}`;
            const gradients = valuesOf(grad);
            for (let row = 0; row < 12 * group; row++) {
              if (!badRows.includes(row)) {
                assertSameBits(part(grad, row), part(good.grad, row), `${what}: gradient of good row ${row}`);
                if (perRow)
                  assertSameBits(part(value, row), part(good.value, row), `${what}: loss of row ${row}`);
              } else if (isOverSoftmax(loss)) {
                // Softmax couples a row's classes, a mixture its splits: all of it is NaN.
                for (let c = 0; c < classes; c++) {
                  const g = gradients[row * classes + c]!;
                  assert.ok(Number.isNaN(g), `${what}: gradient [${row}, ${c}] is ${g}`);
                }
              } else if (!isLinear) {
                for (const c of columns) {
                  const g = gradients[row * classes + c]!;
                  assert.ok(Number.isNaN(g), `${what}: gradient [${row}, ${c}] is ${g}`);
                }
              }
            }
            if (isOverSoftmax(loss) || columns.length === classes) {
              const losses = valuesOf(perRow ? tensorOf(part(value, bad)) : value);
              if (!losses.every(Number.isNaN)) assert.fail(`${what}: the row's loss is ${losses.join()}`);
            }
          }
        }
      });
    }
  }

  const bytes = ({ data }: Tensor): Uint8Array =>
    new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

  /** A row of a matrix, or an element of a vector. */
  function part({ data, shape }: Tensor, row: number): FloatArray {
    const width = shape[1] ?? 1;
    return (data as FloatArray).subarray(row * width, (row + 1) * width);
  }

  const tensorOf = (values: FloatArray): Tensor => tensor(values);
});

describe('all rows ignored', () => {
  const classes = 19;
  for (const Class of [CrossEntropyLoss, NLLLoss]) {
    for (const dtype of floatDTypes) {
      for (const [reduction, expected] of [
        ['mean', [NaN]],
        ['sum', [0]],
        ['none', [0, 0, 0, 0]],
      ] as const) {
        it(`${Class.name}, ${reduction}, ${dtype}: ${expected.join()}, and gradients 0`, () => {
          const input = floatTensor(new Samples(31).normals(4 * classes), [4, classes], dtype);
          const { value, grad } = new Class({ reduction }).valueAndGrad(input, [-100, -100, -100, -100]);
          assert.deepEqual([...valuesOf(value)], expected);
          assert.ok(
            valuesOf(grad).every((g) => g === 0),
            `gradients: ${valuesOf(grad).join()}`,
          );
        });
      }
    }
  }
});
