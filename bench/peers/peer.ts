/** What the bench asks of a peer. */

import type { Pass } from '../results.js';

/** float32 arrays, as every peer takes them. */
export interface PeerBatch {
  readonly rows: number;
  readonly classes: number;
  readonly logits: Float32Array;
  /** A label a row. */
  readonly labels: Int32Array;
  /** A distribution a row. */
  readonly soft: Float32Array;
  /** Zeros and ones. */
  readonly multiHot: Float32Array;
}

/** The losses that peers are asked for, with the library's defaults. */
export const peerLosses = [
  'CrossEntropyLoss',
  'LabelSmoothingCrossEntropy',
  'SoftTargetCrossEntropy',
  'JsdCrossEntropy',
  'BinaryCrossEntropy, dense target',
  'AsymmetricLossMultiLabel',
  'AsymmetricLossSingleLabel',
] as const;

export type PeerLoss = (typeof peerLosses)[number];

export interface PeerResult {
  readonly value: number;
  /** Of the pass with a gradient, in row-major order. */
  readonly grad?: Float32Array;
}

export interface Peer {
  readonly name: string;
  /** Versions, and what it runs on. */
  readonly detail: string;
  /** Takes a batch, before any clock runs. */
  load(batch: PeerBatch): Promise<void>;
  /** Threads that it may use; a peer that has one thread only ignores it. */
  setThreads(count: number): Promise<void>;
  result(loss: PeerLoss, pass: Pass): Promise<PeerResult>;
  /** Nanoseconds of one run of `repeats`, after one that is not timed where `rehearse` says so. */
  sample(loss: PeerLoss, pass: Pass, repeats: number, rehearse: boolean): Promise<number>;
  close(): Promise<void>;
}

export interface AbsentPeer {
  readonly name: string;
  readonly reason: string;
}
