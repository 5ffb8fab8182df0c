import { readFileSync } from 'node:fs';
import type { Random } from 'surprisal/data';

export const species = ['Adelie', 'Chinstrap', 'Gentoo'] as const;

export const measurements = ['beak_length_mm', 'beak_depth_mm', 'flipper_length_mm', 'body_mass_g'] as const;

/** Rows of measurements and the class index of each row's species. */
export interface Samples {
  /** [N, F], row-major. */
  readonly features: Float32Array;
  /** [N]. */
  readonly labels: Int32Array;
}

/** The penguins that were measured, and how many rows of the file were not. */
export function loadPenguins(): Samples & { readonly dropped: number } {
  // Compiled, this file stands in dist-dev/examples/.
  const text = readFileSync(new URL('../../examples/data/penguins.csv', import.meta.url), 'utf8');
  const [header, ...lines] = text.trimEnd().split('\n');
  const columns = header!.split(',');
  const speciesColumn = columns.indexOf('species');
  const featureColumns = measurements.map((name) => columns.indexOf(name));

  const rows = lines.map((line) => line.split(','));
  const measured = rows.filter((row) => featureColumns.every((column) => row[column] !== ''));
  return {
    features: Float32Array.from(
      measured.flatMap((row) => featureColumns.map((column) => Number(row[column]))),
    ),
    labels: Int32Array.from(measured, (row) => (species as readonly string[]).indexOf(row[speciesColumn]!)),
    dropped: rows.length - measured.length,
  };
}

/** The rows at `indices`, in that order. */
export function take({ features, labels }: Samples, indices: ArrayLike<number>): Samples {
  const width = measurements.length;
  const taken = {
    features: new Float32Array(indices.length * width),
    labels: new Int32Array(indices.length),
  };
  for (let i = 0; i < indices.length; i++) {
    const from = indices[i]!;
    taken.features.set(features.subarray(from * width, (from + 1) * width), i * width);
    taken.labels[i] = labels[from]!;
  }
  return taken;
}

/** A shuffled split that gives every species the same share of the training rows. */
export function splitByLabel(
  samples: Samples,
  share: number,
  random: Random,
): { train: Samples; heldOut: Samples } {
  const train: number[] = [];
  const heldOut: number[] = [];
  for (const label of species.keys()) {
    const members = [...samples.labels.keys()].filter((i) => samples.labels[i] === label);
    const shuffled = Array.from(random.permutation(members.length), (i) => members[i]!);
    const count = Math.round(share * members.length);
    train.push(...shuffled.slice(0, count));
    heldOut.push(...shuffled.slice(count));
  }
  return { train: take(samples, train), heldOut: take(samples, heldOut) };
}

/** Both sets with the training set's mean taken away and divided by its standard deviation, feature by feature. */
export function standardise(train: Samples, heldOut: Samples): { train: Samples; heldOut: Samples } {
  const width = measurements.length;
  const count = train.labels.length;
  const moments = measurements.map((_, feature) => {
    let sum = 0;
    for (let row = 0; row < count; row++) sum += train.features[row * width + feature]!;
    const mean = sum / count;
    let squares = 0;
    for (let row = 0; row < count; row++) squares += (train.features[row * width + feature]! - mean) ** 2;
    return { mean, deviation: Math.sqrt(squares / count) };
  });
  const scaled = ({ features, labels }: Samples): Samples => ({
    features: features.map((x, i) => (x - moments[i % width]!.mean) / moments[i % width]!.deviation),
    labels,
  });
  return { train: scaled(train), heldOut: scaled(heldOut) };
}

/**
 * K views of a batch, stacked as JsdCrossEntropy takes them: sample i is rows i, i + B, i + 2B, ... Each view has its
 * own Gaussian noise on every feature. The labels are repeated with the rows.
 */
export function noisyViews(
  { features, labels }: Samples,
  views: number,
  deviation: number,
  random: Random,
): Samples {
  const stacked = new Float32Array(views * features.length);
  const repeated = new Int32Array(views * labels.length);
  for (let view = 0; view < views; view++) repeated.set(labels, view * labels.length);
  for (let i = 0; i < stacked.length; i++) {
    stacked[i] = features[i % features.length]! + deviation * random.normal();
  }
  return { features: stacked, labels: repeated };
}
