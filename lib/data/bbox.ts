/** CutMix's boxes (Yun et al., arXiv:1905.04899), as timm.data.mixup draws them. */
import { describe, rangeError, typeError } from '../errors.js';
import { booleanOption, checkOptions, numberOption } from '../options.js';
import { randomOption, sharedRandom, type RandomSource } from './random.js';

/** Rows yl to yh − 1 and columns xl to xh − 1 of an image, in pixels. */
export interface Bbox {
  readonly yl: number;
  readonly yh: number;
  readonly xl: number;
  readonly xh: number;
}

export interface BboxAndLam {
  readonly bbox: Bbox;
  /** The share of the image that the box leaves. */
  readonly lam: number;
}

export interface RandBboxMinmaxOptions {
  /** Draw this many, and return an array. */
  count?: number | undefined;
  /** Where the draws come from. By default a generator of the process, seeded unpredictably. */
  random?: RandomSource;
}

export interface RandBboxOptions extends RandBboxMinmaxOptions {
  /** Share of the box's own size that its centre keeps away from the image's border. 0 by default. */
  margin?: number;
}

export interface CutmixBboxAndLamOptions extends RandBboxMinmaxOptions {
  /** Draw the box's height and width between these shares of the image's, instead of from lam. */
  ratioMinmax?: readonly [number, number] | null;
  /** Return the share that the box leaves after clipping, not the one asked for. true by default. */
  correctLam?: boolean;
}

export interface ImageSize {
  readonly height: number;
  readonly width: number;
}

function imageSize(owner: string, imgShape: unknown): ImageSize {
  const shape: readonly unknown[] = Array.isArray(imgShape) ? imgShape : [];
  const [height, width] = shape.slice(-2);
  const isSize = (size: unknown): size is number => Number.isSafeInteger(size) && (size as number) > 0;
  if (!isSize(height) || !isSize(width)) {
    const shown = Array.isArray(imgShape) ? `[${shape.map(describe).join(', ')}]` : describe(imgShape);
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected imgShape [..., height, width] of positive integers, got ${shown}`,
    );
  }
  return { height, width };
}

export function checkMinmax(owner: string, name: string, minmax: unknown): readonly [number, number] {
  const pair: readonly unknown[] = Array.isArray(minmax) ? minmax : [];
  const [min, max] = pair as readonly number[];
  if (pair.length !== 2 || !pair.every(Number.isFinite) || !(min! >= 0 && min! < max! && max! <= 1)) {
    const shown = Array.isArray(minmax) ? `[${pair.map(describe).join(', ')}]` : describe(minmax);
    const error = pair.every((x) => typeof x === 'number') && pair.length > 0 ? rangeError : typeError;
    throw error(
      'ERR_OPTION',
      `${owner}: expected two shares [min, max] with 0 ≤ min < max ≤ 1 for ${name}, got ${shown}`,
    );
  }
  return [min!, max!];
}

/** Refuses an image in which no whole number of pixels lies between the two shares. */
export function checkMinmaxFits(
  owner: string,
  { height, width }: ImageSize,
  [min, max]: readonly [number, number],
): void {
  for (const size of [height, width]) {
    if (Math.trunc(size * min) >= Math.trunc(size * max)) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: an image of ${height}x${width} pixels is too small for boxes between ${min} and ${max} of its size; ` +
          `expected trunc(${size}·${min}) < trunc(${size}·${max})`,
      );
    }
  }
}

const clip = (x: number, max: number): number => Math.min(Math.max(x, 0), max);

/** Side of a box that covers 1 − λ of the image, in pixels. */
const cutSize = (size: number, lam: number): number => Math.trunc(size * Math.sqrt(1 - lam));

function drawBbox(random: RandomSource, { height, width }: ImageSize, lam: number, margin: number): Bbox {
  const [cutH, cutW] = [cutSize(height, lam), cutSize(width, lam)];
  const [marginY, marginX] = [Math.trunc(margin * cutH), Math.trunc(margin * cutW)];
  const cy = marginY + random.integer(height - 2 * marginY);
  const cx = marginX + random.integer(width - 2 * marginX);
  const [halfH, halfW] = [Math.floor(cutH / 2), Math.floor(cutW / 2)];
  return {
    yl: clip(cy - halfH, height),
    yh: clip(cy + halfH, height),
    xl: clip(cx - halfW, width),
    xh: clip(cx + halfW, width),
  };
}

function drawBboxMinmax(random: RandomSource, size: ImageSize, [min, max]: readonly [number, number]): Bbox {
  const between = (low: number, high: number): number => low + random.integer(high - low);
  const cutH = between(Math.trunc(size.height * min), Math.trunc(size.height * max));
  const cutW = between(Math.trunc(size.width * min), Math.trunc(size.width * max));
  const yl = random.integer(size.height - cutH);
  const xl = random.integer(size.width - cutW);
  return { yl, yh: yl + cutH, xl, xh: xl + cutW };
}

export function drawBboxAndLam(
  random: RandomSource,
  size: ImageSize,
  lam: number,
  minmax: readonly [number, number] | null,
  correctLam: boolean,
): BboxAndLam {
  const bbox = minmax === null ? drawBbox(random, size, lam, 0) : drawBboxMinmax(random, size, minmax);
  if (minmax === null && !correctLam) return { bbox, lam };
  const area = (bbox.yh - bbox.yl) * (bbox.xh - bbox.xl);
  return { bbox, lam: 1 - area / (size.height * size.width) };
}

function repeat<T>(owner: string, count: number | undefined, draw: () => T): T | T[] {
  if (count === undefined) return draw();
  return Array.from(
    { length: numberOption(owner, 'count', count, { min: 0, below: 2 ** 32, integer: true }) },
    draw,
  );
}

/**
 * CutMix's box: timm.data.mixup.rand_bbox. It covers 1 − λ of the image, is as wide for its height as the image, and
 * is clipped at the border around a centre drawn evenly.
 *
 * @param imgShape [..., H, W], in pixels.
 * @param lam The share to leave, in [0, 1].
 * @returns A box, or with `count` that many.
 * @throws ERR_SHAPE, ERR_OPTION; also for a margin that leaves the centre no room.
 */
export function randBbox(
  imgShape: readonly number[],
  lam: number,
  options?: RandBboxOptions & { count?: undefined },
): Bbox;
export function randBbox(
  imgShape: readonly number[],
  lam: number,
  options: RandBboxOptions & { count: number },
): Bbox[];
export function randBbox(
  imgShape: readonly number[],
  lam: number,
  options: RandBboxOptions = {},
): Bbox | Bbox[] {
  const owner = 'randBbox';
  const { margin = 0, count, random } = checkOptions(owner, options, ['margin', 'count', 'random']);
  const size = imageSize(owner, imgShape);
  numberOption(owner, 'lam', lam, { min: 0, max: 1 });
  numberOption(owner, 'margin', margin, { min: 0 });
  for (const side of [size.height, size.width]) {
    const cut = cutSize(side, lam);
    if (side - 2 * Math.trunc(margin * cut) < 1) {
      throw rangeError(
        'ERR_OPTION',
        `${owner}: expected a margin that leaves the box's centre room, got ${margin}: twice ${margin} of a box of ` +
          `${cut} pixels fills all ${side} pixels of the image; use less than 0.5`,
      );
    }
  }
  const source = random === undefined ? sharedRandom() : randomOption(owner, random);
  return repeat(owner, count, () => drawBbox(source, size, lam, margin));
}

/**
 * A box with height and width drawn evenly between two shares of the image's, inside the image:
 * timm.data.mixup.rand_bbox_minmax.
 *
 * @param imgShape [..., H, W], in pixels.
 * @param minmax [min, max] with 0 ≤ min < max ≤ 1; sizes reach from trunc(min·H) to trunc(max·H) − 1.
 * @returns A box, or with `count` that many.
 * @throws ERR_SHAPE for an image with no size between the shares too, ERR_OPTION.
 */
export function randBboxMinmax(
  imgShape: readonly number[],
  minmax: readonly [number, number],
  options?: RandBboxMinmaxOptions & { count?: undefined },
): Bbox;
export function randBboxMinmax(
  imgShape: readonly number[],
  minmax: readonly [number, number],
  options: RandBboxMinmaxOptions & { count: number },
): Bbox[];
export function randBboxMinmax(
  imgShape: readonly number[],
  minmax: readonly [number, number],
  options: RandBboxMinmaxOptions = {},
): Bbox | Bbox[] {
  const owner = 'randBboxMinmax';
  const { count, random } = checkOptions(owner, options, ['count', 'random']);
  const size = imageSize(owner, imgShape);
  const shares = checkMinmax(owner, 'minmax', minmax);
  checkMinmaxFits(owner, size, shares);
  const source = random === undefined ? sharedRandom() : randomOption(owner, random);
  return repeat(owner, count, () => drawBboxMinmax(source, size, shares));
}

/**
 * CutMix's box and the λ that goes with it: timm.data.mixup.cutmix_bbox_and_lam. With `ratioMinmax` λ is always
 * the share that the box leaves.
 *
 * @param imgShape [..., H, W], in pixels.
 * @param lam The share to leave, in [0, 1].
 * @returns A box and its λ, or with `count` that many.
 * @throws ERR_SHAPE, ERR_OPTION.
 */
export function cutmixBboxAndLam(
  imgShape: readonly number[],
  lam: number,
  options?: CutmixBboxAndLamOptions & { count?: undefined },
): BboxAndLam;
export function cutmixBboxAndLam(
  imgShape: readonly number[],
  lam: number,
  options: CutmixBboxAndLamOptions & { count: number },
): BboxAndLam[];
export function cutmixBboxAndLam(
  imgShape: readonly number[],
  lam: number,
  options: CutmixBboxAndLamOptions = {},
): BboxAndLam | BboxAndLam[] {
  const owner = 'cutmixBboxAndLam';
  const known = ['ratioMinmax', 'correctLam', 'count', 'random'] as const;
  const { ratioMinmax = null, correctLam = true, count, random } = checkOptions(owner, options, known);
  const size = imageSize(owner, imgShape);
  numberOption(owner, 'lam', lam, { min: 0, max: 1 });
  booleanOption(owner, 'correctLam', correctLam);
  const minmax = ratioMinmax === null ? null : checkMinmax(owner, 'ratioMinmax', ratioMinmax);
  if (minmax !== null) checkMinmaxFits(owner, size, minmax);
  const source = random === undefined ? sharedRandom() : randomOption(owner, random);
  return repeat(owner, count, () => drawBboxAndLam(source, size, lam, minmax, correctLam));
}
