import { binding, dtypeCode } from '../binding.js';
import type { DType } from '../dtype.js';
import { contiguous, Tensor } from '../tensor.js';
import type { Bbox } from './bbox.js';

export type Pixels = Float32Array | Float64Array | Uint8Array | Uint8ClampedArray | Uint16Array;

/** What happens to one row: λ of it stays, the rest comes from its partner, as a box of pixels or as a sum. */
export interface RowPlan {
  readonly lam: number;
  readonly bbox?: Bbox;
}

const isNarrow = (dtype: DType): boolean => dtype === 'float16' || dtype === 'bfloat16';

/** The elements as they are copied: of float16 and bfloat16 the bits, also where a Float16Array holds them. */
export function pixelsOf({ data, dtype }: Tensor): Pixels {
  return isNarrow(dtype) ? new Uint16Array(data.buffer, data.byteOffset, data.length) : (data as Pixels);
}

/** `pixelsOf`, in row-major order. */
export function contiguousPixels(images: Tensor): Pixels {
  const { shape, strides, dtype } = images;
  return contiguous(new Tensor(pixelsOf(images), shape, dtype, strides)).data as Pixels;
}

/** A mixed row goes to `target`, which may be the memory of `own`, but not of `other`. */
export type RowMixer = (target: Pixels, own: Pixels, other: Pixels, plan: RowPlan) => void;

export function rowMixer(
  dtype: DType,
  [channels, height, width]: readonly [number, number, number],
): RowMixer {
  const paste = (target: Pixels, other: Pixels, { yl, yh, xl, xh }: Bbox): void => {
    for (let channel = 0; channel < channels; channel++) {
      for (let y = yl; y < yh; y++) {
        const line = (channel * height + y) * width;
        for (let at = line + xl; at < line + xh; at++) target[at] = other[at]!;
      }
    }
  };
  const blend = (target: Pixels, own: Pixels, other: Pixels, lam: number): void => {
    const rest = 1 - lam;
    for (let at = 0; at < target.length; at++) target[at] = own[at]! * lam + other[at]! * rest;
  };
  const blendNarrow = (): typeof blend => {
    const code = dtypeCode[dtype]!;
    const wide = dtypeCode['float64']!;
    const ownWide = new Float64Array(channels * height * width);
    const otherWide = new Float64Array(channels * height * width);
    return (target, own, other, lam) => {
      binding.convert(own, code, ownWide, wide);
      binding.convert(other, code, otherWide, wide);
      blend(ownWide, ownWide, otherWide, lam);
      binding.convert(ownWide, wide, target, code);
    };
  };
  const blendBytes: typeof blend = (target, own, other, lam) =>
    // A Uint8ClampedArray rounds what is written into it, half to even as np.rint does.
    blend(new Uint8ClampedArray(target.buffer, target.byteOffset, target.length), own, other, lam);
  const blendRow = isNarrow(dtype) ? blendNarrow() : dtype === 'uint8' ? blendBytes : blend;
  return (target, own, other, { lam, bbox }) => {
    if (bbox === undefined && lam !== 1) {
      blendRow(target, own, other, lam);
    } else {
      target.set(own);
      if (bbox !== undefined) paste(target, other, bbox);
    }
  };
}
