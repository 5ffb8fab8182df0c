/** What a run of the bench writes: the types of its JSON. Times are nanoseconds, sizes bytes. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { FloatDType } from 'surprisal';
import type { Summary } from './statistics.js';

export type { Summary } from './statistics.js';

export const schema = 1;

export type Pass = 'forward' | 'loss and gradient' | 'backward';

export interface Cache {
  readonly level: number;
  readonly type: string;
  readonly bytes: number;
  /** Processors that share it, as Linux lists them. */
  readonly sharedBy: string;
}

export interface Machine {
  readonly cpu: string;
  readonly family: number;
  readonly model: number;
  /** Processors that this process may use. */
  readonly processors: number;
  readonly caches: readonly Cache[];
  readonly memory: number;
  readonly os: string;
  /** Load average of the minute before the run; 0 where the system has none. */
  readonly load: number;
}

/** What a measurement is compared with. */
export interface Floor {
  /** 'read', 'copy', ...: what has to move, in words. */
  readonly kind: string;
  /** How it was moved: the fastest way that was found. */
  readonly method: string;
  /** Read and written, each byte once. */
  readonly bytes: number;
  readonly ns: Summary;
  readonly gigabytesPerSecond: number;
}

/** One figure: a pass of a loss, over one input. */
export interface Measurement {
  readonly loss: string;
  readonly pass: Pass;
  readonly dtype: FloatDType;
  /** As asked for, for example 4096x1000. */
  readonly shape: string;
  /** As run: a loss over K splits takes the nearest multiple of K rows. */
  readonly dims: readonly number[];
  readonly threads: number;
  readonly instructionSet: string;
  readonly rounds: number;
  readonly ns: Summary;
  readonly nsPerElement: number;
  /** Bytes of the floor over the loss's time. */
  readonly gigabytesPerSecond: number;
  readonly floor: Floor;
  /** This over its floor, round by round. */
  readonly ratio: Summary;
  /** Where the floor copies by other means: this over the same floor by memcpy, round by round. */
  readonly toMemcpy?: Summary;
  /** An element's time over that of float32, round by round. */
  readonly toFloat32?: Summary;
  /** The time over that of the same rows laid out contiguously, round by round. */
  readonly toContiguous?: Summary;
}

/** One version measured twice against itself. */
export interface Noise {
  readonly of: string;
  readonly rounds: number;
  readonly ratio: Summary;
}

export interface PeerStatus {
  readonly name: string;
  /** Versions and what it runs on, where it is there; else why it is not. */
  readonly present: boolean;
  readonly detail: string;
}

export interface PeerMeasurement {
  readonly peer: string;
  readonly loss: string;
  readonly pass: Pass;
  readonly shape: string;
  readonly dims: readonly number[];
  /** That the peer was told to use; what can't use more than one uses one. */
  readonly threads: number;
  readonly rounds: number;
  readonly ns: Summary;
  /** This library's time in the same rounds. */
  readonly ours: Summary;
  /** The peer's time over this library's, round by round. */
  readonly toOurs: Summary;
  /** Largest difference of its result from this library's before it was timed, and what was allowed. */
  readonly valueError: number;
  readonly gradError?: number;
  readonly allowed: number;
}

export interface SmallCall {
  readonly call: string;
  readonly shape: readonly number[];
  readonly calls: number;
  readonly rounds: number;
  /** Of a call, one figure a round. */
  readonly ns: Summary;
  /** Over all calls: time, and growth of the resident set in bytes. */
  readonly meanNs: number;
  readonly rssGrowth: number;
}

export interface Target {
  /** The statement that it belongs to. */
  readonly group: string;
  readonly what: string;
  readonly target: number;
  readonly unit: '×' | 'µs';
  readonly measured: number;
  /** Where the worst figure was seen, when the target is about several. */
  readonly where: string;
  readonly met: boolean;
}

/** What every run tells of itself. */
export interface Run {
  readonly schema: typeof schema;
  readonly date: string;
  readonly surprisal: string;
  readonly node: string;
  readonly machine: Machine;
  readonly instructionSet: string;
  /** The command's own options, as given. */
  readonly arguments: readonly string[];
}

export interface Results extends Run {
  readonly instructionSets: readonly string[];
  readonly threads: readonly number[];
  readonly seconds: number;
  readonly measurements: readonly Measurement[];
  readonly noise: readonly Noise[];
  readonly peers: readonly PeerStatus[];
  readonly peerMeasurements: readonly PeerMeasurement[];
  readonly smallCalls: readonly SmallCall[];
  /** What was left out of the plan, and why. */
  readonly leftOut: readonly string[];
  readonly scorecard: readonly Target[];
}

/** 'surprisal eval' of a file, as a process, beside a plain read of it. */
export interface FileEvaluation {
  readonly classes: number;
  readonly dtype: FloatDType;
  readonly bytes: number;
  readonly rows: number;
  readonly rounds: number;
  readonly read: Summary;
  readonly evaluated: Summary;
  /** The read's time over the evaluation's, round by round: the share of its speed. */
  readonly share: Summary;
}

/** An evaluator's update beside its loss alone, of the same arrays. */
export interface UpdateBesideLoss {
  readonly shape: readonly number[];
  readonly threads: number;
  readonly rounds: number;
  readonly loss: Summary;
  readonly update: Summary;
  /** The update's time over the loss's, round by round. */
  readonly ratio: Summary;
}

/** What the bench of evaluations writes. */
export interface EvaluationResults extends Run {
  /** Whether files came from the disk; else from the page cache. */
  readonly cold: boolean;
  readonly updates: readonly UpdateBesideLoss[];
  readonly files: readonly FileEvaluation[];
}

/** Four digits say more than any machine repeats. */
const rounded = (_key: string, value: unknown): unknown =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;

/** JSON with one line for each element of a list: a figure a line, so that two runs can be compared by eye. */
export function toJson(results: Run): string {
  const line = (value: unknown) => JSON.stringify(value, rounded);
  const entries = Object.entries(results).map(([key, value]: [string, unknown]) => {
    const isTable = Array.isArray(value) && typeof value[0] === 'object';
    const text = isTable ? `[\n    ${value.map(line).join(',\n    ')}\n  ]` : line(value);
    return `  ${JSON.stringify(key)}: ${text}`;
  });
  return `{\n${entries.join(',\n')}\n}\n`;
}

export function writeResults(file: string, results: Run): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, toJson(results));
}

/** A run that was written. Throws where another version of the bench wrote it. */
export const readResults = (file: string): Results => readRun(file) as Results;
export const readEvaluation = (file: string): EvaluationResults => readRun(file) as EvaluationResults;

function readRun(file: string): Run {
  const run = JSON.parse(readFileSync(file, 'utf8')) as { readonly schema: number };
  if (run.schema === schema) return run as Run;
  throw new RangeError(
    `${file}: expected results of schema ${schema}, got ${run.schema}; run the bench again`,
  );
}
