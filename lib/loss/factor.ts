// weight and posWeight: factors that are broadcast against the input.

import { computeDType, isFloat, type FloatDType, type TypedArray } from '../dtype.js';
import { rangeError, typeError } from '../errors.js';
import { numel, sameShape, showShape } from '../shape.js';
import { asTensor, hostValuesAs, tensor, Tensor, type TensorLike } from '../tensor.js';

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
  return new Tensor(hostValuesAs(given, 'float64').slice(), given.shape, 'float64');
}

/** A factor as a call reads it: in the compute dtype, with strides that broadcast it over rows × classes. */
export interface Factor {
  readonly values: TypedArray;
  readonly row: number;
  readonly classes: number;
}

/** A loss's factor, for calls of any shape and dtype. */
export class BroadcastFactor {
  readonly #owner: string;
  readonly #name: string;
  readonly #factor: Tensor;
  readonly #perClass: boolean;
  /** In the compute dtypes that calls have asked for. */
  readonly #values = new Map<FloatDType, TypedArray>();

  /** Of one factor a class alone where `perClass` says so. */
  constructor(owner: string, name: string, factor: Tensor, perClass = false) {
    if (perClass && factor.shape.length !== 1) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected ${name} of shape [C], got ${showShape(factor.shape)}`,
      );
    }
    this.#owner = owner;
    this.#name = name;
    this.#factor = factor;
    this.#perClass = perClass;
  }

  /** For an input of this shape, number of classes and dtype. */
  over(shape: readonly number[], classes: number, dtype: FloatDType): Factor {
    const { row, classes: step } = this.#perClass
      ? this.#stridesPerClass(shape, classes)
      : this.#strides(shape);
    return { values: this.#valuesIn(computeDType(dtype)), row, classes: step };
  }

  #valuesIn(dtype: FloatDType): TypedArray {
    let values = this.#values.get(dtype);
    if (values === undefined) this.#values.set(dtype, (values = hostValuesAs(this.#factor, dtype)));
    return values;
  }

  #stridesPerClass(shape: readonly number[], classes: number): { row: number; classes: number } {
    if (!sameShape(this.#factor.shape, [classes])) {
      throw rangeError(
        'ERR_SHAPE',
        `${this.#owner}: expected ${this.#name} of shape [${classes}], one a class of input ${showShape(shape)}, ` +
          `got ${showShape(this.#factor.shape)}`,
      );
    }
    return { row: 0, classes: 1 };
  }

  /** Strides that broadcast it over rows × classes. */
  #strides(shape: readonly number[]): { row: number; classes: number } {
    const factor = this.#factor;
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
      `${this.#owner}: ${this.#name} of shape ${showShape(factor.shape)} does not broadcast to the input's ${showShape(shape)}; ` +
        `give a number, [${classes}], or the input's shape`,
    );
  }
}
