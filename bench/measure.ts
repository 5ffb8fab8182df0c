/** Interleaved rounds: every operation of a group once a round, in an order that changes from round to round. */

import { ratios, relativeError } from './statistics.js';

export interface Operation {
  readonly id: string;
  /** Nanoseconds of one run, over `repeats` runs; what ran before must not show. */
  sample(repeats: number): number | Promise<number>;
}

/**
 * An operation on this thread. A sample runs it once without a clock, so that it starts with the caches as it leaves
 * them itself and not as its predecessor does, and with the threads that it uses awake.
 */
export function timed(id: string, run: () => unknown, prepare: () => void = () => undefined): Operation {
  return {
    id,
    sample: (repeats) => {
      prepare();
      run();
      const start = process.hrtime.bigint();
      for (let i = 0; i < repeats; i++) run();
      return Number(process.hrtime.bigint() - start) / repeats;
    },
  };
}

export interface RoundLimits {
  readonly minRounds: number;
  readonly maxRounds: number;
  /** Nanoseconds after which no round is begun, once there are `minRounds`. */
  readonly budget: number;
  /** Rounds end when every figure's median is known this well, relative to itself. */
  readonly precision: number;
}

export type Samples = ReadonlyMap<string, readonly number[]>;

/** Samples shorter than this are made of several runs. */
const shortestSample = 1e6;

/** Runs until the compiler has done its work: at least twice, and this long. */
const warmUp = 1e7;

async function repeatsOf(operation: Operation): Promise<number> {
  let ns = await operation.sample(1);
  for (let spent = ns, repeats = 1; spent < warmUp; spent += ns * repeats) {
    repeats = Math.max(1, Math.min(4 * repeats, Math.ceil(shortestSample / ns)));
    ns = await operation.sample(repeats);
  }
  return Math.max(1, Math.round(shortestSample / ns));
}

/** The elements in an order drawn by `random`, numbers in [0, 1). */
function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const order = [...items];
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/**
 * Samples of all operations, one a round each.
 *
 * @param pairs - ids of operations and of what they are compared with: a ratio must be known as well as a time
 */
export async function interleave(
  operations: readonly Operation[],
  pairs: readonly (readonly [string, string])[],
  limits: RoundLimits,
  random: () => number,
): Promise<Samples> {
  const samples = new Map<string, number[]>(operations.map(({ id }) => [id, []]));
  if (samples.size !== operations.length) throw new Error('interleave: two operations have one id');
  const repeats = new Map<Operation, number>();
  for (const operation of operations) repeats.set(operation, await repeatsOf(operation));

  const settled = () =>
    pairs.every(
      ([id, base]) => relativeError(ratios(samples.get(id)!, samples.get(base)!)) <= limits.precision,
    );
  const start = process.hrtime.bigint();
  for (let round = 0; round < limits.maxRounds; round++) {
    const spent = Number(process.hrtime.bigint() - start);
    if (round >= limits.minRounds && (spent > limits.budget || settled())) break;
    for (const operation of shuffled(operations, random)) {
      samples.get(operation.id)!.push(await operation.sample(repeats.get(operation)!));
    }
  }
  return samples;
}
