/** What the commands share: arguments, messages, numbers as people read them. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import type { SurprisalError } from '../errors.js';

/** A command that was used wrongly: exit code 2. */
export class UsageError extends Error {}

/** What went wrong with a file or the system, in words for the person at the terminal: exit code 1. */
export class CommandError extends Error {}

export const exitCodes = { failure: 1, usage: 2, interrupted: 130, terminated: 143 } as const;

type Options = NonNullable<ParseArgsConfig['options']>;

export interface Token {
  readonly kind: 'option' | 'positional' | 'option-terminator';
  readonly name?: string;
  readonly value?: string | undefined;
}

export interface Parsed {
  readonly values: Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;
  readonly tokens: readonly Token[];
  readonly positionals: readonly string[];
}

/** How many letters have to change to make one word of another. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + Number(a[i - 1] !== b[j - 1])));
    }
    row = next;
  }
  return row[b.length]!;
}

/** '; did you mean X?', where one of the words is near. */
export function suggestion(word: string, words: readonly string[]): string {
  const changes = words.map((other) =>
    word.length > 3 && other.startsWith(word) ? 1 : distance(word, other),
  );
  const least = Math.min(2, ...changes);
  const near = words.filter((_, i) => changes[i] === least);
  return near.length === 1 ? `; did you mean '${near[0]!}'?` : '';
}

/** The arguments of a command. Throws UsageError. */
export function parseArguments(args: readonly string[], options: Options): Parsed {
  try {
    const parsed = parseArgs({ args: [...args], options, allowPositionals: true, tokens: true });
    return {
      values: parsed.values,
      tokens: parsed.tokens,
      positionals: parsed.positionals,
    };
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION') {
      const unknown = /'(-[^']*)'/.exec(message)?.[1] ?? '';
      const near = suggestion(
        unknown,
        Object.keys(options).map((name) => `--${name}`),
      );
      throw new UsageError(`unknown option '${unknown}'${near}`);
    }
    if (code?.startsWith('ERR_PARSE_ARGS_')) {
      throw new UsageError(
        message.split('\n')[0]!.replace(/^Option '(?:-\w, )?(--[\w-]+)( <value>)?'/, '$1:'),
      );
    }
    throw error;
  }
}

const show = (text: string) => `'${text}'`;

/** A number that an option gives. Throws UsageError. */
export function numberArgument(
  option: string,
  text: string,
  {
    min = -Infinity,
    below = Infinity,
    integer = false,
  }: { min?: number; below?: number; integer?: boolean } = {},
): number {
  const value = text.trim() === '' ? NaN : Number(text);
  if (Number.isFinite(value) && value >= min && value < below && (!integer || Number.isSafeInteger(value)))
    return value;
  const bounds = [
    ...(min > -Infinity ? [`of at least ${min}`] : []),
    ...(below < Infinity ? [`below ${below}`] : []),
  ].join(' and ');
  throw new UsageError(
    `--${option}: expected ${integer ? 'a whole number' : 'a number'}${bounds && ` ${bounds}`}, got ${show(text)}`,
  );
}

export const fileErrors: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  EISDIR: 'is a directory',
  ENOTDIR: 'a part of the path is not a directory',
  ENOSPC: 'no space left on the device',
  EROFS: 'the file system is read-only',
  EMFILE: 'too many open files',
  EIO: 'the device failed to read or write',
};

/** An error in one line, where it is one that a person may meet; undefined where it is a fault of ours. */
export function messageOf(error: unknown): string | undefined {
  if (error instanceof UsageError || error instanceof CommandError) return error.message;
  if (!(error instanceof Error)) return undefined;
  const { code, message } = error as SurprisalError & NodeJS.ErrnoException;
  const { path, syscall } = error as NodeJS.ErrnoException;
  if (typeof code !== 'string') return message.startsWith('surprisal: ') ? message.slice(11) : undefined;
  const known = fileErrors[code];
  if (syscall !== undefined && known !== undefined) return path === undefined ? known : `${path}: ${known}`;
  return message;
}

export const isErrorWithCode = (error: unknown, code: string): error is SurprisalError =>
  error instanceof Error && (error as SurprisalError).code === code;

/** A count with its thousands apart. */
export const showCount = (n: number): string => n.toLocaleString('en-US');

/** Four significant digits, and an exponent only where zeros would be counted. */
export function showNumber(value: number): string {
  if (Number.isNaN(value)) return 'undefined';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '-∞';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(3);
  return value.toFixed(size >= 1000 ? 1 : size >= 100 ? 2 : size >= 10 ? 3 : 4);
}

export const showPercent = (fraction: number): string =>
  Number.isNaN(fraction) ? 'undefined' : `${(100 * fraction).toFixed(2)} %`;

export function showBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${unit === 0 ? bytes : bytes.toFixed(bytes >= 100 ? 0 : 1)} ${units[unit]!}`;
}

/** Lines whose cells stand below one another. */
export function table(rows: readonly (readonly string[])[], gap = 2): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]! + gap))
        .join('')
        .trimEnd(),
    )
    .join('\n');
}

/** JSON of one object: numbers that JSON has not, NaN and ∞, are null; arrays of numbers are arrays. */
export const toJson = (value: unknown): string =>
  JSON.stringify(value, (_, item: unknown) =>
    ArrayBuffer.isView(item) ? Array.from(item as Float64Array) : item,
  );

/** Writes to stdout, and waits until a pipe has taken it. */
export const print = (text: string): Promise<void> =>
  new Promise((resolve, reject) => {
    process.stdout.write(`${text}\n`, (error) => (error ? reject(error) : resolve()));
  });

/** A line for the person at the terminal, which is no result. */
export const note = (text: string): void => void process.stderr.write(`surprisal: ${text}\n`);
