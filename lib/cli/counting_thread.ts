/**
 * A thread of 'surprisal eval': reads and counts the ranges that it is told to, and gives what it counted when asked. What
 * it reads is in its processor's cache when it is counted.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { basename } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import type { ByteSource } from '../io/source.js';
import type { RowReader } from '../io/rows.js';
import { Counter, type Range } from './counter.js';
import { openArray, type Shard } from './inputs.js';
import { planOf } from './plan.js';
import type { RowLossesState } from './row_losses.js';

export interface ThreadData {
  readonly args: readonly string[];
  readonly shards: readonly Shard[];
}

/** Rows to count, or to give what was counted since it was last asked. */
export type Request = (Range & { readonly rowsPerBlock: number }) | 'collect';

export interface Collected {
  /** The state of an evaluator, as JSON. */
  readonly evaluator: string;
  readonly rows: RowLossesState | null;
}

/** An error with what a clone of it would lack. */
export interface Failure {
  readonly message: string;
  readonly stack: string | undefined;
  readonly code: unknown;
  readonly syscall: unknown;
  readonly path: unknown;
}

export interface Reply {
  readonly collected?: Collected;
  readonly failure?: Failure;
}

/** A file that is read on this thread. */
function blockingSource(path: string): ByteSource {
  const file = openSync(path, 'r');
  return {
    name: basename(path),
    size: fstatSync(file).size,
    read: (into, offset) => readSync(file, into, 0, Math.min(into.length, 2 ** 30), offset),
    close: () => closeSync(file),
  };
}

const { args, shards } = workerData as ThreadData;
const plan = planOf(args);
let counter = new Counter(plan, shards);
let open: { readonly shard: number; readonly logits: RowReader; readonly labels: RowReader } | undefined;

async function count({ rowsPerBlock, ...range }: Range & { rowsPerBlock: number }): Promise<void> {
  if (open?.shard !== range.shard) {
    await open?.logits.close();
    await open?.labels.close();
    const { logits, targets } = shards[range.shard]!;
    open = {
      shard: range.shard,
      logits: await openArray(logits, blockingSource(logits.path)),
      labels: await openArray(targets, blockingSource(targets.path)),
    };
  }
  await counter.count(range, open.logits, open.labels, rowsPerBlock, true, () => true);
}

function collect(): Collected {
  const { evaluator, rowLosses } = counter;
  const collected = { evaluator: JSON.stringify(evaluator), rows: rowLosses?.toJSON() ?? null };
  counter = new Counter(plan, shards);
  return collected;
}

const failureOf = (error: unknown): Failure => {
  const { message, stack, code, syscall, path } = error as NodeJS.ErrnoException;
  return { message, stack, code, syscall, path };
};

const port = parentPort!;
port.on('message', (request: Request) => {
  const reply = async (): Promise<Reply> => {
    try {
      if (request === 'collect') return { collected: collect() };
      await count(request);
      return {};
    } catch (error) {
      return { failure: failureOf(error) };
    }
  };
  void reply().then((result) => port.postMessage(result));
});
