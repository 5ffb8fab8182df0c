import type { NativeArray } from '../binding.js';
import { contiguous, isContiguous, type Tensor } from './tensor.js';

/** Steps between rows, outer and inner, and between the classes of one row, in elements. */
export interface Strides {
  readonly outer: number;
  readonly inner: number;
  readonly classes: number;
}

/** One stride for a run of dimensions, or undefined where they do not collapse to one. */
function collapse(
  shape: readonly number[],
  strides: readonly number[],
  from: number,
  to: number,
): number | undefined {
  let stride: number | undefined;
  let expected = 0;
  for (let i = to - 1; i >= from; i--) {
    if (shape[i] === 1) continue;
    if (stride === undefined) stride = strides[i]!;
    else if (strides[i] !== expected) return undefined;
    expected = strides[i]! * shape[i]!;
  }
  return stride ?? 1;
}

/** A tensor's strides seen as (outer, class, inner), or undefined where its dimensions do not collapse to that. */
export function rowStrides({ shape, strides }: Tensor, axis: number): Strides | undefined {
  const outer = collapse(shape, strides, 0, axis);
  const inner = collapse(shape, strides, axis + 1, shape.length);
  return outer === undefined || inner === undefined
    ? undefined
    : { outer, inner, classes: strides[axis] ?? 1 };
}

/** A tensor as rows: its own memory, or a contiguous copy's where its strides do not allow that. */
export interface Rows {
  readonly tensor: Tensor;
  readonly strides: Strides;
}

export function asRows(tensor: Tensor, axis: number): Rows {
  const strides = rowStrides(tensor, axis);
  if (strides !== undefined) return { tensor, strides };
  const copy = contiguous(tensor);
  return { tensor: copy, strides: rowStrides(copy, axis)! };
}

/** True when `shape` is `whole` without its dimension `axis`. */
export function isShapeWithout(shape: readonly number[], whole: readonly number[], axis: number): boolean {
  if (shape.length !== whole.length - 1) return false;
  for (let i = 0; i < shape.length; i++) {
    if (shape[i] !== whole[i < axis ? i : i + 1]) return false;
  }
  return true;
}

/** True when two elements of a tensor share memory, so that it can't be written to. */
export function overlapsItself(tensor: Tensor): boolean {
  if (isContiguous(tensor)) return false;
  const { shape, strides } = tensor;
  const dims = shape
    .map((size, i) => ({ size, stride: strides[i]! }))
    .filter(({ size }) => size > 1)
    .sort((a, b) => a.stride - b.stride);
  let reach = 0;
  for (const { size, stride } of dims) {
    if (stride <= reach) return true;
    reach += (size - 1) * stride;
  }
  return false;
}

/** True when two memories that share bytes begin at the same one. */
export function startsWith(a: NativeArray, b: NativeArray): boolean {
  return ArrayBuffer.isView(a) && ArrayBuffer.isView(b) ? a.byteOffset === b.byteOffset : a === b;
}

/** True when two memories share bytes. Each of a GPU's is one of its own. */
export function overlap(a: NativeArray, b: NativeArray): boolean {
  if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b)) return a === b;
  return (
    a.buffer === b.buffer &&
    a.byteOffset < b.byteOffset + b.byteLength &&
    b.byteOffset < a.byteOffset + a.byteLength
  );
}
