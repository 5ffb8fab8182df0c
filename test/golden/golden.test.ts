import assert from 'node:assert/strict';
import type { FloatDType, Tensor } from 'surprisal';
import { assertSameTensor } from '../support/bits.js';
import { floatDTypes, halfUlp, isHalf, valuesOf } from '../support/float_formats.js';
import {
  evaluate,
  gradientUnit,
  hasFloatInput,
  hasHardLabels,
  largest,
  readSuites,
  rounded,
  type GoldenCase,
} from '../support/golden.js';
import { nativeBinding } from '../support/losses.js';

/**
 * float32's relative rounding error is 6e-8; a loss of a row is four or five operations with it (an exponential and a
 * logarithm of 1 ulp, a sum, a subtraction, the rounding of the result): 3e-7 in all, and the same for the
 * gradient against its scale. It is also what is promised.
 */
const float32Tolerance = 3e-7;

/**
 * float64 has 5e8 times float32's digits, but here the expected values have no more themselves: they too were computed
 * in float64, by sums and differences that are free to cancel (p − q, lse − z, 1 − σ). A thousand times the unit roundoff of
 * float64, with the same measure, leaves room for that and still tells a float64 path from one with a float32 step in it.
 */
const float64Tolerance = 1e-12;

/** Logits of a standard deviation of 80, or an offset of 1e4, have that much less precise differences. */
const wideLogits = 4;

/** Of its largest values, a saturated row has no gradient to speak of: it is then held to this share of the unit. */
const saturatedShare = 0.05;

/** Hard labels keep the digits of small gradients; the float64 truth of p − 1 ends at 1e-16, 1e-10 of this share. */
const hardLabelShare = 1e-6;

/** A loss is held to its relative error down to this value, and to the absolute error it has there below. */
const smallLoss = 0.05;

interface Comparison {
  readonly what: string;
  readonly got: Tensor;
  readonly expected: Float64Array;
  /** What an error is relative to. */
  readonly scale: (expected: number) => number;
  readonly tolerance: number;
}

/** Descriptions of the elements that are further off than the tolerance. */
function* mismatches({ what, got, expected, scale, tolerance }: Comparison): Generator<string> {
  const values = valuesOf(got);
  if (values.length !== expected.length) {
    yield `${what}: expected ${expected.length} elements, got ${values.length} (shape [${got.shape.join(', ')}])`;
    return;
  }
  for (const [i, wanted] of expected.entries()) {
    const value = values[i]!;
    if (Object.is(value, wanted) || value === wanted) continue;
    // A float16 or bfloat16 result was rounded once.
    const rounding = isHalf(got.dtype) ? halfUlp(wanted, got.dtype) : 0;
    const error = Math.max(Math.abs(value - wanted) - rounding, 0) / scale(wanted);
    if (!(error <= tolerance)) {
      yield `${what}[${i}]: expected ${wanted}, got ${value}, error ${error.toExponential(2)} > ${tolerance.toExponential(2)}`;
    }
  }
}

const lossScale = (loss: number): number => Math.max(Math.abs(loss), smallLoss);

function gradientScale(golden: GoldenCase, gradient: Float64Array, share: number): () => number {
  const scale = Math.max(largest(gradient), share * gradientUnit(golden));
  return () => scale;
}

/** Against the golden values themselves, which are of float32 inputs. */
function* checkTruth(golden: GoldenCase, dtype: 'float32' | 'float64'): Generator<string> {
  const { expected } = golden;
  const { output, gradInput, functionOutput } = evaluate(golden, dtype);
  const base = dtype === 'float32' ? float32Tolerance : float64Tolerance;
  const tolerance = base * (/\b(large|shifted)\b/.test(golden.name) ? wideLogits : 1);
  yield* mismatches({
    what: 'output',
    got: output,
    expected: expected.output.values,
    scale: lossScale,
    tolerance,
  });
  if (functionOutput !== undefined) assertSameTensor(functionOutput, output, 'the function beside the class');
  if (expected.grad_input === undefined) return;
  if (gradInput === undefined) {
    yield 'grad_input: expected one, got none';
    return;
  }
  // 1e-12 of the hard labels' share would be 1e-18: more digits than the truth of p − 1 has.
  const share = hasHardLabels(golden) && dtype === 'float32' ? hardLabelShare : saturatedShare;
  const gradient = expected.grad_input.values;
  yield* mismatches({
    what: 'grad_input',
    got: gradInput,
    expected: gradient,
    scale: gradientScale(golden, gradient, share),
    tolerance,
  });
}

/** Against the float64 path, which is held to the golden values, on the same rounded inputs. */
function* checkRounded(golden: GoldenCase, dtype: 'float16' | 'bfloat16'): Generator<string> {
  const inputs = rounded(golden, dtype);
  const { output, gradInput, functionOutput } = evaluate(inputs, dtype);
  const truth = evaluate(inputs, 'float64', output);
  const tolerance = float32Tolerance * (/\b(large|shifted)\b/.test(golden.name) ? wideLogits : 1);
  yield* mismatches({
    what: 'output',
    got: output,
    expected: valuesOf(truth.output),
    scale: lossScale,
    tolerance,
  });
  if (functionOutput !== undefined) assertSameTensor(functionOutput, output, 'the function beside the class');
  if (gradInput === undefined) return;
  const gradient = valuesOf(truth.gradInput!);
  const share = hasHardLabels(golden) ? hardLabelShare : saturatedShare;
  yield* mismatches({
    what: 'grad_input',
    got: gradInput,
    expected: gradient,
    scale: gradientScale(inputs, gradient, share),
    tolerance,
  });
}

/**
 * Against the printed digits, each case with the tolerance that they allow. A loss that comes as float32 has its own
 * rounding besides: half a unit in the last place, at most 2^-24 of losses below 2 (the curve's are 1.5 to 1.9, and its
 * digits, printed from float32 themselves, use up all but 1e-8 of their tolerance).
 */
function* checkPrinted(golden: GoldenCase, dtype: 'float32' | 'float64'): Generator<string> {
  const { output, functionOutput } = evaluate(golden, dtype);
  const tolerance = golden.tolerance! + (dtype === 'float32' && golden.op === 'jsd_curve' ? 2 ** -24 : 0);
  yield* mismatches({
    what: 'output',
    got: output,
    expected: golden.expected.output.values,
    scale: () => 1,
    tolerance,
  });
  if (functionOutput !== undefined) assertSameTensor(functionOutput, output, 'the function beside the class');
}

function check(golden: GoldenCase, dtype: FloatDType): string[] {
  try {
    if (isHalf(dtype)) return [...checkRounded(golden, dtype)];
    return [...(golden.tolerance === undefined ? checkTruth : checkPrinted)(golden, dtype)];
  } catch (error) {
    return [String(error)];
  }
}

const shown = 3;

describe('golden cases', () => {
  const suites = readSuites();

  it('are all here', () => {
    assert.deepEqual(
      suites.map(({ suite }) => suite),
      [
        'asymmetric_loss',
        'binary_cross_entropy',
        'cross_entropy',
        'functional',
        'jsd',
        'label_smoothing',
        'lensed',
        'seeds',
        'soft_target',
      ],
    );
    for (const { suite, cases } of suites) assert.ok(cases.length > 0, `${suite} has no cases`);
  });

  // Every instruction set that was compiled in and runs here, the one that is used by default among them.
  const native = nativeBinding();
  const used = native.getInstructionSet();
  for (const instructionSet of native.instructionSets) {
    describe(`with kernels for ${instructionSet}`, () => {
      before(() => native.setInstructionSet(instructionSet));
      after(() => native.setInstructionSet(used));
      addCases();
    });
  }

  function addCases() {
    for (const { suite, cases } of suites) {
      for (const dtype of floatDTypes) {
        // Labels alone make no difference between dtypes: those cases run once.
        const chosen = cases.filter((golden) => dtype === 'float32' || hasFloatInput(golden));
        it(`${suite}: ${chosen.length} cases in ${dtype}`, () => {
          const failures = chosen.flatMap((golden) => {
            const found = check(golden, dtype);
            const more = found.length > shown ? [`... and ${found.length - shown} more elements`] : [];
            const lines = [...found.slice(0, shown), ...more].map(
              (line) => `\n  ${golden.op} "${golden.name}" [${dtype}] ${line}`,
            );
            return lines.length > 0 ? [lines.join('')] : [];
          });
          assert.equal(
            failures.length,
            0,
            `${failures.length} of ${chosen.length} cases fail:${failures.join('')}`,
          );
        });
      }
    }
  }
});
