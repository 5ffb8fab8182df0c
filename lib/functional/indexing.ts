import { oneHot as oneHotRows } from '../data/mixup.js';
import { isFloat, type TypedArray } from '../dtype.js';
import { describe, rangeError, typeError } from '../errors.js';
import { checkOptions } from '../options.js';
import { numel, showShape } from '../shape.js';
import { asTensor, contiguous, emptyTensor, Tensor, type TensorLike } from '../tensor.js';
import { resolveDim, type DimOptions } from './softmax.js';

/** Indices of an integer dtype. */
function integers(owner: string, name: string, value: TensorLike): Tensor {
  const given = asTensor(value, name, 'indices');
  if (isFloat(given.dtype) || given.dtype === 'bool') {
    throw typeError('ERR_DTYPE', `${owner}: expected ${name} of an integer dtype, got ${given.dtype}`);
  }
  return given;
}

/** The classes that `numClasses` says, or that the largest label needs. */
function countClasses(target: Tensor, numClasses: unknown): number {
  if (numClasses !== -1) {
    if (Number.isSafeInteger(numClasses) && (numClasses as number) >= 1) return numClasses as number;
    const error = typeof numClasses === 'number' ? rangeError : typeError;
    throw error(
      'ERR_OPTION',
      `oneHot: expected an integer of at least 1 for numClasses, or -1 for the largest label plus 1, ` +
        `got ${describe(numClasses)}`,
    );
  }
  if (numel(target.shape) === 0) {
    throw rangeError(
      'ERR_SHAPE',
      `oneHot: expected labels to take numClasses from, got an empty target of shape ${showShape(target.shape)}; ` +
        `give numClasses`,
    );
  }
  let largest = 0;
  for (const label of contiguous(target).data) largest = Math.max(largest, Number(label));
  return largest + 1;
}

/**
 * Class indices as rows of zeros with a single 1, as `torch.nn.functional.one_hot`. The result is float32 where
 * torch's is int64, because what takes it here is floating: it can be the dense target of a loss, or logits. For other
 * values than 0 and 1 see `oneHot` of surprisal/data.
 *
 * @param target - class indices of any shape and integer dtype
 * @param numClasses - C; -1 takes the largest label plus 1
 * @returns float32, [...target.shape, C]
 * @throws ERR_TARGET_OUT_OF_RANGE for a label outside [0, C), with its row, ERR_DTYPE, ERR_OPTION, and ERR_SHAPE for an
 * empty target without `numClasses`
 */
export function oneHot(target: TensorLike, numClasses = -1): Tensor {
  const labels = integers('oneHot', 'target', target);
  const classes = countClasses(labels, numClasses);
  return new Tensor(oneHotRows(labels, classes).data, [...labels.shape, classes], 'float32');
}

/** The elements as an array that copies bits: of a Float16Array, its bits. */
function elements({ data, dtype }: Tensor): TypedArray {
  if (dtype !== 'float16' || data instanceof Uint16Array) return data;
  const { buffer, byteOffset, length } = data as TypedArray;
  return new Uint16Array(buffer, byteOffset, length);
}

/** The place of the `flat`-th element in row-major order. */
function position(shape: readonly number[], flat: number): number[] {
  const place = new Array<number>(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    place[axis] = flat % shape[axis]!;
    flat = Math.floor(flat / shape[axis]!);
  }
  return place;
}

/**
 * Elements picked along one dimension, as `torch.gather`: for rank 3 and dim 1,
 * `result[i][j][k] = input[i][index[i][j][k]][k]`. With log probabilities [N, C] and index [N, 1] it picks the labels'.
 *
 * @param input - of any dtype and rank; a 0-d one counts as [1]
 * @param index - of any integer dtype and of the input's rank; in every dimension but `dim` at most the input's size
 * @returns the input's dtype and the index's shape, contiguous
 * @throws ERR_TARGET_OUT_OF_RANGE for an index outside [0, input.shape[dim]), with its place, ERR_DTYPE, ERR_SHAPE,
 * ERR_OPTION for a dimension that is not there
 */
export function gather(input: TensorLike, index: TensorLike, options?: DimOptions): Tensor {
  const owner = 'gather';
  const { dim = -1 } = checkOptions(owner, options, ['dim']);
  const source = asTensor(input, 'input');
  const picks = integers(owner, 'index', index);
  const { shape } = source;
  const axis = resolveDim(owner, dim, shape.length);
  const rank = picks.shape.length;
  if (rank !== shape.length || picks.shape.some((size, i) => i !== axis && size > shape[i]!)) {
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected index of the input's rank and, but for dimension ${axis}, of at most its sizes ` +
        `${showShape(shape)}, got ${showShape(picks.shape)}`,
    );
  }
  const size = shape[axis] ?? 1;
  const indices = contiguous(picks).data;
  for (let i = 0; i < indices.length; i++) {
    if (!(indices[i]! >= 0 && indices[i]! < size)) {
      throw rangeError(
        'ERR_TARGET_OUT_OF_RANGE',
        `${owner}: expected indices in [0, ${size}) for input of shape ${showShape(shape)}, but index ` +
          `${showShape(position(picks.shape, i))} has ${indices[i]}`,
      );
    }
  }

  const result = emptyTensor(picks.shape, source.dtype);
  const from = elements(source) as Float64Array;
  const to = result.data as Float64Array;
  const steps = source.strides.map((stride, i) => (i === axis ? 0 : stride));
  const step = source.strides[axis] ?? 0;
  const counter = new Array<number>(rank).fill(0);
  for (let i = 0, offset = 0; i < to.length; i++) {
    to[i] = from[offset + Number(indices[i]) * step]!;
    for (let d = rank - 1; d >= 0; d--) {
      offset += steps[d]!;
      if (++counter[d]! < picks.shape[d]!) break;
      offset -= counter[d]! * steps[d]!;
      counter[d] = 0;
    }
  }
  return result;
}
