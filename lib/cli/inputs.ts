/** The files of an evaluation: pairs of logits and targets, one after another. */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { isFloat } from '../dtype.js';
import { listArrays, openRows } from '../io/open.js';
import type { RowReader } from '../io/rows.js';
import type { FileLike } from '../io/source.js';
import { sameShape, showShape } from '../shape.js';
import { isDirectory } from './files.js';
import { CommandError, isErrorWithCode, showCount, suggestion, UsageError, type Parsed } from './terminal.js';

/** An array of a file, as the command line names it. */
export interface ArrayPath {
  /** As it was given. */
  readonly text: string;
  readonly path: string;
  readonly name: string | undefined;
}

/** What tells whether a file is still the one that it was. */
export interface FileIdentity {
  readonly path: string;
  readonly array: string | null;
  readonly size: number;
  /** In nanoseconds. */
  readonly modified: string;
  readonly shape: readonly number[];
  readonly dtype: string;
}

export interface Shard {
  readonly logits: ArrayPath;
  readonly targets: ArrayPath;
  readonly identity: { readonly logits: FileIdentity; readonly targets: FileIdentity };
  readonly shape: readonly number[];
  /** Rows of one split. */
  readonly samples: number;
  readonly bytesPerRow: number;
  /** Whether the targets are of all splits, or of one. */
  readonly targetSplits: number;
  /** Whether any row is as near as the first: nothing has to be decompressed before it, nor is its checksum of all rows. */
  readonly seekable: boolean;
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** FILE, FILE:ARRAY or FILE#ARRAY; a file that is there under the whole name is that file. */
async function arrayPath(text: string): Promise<ArrayPath> {
  if (await isDirectory(text)) throw new CommandError(`${text}: is a directory, expected a file`);
  if (await exists(text)) return { text, path: text, name: undefined };
  for (const [at] of [...text.matchAll(/[:#]/g)].map(({ index }) => [index] as const).reverse()) {
    const path = text.slice(0, at);
    if (path !== '' && (await exists(path))) return { text, path, name: text.slice(at + 1) };
  }
  throw new CommandError(`${text}: no such file or directory`);
}

/** The files that the arguments name: LOGITS TARGETS in pairs, or --logits FILE... --targets FILE... */
export function pairArguments({ tokens }: Parsed): { logits: string; targets: string }[] {
  const loose: string[] = [];
  const lists: Record<string, string[]> = { logits: [], targets: [] };
  let list = loose;
  for (const { kind, name, value } of tokens) {
    if (kind === 'positional') list.push(value!);
    else if (kind === 'option') {
      list = loose;
      if (name === 'logits' || name === 'targets') (list = lists[name]!).push(value!);
    }
  }
  const { logits, targets } = lists as { logits: string[]; targets: string[] };
  if (logits.length === 0 && targets.length === 0) {
    if (loose.length === 0) throw new UsageError('expected LOGITS and TARGETS, the files to evaluate');
    if (loose.length % 2 === 1) {
      throw new UsageError(
        `expected files in pairs, LOGITS TARGETS, got ${loose.length}: '${loose.at(-1)!}' has none beside it`,
      );
    }
    return loose.flatMap((file, i) => (i % 2 === 0 ? [{ logits: file, targets: loose[i + 1]! }] : []));
  }
  if (loose.length > 0) {
    throw new UsageError(`got '${loose[0]!}' beside --logits and --targets: give all files behind these`);
  }
  if (logits.length !== targets.length) {
    throw new UsageError(
      `expected as many files of targets as of logits, got ${targets.length} and ${logits.length}`,
    );
  }
  return logits.map((file, i) => ({ logits: file, targets: targets[i]! }));
}

/** Opens an array, and says of a file with several how to name one. */
export async function openArray(
  { text, path, name }: ArrayPath,
  source: FileLike = path,
): Promise<RowReader> {
  try {
    return await openRows(source, name === undefined ? {} : { name });
  } catch (error) {
    if (!isErrorWithCode(error, 'ERR_OPTION')) throw error;
    const arrays = (await listArrays(path)).flatMap((array) =>
      array.name === undefined ? [] : [array.name],
    );
    if (arrays.length === 0)
      throw new UsageError(`${text}: the file has one array, without a name: give '${path}'`);
    const list = arrays.slice(0, 10).join(', ') + (arrays.length > 10 ? ', ...' : '');
    throw new UsageError(
      name === undefined
        ? `${text}: say which of its arrays, as '${path}:${arrays[0]!}'; it has ${list}`
        : `${path}: has no array '${name}', but ${list}${suggestion(name, arrays)}`,
    );
  }
}

async function identify({ path, name }: ArrayPath, { shape, dtype }: RowReader): Promise<FileIdentity> {
  const { size, mtimeNs } = await stat(path, { bigint: true });
  return {
    path: resolve(path),
    array: name ?? null,
    size: Number(size),
    modified: String(mtimeNs),
    shape,
    dtype,
  };
}

/** Opens and checks a pair of files, without reading their rows. */
async function openShard(given: { logits: string; targets: string }, splits: number): Promise<Shard> {
  const logits = await arrayPath(given.logits);
  const targets = await arrayPath(given.targets);
  await using rows = await openArray(logits);
  await using labels = await openArray(targets);
  const { shape, numRows, dtype } = rows;
  const fail = (what: string): never => {
    throw new CommandError(what);
  };
  if (!isFloat(dtype) || shape.length < 2) {
    const swapped = isFloat(labels.dtype) && labels.shape.length > 1 ? '; are the two files swapped?' : '';
    fail(
      `${given.logits}: expected logits [N, C] of a floating dtype, got ${dtype} of shape ${showShape(shape)}${swapped}`,
    );
  }
  if (isFloat(labels.dtype)) {
    fail(
      `${given.targets}: expected class indices, which are integers, got ${labels.dtype} of shape ${showShape(labels.shape)}`,
    );
  }
  if (splits > 1 && shape.length !== 2) {
    fail(`${given.logits}: expected logits [N, C] for a loss over splits, got shape ${showShape(shape)}`);
  }
  if (numRows % splits !== 0) {
    fail(
      `${given.logits}: expected the rows of ${splits} splits, so a multiple of ${splits}, got ${showCount(numRows)}; ` +
        `--num-splits says how many there are`,
    );
  }
  const samples = numRows / splits;
  const pixels = shape.slice(2);
  const wanted = (n: number) => sameShape(labels.shape, [n, ...pixels]);
  if (!wanted(numRows) && !wanted(samples)) {
    const each = splits > 1 ? ` or ${showShape([samples])} for each split` : '';
    fail(
      `${given.targets}: expected class indices of shape ${showShape([numRows, ...pixels])}${each}, as ${given.logits} is ` +
        `${showShape(shape)}, got ${showShape(labels.shape)}`,
    );
  }
  return {
    logits,
    targets,
    identity: { logits: await identify(logits, rows), targets: await identify(targets, labels) },
    shape,
    samples,
    bytesPerRow: rows.bytesPerRow,
    targetSplits: wanted(numRows) ? splits : 1,
    seekable: [rows, labels].every(({ format }) => format === 'npy' || format === 'safetensors'),
  };
}

/** All pairs, checked: a fault of the last one is found before the first one is read. */
export async function openShards(
  pairs: readonly { logits: string; targets: string }[],
  splits: number,
): Promise<Shard[]> {
  const shards: Shard[] = [];
  for (const pair of pairs) {
    const shard = await openShard(pair, splits);
    const [first] = shards;
    if (first !== undefined && shard.shape[1] !== first.shape[1]) {
      throw new CommandError(
        `${pair.logits}: expected logits of ${first.shape[1]!} classes, as in ${first.logits.text}, got ${shard.shape[1]!}`,
      );
    }
    shards.push(shard);
  }
  return shards;
}
