/** How far an evaluation has come, in a file that survives the process: it is replaced whole, or stays as it was. */
import { readdir, readFile, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { writeText } from './files.js';
import type { FileIdentity, Shard } from './inputs.js';
import { CommandError } from './terminal.js';
import { sameShape, showShape } from '../shape.js';

/** The next rows: of a pair of files, a row of each split. */
export interface Position {
  readonly shard: number;
  readonly row: number;
}

export interface Checkpoint {
  readonly schema: 'surprisal.checkpoint';
  readonly version: 1;
  readonly files: readonly Shard['identity'][];
  readonly splits: number;
  readonly position: Position;
  /** The state of the evaluator. */
  readonly evaluator: unknown;
  /** What the HTML report needs of single rows; null without one. */
  readonly rows: unknown;
}

const startOver = 'delete it to start over';

export const writeCheckpoint = (path: string, checkpoint: Checkpoint): Promise<void> =>
  writeText(path, JSON.stringify(checkpoint));

/** Removes what writes of the same file left that were killed. */
async function removeRemains(path: string): Promise<void> {
  const folder = dirname(path);
  const names = await readdir(folder).catch(() => []);
  const remains = names.filter(
    (name) =>
      name.startsWith(`${basename(path)}.`) &&
      /^\.[0-9a-f]{12}\.tmp$/.test(name.slice(basename(path).length)),
  );
  await Promise.all(remains.map((name) => rm(join(folder, name), { force: true })));
}

export const removeCheckpoint = (path: string): Promise<void> => rm(path, { force: true });

function changeOf(then: FileIdentity, now: FileIdentity): string | undefined {
  if (then.path !== now.path) return `another file, ${then.path}`;
  if (then.array !== now.array) return `another array, ${then.array ?? 'the only one'}`;
  if (then.dtype !== now.dtype || !sameShape(then.shape, now.shape)) {
    return `${then.dtype} of shape ${showShape(then.shape)}`;
  }
  if (then.size !== now.size) return `${then.size} bytes long, and now it has ${now.size}`;
  if (then.modified !== now.modified) return 'another version: the file was written to since';
  return undefined;
}

/**
 * Reads the checkpoint at `path`; undefined where there is none yet. Throws CommandError where it is none, or one of other
 * files than these.
 */
export async function readCheckpoint(
  path: string,
  shards: readonly Shard[],
  splits: number,
  withRows: boolean,
): Promise<Checkpoint | undefined> {
  await removeRemains(path);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  let checkpoint: Partial<Checkpoint> | null;
  try {
    checkpoint = JSON.parse(text) as Partial<Checkpoint> | null;
  } catch {
    checkpoint = null;
  }
  const refuse = (why: string) => new CommandError(`${path}: ${why}`);
  if (checkpoint?.schema !== 'surprisal.checkpoint') {
    throw refuse(`expected a checkpoint of surprisal eval, but this file is something else`);
  }
  if ((checkpoint.version as number) !== 1) {
    throw refuse(
      `expected a checkpoint of version 1, got version ${String(checkpoint.version)}; ` +
        `resume with the release that wrote it, or ${startOver}`,
    );
  }
  const { files = [], position } = checkpoint;
  if (files.length !== shards.length) {
    throw refuse(`is of ${files.length} pairs of files, not of these ${shards.length}; ${startOver}`);
  }
  shards.forEach(({ logits, targets, identity }, i) => {
    for (const [array, kind] of [
      [logits, 'logits'],
      [targets, 'targets'],
    ] as const) {
      const change = changeOf(files[i]![kind], identity[kind]);
      if (change !== undefined) {
        throw refuse(`can't resume: instead of ${array.text} it has seen ${change}; ${startOver}`);
      }
    }
  });
  if (checkpoint.splits !== splits) {
    throw refuse(`is of ${String(checkpoint.splits)} splits, not of ${splits}; ${startOver}`);
  }
  if (withRows && (checkpoint.rows ?? null) === null) {
    throw refuse(`was written without --html, so rows are missing in the report; ${startOver}`);
  }
  const { shard, row } = position ?? { shard: -1, row: -1 };
  if (
    !Number.isSafeInteger(shard) ||
    !Number.isSafeInteger(row) ||
    shard < 0 ||
    shard > shards.length ||
    row < 0 ||
    row > (shards[shard]?.samples ?? 0)
  ) {
    throw refuse(`its position is none in these files; ${startOver}`);
  }
  return checkpoint as Checkpoint;
}
