// The sufficient statistics of an evaluation, as native/statistics.h lays them out: counts, and sums that are exact.

import type { StatisticsLayout } from '../../binding.js';
import { binding } from '../binding.js';
import { allocate } from '../dtype.js';

/** What a sum's digits are: the same in every layout. */
const { digits, digitBits, digitsExponent } = binding.statisticsLayout(1, 1, 1);
const base = 2 ** digitBits;

/** Words of a sum of terms that may be anything: its digits, and how many terms were ∞, −∞ and NaN. */
export const termWords = digits + 3;

/** Brings a sum's digits below the base, but for the last. */
export function carry(words: Float64Array, at: number): void {
  for (let i = at; i < at + digits - 1; i++) {
    const over = Math.floor(words[i]! / base);
    words[i] = words[i]! - over * base;
    words[i + 1] = words[i + 1]! + over;
  }
}

/** A sum as a whole number of its unit, 2^digitsExponent. */
export function exactSum(words: Float64Array, at: number): bigint {
  let sum = 0n;
  for (let i = digits - 1; i >= 0; i--) sum = (sum << BigInt(digitBits)) + BigInt(words[at + i]!);
  return sum;
}

/** The digits of such a number; false where it has too many. */
export function putExactSum(words: Float64Array, at: number, sum: bigint): boolean {
  for (let i = 0; i < digits - 1; i++) {
    words[at + i] = Number(BigInt.asUintN(digitBits, sum));
    sum >>= BigInt(digitBits);
  }
  words[at + digits - 1] = Number(sum);
  return Number.isSafeInteger(words[at + digits - 1]);
}

/** The sum as a number, rounded once. */
export const sumOf = (words: Float64Array, at: number): number =>
  Number(exactSum(words, at)) * 2 ** digitsExponent;

/** The value of a sum of terms, of which some may not be finite. */
export function totalOf(words: Float64Array): number {
  const [positive, negative, undefinedTerms] = words.subarray(digits);
  if (undefinedTerms! > 0 || (positive! > 0 && negative! > 0)) return NaN;
  if (positive! > 0) return Infinity;
  return negative! > 0 ? -Infinity : sumOf(words, 0);
}

/** Counts and sums of an evaluation's rows. */
export class Statistics {
  readonly layout: StatisticsLayout;
  readonly words: Float64Array;
  /** Wrong rows by label and prediction: the diagonal is 0, as right rows are counted by label. */
  readonly confusion: Float64Array | undefined;

  constructor(
    readonly classes: number,
    readonly ranks: number,
    readonly bins: number,
    confusion: boolean,
  ) {
    this.layout = binding.statisticsLayout(classes, ranks, bins);
    this.words = allocate('float64', this.layout.size) as Float64Array;
    this.confusion = confusion ? (allocate('float64', classes * classes) as Float64Array) : undefined;
  }

  word(index: number): number {
    return this.words[index]!;
  }

  /** Where the group of words of a bin, or of a label, begins. */
  bin(index: number): number {
    return this.layout.bins + index * this.layout.binWords;
  }
  label(index: number): number {
    return this.layout.labels + index * this.layout.labelWords;
  }

  /** Where each sum's digits begin. */
  *sums(): Generator<number> {
    const { brier, entropy, binWords, labelWords } = this.layout;
    yield brier;
    yield entropy;
    for (let b = 0; b <= this.bins; b++) yield this.bin(b) + binWords - digits;
    for (let y = 0; y < this.classes; y++) yield this.label(y) + labelWords - digits;
  }

  /** Rows by label and prediction, [C, C]. */
  confusionMatrix(): Float64Array | undefined {
    const matrix = this.confusion?.slice();
    if (matrix === undefined) return undefined;
    for (let y = 0; y < this.classes; y++) matrix[y * (this.classes + 1)] = this.word(this.label(y) + 1);
    return matrix;
  }

  /** Adds those of the same layout. */
  add(other: Statistics): void {
    const { words, confusion } = this;
    for (let i = 0; i < words.length; i++) words[i] = words[i]! + other.words[i]!;
    for (const at of this.sums()) carry(words, at);
    words[this.layout.uncarried] = 0;
    if (confusion === undefined) return;
    for (let i = 0; i < confusion.length; i++) confusion[i] = confusion[i]! + other.confusion![i]!;
  }
}
