import type { Arrays, RegistryEntry } from '../../binding.js';
import { binding, dtypeCode, headerLength, slot } from '../binding.js';
import { resolveDevice, type Device } from '../device.js';
import { abortError, describe, rangeError, typeError } from '../errors.js';
import { overlap, overlapsItself, rowStrides, type Strides } from '../geometry.js';
import { checkOptions } from '../options.js';
import {
  allocate,
  asTensor,
  computeDType,
  contiguous,
  emptyTensor,
  isFloat,
  numel,
  sameShape,
  showShape,
  tensor,
  Tensor,
  valuesAs,
  type FloatDType,
  type TensorLike,
  type TypedArray,
} from '../tensor.js';

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

/** dL/d(output): a number, or a tensor of the output's shape. */
export type GradOutput = number | TensorLike;

export interface CallOptions {
  /** Where to compute; the default is where the data lives. */
  device?: Device;
}

export interface GradOptions extends CallOptions {
  /** dL/d(output), 1 by default; for reduction 'none' a number for all or a tensor of the output's shape. */
  gradOutput?: GradOutput;
  /** Memory for the gradient: of the input's shape and dtype. It may be the input itself. */
  out?: { grad?: TensorLike };
}

export interface AsyncOptions {
  /** Stops the work; the call then rejects with an AbortError, and `out` holds rows of both old and new. */
  signal?: AbortSignal | undefined;
}

export interface ValueAndGrad {
  readonly value: Tensor;
  readonly grad: Tensor;
}

/** A call that passed every check, ready for the native side. */
interface Prepared {
  readonly arrays: Arrays;
  readonly value: Tensor;
  readonly grad: Tensor | undefined;
}

/** Strides that broadcast `factor` over rows × classes. */
function broadcastStrides(
  owner: string,
  name: string,
  factor: Tensor,
  shape: readonly number[],
): { row: number; classes: number } {
  const classes = shape.at(-1) ?? 1;
  const rows = numel(shape) / classes;
  const size = numel(factor.shape);
  const fits = factor.shape.length <= Math.max(shape.length, 1);
  if (size === 1) return { row: 0, classes: 0 };
  if (fits && size === classes && factor.shape.at(-1) === classes) return { row: 0, classes: 1 };
  if (sameShape(factor.shape, shape)) return { row: classes, classes: 1 };
  if (fits && size === rows && sameShape(factor.shape, [...shape.slice(0, -1), 1]))
    return { row: 1, classes: 0 };
  throw rangeError(
    'ERR_SHAPE',
    `${owner}: ${name} of shape ${showShape(factor.shape)} does not broadcast to the input's ${showShape(shape)}; ` +
      `give a number, [${classes}], or the input's shape`,
  );
}

/**
 * An option that holds factors, as float64 of its own, so that later changes to the caller's array do not reach the
 * loss and plain numbers keep all their digits.
 */
export function factorOption(
  owner: string,
  name: string,
  value: TensorLike | null | undefined,
): Tensor | undefined {
  if (value === undefined || value === null) return undefined;
  const plain = typeof value === 'number' || Array.isArray(value);
  const given = plain ? tensor(value, { dtype: 'float64' }) : asTensor(value, name);
  if (!isFloat(given.dtype)) {
    throw typeError('ERR_DTYPE', `${owner}: expected ${name} of a floating dtype, got ${given.dtype}`);
  }
  return new Tensor(valuesAs(given, 'float64').slice(), given.shape, 'float64');
}

/** Memory that can grow, shrink or move while a worker reads it can't be used off the event loop. */
function refuseResizable(owner: string, arrays: Arrays): void {
  for (const array of arrays) {
    if (array !== undefined && (array.buffer as { resizable?: boolean }).resizable === true) {
      throw typeError(
        'ERR_DTYPE',
        `${owner}: an asynchronous call can't work in a resizable ArrayBuffer, which may move meanwhile; ` +
          `pass a copy (array.slice()) or make the call synchronous`,
      );
    }
  }
}

/** Every loss: options become a definition once; here shapes and dtypes are checked, and the native side is called. */
export abstract class Loss {
  readonly reduction: Reduction;
  readonly #definition: LossDefinition;
  readonly #entry: RegistryEntry;
  /** The definition's part of a call's header. Calls fill in the rest; asynchronous ones take a copy. */
  readonly #header = new Float64Array(headerLength);
  /** weight and posWeight in the compute dtype. */
  readonly #factors = new Map<string, TypedArray>();

  protected constructor(definition: LossDefinition) {
    const index = binding.losses.findIndex(({ name }) => name === definition.name);
    const entry = binding.losses[index];
    if (entry === undefined) throw new Error(`the native registry has no loss '${definition.name}'`);
    const { owner, weight, weightPerClass } = definition;
    if (weightPerClass && weight !== undefined && weight.shape.length !== 1) {
      throw rangeError('ERR_SHAPE', `${owner}: expected weight of shape [C], got ${showShape(weight.shape)}`);
    }
    this.#definition = definition;
    this.#entry = entry;
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
    checkOptions(`${this.#definition.owner}.forward`, options, ['device']);
    const { arrays, value } = this.#prepare(input, target, false, options ?? {});
    binding.evaluate(...arrays);
    return value;
  }

  /** The loss and dL/d(input) in one pass over the input. */
  valueAndGrad(input: TensorLike, target: TensorLike, options?: GradOptions): ValueAndGrad {
    checkOptions(`${this.#definition.owner}.valueAndGrad`, options, ['gradOutput', 'out', 'device']);
    const { arrays, value, grad } = this.#prepare(input, target, true, options ?? {});
    binding.evaluate(...arrays);
    return { value, grad: grad! };
  }

  /** `forward` off the event loop. The arrays must stay as they are until the promise settles. */
  async forwardAsync(
    input: TensorLike,
    target: TensorLike,
    options?: CallOptions & AsyncOptions,
  ): Promise<Tensor> {
    checkOptions(`${this.#definition.owner}.forwardAsync`, options, ['device', 'signal']);
    const { value } = await this.#evaluateAsync(input, target, false, options ?? {});
    return value;
  }

  /** `valueAndGrad` off the event loop. The arrays must stay as they are until the promise settles. */
  async valueAndGradAsync(
    input: TensorLike,
    target: TensorLike,
    options?: GradOptions & AsyncOptions,
  ): Promise<ValueAndGrad> {
    checkOptions(`${this.#definition.owner}.valueAndGradAsync`, options, [
      'gradOutput',
      'out',
      'device',
      'signal',
    ]);
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
    refuseResizable(this.#definition.owner, prepared.arrays);
    prepared.arrays[0] = prepared.arrays[0].slice();
    if (signal?.aborted) throw abortError(signal.reason);
    const cancel = signal && new Int32Array(1);
    const onAbort = () => Atomics.store(cancel!, 0, 1);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await binding.evaluateAsync(cancel, ...prepared.arrays);
    } catch (error) {
      throw (error as { code?: unknown }).code === 'ERR_ABORTED' ? abortError(signal?.reason) : error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
    return prepared;
  }

  #prepare(input: TensorLike, target: TensorLike, wantsGrad: boolean, options: GradOptions): Prepared {
    const { owner, classAxis = -1, rank, divisor, numSplits } = this.#definition;
    if (options.device !== undefined) resolveDevice(options.device);
    const header = this.#header;

    let x = asTensor(input, 'input');
    const { shape } = x;
    if (!isFloat(x.dtype)) {
      const hint =
        x.dtype === 'uint16' ? `; give dtype 'float16' or 'bfloat16' where its elements are those bits` : '';
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected input of dtype float32, float64, float16 or bfloat16, got ${x.dtype}${hint}`,
      );
    }
    const dtype = x.dtype;
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
    const rowShape = shape.filter((_, i) => i !== axis);
    let strides = rowStrides(x, axis);
    if (strides === undefined) {
      x = contiguous(x);
      strides = rowStrides(x, axis)!;
    }
    const outer = numel(shape.slice(0, axis));
    if (numSplits !== undefined && outer % numSplits !== 0) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected a batch that numSplits = ${numSplits} divides, got ${outer} rows (input ${showShape(shape)})`,
      );
    }
    header[slot.dtype] = dtypeCode[dtype]!;
    header[slot.outer] = outer;
    header[slot.inner] = numel(shape.slice(axis + 1));
    header[slot.classes] = classes;
    header[slot.inputOuterStride] = strides.outer;
    header[slot.inputInnerStride] = strides.inner;
    header[slot.inputClassStride] = strides.classes;
    header[slot.divisor] = divisor?.(shape) ?? 0;

    const { indices, dense } = this.#target(target, shape, rowShape, axis);
    const factors = this.#broadcastFactors(shape, classes, dtype);
    const scalar = this.reduction !== 'none';
    const outputShape = scalar ? [] : this.#entry.kind === 'elementwise' ? shape : rowShape;
    const gradOutput = this.#gradOutput(options.gradOutput, outputShape, dtype);
    const grad = wantsGrad
      ? this.#gradient(options.out, x, strides, axis, [indices?.data, dense?.data, gradOutput, ...factors])
      : undefined;
    const value = emptyTensor(outputShape, computeDType(dtype));
    const lens = this.#definition.lens;
    return {
      arrays: [
        header,
        x.data,
        indices?.data,
        lens ? lens.matrix.data : dense?.data,
        lens?.constants,
        factors[0],
        factors[1],
        gradOutput,
        value.data,
        grad?.data,
      ],
      value,
      grad,
    };
  }

  /** Tells class indices from dense targets by shape, checks them and writes their part of the header. */
  #target(
    target: TensorLike,
    shape: readonly number[],
    rowShape: readonly number[],
    axis: number,
  ): { indices?: Tensor; dense?: Tensor } {
    const { owner, targets, lens, numSplits } = this.#definition;
    const takesIndices = targets.includes('indices');
    const takesDense = targets.includes('dense');
    const isDense = (candidate: readonly number[]) =>
      takesDense && (!takesIndices || sameShape(candidate, shape));
    const t = asTensor(target, 'target', (candidate) => (isDense(candidate) ? 'values' : 'indices'));
    const header = this.#header;

    if (isDense(t.shape)) {
      if (!sameShape(t.shape, shape)) {
        throw rangeError(
          'ERR_SHAPE',
          `${owner}: expected a target of the input's shape ${showShape(shape)}, got ${showShape(t.shape)}`,
        );
      }
      if (takesIndices && !isFloat(t.dtype) && this.#entry.kind !== 'elementwise') {
        throw typeError(
          'ERR_DTYPE',
          `${owner}: a target of the input's shape ${showShape(shape)} is class probabilities, which must be floating, ` +
            `got ${t.dtype}; class indices have the shape ${showShape(rowShape)}`,
        );
      }
      // Integers are multi-hot labels; few enough losses take them that a converted copy serves.
      let dense = isFloat(t.dtype) ? t : new Tensor(valuesAs(t, 'float32'), t.shape, 'float32');
      let strides = rowStrides(dense, axis);
      if (strides === undefined) {
        dense = contiguous(dense);
        strides = rowStrides(dense, axis)!;
      }
      header[slot.denseDtype] = dtypeCode[dense.dtype]!;
      header[slot.denseOuterStride] = strides.outer;
      header[slot.denseInnerStride] = strides.inner;
      header[slot.denseClassStride] = strides.classes;
      header[slot.denseByIndex] = 0;
      return { dense };
    }

    if (isFloat(t.dtype) || t.dtype === 'bool') {
      const dense = takesDense ? `, or class probabilities of the input's shape ${showShape(shape)}` : '';
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected class indices of an integer dtype and shape ${showShape(rowShape)}${dense}, ` +
          `got ${t.dtype} of shape ${showShape(t.shape)}`,
      );
    }
    const batch = numSplits === undefined ? 0 : shape[0]! / numSplits;
    const fits =
      numSplits === undefined ? sameShape(t.shape, rowShape) : t.shape.length === 1 && t.shape[0]! >= batch;
    if (!fits) {
      const expected =
        numSplits === undefined
          ? showShape(rowShape)
          : `[${batch}] (input rows / numSplits = ${shape[0]} / ${numSplits}; longer is taken, its first ${batch} used)`;
      const dense = takesDense ? ` or class probabilities of shape ${showShape(shape)}` : '';
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected class indices of shape ${expected}${dense} for input of shape ${showShape(shape)}, ` +
          `got ${showShape(t.shape)}`,
      );
    }
    const indices = contiguous(t);
    header[slot.indicesDtype] = dtypeCode[indices.dtype]!;
    if (lens !== undefined) {
      const classes = shape[axis]!;
      if (lens.matrix.shape[0] !== classes) {
        throw rangeError(
          'ERR_SHAPE',
          `${owner}: confusionLens is ${showShape(lens.matrix.shape)}, but the input ${showShape(shape)} has ${classes} classes`,
        );
      }
      header[slot.denseDtype] = dtypeCode[lens.matrix.dtype]!;
      header[slot.denseOuterStride] = classes;
      header[slot.denseInnerStride] = 0;
      header[slot.denseClassStride] = 1;
      header[slot.denseByIndex] = 1;
    }
    return { indices };
  }

  #broadcastFactors(
    shape: readonly number[],
    classes: number,
    dtype: FloatDType,
  ): [weight: TypedArray | undefined, posWeight: TypedArray | undefined] {
    const { owner, weight, posWeight, weightPerClass } = this.#definition;
    if (weight === undefined && posWeight === undefined) return [undefined, undefined];
    const values = (name: string, factor: Tensor) => {
      const key = `${name} ${computeDType(dtype)}`;
      let data = this.#factors.get(key);
      if (data === undefined) this.#factors.set(key, (data = valuesAs(factor, computeDType(dtype))));
      return data;
    };
    const header = this.#header;
    if (weight !== undefined) {
      if (weightPerClass && !sameShape(weight.shape, [classes])) {
        throw rangeError(
          'ERR_SHAPE',
          `${owner}: expected weight of shape [${classes}], one a class of input ${showShape(shape)}, ` +
            `got ${showShape(weight.shape)}`,
        );
      }
      const strides = weightPerClass
        ? { row: 0, classes: 1 }
        : broadcastStrides(owner, 'weight', weight, shape);
      header[slot.weightRowStride] = strides.row;
      header[slot.weightClassStride] = strides.classes;
    }
    if (posWeight !== undefined) {
      const strides = broadcastStrides(owner, 'posWeight', posWeight, shape);
      header[slot.posWeightRowStride] = strides.row;
      header[slot.posWeightClassStride] = strides.classes;
    }
    return [weight && values('weight', weight), posWeight && values('posWeight', posWeight)];
  }

  /** Puts a number into the header, or gives the array of one value an output. */
  #gradOutput(
    gradOutput: GradOutput | undefined,
    outputShape: readonly number[],
    dtype: FloatDType,
  ): TypedArray | undefined {
    this.#header[slot.gradOutput] = 1;
    if (gradOutput === undefined) return undefined;
    if (typeof gradOutput === 'number') {
      this.#header[slot.gradOutput] = gradOutput;
      return undefined;
    }
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
    if (outputShape.length === 0) {
      this.#header[slot.gradOutput] = given.item();
      return undefined;
    }
    return valuesAs(given, computeDType(dtype));
  }

  /** The caller's memory for the gradient once it is safe to write to, or new memory. */
  #gradient(
    out: GradOptions['out'],
    x: Tensor,
    inputStrides: Strides,
    axis: number,
    others: readonly (TypedArray | undefined)[],
  ): Tensor {
    const { owner } = this.#definition;
    const { shape, dtype } = x;
    checkOptions(`${owner}: out`, out, ['grad']);
    if (out?.grad === undefined) {
      const grad = new Tensor(allocate(dtype, numel(shape)), shape, dtype);
      this.#gradStrides(rowStrides(grad, axis)!);
      return grad;
    }
    const grad = asTensor(out.grad, 'out.grad');
    if (grad.dtype !== dtype) {
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected out.grad of the input's dtype ${dtype}, got ${grad.dtype}`,
      );
    }
    if (!sameShape(grad.shape, shape)) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected out.grad of the input's shape ${showShape(shape)}, got ${showShape(grad.shape)}`,
      );
    }
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
    const same =
      grad.data.byteOffset === x.data.byteOffset &&
      strides.outer === inputStrides.outer &&
      strides.inner === inputStrides.inner &&
      strides.classes === inputStrides.classes;
    if (overlap(grad.data, x.data) && !same) {
      throw rangeError(
        'ERR_ALIAS',
        `${owner}: out.grad overlaps the input in part; give the input itself or separate memory`,
      );
    }
    if (others.some((other) => other !== undefined && overlap(grad.data, other))) {
      throw rangeError('ERR_ALIAS', `${owner}: out.grad overlaps another argument; give separate memory`);
    }
    this.#gradStrides(strides);
    return grad;
  }

  #gradStrides(strides: Strides): void {
    this.#header[slot.gradOuterStride] = strides.outer;
    this.#header[slot.gradInnerStride] = strides.inner;
    this.#header[slot.gradClassStride] = strides.classes;
  }
}
