import assert from 'node:assert/strict';
import { tensor, type Tensor } from 'surprisal';
import type { Loss } from 'surprisal/loss';
import { floatTensor, valuesOf } from '../support/float_formats.js';
import {
  formsOf,
  lossClasses,
  makeTarget,
  nativeRegistry,
  sampleClasses as classes,
  unless,
  type Options,
} from '../support/losses.js';
import { Samples } from '../support/random.js';

/** Divided by 1, 2 and 3 splits. */
const rows = 12;

const factors = new Samples(50).normals(classes, 0.2).map((x) => 1 + x);

/**
 * Options that any loss may have; each loss is tried with those that it knows. Whatever makes the gradient another
 * thing than the derivative (a weight held constant) is not here.
 */
const optionSets: readonly Options[] = [
  {},
  { reduction: 'none' },
  { reduction: 'sum' },
  { reduction: 'batchmean' },
  { smoothing: 0 },
  { smoothing: 0.3 },
  { labelSmoothing: 0.2 },
  { labelSmoothing: 0.2, weight: factors },
  { weight: factors },
  { weight: factors, reduction: 'none' },
  { ignoreIndex: 1 },
  { posWeight: factors },
  { sumClasses: true },
  { targetThreshold: 0.15 },
  { numSplits: 2, alpha: 3 },
  { numSplits: 1 },
  { gammaPos: 2, gammaNeg: 2.5 },
  { gammaPos: 0, gammaNeg: 0 },
  { clip: 0 },
  { eps: 0.02 },
  { logTarget: true },
];

/** A step that adds to a logit exactly. */
const step = 2 ** -10;

/**
 * The error of the fourth-order difference (8·(f(h) − f(−h)) − (f(2h) − f(−2h)))/12h is h⁴/30·f⁽⁵⁾, 3e-14 of a fifth
 * derivative that is tens at most here, and 1.5·ε·|f|/h = 3.4e-13·|f| of rounding, with some ulp in f itself. A gradient
 * that lacks a term is off by 1e-3 and more.
 */
const allowedError = (f: number): number => 1e-10 * Math.max(1, Math.abs(f));

/** Calls that a loss takes with these options: one for each form of target. */
function problems(loss: Loss, form: Parameters<typeof makeTarget>[0]) {
  const samples = new Samples(51);
  const logits = samples.normals(rows * classes, 2);
  const target = makeTarget(form, rows, classes, 'float64', 52);
  const outputs = loss.forward(floatTensor(logits, [rows, classes], 'float64'), target);
  const weights = samples.normals(outputs.data.length, 1);
  const gradOutput = outputs.shape.length === 0 ? 0.75 : tensor(weights, { shape: outputs.shape });
  const factor = typeof gradOutput === 'number' ? Float64Array.of(gradOutput) : weights;
  const total = (value: Tensor) => valuesOf(value).reduce((sum, x, i) => sum + x * factor[i]!, 0);
  return { logits, target, gradOutput, total };
}

/** Descriptions of the elements where the gradient is not the derivative. */
function wrongElements(loss: Loss, form: Parameters<typeof makeTarget>[0]): string[] {
  const { logits, target, gradOutput, total } = problems(loss, form);
  const input = floatTensor(logits, [rows, classes], 'float64');
  const { value, grad } = loss.valueAndGrad(input, target, { gradOutput });
  const f = total(value);
  const gradient = valuesOf(grad);
  const at = (i: number, offset: number) => {
    const data = input.data as Float64Array;
    data[i] = logits[i]! + offset;
    const moved = total(loss.forward(input, target));
    data[i] = logits[i]!;
    return moved;
  };
  return [...gradient].flatMap((got, i) => {
    const near = at(i, step) - at(i, -step);
    const far = at(i, 2 * step) - at(i, -2 * step);
    const expected = (8 * near - far) / (12 * step);
    const error = Math.abs(got - expected);
    return error <= allowedError(f)
      ? []
      : [`element ${i}: difference ${expected}, gradient ${got}, error ${error}`];
  });
}

describe('the gradient of every loss is its derivative', () => {
  const used = new Set<Options>();

  for (const Class of lossClasses) {
    for (const options of optionSets) {
      if (unless(['ERR_OPTION'], () => Class.create(classes, options)) === undefined) continue;
      used.add(options);
      const shown = Object.keys(options).length === 0 ? 'defaults' : JSON.stringify(options, showArrays);
      it(`${Class.name}, ${shown}`, () => {
        const loss = Class.create(classes, options);
        for (const form of formsOf(Class, options)) {
          const wrong = wrongElements(loss, form);
          assert.equal(
            wrong.length,
            0,
            `target ${form}: ${wrong.length} elements:\n  ${wrong.slice(0, 5).join('\n  ')}`,
          );
        }
      });
    }
  }

  it('every set of options is one that some loss takes', () => {
    const dead = optionSets.filter((options) => !used.has(options));
    assert.deepEqual(dead, []);
  });

  it('every loss of the native registry is reached by a class', () => {
    const native = nativeRegistry()
      .filter(({ kind }) => kind !== 'row_map')
      .map(({ name }) => name);
    const reached = new Set(lossClasses.map((Class) => Class.create(classes).name));
    assert.deepEqual([...reached].sort(), native.sort());
  });
});

function showArrays(_: string, value: unknown): unknown {
  return ArrayBuffer.isView(value) ? '[C]' : value;
}
