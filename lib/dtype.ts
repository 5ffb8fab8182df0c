// The dtypes of a tensor's elements, and the typed arrays that hold them.

import { describe, rangeError, typeError } from './errors.js';

export type FloatDType = 'float32' | 'float64' | 'float16' | 'bfloat16';
export type IntegerDType =
  'int8' | 'uint8' | 'int16' | 'uint16' | 'int32' | 'uint32' | 'int64' | 'uint64' | 'bool';
export type DType = FloatDType | IntegerDType;

export type TypedArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** The typed array that holds each dtype, by the name of its constructor. */
const holders: Record<DType, readonly string[]> = {
  float32: ['Float32Array'],
  float64: ['Float64Array'],
  float16: ['Uint16Array', 'Float16Array'],
  bfloat16: ['Uint16Array'],
  int8: ['Int8Array'],
  uint8: ['Uint8Array', 'Uint8ClampedArray'],
  int16: ['Int16Array'],
  uint16: ['Uint16Array'],
  int32: ['Int32Array'],
  uint32: ['Uint32Array'],
  int64: ['BigInt64Array'],
  uint64: ['BigUint64Array'],
  bool: ['Uint8Array'],
};

export const isFloat = (dtype: string): dtype is FloatDType =>
  dtype === 'float32' || dtype === 'float64' || dtype === 'float16' || dtype === 'bfloat16';

/** The dtype a loss of this input is computed and returned in. */
export const computeDType = (dtype: FloatDType): 'float32' | 'float64' =>
  dtype === 'float64' ? 'float64' : 'float32';

function holderName(data: object): string {
  return (data as { [Symbol.toStringTag]?: string })[Symbol.toStringTag] ?? '';
}

/** The dtype a typed array has when nothing else is said, by the name of its constructor. */
const naturalDTypes = new Map<string, DType>([['Float16Array', 'float16']]);
for (const [dtype, names] of Object.entries(holders) as [DType, readonly string[]][]) {
  // A Uint8Array is integers before it is bools, and a Uint16Array before it is the bits of half precision.
  if (dtype === 'float16' || dtype === 'bfloat16' || dtype === 'bool') continue;
  for (const name of names) naturalDTypes.set(name, dtype);
}

/** Whether `name` is a dtype. */
export const isDType = (name: unknown): name is DType =>
  typeof name === 'string' && Object.hasOwn(holders, name);

/** The names of all dtypes, as errors list them. */
export const knownDTypes = Object.keys(holders).join(', ');

/** The dtype of elements that `data` holds: the one that is asked for, or the natural one. */
export function checkDType(name: string, data: ArrayBufferView, dtype: unknown): DType {
  if (dtype === undefined) {
    const natural = naturalDTypes.get(holderName(data));
    if (natural !== undefined) return natural;
    throw typeError('ERR_DTYPE', `${name}: expected a typed array of numbers as data, got ${describe(data)}`);
  }
  if (!isDType(dtype)) {
    throw typeError('ERR_DTYPE', `${name}: expected a dtype among ${knownDTypes}, got ${describe(dtype)}`);
  }
  const names = holders[dtype];
  if (!names.includes(holderName(data))) {
    throw typeError(
      'ERR_DTYPE',
      `${name}: dtype ${dtype} is held by ${names.join(' or ')}, got ${describe(data)}`,
    );
  }
  return dtype;
}

/** Bytes of an element. */
export const elementSize = (dtype: DType): number => allocateUnchecked(dtype, 0).BYTES_PER_ELEMENT;

/** A new typed array that holds `length` elements of `dtype`. */
export function allocate(dtype: DType, length: number): TypedArray {
  try {
    return allocateUnchecked(dtype, length);
  } catch (cause) {
    throw Object.assign(rangeError('ERR_OUT_OF_MEMORY', `no memory for ${length} elements of ${dtype}`), {
      cause,
    });
  }
}

function allocateUnchecked(dtype: DType, length: number): TypedArray {
  switch (dtype) {
    case 'float32':
      return new Float32Array(length);
    case 'float64':
      return new Float64Array(length);
    case 'int8':
      return new Int8Array(length);
    case 'uint8':
    case 'bool':
      return new Uint8Array(length);
    case 'int16':
      return new Int16Array(length);
    case 'int32':
      return new Int32Array(length);
    case 'uint32':
      return new Uint32Array(length);
    case 'int64':
      return new BigInt64Array(length);
    case 'uint64':
      return new BigUint64Array(length);
    default:
      return new Uint16Array(length);
  }
}
