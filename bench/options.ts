/** The command line. */

import { parseArgs } from 'node:util';
import type { FloatDType } from 'surprisal';

export const usage = `npm run bench -- [options]

  --filter <words>           only what has these words in its line, as "jsd float32 4096x1000": each word must occur in
                             "<loss> <pass> <dtype> <shape> <n> threads <instruction set>"; also: peers, strided, small
  --quick                    a short run: float32, three shapes, a hundred thousand small calls
  --shape <NxC,...>          shapes of the matrix, and others than its own
  --dtype <name,...>         float32, float16, bfloat16, float64
  --threads <n,...>          numbers of threads, or all; default 1,all
  --instruction-set <name,...>  kernels to force, best first; default the best two
  --rounds <n>               at least, where the time allows more; default 7
  --budget <seconds>         for the rounds of all; default 780, with --quick 45
  --json <file>              where to write the results; default bench/results/<cpu>.json for a run of everything
  --no-chart                 draw nothing beside the JSON
  --help                     this text`;

export interface Options {
  readonly words: readonly string[];
  readonly quick: boolean;
  readonly shapes: readonly (readonly [rows: number, classes: number])[] | undefined;
  readonly dtypes: readonly FloatDType[] | undefined;
  readonly threads: readonly number[];
  readonly instructionSets: readonly string[];
  readonly rounds: number;
  /** Nanoseconds. */
  readonly budget: number;
  readonly json: string | undefined;
  readonly chart: boolean;
  /** Nothing was narrowed down. */
  readonly everything: boolean;
}

const usualThreads = '1,all';

const dtypes: readonly FloatDType[] = ['float32', 'float16', 'bfloat16', 'float64'];

const list = (text: string): string[] => text.split(',').map((part) => part.trim());

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) {
    throw new RangeError(`--${name}: expected a number above 0, got '${text}'`);
  }
  return value;
}

function integer(name: string, text: string): number {
  const value = positive(name, text);
  if (!Number.isInteger(value)) throw new RangeError(`--${name}: expected an integer, got '${text}'`);
  return value;
}

function choice<T extends string>(name: string, known: readonly T[], text: string): T {
  const found = known.find((candidate) => candidate === text);
  if (found === undefined) {
    throw new RangeError(`--${name}: expected some of ${known.join(', ')}, got '${text}'`);
  }
  return found;
}

function dims(text: string): readonly [number, number] {
  const parts = text.split(/[x×]/);
  if (parts.length !== 2) throw new RangeError(`--shape: expected NxC as 4096x1000, got '${text}'`);
  return [integer('shape', parts[0]!), integer('shape', parts[1]!)];
}

/**
 * The options of a command line, or undefined where it asks for help. Throws on what is wrong with it.
 *
 * @param allThreads - what `all` means
 * @param instructionSets - those that this machine runs, best first
 */
export function parseOptions(
  args: readonly string[],
  allThreads: number,
  instructionSets: readonly string[],
): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      filter: { type: 'string' },
      quick: { type: 'boolean', default: false },
      shape: { type: 'string' },
      dtype: { type: 'string' },
      threads: { type: 'string', default: usualThreads },
      'instruction-set': { type: 'string' },
      rounds: { type: 'string', default: '7' },
      budget: { type: 'string' },
      json: { type: 'string' },
      'no-chart': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const { filter, quick, shape, dtype, json } = values;
  const sets = values['instruction-set'];
  const threads = list(values.threads).map((text) =>
    text === 'all' ? allThreads : integer('threads', text),
  );
  return {
    words: filter === undefined ? [] : filter.toLowerCase().split(/\s+/).filter(Boolean),
    quick,
    shapes: shape === undefined ? undefined : list(shape).map(dims),
    dtypes: dtype === undefined ? undefined : list(dtype).map((name) => choice('dtype', dtypes, name)),
    threads: [...new Set(threads)].sort((a, b) => a - b),
    instructionSets:
      sets === undefined
        ? instructionSets.slice(0, 2)
        : list(sets).map((name) => choice('instruction-set', instructionSets, name)),
    rounds: integer('rounds', values.rounds),
    budget: 1e9 * (values.budget === undefined ? (quick ? 45 : 780) : positive('budget', values.budget)),
    json,
    chart: !values['no-chart'],
    everything:
      [filter, shape, dtype, sets].every((value) => value === undefined) &&
      !quick &&
      values.threads === usualThreads,
  };
}
