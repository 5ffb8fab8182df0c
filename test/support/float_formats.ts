/**
 * Rounding to float16 and bfloat16 and their bits, by exact arithmetic on doubles: on purpose another way than the
 * library's, which works on bits.
 */
import { tensor, type FloatDType, type Tensor } from 'surprisal';

export const floatDTypes: readonly FloatDType[] = ['float32', 'float64', 'float16', 'bfloat16'];

interface Format {
  /** Bits of the significand, the hidden one included. */
  readonly precision: number;
  /** Exponents of the smallest and the largest normal numbers. */
  readonly minExponent: number;
  readonly maxExponent: number;
}

const formats: Readonly<Record<FloatDType, Format>> = {
  float16: { precision: 11, minExponent: -14, maxExponent: 15 },
  bfloat16: { precision: 8, minExponent: -126, maxExponent: 127 },
  float32: { precision: 24, minExponent: -126, maxExponent: 127 },
  float64: { precision: 53, minExponent: -1022, maxExponent: 1023 },
};

export type HalfDType = 'float16' | 'bfloat16';

export const isHalf = (dtype: string): dtype is HalfDType => dtype === 'float16' || dtype === 'bfloat16';

const view = new DataView(new ArrayBuffer(8));

/** ⌊log₂ |x|⌋ of a finite number; −1023 for 0 and subnormal ones. */
function exponentOf(x: number): number {
  view.setFloat64(0, x);
  return ((view.getUint16(0) >> 4) & 0x7ff) - 1023;
}

/** The distance between neighbours in `dtype` at |x|. */
function ulp(x: number, dtype: FloatDType): number {
  const { precision, minExponent, maxExponent } = formats[dtype];
  const exponent = Math.min(Math.max(exponentOf(x), minExponent), maxExponent);
  return 2 ** (exponent - precision + 1);
}

/** Half of the distance between neighbours in `dtype` at |x|: the most that one rounding can change. */
export const halfUlp = (x: number, dtype: FloatDType): number => ulp(x, dtype) / 2;

/** `x` in `dtype`, to nearest, ties to even; what overflows becomes infinite. */
export function roundTo(x: number, dtype: FloatDType): number {
  if (dtype === 'float64' || x === 0 || !Number.isFinite(x)) return x;
  const { precision, maxExponent } = formats[dtype];
  const step = ulp(x, dtype);
  const steps = Math.abs(x) / step;
  const floor = Math.floor(steps);
  const above = steps - floor;
  const up = above > 0.5 || (above === 0.5 && floor % 2 === 1);
  const rounded = (floor + (up ? 1 : 0)) * step;
  const largest = (2 - 2 ** (1 - precision)) * 2 ** maxExponent;
  return Math.sign(x) * (rounded > largest ? Infinity : rounded);
}

/** The bits of a number that `dtype` holds exactly. */
export function toBits(x: number, dtype: HalfDType): number {
  const { precision, minExponent, maxExponent } = formats[dtype];
  const fractionSize = 2 ** (precision - 1);
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const infinity = (2 * maxExponent + 1) * fractionSize;
  if (Number.isNaN(x)) return infinity + fractionSize / 2;
  if (!Number.isFinite(x)) return sign + infinity;
  const exponent = Math.max(exponentOf(x), minExponent);
  // A subnormal's hidden bit is 0, which takes one off the biased exponent.
  return sign + (exponent - minExponent) * fractionSize + Math.abs(x) / 2 ** (exponent - precision + 1);
}

export function fromBits(bits: number, dtype: HalfDType): number {
  const { precision, minExponent, maxExponent } = formats[dtype];
  const fractionSize = 2 ** (precision - 1);
  const sign = bits & 0x8000 ? -1 : 1;
  const magnitude = bits & 0x7fff;
  const biased = Math.floor(magnitude / fractionSize);
  const fraction = magnitude % fractionSize;
  if (biased === 2 * maxExponent + 1) return fraction === 0 ? sign * Infinity : NaN;
  const hidden = biased === 0 ? 0 : fractionSize;
  return sign * (hidden + fraction) * 2 ** (Math.max(biased - 1, 0) + minExponent - precision + 1);
}

/** A contiguous tensor of `values`, rounded to `dtype`. */
export function floatTensor(
  values: ArrayLike<number>,
  shape: readonly number[],
  dtype: FloatDType,
  memory: FloatArray = allocate(dtype, values.length),
): Tensor {
  const data = memory as Float64Array;
  for (let i = 0; i < values.length; i++) {
    data[i] = isHalf(dtype) ? toBits(roundTo(values[i]!, dtype), dtype) : values[i]!;
  }
  return tensor(memory, { shape, dtype });
}

export type FloatArray = Float32Array | Float64Array | Uint16Array;

export const bytesPerElement: Readonly<Record<FloatDType, number>> = {
  float16: 2,
  bfloat16: 2,
  float32: 4,
  float64: 8,
};

/** Memory for `length` elements of `dtype`: new and zeroed, or in `buffer` from `byteOffset` on. */
export function allocate(
  dtype: FloatDType,
  length: number,
  buffer: ArrayBufferLike = new ArrayBuffer(length * bytesPerElement[dtype]),
  byteOffset = 0,
): FloatArray {
  if (dtype === 'float32') return new Float32Array(buffer, byteOffset, length);
  if (dtype === 'float64') return new Float64Array(buffer, byteOffset, length);
  return new Uint16Array(buffer, byteOffset, length);
}

/** The elements of a contiguous tensor as numbers, exactly. */
export function valuesOf({ data, dtype }: Tensor): Float64Array {
  return isHalf(dtype)
    ? Float64Array.from(data as Uint16Array, (bits) => fromBits(bits, dtype))
    : Float64Array.from(data as ArrayLike<number | bigint>, Number);
}
