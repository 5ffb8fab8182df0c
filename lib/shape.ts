// Shapes and strides.

import { describe, rangeError, typeError } from './errors.js';

/** The number of elements; of the dimensions [from, to) where these are given. */
export function numel(shape: readonly number[], from = 0, to = shape.length): number {
  let count = 1;
  for (let i = from; i < to; i++) count *= shape[i]!;
  return count;
}

export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  for (let i = shape.length - 1, stride = 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= shape[i]!;
  }
  return strides;
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) {
    if (a[i] !== b[i]) return false;
  }
  return true;
}

export const showShape = (shape: readonly number[]): string => `[${shape.join(', ')}]`;

/** Whether this is a number of elements or bytes. */
export const isSize = (size: unknown): boolean => Number.isSafeInteger(size) && (size as number) >= 0;

/** A copy of a shape from outside. */
export function checkShape(name: string, shape: unknown): readonly number[] {
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    const shown = Array.isArray(shape) ? `[${shape.map(describe).join(', ')}]` : describe(shape);
    throw typeError('ERR_SHAPE', `${name}: expected a shape of non-negative integers, got ${shown}`);
  }
  return [...(shape as number[])];
}

/** The same of strides. Undefined ones stay so: row-major. */
export function checkStrides(
  name: string,
  strides: unknown,
  shape: readonly number[],
): readonly number[] | undefined {
  if (strides === undefined) return undefined;
  const checked = checkShape(`${name}.strides`, strides);
  if (checked.length !== shape.length) {
    throw rangeError(
      'ERR_SHAPE',
      `${name}: expected a stride for each dimension of ${showShape(shape)}, got ${showShape(checked)}`,
    );
  }
  return checked;
}

/** Number of elements from the first to the last that these strides reach. */
export function extent(shape: readonly number[], strides: readonly number[]): number {
  let last = 0;
  for (let i = 0; i < shape.length; i++) {
    if (shape[i] === 0) return 0;
    last += (shape[i]! - 1) * strides[i]!;
  }
  return last + 1;
}
