import { binding, dtypeCode, headerLength, slot } from '../binding.js';
import { resolveDevice } from '../device.js';
import { isFloat } from '../dtype.js';
import { rangeError, typeError } from '../errors.js';
import { asRows, rowStrides } from '../geometry.js';
import { checkOptions, numberOption } from '../options.js';
import { numel, sameShape, showShape } from '../shape.js';
import {
  asTensor,
  emptyTensor,
  memoryOf,
  requireSameDevice,
  type Tensor,
  type TensorLike,
} from '../tensor.js';

export interface DimOptions {
  /** The dimension that the function runs along; negative ones count from the last. Default -1. */
  dim?: number | undefined;
}

type RowMap = 'log_softmax' | 'softmax' | 'log_softmax_backward' | 'softmax_backward';

const registryIndex = new Map(binding.losses.map(({ name }, index) => [name, index]));
const none = binding.reductions.indexOf('none');

/** The dimension that `dim` names in a tensor of this rank; a 0-d tensor counts as [1], as in torch. */
export function resolveDim(owner: string, dim: unknown, rank: number): number {
  const dims = Math.max(rank, 1);
  const checked = numberOption(owner, 'dim', dim, { min: -dims, below: dims, integer: true });
  return checked < 0 ? checked + dims : checked;
}

/** A floating, non-empty argument. */
function floating(owner: string, name: string, value: TensorLike): Tensor {
  const given = asTensor(value, name);
  if (!isFloat(given.dtype)) {
    throw typeError(
      'ERR_DTYPE',
      `${owner}: expected ${name} of dtype float32, float64, float16 or bfloat16, got ${given.dtype}`,
    );
  }
  if (numel(given.shape) === 0) {
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected a non-empty ${name}, got shape ${showShape(given.shape)}`,
    );
  }
  return given;
}

/** Runs a map from rows to rows of the same length; `output` is the forward's result where a gradient is wanted. */
function mapRows(name: RowMap, input: Tensor, output: Tensor | undefined, axis: number): Tensor {
  const { shape } = input;
  const source = asRows(input, axis);
  const forward = output && asRows(output, axis);
  const device = resolveDevice(input.device);
  if (output !== undefined) requireSameDevice(name, 'output', output, 'gradOutput', input);
  const result = emptyTensor(shape, input.dtype, device);
  const resultStrides = rowStrides(result, axis)!;

  const header = new Float64Array(headerLength);
  header[slot.loss] = registryIndex.get(name)!;
  header[slot.dtype] = dtypeCode[input.dtype]!;
  header[slot.reduction] = none;
  header[slot.outer] = numel(shape, 0, axis);
  header[slot.inner] = numel(shape, axis + 1);
  header[slot.classes] = shape[axis] ?? 1;
  header[slot.inputOuterStride] = source.strides.outer;
  header[slot.inputInnerStride] = source.strides.inner;
  header[slot.inputClassStride] = source.strides.classes;
  header[slot.gradOuterStride] = resultStrides.outer;
  header[slot.gradInnerStride] = resultStrides.inner;
  header[slot.gradClassStride] = resultStrides.classes;
  header[slot.device] = device;
  header[slot.ignoreIndex] = NaN;
  header[slot.gradOutput] = 1;
  if (forward !== undefined) {
    header[slot.denseDtype] = dtypeCode[forward.tensor.dtype]!;
    header[slot.denseOuterStride] = forward.strides.outer;
    header[slot.denseInnerStride] = forward.strides.inner;
    header[slot.denseClassStride] = forward.strides.classes;
  }
  const dense = forward && memoryOf(forward.tensor);
  binding.evaluate(header, memoryOf(source.tensor), undefined, memoryOf(result), undefined, dense);
  return result;
}

function forwardMap(owner: string, name: RowMap, input: TensorLike, options: DimOptions | undefined): Tensor {
  const { dim = -1 } = checkOptions(owner, options, ['dim']);
  const x = floating(owner, 'input', input);
  return mapRows(name, x, undefined, resolveDim(owner, dim, x.shape.length));
}

function backwardMap(
  owner: string,
  name: RowMap,
  gradOutput: TensorLike,
  output: TensorLike,
  options: DimOptions | undefined,
): Tensor {
  const { dim = -1 } = checkOptions(owner, options, ['dim']);
  const g = floating(owner, 'gradOutput', gradOutput);
  const y = floating(owner, 'output', output);
  if (!sameShape(g.shape, y.shape)) {
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected gradOutput of the output's shape ${showShape(y.shape)}, got ${showShape(g.shape)}`,
    );
  }
  return mapRows(name, g, y, resolveDim(owner, dim, g.shape.length));
}

/**
 * Log probabilities, x − log Σ exp x along `dim`, in nats, as `torch.nn.functional.log_softmax`.
 *
 * Input of any shape and floating dtype; a 0-d one counts as [1]. Returns the input's shape and dtype, contiguous. A
 * logit of −Infinity gives −Infinity.
 *
 * @throws ERR_DTYPE, ERR_SHAPE for an empty input, ERR_OPTION for a dimension that is not there
 */
export function logSoftmax(input: TensorLike, options?: DimOptions): Tensor {
  return forwardMap('logSoftmax', 'log_softmax', input, options);
}

/**
 * Probabilities, exp x / Σ exp x along `dim`, as `torch.nn.functional.softmax`.
 *
 * Input of any shape and floating dtype; a 0-d one counts as [1]. Returns the input's shape and dtype, contiguous. A
 * logit of −Infinity gives 0.
 *
 * @throws ERR_DTYPE, ERR_SHAPE for an empty input, ERR_OPTION for a dimension that is not there
 */
export function softmax(input: TensorLike, options?: DimOptions): Tensor {
  return forwardMap('softmax', 'softmax', input, options);
}

/**
 * dL/d(input) of `logSoftmax`: g − exp(y)·Σ g along `dim`, with g = dL/d(output) and y the output; as torch's
 * `_log_softmax_backward_data`.
 *
 * gradOutput and output of one shape, floating. Returns that shape in the dtype of gradOutput, contiguous.
 *
 * @throws ERR_DTYPE, ERR_SHAPE, ERR_OPTION for a dimension that is not there
 */
export function logSoftmaxBackward(gradOutput: TensorLike, output: TensorLike, options?: DimOptions): Tensor {
  return backwardMap('logSoftmaxBackward', 'log_softmax_backward', gradOutput, output, options);
}

/**
 * dL/d(input) of `softmax`: y·(g − Σ g·y) along `dim`, with g = dL/d(output) and y the output; as torch's
 * `_softmax_backward_data`. Where its rounding keeps y from summing to 1, Σ g·y is divided by Σ y.
 *
 * gradOutput and output of one shape, floating. Returns that shape in the dtype of gradOutput, contiguous.
 *
 * @throws ERR_DTYPE, ERR_SHAPE, ERR_OPTION for a dimension that is not there
 */
export function softmaxBackward(gradOutput: TensorLike, output: TensorLike, options?: DimOptions): Tensor {
  return backwardMap('softmaxBackward', 'softmax_backward', gradOutput, output, options);
}
