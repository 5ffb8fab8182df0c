import type { Arrays, NativeArray, NativeStream } from '../../binding.js';
import { evaluateAsync } from '../async.js';
import { binding, dtypeCode, headerLength, slot } from '../binding.js';
import { cpu, resolveDevice, type Device } from '../device.js';
import { computeDType, isFloat, type FloatDType } from '../dtype.js';
import { describe, rangeError, typeError } from '../errors.js';
import {
  asRows,
  isShapeWithout,
  overlap,
  overlapsItself,
  rowStrides,
  startsWith,
  type Rows,
} from '../geometry.js';
import { checkOptions } from '../options.js';
import { numel, sameShape, showShape } from '../shape.js';
import { streamOption, type Stream } from '../stream.js';
import {
  asTensor,
  contiguous,
  emptyTensor,
  hostValuesAs,
  isContiguous,
  memoryOf,
  requireSameDevice,
  Tensor,
  valuesAs,
  type TensorLike,
} from '../tensor.js';
import { Copies } from './copies.js';
import { BroadcastFactor } from './factor.js';

export type Reduction = 'none' | 'mean' | 'sum';

export const reductions: readonly Reduction[] = ['none', 'mean', 'sum'];

/** Class indices, one a row; or a dense target of the input's shape. */
export type TargetForm = 'indices' | 'dense';

/** What a loss is, in the terms of the registry: everything that does not change from call to call. */
export interface LossDefinition {
  /** Its class, for messages. */
  readonly owner: string;
  /** Its name in the native registry. */
  readonly name: string;
  readonly parameters?: Readonly<Record<string, number>>;
  readonly reduction: Reduction;
  readonly targets: readonly TargetForm[];
  /** Where the classes are: dimension 1 as in torch's losses, else the last one. */
  readonly classAxis?: 1 | -1;
  /** The only rank that the input may have. */
  readonly rank?: number;
  /** Class index whose rows count for nothing. */
  readonly ignoreIndex?: number;
  /** Factors, broadcast against the input. A weight of rank 1 is one factor a class. */
  readonly weight?: Tensor | undefined;
  readonly posWeight?: Tensor | undefined;
  /** Only weights of shape [C] are taken. */
  readonly weightPerClass?: boolean;
  /** Target distributions by class index, [C, C], and a constant of each, [C]. */
  readonly lens?: { readonly matrix: Tensor; readonly constants: Float64Array };
  /** The input's rows are this many splits of the batch, as torch.split cuts them. */
  readonly numSplits?: number;
  /** What `mean` divides by, where it is not the loss's own denominator. */
  readonly divisor?: (shape: readonly number[]) => number;
}

/**
 * What calls ask of a definition. Every loss's has the same keys in the same order, so that V8 finds them as fast where a
 * program has many losses as where it has one.
 */
function partsOf(definition: LossDefinition, kind: string) {
  const { owner, name, targets, classAxis = -1, rank, divisor, numSplits } = definition;
  const { weight, posWeight, weightPerClass, lens } = definition;
  return {
    owner,
    name,
    takesIndices: targets.includes('indices'),
    takesDense: targets.includes('dense'),
    elementwise: kind === 'elementwise',
    classAxis,
    rank,
    divisor,
    numSplits,
    weight: weight && new BroadcastFactor(owner, 'weight', weight, weightPerClass),
    posWeight: posWeight && new BroadcastFactor(owner, 'posWeight', posWeight),
    lens,
  };
}

/** dL/d(output): a number, or a tensor of the output's shape. */
export type GradOutput = number | TensorLike;

export interface CallOptions {
  /**
   * Where to compute. A tensor on a GPU is worked on there, and so is the rest of its call: the results are tensors on
   * that GPU, and the call waits for nothing. Of tensors in host memory 'cuda' brings the arrays to a GPU and the results
   * back; the default is the CPU.
   */
  device?: Device;
  /** Where on a GPU the work goes: the device's default stream without it. */
  stream?: Stream;
  /**
   * Memory for the loss: of the output's shape, contiguous, float64 for float64 input and float32 for any other, apart
   * from every other argument. With `out` for every result a call allocates nothing outside of JavaScript's heap, unless
   * it has to convert an argument.
   */
  out?: { value?: TensorLike };
}

export interface GradOptions extends CallOptions {
  /** dL/d(output), 1 by default; for reduction 'none' a number for all or a tensor of the output's shape. */
  gradOutput?: GradOutput;
  /** Memory for the loss, as above, and for the gradient: of the input's shape and dtype. It may be the input itself. */
  out?: { value?: TensorLike; grad?: TensorLike };
}

export interface AsyncOptions {
  /**
   * Stops the work: the call rejects with an AbortError as soon as the rows at work are done, and writes nothing
   * afterwards. Each row of `out` (with the JSD each sample's rows) then holds its results or is as it was.
   */
  signal?: AbortSignal | undefined;
}

export interface ValueAndGrad {
  readonly value: Tensor;
  readonly grad: Tensor;
}

function overlapsAny(memory: NativeArray, others: readonly (NativeArray | undefined)[]): boolean {
  for (const other of others) {
    if (other !== undefined && overlap(memory, other)) return true;
  }
  return false;
}

/** A call that passed every check, ready for the native side. */
interface Prepared {
  readonly arrays: Arrays;
  readonly value: Tensor;
  readonly grad: Tensor | undefined;
}

/** Names of the options of each call. */
const callOptions = {
  forward: ['out', 'device', 'stream'],
  valueAndGrad: ['gradOutput', 'out', 'device', 'stream'],
  forwardAsync: ['out', 'device', 'stream', 'signal'],
  valueAndGradAsync: ['gradOutput', 'out', 'device', 'stream', 'signal'],
} as const;

/** Names of what a call writes. */
const valueOuts = ['value'] as const;
const gradOuts = ['grad', 'value'] as const;

/** Puts a loss that is one number where it belongs; others were written there. */
function finish({ value }: Prepared, loss: number | undefined): void {
  if (loss !== undefined) value.data[0] = loss;
}

/** What lib/metrics asks of losses beside what they offer to everyone. */
export interface LossInternals {
  /** What a loss was made of. */
  readonly definitionOf: (loss: Loss) => LossDefinition;
  /** The arrays of a forward call, once it passed every check. */
  readonly arraysOf: (
    loss: Loss,
    input: TensorLike,
    target: TensorLike,
  ) => { readonly arrays: Arrays; readonly value: Tensor };
}

export let internals: LossInternals;

/** Every loss: options become a definition once; here shapes and dtypes are checked, and the native side is called. */
export abstract class Loss {
  static {
    internals = {
      definitionOf: (loss) => loss.#source,
      arraysOf: (loss, input, target) => loss.#prepare(input, target, false, undefined),
    };
  }

  readonly reduction: Reduction;
  readonly #source: LossDefinition;
  readonly #definition: ReturnType<typeof partsOf>;
  /** The definition's part of a call's header. Calls fill in the rest; asynchronous ones take a copy. */
  readonly #header = new Float64Array(headerLength);
  readonly #copies = new Copies();

  protected constructor(definition: LossDefinition) {
    const index = binding.losses.findIndex(({ name }) => name === definition.name);
    const entry = binding.losses[index];
    if (entry === undefined) throw new Error(`the native registry has no loss '${definition.name}'`);
    this.#source = definition;
    this.#definition = partsOf(definition, entry.kind);
    this.reduction = definition.reduction;
    const header = this.#header;
    header[slot.loss] = index;
    header[slot.reduction] = binding.reductions.indexOf(definition.reduction);
    header[slot.ignoreIndex] = definition.ignoreIndex ?? NaN;
    header[slot.gradOutput] = 1;
    entry.parameters.forEach((parameter, i) => {
      const value = definition.parameters?.[parameter];
      if (value === undefined)
        throw new Error(`${definition.name}: its parameter '${parameter}' was not given`);
      header[slot.parameter0 + i] = value;
    });
  }

  /** The name of this loss in the native registry. */
  get name(): string {
    return this.#definition.name;
  }

  /** The loss: 0-d, or with reduction 'none' one value a row (an element, for elementwise losses). */
  forward(input: TensorLike, target: TensorLike, options?: CallOptions): Tensor {
    this.#checkOptions('forward', options);
    const prepared = this.#prepare(input, target, false, options);
    finish(prepared, binding.evaluate(...prepared.arrays));
    return prepared.value;
  }

  /** The loss and dL/d(input) in one pass over the input. */
  valueAndGrad(input: TensorLike, target: TensorLike, options?: GradOptions): ValueAndGrad {
    this.#checkOptions('valueAndGrad', options);
    const prepared = this.#prepare(input, target, true, options);
    finish(prepared, binding.evaluate(...prepared.arrays));
    return { value: prepared.value, grad: prepared.grad! };
  }

  /**
   * `forward` off the event loop, on the threads that all calls share. Don't write to the arrays until the promise
   * settles; if their buffers are transferred meanwhile, the loss is still that of what they held.
   */
  async forwardAsync(
    input: TensorLike,
    target: TensorLike,
    options?: CallOptions & AsyncOptions,
  ): Promise<Tensor> {
    this.#checkOptions('forwardAsync', options);
    const { value } = await this.#evaluateAsync(input, target, false, options ?? {});
    return value;
  }

  /**
   * `valueAndGrad` off the event loop, as `forwardAsync`. Where a buffer of `out` is transferred meanwhile, it rejects
   * with ERR_DISPOSED.
   */
  async valueAndGradAsync(
    input: TensorLike,
    target: TensorLike,
    options?: GradOptions & AsyncOptions,
  ): Promise<ValueAndGrad> {
    this.#checkOptions('valueAndGradAsync', options);
    const { value, grad } = await this.#evaluateAsync(input, target, true, options ?? {});
    return { value, grad: grad! };
  }

  async #evaluateAsync(
    input: TensorLike,
    target: TensorLike,
    wantsGrad: boolean,
    options: GradOptions & AsyncOptions,
  ): Promise<Prepared> {
    const { signal } = options;
    if (signal !== undefined && !(signal instanceof AbortSignal)) {
      throw typeError(
        'ERR_OPTION',
        `${this.#definition.owner}: expected an AbortSignal for signal, got ${describe(signal)}`,
      );
    }
    const prepared = this.#prepare(input, target, wantsGrad, options);
    const { value, grad } = prepared;
    const results = { 'out.grad': grad && memoryOf(grad), 'out.value': memoryOf(value) };
    finish(prepared, await evaluateAsync(this.#definition.owner, prepared.arrays, results, signal));
    return prepared;
  }

  /** Names are looked at only where options were given: of most calls they are not. */
  #checkOptions(call: keyof typeof callOptions, options: (GradOptions & AsyncOptions) | undefined): void {
    if (options !== undefined) checkOptions(`${this.#definition.owner}.${call}`, options, callOptions[call]);
  }

  /** Reads and checks the arguments in their order, and then writes the header. */
  #prepare(
    input: TensorLike,
    target: TensorLike,
    wantsGrad: boolean,
    options: GradOptions | undefined,
  ): Prepared {
    const { owner, classAxis, rank, divisor, numSplits, lens } = this.#definition;
    const given = asTensor(input, 'input');
    const { home, device, stream } = this.#place(given, options);
    const { shape, dtype } = given;
    if (!isFloat(dtype)) {
      const hint =
        dtype === 'uint16' ? `; give dtype 'float16' or 'bfloat16' where its elements are those bits` : '';
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected input of dtype float32, float64, float16 or bfloat16, got ${dtype}${hint}`,
      );
    }
    if (numel(shape) === 0 || shape.length === 0) {
      throw rangeError('ERR_SHAPE', `${owner}: expected a non-empty input, got shape ${showShape(shape)}`);
    }
    if (rank !== undefined && shape.length !== rank) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected input of shape [N, C], got ${showShape(shape)}; reshape it to ${rank} dimensions`,
      );
    }
    const axis = classAxis === 1 && shape.length > 1 ? 1 : shape.length - 1;
    const classes = shape[axis]!;
    const outer = numel(shape, 0, axis);
    const x = asRows(given, axis);
    if (numSplits !== undefined && outer % numSplits !== 0) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected a batch that numSplits = ${numSplits} divides, got ${outer} rows (input ${showShape(shape)})`,
      );
    }
    const { indices, dense } = this.#target(target, given, axis);
    const weight = this.#definition.weight?.over(shape, classes, dtype);
    const posWeight = this.#definition.posWeight?.over(shape, classes, dtype);
    const outputShape = this.#outputShape(shape, axis);
    const gradOutput = this.#gradOutput(options?.gradOutput, outputShape, given);
    const gradOutputs = typeof gradOutput === 'number' ? undefined : gradOutput;
    const labels = indices && memoryOf(indices);
    const denseTarget = dense && memoryOf(dense.tensor);
    const others = [labels, denseTarget, gradOutputs];
    const { value, grad } = this.#results(
      options?.out,
      wantsGrad,
      x,
      axis,
      outputShape,
      others,
      home,
      stream,
    );

    const header = this.#header;
    header[slot.dtype] = dtypeCode[dtype]!;
    header[slot.outer] = outer;
    header[slot.inner] = numel(shape, axis + 1);
    header[slot.classes] = classes;
    header[slot.inputOuterStride] = x.strides.outer;
    header[slot.inputInnerStride] = x.strides.inner;
    header[slot.inputClassStride] = x.strides.classes;
    header[slot.device] = device;
    header[slot.divisor] = divisor?.(shape) ?? 0;
    if (indices !== undefined) header[slot.indicesDtype] = dtypeCode[indices.dtype]!;
    if (dense !== undefined) {
      header[slot.denseDtype] = dtypeCode[dense.tensor.dtype]!;
      header[slot.denseOuterStride] = dense.strides.outer;
      header[slot.denseInnerStride] = dense.strides.inner;
      header[slot.denseClassStride] = dense.strides.classes;
      header[slot.denseByIndex] = lens === undefined ? 0 : 1;
    }
    if (weight !== undefined) {
      header[slot.weightRowStride] = weight.row;
      header[slot.weightClassStride] = weight.classes;
    }
    if (posWeight !== undefined) {
      header[slot.posWeightRowStride] = posWeight.row;
      header[slot.posWeightClassStride] = posWeight.classes;
    }
    header[slot.gradOutput] = typeof gradOutput === 'number' ? gradOutput : 1;
    if (grad !== undefined) {
      header[slot.gradOuterStride] = grad.strides.outer;
      header[slot.gradInnerStride] = grad.strides.inner;
      header[slot.gradClassStride] = grad.strides.classes;
    }
    const arrays: Arrays = [
      header,
      memoryOf(x.tensor),
      labels,
      grad && memoryOf(grad.tensor),
      this.reduction === 'none' || home !== cpu ? memoryOf(value) : undefined,
      lens === undefined ? denseTarget : this.#copies.of(lens.matrix.data, home),
      gradOutputs,
      this.#copies.of(weight?.values, home),
      this.#copies.of(posWeight?.values, home),
      this.#copies.of(lens?.constants, home),
      undefined,
      undefined,
      stream,
    ];
    while (arrays.at(-1) === undefined) arrays.pop();
    return { arrays, value, grad: grad?.tensor };
  }

  /**
   * Where a call's input is, as a number of a device; where it is worked on; and in which stream. An input in host memory
   * may be worked on elsewhere.
   */
  #place(input: Tensor, options: GradOptions | undefined) {
    const home = input.device === 'cpu' ? cpu : resolveDevice(input.device);
    const device = options?.device === undefined ? home : resolveDevice(options.device);
    const { owner } = this.#definition;
    if (home !== cpu && device !== home) {
      throw typeError(
        'ERR_OPTION',
        `${owner}: the input is on ${input.device}, where the call is worked on, but device is ` +
          `${describe(options?.device)}; bring the input there by to()`,
      );
    }
    if (options?.stream === undefined) return { home, device, stream: undefined };
    if (device === cpu) {
      throw typeError(
        'ERR_OPTION',
        `${owner}: stream is for calls on a GPU; this one is worked on by the CPU`,
      );
    }
    return { home, device, stream: streamOption(owner, options.stream, device) };
  }

  /** An argument beside the input: on its device, or in host memory. */
  #checkDevice(name: string, argument: Tensor, input: Tensor): void {
    if (argument.device === 'cpu') return;
    requireSameDevice(this.#definition.owner, name, argument, 'the input', input);
  }

  /** Tells class indices from dense targets by shape, and checks them. Through a lens, its rows are dense too. */
  #target(
    target: TensorLike,
    input: Tensor,
    axis: number,
  ): { indices: Tensor | undefined; dense: Rows | undefined } {
    const { owner, takesIndices, takesDense, elementwise, lens, numSplits } = this.#definition;
    const { shape } = input;
    const isDense = (candidate: readonly number[]) =>
      takesDense && (!takesIndices || sameShape(candidate, shape));
    const t = asTensor(target, 'target', (candidate) => (isDense(candidate) ? 'values' : 'indices'));
    this.#checkDevice('target', t, input);

    if (isDense(t.shape)) {
      if (!sameShape(t.shape, shape)) {
        throw rangeError(
          'ERR_SHAPE',
          `${owner}: expected a target of the input's shape ${showShape(shape)}, got ${showShape(t.shape)}`,
        );
      }
      if (takesIndices && !isFloat(t.dtype) && !elementwise) {
        throw typeError(
          'ERR_DTYPE',
          `${owner}: a target of the input's shape ${showShape(shape)} is class probabilities, which must be floating, ` +
            `got ${t.dtype}; class indices have the shape ${showShape(shape.toSpliced(axis, 1))}`,
        );
      }
      // Integers are multi-hot labels; few enough losses take them that a converted copy serves.
      if (!isFloat(t.dtype) && t.device !== 'cpu') {
        throw typeError(
          'ERR_DTYPE',
          `${owner}: expected a floating target of the input's shape on ${t.device}, got ${t.dtype}`,
        );
      }
      const dense = isFloat(t.dtype) ? t : new Tensor(hostValuesAs(t, 'float32'), t.shape, 'float32');
      return { indices: undefined, dense: asRows(dense, axis) };
    }

    if (isFloat(t.dtype) || t.dtype === 'bool') {
      const dense = takesDense ? `, or class probabilities of the input's shape ${showShape(shape)}` : '';
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected class indices of an integer dtype and shape ${showShape(shape.toSpliced(axis, 1))}${dense}, ` +
          `got ${t.dtype} of shape ${showShape(t.shape)}`,
      );
    }
    const batch = numSplits === undefined ? 0 : shape[0]! / numSplits;
    const fits =
      numSplits === undefined
        ? isShapeWithout(t.shape, shape, axis)
        : t.shape.length === 1 && t.shape[0]! >= batch;
    if (!fits) {
      const expected =
        numSplits === undefined
          ? showShape(shape.toSpliced(axis, 1))
          : `[${batch}] (input rows / numSplits = ${shape[0]} / ${numSplits}; longer is taken, its first ${batch} used)`;
      const dense = takesDense ? ` or class probabilities of shape ${showShape(shape)}` : '';
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected class indices of shape ${expected}${dense} for input of shape ${showShape(shape)}, ` +
          `got ${showShape(t.shape)}`,
      );
    }
    const indices = contiguous(t);
    if (lens === undefined) return { indices, dense: undefined };
    const classes = shape[axis]!;
    if (lens.matrix.shape[0] !== classes) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: confusionLens is ${showShape(lens.matrix.shape)}, but the input ${showShape(shape)} has ${classes} classes`,
      );
    }
    return { indices, dense: { tensor: lens.matrix, strides: { outer: classes, inner: 0, classes: 1 } } };
  }

  #outputShape(shape: readonly number[], axis: number): readonly number[] {
    if (this.reduction !== 'none') return [];
    return this.#definition.elementwise ? shape : shape.toSpliced(axis, 1);
  }

  /** A number, or the array of one value an output. */
  #gradOutput(
    gradOutput: GradOutput | undefined,
    outputShape: readonly number[],
    input: Tensor,
  ): number | NativeArray {
    if (gradOutput === undefined) return 1;
    if (typeof gradOutput === 'number') return gradOutput;
    const { owner } = this.#definition;
    const given = asTensor(gradOutput, 'gradOutput');
    if (!isFloat(given.dtype)) {
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected gradOutput as a number or a floating tensor, got ${given.dtype}`,
      );
    }
    if (!sameShape(given.shape, outputShape)) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected gradOutput as a number or of the output's shape ${showShape(outputShape)}, ` +
          `got ${showShape(given.shape)}`,
      );
    }
    this.#checkDevice('gradOutput', given, input);
    if (outputShape.length === 0) return given.item();
    return valuesAs(given, computeDType(input.dtype as FloatDType), `${owner}: gradOutput`);
  }

  /** Where the loss and the gradient go: the caller's memory once it is safe to write to, or new memory. */
  #results(
    out: GradOptions['out'],
    wantsGrad: boolean,
    x: Rows,
    axis: number,
    outputShape: readonly number[],
    others: readonly (NativeArray | undefined)[],
    home: number,
    stream: NativeStream | undefined,
  ): { value: Tensor; grad: Rows | undefined } {
    const { shape, dtype } = x.tensor as Tensor & { readonly dtype: FloatDType };
    if (out !== undefined)
      checkOptions(`${this.#definition.owner}: out`, out, wantsGrad ? gradOuts : valueOuts);
    let grad: Rows | undefined;
    if (wantsGrad) {
      grad =
        out?.grad === undefined
          ? asRows(emptyTensor(shape, dtype, home, stream), axis)
          : this.#outGrad(out.grad, x, axis, others);
    }
    const value =
      out?.value === undefined
        ? emptyTensor(outputShape, computeDType(dtype), home, stream)
        : this.#outValue(out.value, outputShape, x.tensor, [
            memoryOf(x.tensor),
            grad && memoryOf(grad.tensor),
            ...others,
          ]);
    return { value, grad };
  }

  /** The caller's memory for a result that has the dtype and the shape of `like`. */
  #out(
    name: 'out.grad' | 'out.value',
    given: TensorLike,
    like: 'input' | 'output',
    dtype: FloatDType,
    shape: readonly number[],
    input: Tensor,
  ): Tensor {
    const { owner } = this.#definition;
    const memory = asTensor(given, name);
    requireSameDevice(owner, name, memory, 'the input', input);
    if (memory.dtype !== dtype) {
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected ${name} of the ${like}'s dtype ${dtype}, got ${memory.dtype}`,
      );
    }
    if (!sameShape(memory.shape, shape)) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected ${name} of the ${like}'s shape ${showShape(shape)}, got ${showShape(memory.shape)}`,
      );
    }
    if (typeof given !== 'object' || Array.isArray(given)) {
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected ${name} as a tensor or a typed array, to be written to, got ${describe(given)}`,
      );
    }
    return memory;
  }

  #outGrad(given: TensorLike, x: Rows, axis: number, others: readonly (NativeArray | undefined)[]): Rows {
    const { owner } = this.#definition;
    const { shape, dtype } = x.tensor as Tensor & { readonly dtype: FloatDType };
    const grad = this.#out('out.grad', given, 'input', dtype, shape, x.tensor);
    const memory = memoryOf(grad);
    const data = memoryOf(x.tensor);
    if (overlapsItself(grad)) {
      throw rangeError(
        'ERR_ALIAS',
        `${owner}: elements of out.grad share memory (strides ${showShape(grad.strides)})`,
      );
    }
    const strides = rowStrides(grad, axis);
    if (strides === undefined) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: out.grad's strides ${showShape(grad.strides)} can't be written to row by row; give contiguous memory`,
      );
    }
    const isInput = () =>
      startsWith(memory, data) &&
      strides.outer === x.strides.outer &&
      strides.inner === x.strides.inner &&
      strides.classes === x.strides.classes;
    if (overlap(memory, data) && !isInput()) {
      throw rangeError(
        'ERR_ALIAS',
        `${owner}: out.grad overlaps the input in part; give the input itself or separate memory`,
      );
    }
    if (overlapsAny(memory, others)) {
      throw rangeError('ERR_ALIAS', `${owner}: out.grad overlaps another argument; give separate memory`);
    }
    return { tensor: grad, strides };
  }

  #outValue(
    given: TensorLike,
    shape: readonly number[],
    input: Tensor,
    others: readonly (NativeArray | undefined)[],
  ): Tensor {
    const { owner } = this.#definition;
    const value = this.#out(
      'out.value',
      given,
      'output',
      computeDType(input.dtype as FloatDType),
      shape,
      input,
    );
    if (!isContiguous(value)) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected contiguous memory as out.value, got strides ${showShape(value.strides)}`,
      );
    }
    if (overlapsAny(memoryOf(value), others)) {
      throw rangeError('ERR_ALIAS', `${owner}: out.value overlaps another argument; give separate memory`);
    }
    return value;
  }
}
