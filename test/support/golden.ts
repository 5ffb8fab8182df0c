/** Reads test/golden/*.json (its README.md says what is in them) and evaluates a case through the public API. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { tensor, type FloatDType, type Tensor } from 'surprisal';
import * as data from 'surprisal/data';
import * as functional from 'surprisal/functional';
import * as losses from 'surprisal/loss';
import type { Loss } from 'surprisal/loss';
import { floatTensor, roundTo } from './float_formats.js';

type Json = number | string | boolean | null;

interface RawTensor {
  readonly shape: readonly number[];
  readonly dtype: 'float32' | 'float64' | 'int64';
  readonly data?: readonly (number | string)[];
  readonly base64?: string;
}

/** A decoded tensor. Integers are numbers too: labels and steps are small. */
export interface GoldenTensor {
  readonly shape: readonly number[];
  readonly dtype: RawTensor['dtype'];
  readonly values: Float64Array;
}

interface Case<T> {
  readonly name: string;
  /** The reference's name of what is evaluated. */
  readonly op: string;
  /** Its keywords. */
  readonly args: Readonly<Record<string, Json>>;
  readonly inputs: Readonly<Record<string, T>>;
  readonly expected: { readonly output: T; readonly grad_input?: T };
  readonly grad_output?: T;
  /** Absolute; of printed values. */
  readonly tolerance?: number;
}

export type GoldenCase = Case<GoldenTensor>;

export interface GoldenSuite {
  readonly suite: string;
  readonly cases: readonly GoldenCase[];
}

function decodeBase64({ base64, dtype }: RawTensor): ArrayLike<number | bigint> {
  const bytes = Buffer.from(base64!, 'base64');
  const { buffer } = Uint8Array.from(bytes);
  if (dtype === 'float32') return new Float32Array(buffer);
  return dtype === 'float64' ? new Float64Array(buffer) : new BigInt64Array(buffer);
}

function decode(raw: RawTensor): GoldenTensor {
  const { shape, dtype } = raw;
  // Number() reads the strings NaN, Infinity and -Infinity.
  const values = Float64Array.from<number | string | bigint>(raw.data ?? decodeBase64(raw), Number);
  if (values.length !== shape.reduce((n, size) => n * size, 1)) {
    throw new Error(`a golden tensor of shape [${shape.join(', ')}] has ${values.length} elements`);
  }
  return { shape, dtype, values };
}

const mapValues = <A, B>(record: Readonly<Record<string, A>>, f: (value: A) => B): Record<string, B> =>
  Object.fromEntries(Object.entries(record).map(([name, value]) => [name, f(value)]));

function decodeCase(raw: Case<RawTensor>): GoldenCase {
  const { grad_input } = raw.expected;
  const { grad_output, ...rest } = raw;
  const decoded: GoldenCase = {
    ...rest,
    inputs: mapValues(raw.inputs, decode),
    expected: { output: decode(raw.expected.output), ...(grad_input && { grad_input: decode(grad_input) }) },
    ...(grad_output && { grad_output: decode(grad_output) }),
  };
  return operation(raw.op).prepare?.(decoded) ?? decoded;
}

/** Every suite beside the README, in order of their files' names. */
export function readSuites(folder = 'test/golden'): GoldenSuite[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .sort()
    .map((file) => {
      const { suite, cases } = JSON.parse(readFileSync(join(folder, file), 'utf8')) as {
        suite: string;
        cases: readonly Case<RawTensor>[];
      };
      return { suite, cases: cases.map(decodeCase) };
    });
}

interface Operation {
  /** The loss class that gives value and gradient. */
  readonly class?: new (options: never) => Loss;
  /** The function; beside a class, it must give the class's value. */
  readonly function?: (...args: never[]) => Tensor;
  /** The function's gradient, from (gradOutput, output, options). */
  readonly backward?: (...args: never[]) => Tensor;
  /** What the function takes by position, by the reference's names: the rest are options. */
  readonly positional?: readonly string[];
  /** What a default reduction divides by: rows ('mean' unless said otherwise), rows × classes, or nothing. */
  readonly denominator?: 'elements' | 'one';
  /** The keyword that smooths labels: where it is 0, labels are hard and small gradients keep their digits. */
  readonly smoothing?: string;
  /** Brings a case of a form of its own to the common one. */
  readonly prepare?: (golden: GoldenCase) => GoldenCase;
  /** Subtracted from the output: the name of the argument that has it. */
  readonly base?: string;
}

/** A class's logits for each step of the divergence curve: one of three equal predictions moves by step·[−0.1, 0.1, 0, ...]. */
function curveInputs(golden: GoldenCase): GoldenCase {
  const classes = 10;
  const { steps } = golden.inputs;
  const row = (step: number) => [1 - 0.1 * step, 0.1 * step, ...new Array<number>(classes - 2).fill(0)];
  const values = Array.from(steps!.values).flatMap((step) => [...row(0), ...row(0), ...row(step)]);
  const points = steps!.values.length;
  return {
    ...golden,
    inputs: {
      input: {
        shape: [points, 3, classes],
        dtype: 'float32',
        values: Float64Array.from(values, Math.fround),
      },
      target: { shape: [points, 1], dtype: 'int64', values: new Float64Array(points) },
    },
  };
}

const operations: Readonly<Record<string, Operation>> = {
  LabelSmoothingCrossEntropy: { class: losses.LabelSmoothingCrossEntropy, smoothing: 'smoothing' },
  SoftTargetCrossEntropy: { class: losses.SoftTargetCrossEntropy },
  JsdCrossEntropy: { class: losses.JsdCrossEntropy },
  jsd_curve: { class: losses.JsdCrossEntropy, prepare: curveInputs, base: 'base_loss' },
  BinaryCrossEntropy: { class: losses.BinaryCrossEntropy, denominator: 'elements' },
  AsymmetricLossMultiLabel: { class: losses.AsymmetricLossMultiLabel, denominator: 'one' },
  AsymmetricLossSingleLabel: { class: losses.AsymmetricLossSingleLabel },
  cross_entropy: {
    class: losses.CrossEntropyLoss,
    function: functional.crossEntropy,
    smoothing: 'label_smoothing',
  },
  nll_loss: { class: losses.NLLLoss, function: functional.nllLoss },
  kl_div: { class: losses.KLDivLoss, function: functional.klDiv, denominator: 'elements' },
  lensed_cross_entropy: {
    class: losses.LensedCrossEntropy,
    function: functional.lensedCrossEntropy,
    positional: ['input', 'target', 'confusion_lens'],
  },
  log_softmax: {
    function: functional.logSoftmax,
    backward: functional.logSoftmaxBackward,
    positional: ['input'],
  },
  softmax: { function: functional.softmax, backward: functional.softmaxBackward, positional: ['input'] },
  gather: { function: functional.gather, positional: ['input', 'index'] },
  one_hot: { function: data.oneHot, positional: ['target', 'num_classes'] },
  mixup_target: { function: data.mixupTarget, positional: ['target', 'num_classes'] },
};

function operation(op: string): Operation {
  const found = operations[op];
  if (found === undefined) throw new Error(`no operation is known for the golden op '${op}'`);
  return found;
}

const camelCase = (name: string): string =>
  name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

/** The case with its floating inputs rounded to `dtype`, and without an offset of its printed values. */
export function rounded(golden: GoldenCase, dtype: FloatDType): GoldenCase {
  const { base } = operation(golden.op);
  const round = (t: GoldenTensor): GoldenTensor =>
    t.dtype === 'int64' ? t : { ...t, values: t.values.map((x) => roundTo(x, dtype)) };
  const { grad_output } = golden;
  return {
    ...golden,
    args: { ...golden.args, ...(base !== undefined && { [base]: 0 }) },
    inputs: mapValues(golden.inputs, round),
    ...(grad_output && { grad_output: round(grad_output) }),
  };
}

/** False for what takes labels alone, and has no floating input to vary. */
export const hasFloatInput = ({ inputs }: GoldenCase): boolean => inputs['input'] !== undefined;

export interface GoldenResult {
  readonly output: Tensor;
  readonly gradInput?: Tensor;
  /** Of a function that a class stands beside: both must be the same. */
  readonly functionOutput?: Tensor;
}

function toTensor({ shape, dtype, values }: GoldenTensor, as: FloatDType): Tensor {
  if (dtype !== 'int64') return floatTensor(values, shape, as);
  return tensor(BigInt64Array.from(values, BigInt), { shape });
}

/** Calls with the arguments that `positional` names and the others as options in camelCase. */
function split(args: Readonly<Record<string, unknown>>, positional: readonly string[]): [unknown[], object] {
  const options = Object.entries(args).filter(([name]) => !positional.includes(name));
  return [
    positional.map((name) => args[name]),
    Object.fromEntries(options.map(([name, value]) => [camelCase(name), value])),
  ];
}

/** One loss a matrix of a stack [P, N, C]; what the curve is made of. */
function evaluateEach(
  loss: Loss,
  input: GoldenTensor,
  target: GoldenTensor,
  base: number,
  dtype: FloatDType,
) {
  const part = (t: GoldenTensor, i: number): GoldenTensor => {
    const size = t.values.length / t.shape[0]!;
    return { ...t, shape: t.shape.slice(1), values: t.values.subarray(i * size, (i + 1) * size) };
  };
  const points = Array.from({ length: input.shape[0]! }, (_, i) =>
    loss.forward(toTensor(part(input, i), dtype), toTensor(part(target, i), dtype)).item(),
  );
  return tensor(Float64Array.from(points, (value) => value - base));
}

/**
 * Evaluates a case in `dtype`, whose inputs that dtype must hold. `forwardOutput` stands in for the output that a
 * function's gradient is computed from.
 */
export function evaluate(golden: GoldenCase, dtype: FloatDType, forwardOutput?: Tensor): GoldenResult {
  const op = operation(golden.op);
  const { base, positional = ['input', 'target'] } = op;
  const gradOutput = golden.grad_output && toTensor(golden.grad_output, dtype);
  const args = { ...golden.args, ...mapValues(golden.inputs, (t) => toTensor(t, dtype)) };

  let functionOutput: Tensor | undefined;
  let gradInput: Tensor | undefined;
  if (op.function !== undefined) {
    const [values, options] = split(args, positional);
    functionOutput = op.function(...([...values, options] as never[]));
    if (op.backward !== undefined && gradOutput !== undefined) {
      gradInput = op.backward(...([gradOutput, forwardOutput ?? functionOutput, options] as never[]));
    }
  }
  if (op.class === undefined) {
    if (functionOutput === undefined) throw new Error(`the golden op '${golden.op}' has no function`);
    return { output: functionOutput, ...(gradInput && { gradInput }) };
  }

  const { [base ?? '']: baseValue, ...rest } = args;
  const [[input, target], options] = split(rest, ['input', 'target']) as [[Tensor, Tensor], object];
  const loss = new op.class(options as never);
  if (base !== undefined) {
    const { input: inputs, target: targets } = golden.inputs;
    return { output: evaluateEach(loss, inputs!, targets!, baseValue as unknown as number, dtype) };
  }
  const { value, grad } = loss.valueAndGrad(input, target, gradOutput && { gradOutput });
  return { output: value, gradInput: grad, ...(functionOutput && { functionOutput }) };
}

/** The largest magnitude of the elements. */
export const largest = (values: Float64Array): number => values.reduce((m, x) => Math.max(m, Math.abs(x)), 0);

/** The natural unit of a case's gradient. */
export function gradientUnit({ op, args, inputs, grad_output }: GoldenCase): number {
  if (grad_output !== undefined) return largest(grad_output.values);
  const { denominator } = operation(op);
  const { reduction = 'mean' } = args;
  if (denominator === 'one' || reduction === 'sum' || reduction === 'none') return 1;
  const { shape } = inputs['input']!;
  const elements = shape.reduce((n, size) => n * size, 1);
  const everyElement = denominator === 'elements' && reduction === 'mean' && args['sum_classes'] !== true;
  // Classes are dimension 1 of [N, C, d1, ...], and of [N, C] too.
  return everyElement ? 1 / elements : shape[1]! / elements;
}

/** True for class indices that are not smoothed, in a loss that is linear in log p. */
export function hasHardLabels({ op, args, inputs }: GoldenCase): boolean {
  const { smoothing } = operation(op);
  return smoothing !== undefined && inputs['target']?.dtype === 'int64' && (args[smoothing] ?? 0) === 0;
}
