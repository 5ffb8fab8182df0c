/** What is made of samples: everything that the bench reports is computed here. */

/** Of the samples of one figure, one a round: half of the rounds lie between the quartiles. */
export interface Summary {
  readonly q1: number;
  readonly median: number;
  readonly q3: number;
}

/** The value below which the fraction `p` of the samples lies, interpolated linearly between neighbours. */
export function quantile(samples: readonly number[], p: number): number {
  if (samples.length === 0) throw new RangeError('quantile: expected at least one sample');
  const sorted = samples.toSorted((a, b) => a - b);
  const place = p * (sorted.length - 1);
  const below = Math.floor(place);
  const low = sorted[below]!;
  return low + (place - below) * ((sorted[below + 1] ?? low) - low);
}

export const median = (samples: readonly number[]): number => quantile(samples, 0.5);

export function summarise(samples: readonly number[]): Summary {
  return { q1: quantile(samples, 0.25), median: median(samples), q3: quantile(samples, 0.75) };
}

/**
 * `samples` over `base`, round by round: both of a round ran within moments of each other, so that a neighbour who
 * slows the machine down for a while slows both down and leaves their ratio alone.
 */
export function ratios(samples: readonly number[], base: readonly number[]): number[] {
  if (samples.length !== base.length) {
    throw new RangeError(
      `ratios: expected samples of the same rounds, got ${samples.length} and ${base.length}`,
    );
  }
  return samples.map((sample, round) => sample / base[round]!);
}

/** Bytes a nanosecond are gigabytes (10⁹ bytes) a second. */
export const gigabytesPerSecond = (bytes: number, nanoseconds: number): number => bytes / nanoseconds;

/**
 * About one standard error of the median, relative to it. For normal noise that is 1.253·σ/√n with σ = IQR / 1.349.
 */
export function relativeError(samples: readonly number[]): number {
  const { q1, median, q3 } = summarise(samples);
  return (0.93 * (q3 - q1)) / (Math.sqrt(samples.length) * median);
}
