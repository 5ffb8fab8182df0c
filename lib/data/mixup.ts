/**
 * Mixup (Zhang et al., arXiv:1710.09412) and CutMix (Yun et al., arXiv:1905.04899), with the names, options and
 * semantics of timm.data.mixup.
 */
import { allocate, isFloat, type DType } from '../dtype.js';
import { describe, rangeError, typeError } from '../errors.js';
import { overlap } from '../geometry.js';
import { booleanOption, checkOptions, choiceOption, numberOption } from '../options.js';
import { numel, sameShape, showShape } from '../shape.js';
import {
  asTensor,
  contiguous,
  emptyTensor,
  hostValuesAs,
  isContiguous,
  type Tensor,
  type TensorLike,
} from '../tensor.js';
import { checkMinmax, checkMinmaxFits, drawBboxAndLam, type ImageSize } from './bbox.js';
import { contiguousPixels, pixelsOf, rowMixer, type Pixels, type RowPlan } from './pixels.js';
import { Random, randomOption, type RandomSource } from './random.js';

export interface OneHotOptions {
  /** The label's value. 1 by default. */
  onValue?: number;
  /** Every other value. 0 by default. */
  offValue?: number;
}

export interface MixupTargetOptions {
  /** The share of a row's own label: a number in [0, 1], or one a row, shape [N] or [N, 1]. 1 by default. */
  lam?: TensorLike;
  /** Label smoothing in [0, 1]. 0 by default. */
  smoothing?: number;
}

/** batch: one draw for all rows; pair: one for rows i and B−1−i; elem: one a row; half: elem, of the first half. */
export type MixupMode = 'batch' | 'pair' | 'elem' | 'half';

export interface MixupOptions {
  /** Mixup's λ is drawn from Beta(α, α); 0 turns mixup off. 1 by default. */
  mixupAlpha?: number;
  /** CutMix's λ is drawn from Beta(α, α); 0 turns CutMix off. 0 by default. */
  cutmixAlpha?: number;
  /** CutMix boxes between these shares of the image's height and width, whatever λ is; turns CutMix on. */
  cutmixMinmax?: readonly [number, number] | null;
  /** Probability that a draw mixes at all. 1 by default. */
  prob?: number;
  /** Probability of CutMix where both are on. 0.5 by default. */
  switchProb?: number;
  /** 'batch' by default. */
  mode?: MixupMode;
  /** CutMix's λ becomes the share that the clipped box leaves. true by default. */
  correctLam?: boolean;
  /** 0.1 by default. */
  labelSmoothing?: number;
  /** 1000 by default. */
  numClasses?: number;
  /** An integer in [0, 2^53) that fixes all draws. Unpredictable by default. */
  seed?: number;
  /** Where the draws come from, instead of a seed. */
  random?: RandomSource;
}

export interface MixupOutOptions {
  /** Memory for the mixed images: contiguous, of the result's shape and dtype. */
  out?: TensorLike;
}

export interface MixedBatch {
  /** The mixed images, [B, C, H, W]; for mode 'half' [B/2, C, H, W]. */
  readonly x: Tensor;
  /** Class probabilities for SoftTargetCrossEntropy, float32, [B, numClasses]; for mode 'half' [B/2, numClasses]. */
  readonly target: Tensor;
}

const modes: readonly MixupMode[] = ['batch', 'pair', 'elem', 'half'];

/** Class indices as numbers, in order and checked. */
function classIndices(owner: string, target: Tensor, numClasses: number): Float64Array {
  const { data, dtype } = contiguous(target);
  if (isFloat(dtype)) {
    throw typeError(
      'ERR_DTYPE',
      `${owner}: expected integers as class indices in target, got dtype ${dtype}`,
    );
  }
  const labels = new Float64Array(data.length);
  for (let row = 0; row < labels.length; row++) {
    const label = Number(data[row]);
    if (!(label >= 0 && label < numClasses)) {
      throw rangeError(
        'ERR_TARGET_OUT_OF_RANGE',
        `${owner}: expected class indices in [0, ${numClasses}) in target, but row ${row} has ${data[row]}`,
      );
    }
    labels[row] = label;
  }
  return labels;
}

const isColumn = ({ shape }: Tensor): boolean => shape.length === 1 || (shape.length === 2 && shape[1] === 1);

function classColumn(owner: string, target: unknown, numClasses: number): Float64Array {
  const column = asTensor(target, 'target', 'indices');
  if (!isColumn(column)) {
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected target of shape [N] or [N, 1], one class index a row, got ${showShape(column.shape)}`,
    );
  }
  return classIndices(owner, column, numClasses);
}

function lamColumn(owner: string, lam: unknown, rows: number): Float64Array {
  if (typeof lam === 'number')
    return new Float64Array(rows).fill(numberOption(owner, 'lam', lam, { min: 0, max: 1 }));
  // Plain numbers would take float32 as a tensor.
  const plain = Array.isArray(lam) && lam.every((x) => typeof x === 'number');
  const column = asTensor(plain ? Float64Array.from(lam) : lam, 'lam');
  if (column.shape[0] !== rows || !isColumn(column)) {
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected lam as a number or of shape [${rows}] or [${rows}, 1], one a row of target, ` +
        `got ${showShape(column.shape)}`,
    );
  }
  const values = hostValuesAs(column, 'float64') as Float64Array;
  const bad = values.findIndex((x) => !(x >= 0 && x <= 1));
  if (bad >= 0) {
    throw rangeError(
      'ERR_OPTION',
      `${owner}: expected numbers in [0, 1] for lam, but row ${bad} has ${values[bad]}`,
    );
  }
  return values;
}

/** Row i is s/C + (1 − s)·(λ_i·[c = y_i] + (1 − λ_i)·[c = y_{N−1−i}]), of the first `lam.length` of N rows. */
function mixedTarget(labels: Float64Array, numClasses: number, lam: Float64Array, smoothing: number): Tensor {
  const target = emptyTensor([lam.length, numClasses], 'float32');
  const data = target.data as Float32Array;
  const floor = smoothing / numClasses;
  const peak = 1 - smoothing;
  if (floor !== 0) data.fill(floor);
  for (let row = 0; row < lam.length; row++) {
    const own = labels[row]!;
    const other = labels[labels.length - 1 - row]!;
    const start = row * numClasses;
    if (own === other) {
      data[start + own] = floor + peak;
    } else {
      data[start + own] = floor + peak * lam[row]!;
      data[start + other] = floor + peak * (1 - lam[row]!);
    }
  }
  return target;
}

const checkNumClasses = (owner: string, numClasses: unknown): number =>
  numberOption(owner, 'numClasses', numClasses, { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true });

/**
 * Class indices as rows of `offValue` with one `onValue`: timm.data.mixup.one_hot.
 *
 * @param target N class indices, any integers; more dimensions are flattened.
 * @returns float32, [N, numClasses].
 * @throws ERR_TARGET_OUT_OF_RANGE for an index outside [0, numClasses), ERR_DTYPE for labels that are no integers,
 * ERR_OPTION.
 */
export function oneHot(target: TensorLike, numClasses: number, options: OneHotOptions = {}): Tensor {
  const owner = 'oneHot';
  const { onValue = 1, offValue = 0 } = checkOptions(owner, options, ['onValue', 'offValue']);
  checkNumClasses(owner, numClasses);
  numberOption(owner, 'onValue', onValue);
  numberOption(owner, 'offValue', offValue);
  const labels = classIndices(owner, asTensor(target, 'target', 'indices'), numClasses);
  const rows = emptyTensor([labels.length, numClasses], 'float32');
  const data = rows.data as Float32Array;
  if (offValue !== 0) data.fill(offValue);
  for (let row = 0; row < labels.length; row++) data[row * numClasses + labels[row]!] = onValue;
  return rows;
}

/**
 * The targets of a batch that is mixed with itself in reverse: timm.data.mixup.mixup_target. With
 * q_i = smoothing/C + (1 − smoothing)·onehot(y_i), row i is λ_i·q_i + (1 − λ_i)·q_{N−1−i}, rounded once to float32.
 *
 * @param target Class indices, any integers, of shape [N] or [N, 1].
 * @returns float32, [N, numClasses]; each row sums to 1.
 * @throws ERR_TARGET_OUT_OF_RANGE for an index outside [0, numClasses), ERR_DTYPE, ERR_SHAPE, ERR_OPTION.
 */
export function mixupTarget(
  target: TensorLike,
  numClasses: number,
  options: MixupTargetOptions = {},
): Tensor {
  const owner = 'mixupTarget';
  const { lam = 1, smoothing = 0 } = checkOptions(owner, options, ['lam', 'smoothing']);
  checkNumClasses(owner, numClasses);
  numberOption(owner, 'smoothing', smoothing, { min: 0, max: 1 });
  const labels = classColumn(owner, target, numClasses);
  return mixedTarget(labels, numClasses, lamColumn(owner, lam, labels.length), smoothing);
}

/** The caller's memory, checked against what will be written. */
function checkOut(owner: string, out: unknown, shape: readonly number[], dtype: DType): Tensor {
  if (typeof out !== 'object' || Array.isArray(out)) {
    throw typeError(
      'ERR_DTYPE',
      `${owner}: expected a Tensor or { data, shape, dtype? } to write into as out, got ${describe(out)}`,
    );
  }
  const memory = asTensor(out, 'out');
  if (memory.dtype !== dtype) {
    throw typeError('ERR_DTYPE', `${owner}: expected out of the images' dtype ${dtype}, got ${memory.dtype}`);
  }
  if (!sameShape(memory.shape, shape)) {
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected out of shape ${showShape(shape)}, got ${showShape(memory.shape)}`,
    );
  }
  if (!isContiguous(memory)) {
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected a contiguous out, got strides ${showShape(memory.strides)} for shape ${showShape(shape)}`,
    );
  }
  return memory;
}

/**
 * Mixes each image of a batch with the one as far from the other end, by mixup or CutMix: timm.data.Mixup.
 *
 * One draw, in this order: whether to mix (`prob`), by CutMix or mixup (`switchProb`, where both are on), λ from
 * Beta(α, α), and a box. `mode` says how many draws a batch takes.
 *
 *     const mixup = new Mixup({ mixupAlpha: 0.8, cutmixAlpha: 1, numClasses: 1000, seed: 42 });
 *     const { x, target } = mixup.apply(images, labels);
 *     new SoftTargetCrossEntropy().forward(model(x), target);
 */
export class Mixup {
  /** Set it to false to stop mixing; targets are then smoothed one-hot rows. */
  mixupEnabled = true;
  /** Where the draws come from. */
  readonly random: RandomSource;
  /** How messages call this. */
  protected readonly owner: string;
  protected readonly mode: MixupMode;
  protected readonly numClasses: number;
  readonly #mixupAlpha: number;
  readonly #cutmixAlpha: number;
  readonly #cutmixMinmax: readonly [number, number] | null;
  readonly #prob: number;
  readonly #switchProb: number;
  readonly #correctLam: boolean;
  readonly #labelSmoothing: number;

  /** @throws ERR_OPTION for an unknown option, a value out of its range, or if neither mixup nor CutMix is on. */
  constructor(options: MixupOptions = {}) {
    const owner = (this.owner = new.target.name);
    const {
      mixupAlpha = 1,
      cutmixAlpha = 0,
      cutmixMinmax = null,
      prob = 1,
      switchProb = 0.5,
      mode = 'batch',
      correctLam = true,
      labelSmoothing = 0.1,
      numClasses = 1000,
      seed,
      random,
    } = checkOptions(owner, options, [
      'mixupAlpha',
      'cutmixAlpha',
      'cutmixMinmax',
      'prob',
      'switchProb',
      'mode',
      'correctLam',
      'labelSmoothing',
      'numClasses',
      'seed',
      'random',
    ]);
    const share = { min: 0, max: 1 };
    this.#mixupAlpha = numberOption(owner, 'mixupAlpha', mixupAlpha, { min: 0 });
    this.#cutmixMinmax = cutmixMinmax === null ? null : checkMinmax(owner, 'cutmixMinmax', cutmixMinmax);
    numberOption(owner, 'cutmixAlpha', cutmixAlpha, { min: 0 });
    this.#cutmixAlpha = cutmixMinmax === null ? cutmixAlpha : 1;
    if (this.#mixupAlpha === 0 && this.#cutmixAlpha === 0) {
      throw rangeError(
        'ERR_OPTION',
        `${owner}: expected mixupAlpha > 0, cutmixAlpha > 0 or cutmixMinmax, got none of them; ` +
          `set prob or mixupEnabled to turn mixing off`,
      );
    }
    this.#prob = numberOption(owner, 'prob', prob, share);
    this.#switchProb = numberOption(owner, 'switchProb', switchProb, share);
    this.mode = choiceOption(owner, 'mode', mode, modes);
    this.#correctLam = booleanOption(owner, 'correctLam', correctLam);
    this.#labelSmoothing = numberOption(owner, 'labelSmoothing', labelSmoothing, share);
    this.numClasses = checkNumClasses(owner, numClasses);
    if (seed !== undefined && random !== undefined) {
      throw typeError('ERR_OPTION', `${owner}: expected either seed or random, got both`);
    }
    this.random = random === undefined ? new Random(seed) : randomOption(owner, random);
  }

  /**
   * Mixes a batch (timm's `__call__`). Row i becomes λ·x[i] + (1 − λ)·x[B−1−i], or x[i] with a box of x[B−1−i] in it,
   * and its target λ·q[i] + (1 − λ)·q[B−1−i]. Computed in float64 and rounded once to x's dtype; uint8 rounds half to
   * even.
   *
   * x is left as it is, where timm writes into it; `{ out: x }` does as timm.
   *
   * @param x Images [B, C, H, W] of float32, float64, float16, bfloat16 or uint8, B even.
   * @param target Class indices, any integers, of shape [B] or [B, 1].
   * @throws ERR_SHAPE, ERR_DTYPE, ERR_TARGET_OUT_OF_RANGE, ERR_OPTION, and ERR_ALIAS for an `out` that overlaps x
   * without starting where x starts. After an error nothing has been written or drawn.
   */
  apply(x: TensorLike, target: TensorLike, options: MixupOutOptions = {}): MixedBatch {
    const { owner } = this;
    const { out } = checkOptions(owner, options, ['out']);
    const images = asTensor(x, 'x');
    const { dtype, shape } = images;
    if (!isFloat(dtype) && dtype !== 'uint8') {
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected x of float32, float64, float16, bfloat16 or uint8, got ${dtype}`,
      );
    }
    if (shape.length !== 4 || shape.includes(0)) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected x of shape [B, C, H, W], none of them 0, got ${showShape(shape)}`,
      );
    }
    const [batch, channels, height, width] = shape as [number, number, number, number];
    this.checkBatch(batch, { height, width });
    const labels = classColumn(owner, target, this.numClasses);
    if (labels.length !== batch) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected a class index for each of the ${batch} images of x, got ${labels.length}`,
      );
    }
    const mixedShape = [this.mode === 'half' ? batch / 2 : batch, channels, height, width];
    const memory = out === undefined ? undefined : checkOut(owner, out, mixedShape, dtype);
    const inPlace = memory !== undefined && overlap(memory.data, images.data);
    if (inPlace && (memory.data.byteOffset !== images.data.byteOffset || !isContiguous(images))) {
      throw rangeError(
        'ERR_ALIAS',
        `${owner}: out overlaps x without being x: expected x itself, contiguous, or memory apart from it`,
      );
    }
    const pixels = contiguousPixels(images);
    const size = channels * height * width;
    const rows = Array.from({ length: batch }, (_, i) => pixels.subarray(i * size, (i + 1) * size));
    return this.mix(rows, dtype, [channels, height, width], labels, memory, inPlace);
  }

  /** Refuses a batch that cannot be paired, or images that no box fits in. */
  protected checkBatch(batch: number, size: ImageSize): void {
    if (batch % 2 !== 0) {
      throw rangeError(
        'ERR_SHAPE',
        `${this.owner}: expected an even batch, whose images pair up, got ${batch} images`,
      );
    }
    if (this.#cutmixMinmax !== null) checkMinmaxFits(this.owner, size, this.#cutmixMinmax);
  }

  /** Mixes rows that are checked. `inPlace` says that `out` is the memory of `rows`. */
  protected mix(
    rows: readonly Pixels[],
    dtype: DType,
    shape: readonly [number, number, number],
    labels: Float64Array,
    out: Tensor | undefined,
    inPlace: boolean,
  ): MixedBatch {
    const plans = this.#draw(rows.length, { height: shape[1], width: shape[2] });
    const target = mixedTarget(
      labels,
      this.numClasses,
      Float64Array.from(plans, ({ lam }) => lam),
      this.#labelSmoothing,
    );
    const x = out ?? emptyTensor([plans.length, ...shape], dtype);
    const pixels = pixelsOf(x);
    const size = numel(shape);
    const mixRow = rowMixer(dtype, shape);
    const mixInto = (row: number, own: Pixels, other: Pixels): void =>
      mixRow(pixels.subarray(row * size, (row + 1) * size), own, other, plans[row]!);
    const kept = inPlace ? (allocate(dtype, size) as Pixels) : undefined;
    for (let i = 0; i < rows.length / 2; i++) {
      const j = rows.length - 1 - i;
      // In place, row i is overwritten before row j is mixed with it.
      kept?.set(rows[i]!);
      const first = kept ?? rows[i]!;
      mixInto(i, first, rows[j]!);
      if (j < plans.length) mixInto(j, rows[j]!, first);
    }
    return { x, target };
  }

  #draw(batch: number, size: ImageSize): readonly RowPlan[] {
    const draw = (): RowPlan => this.#drawRow(size);
    switch (this.mode) {
      case 'batch':
        return new Array<RowPlan>(batch).fill(draw());
      case 'pair': {
        const plans = Array.from({ length: batch / 2 }, draw);
        return [...plans, ...plans.toReversed()];
      }
      case 'elem':
        return Array.from({ length: batch }, draw);
      case 'half':
        return Array.from({ length: batch / 2 }, draw);
    }
  }

  #drawRow(size: ImageSize): RowPlan {
    const { random } = this;
    if (!this.mixupEnabled || random.uniform() >= this.#prob) return { lam: 1 };
    const both = this.#mixupAlpha > 0 && this.#cutmixAlpha > 0;
    const cutmix = both ? random.uniform() < this.#switchProb : this.#cutmixAlpha > 0;
    const alpha = cutmix ? this.#cutmixAlpha : this.#mixupAlpha;
    const lam = random.beta(alpha, alpha);
    if (!cutmix || lam === 1) return { lam };
    return drawBboxAndLam(random, size, lam, this.#cutmixMinmax, this.#correctLam);
  }
}

/**
 * Mixes while it collates images into a batch: timm.data.FastCollateMixup. The mixed pixels are uint8, four times
 * smaller than float32 on their way to the device, and 'half' makes of B images a batch of B/2.
 */
export class FastCollateMixup extends Mixup {
  /**
   * Collates and mixes (timm's `__call__`). Options, pixels and targets are those of `apply`.
   *
   * @param batch [image, label] pairs, an even number of them. An image is uint8 of shape [C, H, W]; interleaved
   * pixels go as `{ data, shape: [C, H, W], strides: [1, W * C, C] }`.
   * @returns x as uint8.
   * @throws ERR_SHAPE, ERR_DTYPE, ERR_TARGET_OUT_OF_RANGE, ERR_OPTION, and ERR_ALIAS for an `out` that overlaps an
   * image. After an error nothing has been written or drawn.
   */
  collate(
    batch: readonly (readonly [image: TensorLike, label: number | bigint])[],
    options: MixupOutOptions = {},
  ): MixedBatch {
    const { owner } = this;
    const { out } = checkOptions(owner, options, ['out']);
    if (!Array.isArray(batch) || !batch.every((pair: unknown) => Array.isArray(pair) && pair.length === 2)) {
      const shown = Array.isArray(batch) ? 'one with other elements' : describe(batch);
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected an array of [image, label] pairs as batch, got ${shown}`,
      );
    }
    if (batch.length === 0)
      throw rangeError('ERR_SHAPE', `${owner}: expected at least two images in batch, got none`);
    const pairs = batch as readonly (readonly [image: TensorLike, label: number | bigint])[];
    const images = pairs.map(([image], i) => asTensor(image, `batch[${i}][0]`));
    const shape = images[0]!.shape;
    if (shape.length !== 3 || shape.includes(0)) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected images of shape [C, H, W], none of them 0, but batch[0][0] has ${showShape(shape)}`,
      );
    }
    images.forEach((image, i) => {
      if (image.dtype !== 'uint8') {
        throw typeError(
          'ERR_DTYPE',
          `${owner}: expected uint8 images, but batch[${i}][0] has dtype ${image.dtype}`,
        );
      }
      if (!sameShape(image.shape, shape)) {
        throw rangeError(
          'ERR_SHAPE',
          `${owner}: expected images of one shape, but batch[0][0] has ${showShape(shape)} and batch[${i}][0] ` +
            showShape(image.shape),
        );
      }
    });
    const [channels, height, width] = shape as [number, number, number];
    this.checkBatch(images.length, { height, width });
    const labels = classColumn(
      owner,
      pairs.map(([, label]) => label),
      this.numClasses,
    );
    const mixedShape = [this.mode === 'half' ? images.length / 2 : images.length, ...shape];
    const memory = out === undefined ? undefined : checkOut(owner, out, mixedShape, 'uint8');
    const overlapped = memory === undefined ? -1 : images.findIndex(({ data }) => overlap(memory.data, data));
    if (overlapped >= 0) {
      throw rangeError(
        'ERR_ALIAS',
        `${owner}: expected memory apart from the images as out, but it overlaps batch[${overlapped}][0]`,
      );
    }
    const rows = images.map(contiguousPixels);
    return this.mix(rows, 'uint8', [channels, height, width], labels, memory, false);
  }
}
