/** The library beside its peers, in the same rounds. */

import { getNumThreads, setNumThreads, type Tensor } from 'surprisal';
import type { ValueAndGrad } from 'surprisal/loss';
import { cases } from './cases.js';
import { Batch } from './data.js';
import { interleave, timed, type Operation, type RoundLimits } from './measure.js';
import { peerLosses, type Peer, type PeerBatch, type PeerLoss, type PeerResult } from './peers/index.js';
import type { Pass, PeerMeasurement } from './results.js';
import { ratios, summarise } from './statistics.js';

/**
 * How far a peer's result may be from ours, relative to the loss and to the largest element of the gradient. Both
 * work in float32, whose roundings are 6e-8: log p of a logit 30 below the maximum is off by 30 of them, a sum of n
 * terms taken one after the other by up to n and more likely √n of them, which for n = 128256 is 2e-5. A wrong
 * formula, factor or label is off by far more.
 */
export const allowedError = 2e-4;

const passes: readonly Pass[] = ['forward', 'loss and gradient'];

export interface Comparison {
  readonly shape: string;
  readonly rows: number;
  readonly classes: number;
  readonly threads: number;
}

export interface Agreement {
  readonly valueError: number;
  readonly gradError?: number;
}

/** Largest difference of two gradients, relative to the largest element; NaN where either has one. */
function gradientError(ours: Float32Array, theirs: Float32Array): number {
  if (ours.length !== theirs.length) return NaN;
  let [largest, difference] = [0, 0];
  for (let i = 0; i < ours.length; i++) {
    const apart = Math.abs(ours[i]! - theirs[i]!);
    if (!(apart <= difference)) difference = apart;
    largest = Math.max(largest, Math.abs(ours[i]!));
  }
  return difference / largest;
}

/** How well a peer's result agrees with ours; throws where it is not the same loss. */
export function checkAgreement(what: string, ours: PeerResult, theirs: PeerResult): Agreement {
  const valueError = Math.abs(theirs.value - ours.value) / Math.abs(ours.value);
  const gradError = ours.grad && gradientError(ours.grad, theirs.grad ?? new Float32Array(0));
  for (const [name, error] of Object.entries({ value: valueError, gradient: gradError ?? 0 })) {
    if (!(error <= allowedError)) {
      throw new Error(
        `${what}: its ${name} is ${error.toPrecision(2)} from ours, where ${allowedError} is allowed`,
      );
    }
  }
  return { valueError, ...(gradError === undefined ? {} : { gradError }) };
}

/** The library's passes over a batch as a peer does them. */
export class Ours {
  readonly batch: PeerBatch;
  readonly #batch: Batch;

  constructor(rows: number, classes: number) {
    const batch = new Batch(rows, classes, 'float32');
    this.#batch = batch;
    const floats = ({ data }: Tensor) => data as Float32Array;
    this.batch = {
      rows,
      classes,
      logits: floats(batch.input),
      labels: batch.labels,
      soft: floats(batch.soft),
      multiHot: floats(batch.multiHot),
    };
  }

  prepare(loss: PeerLoss, pass: Pass) {
    const found = cases.find(({ name }) => name === loss)!;
    return found.prepare(this.#batch).find((prepared) => prepared.pass === pass)!;
  }

  result(loss: PeerLoss, pass: Pass): PeerResult {
    const { run } = this.prepare(loss, pass);
    if (pass === 'forward') return { value: (run() as Tensor).item() };
    const { value, grad } = run() as ValueAndGrad;
    return { value: value.item(), grad: grad.data as Float32Array };
  }
}

/** The first rows of a peer's gradient, where a loss over K splits leaves rows over. */
const trimmed = (result: PeerResult, length: number | undefined): PeerResult =>
  result.grad === undefined ? result : { ...result, grad: result.grad.subarray(0, length) };

/** Runs of this many nanoseconds show nothing of what the caches held before. */
const longRun = 5e7;

/** Samples of a peer, which start as ours do, after a run without a clock, unless that would be a waste of time. */
function peerOperation(id: string, peer: Peer, loss: PeerLoss, pass: Pass): Operation {
  let last = 0;
  return {
    id,
    sample: async (repeats) => (last = await peer.sample(loss, pass, repeats, last < longRun)),
  };
}

/** Measures one loss of every peer and ours. Each peer's result is checked before any clock runs. */
export async function measureBesidePeers(
  ours: Ours,
  loss: PeerLoss,
  peers: readonly Peer[],
  { shape, threads }: Comparison,
  matches: (line: string) => boolean,
  limits: RoundLimits,
  random: () => number,
): Promise<PeerMeasurement[]> {
  const before = getNumThreads();
  const agreements = new Map<string, Agreement>();
  const operations: Operation[] = [];
  const chosen = passes.filter((pass) =>
    matches(`peers ${loss} ${pass} float32 ${shape} ${threads} threads`),
  );
  const idOf = (owner: string, pass: Pass) => `${owner} ${pass}`;
  try {
    setNumThreads(threads);
    for (const pass of chosen) {
      const { run } = ours.prepare(loss, pass);
      operations.push(timed(idOf('ours', pass), run));
      for (const peer of peers) {
        await peer.setThreads(threads);
        const expected = ours.result(loss, pass);
        const result = trimmed(await peer.result(loss, pass), expected.grad?.length);
        const id = idOf(peer.name, pass);
        agreements.set(id, checkAgreement(`${peer.name}, ${loss}, ${pass}, ${shape}`, expected, result));
        operations.push(peerOperation(id, peer, loss, pass));
      }
    }
    const pairs = chosen.flatMap((pass) =>
      peers.map(({ name }) => [idOf(name, pass), idOf('ours', pass)] as const),
    );
    const samples = await interleave(operations, pairs, limits, random);
    return chosen.flatMap((pass) => {
      const { dims } = ours.prepare(loss, pass);
      const own = samples.get(idOf('ours', pass))!;
      return peers.map(({ name }) => {
        const theirs = samples.get(idOf(name, pass))!;
        return {
          ...{ peer: name, loss, pass, shape, dims, threads },
          rounds: own.length,
          ns: summarise(theirs),
          ours: summarise(own),
          toOurs: summarise(ratios(theirs, own)),
          ...agreements.get(idOf(name, pass))!,
          allowed: allowedError,
        };
      });
    });
  } finally {
    setNumThreads(before);
  }
}

export const matchesPeers = (
  matches: (line: string) => boolean,
  { shape, threads }: Comparison,
): readonly PeerLoss[] =>
  peerLosses.filter((loss) =>
    passes.some((pass) => matches(`peers ${loss} ${pass} float32 ${shape} ${threads} threads`)),
  );
