// The state of an evaluator as JSON: its schema, written and read.

import { createHash } from 'node:crypto';
import { describe, rangeError, typeError } from '../errors.js';
import type { Criterion } from './criterion.js';
import { exactSum, putExactSum, termWords, type Statistics } from './statistics.js';

export interface EvaluatorConfig {
  readonly numClasses: number;
  readonly topK: readonly number[];
  readonly bins: number;
  readonly ignoreIndex: number;
  readonly confusion: boolean;
  /** What each of `losses` is: its class, parameters, and digests of its tensors. */
  readonly losses: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/** A sum of terms in hexadecimal, a whole number of 2^-112; and how many terms were ∞, −∞ and NaN. */
export type TermsState = readonly [sum: string, positive: number, negative: number, undefined: number];

/** What `toJSON` gives. Sums are whole numbers of 2^-112, in hexadecimal. */
export interface EvaluatorState {
  readonly schema: 'surprisal.evaluator';
  readonly version: 1;
  readonly config: EvaluatorConfig;
  /** SHA-256 of the configuration's JSON, its keys in order. */
  readonly hash: string;
  readonly ignored: number;
  readonly undefined: number;
  /** Σ of the rows' Brier scores, and of their entropies. */
  readonly brier: string;
  readonly entropy: string;
  /** Rows whose label has rank r, for each r below the largest k. */
  readonly ranks: readonly number[];
  /** By bin: rows, right ones, and Σ confidence. */
  readonly bins: readonly (readonly [rows: number, right: number, confidence: string])[];
  /** By class as label, where it has rows: class, rows, right ones, those of infinite and of undefined loss, and Σ loss. */
  readonly labels: readonly (readonly [
    label: number,
    rows: number,
    right: number,
    infinite: number,
    undefined: number,
    loss: string,
  ])[];
  /** Cells of the confusion matrix off its diagonal that are not 0: label·C + prediction, and rows. */
  readonly confusion: readonly (readonly [cell: number, rows: number])[] | null;
  /** Of each of `losses`: the sum of its terms, and of what a mean divides by. */
  readonly losses: Readonly<Record<string, { readonly sum: TermsState; readonly denominator: TermsState }>>;
}

/** A configuration as text that does not depend on the order of keys, which databases may change. */
export function canonical(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'undefined';
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`).join(',')}}`;
}

export const hashOf = (config: unknown): string =>
  createHash('sha256').update(canonical(config)).digest('hex');

const schema = 'surprisal.evaluator';
const version = 1;

const showSum = (words: Float64Array, at: number): string => exactSum(words, at).toString(16);

const showTerms = (words: Float64Array): TermsState => {
  const [positive, negative, undefinedTerms] = words.subarray(termWords - 3);
  return [showSum(words, 0), positive!, negative!, undefinedTerms!];
};

export function writeState(
  config: EvaluatorConfig,
  hash: string,
  statistics: Statistics,
  criteria: ReadonlyMap<string, Criterion>,
): EvaluatorState {
  const { layout, words, classes, confusion } = statistics;
  const labels: EvaluatorState['labels'][number][] = [];
  for (let y = 0; y < classes; y++) {
    const at = statistics.label(y);
    const [rows, right, infinite, undefinedRows] = words.subarray(at, at + 4);
    if (rows! > 0) labels.push([y, rows!, right!, infinite!, undefinedRows!, showSum(words, at + 4)]);
  }
  const cells: (readonly [number, number])[] = [];
  confusion?.forEach((rows, cell) => {
    if (rows > 0) cells.push([cell, rows]);
  });
  return {
    schema,
    version,
    config,
    hash,
    ignored: words[layout.ignored]!,
    undefined: words[layout.undefined]!,
    brier: showSum(words, layout.brier),
    entropy: showSum(words, layout.entropy),
    ranks: Array.from(words.subarray(layout.ranks, layout.bins)),
    bins: Array.from({ length: statistics.bins + 1 }, (_, b) => {
      const at = statistics.bin(b);
      return [words[at]!, words[at + 1]!, showSum(words, at + 2)] as const;
    }),
    labels,
    confusion: confusion === undefined ? null : cells,
    losses: Object.fromEntries(
      [...criteria].map(([name, { sum, denominator }]) => [
        name,
        { sum: showTerms(sum), denominator: showTerms(denominator) },
      ]),
    ),
  };
}

const owner = 'ClassificationEvaluator.fromJSON';

/** Reads parts of JSON, and says of what is not as expected where it stands. */
class Reader {
  constructor(
    readonly value: unknown,
    readonly path: string,
  ) {}

  fail(expected: string): never {
    throw typeError(
      'ERR_OPTION',
      `${owner}: expected ${expected} as ${this.path}, got ${describe(this.value)}`,
    );
  }

  get(name: string): Reader {
    const { value } = this;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) this.fail('an object');
    return new Reader(
      (value as Record<string, unknown>)[name],
      this.path === 'the state' ? name : `${this.path}.${name}`,
    );
  }

  list(length?: number): Reader[] {
    const { value } = this;
    if (!Array.isArray(value) || (length !== undefined && value.length !== length)) {
      this.fail(length === undefined ? 'an array' : `an array of length ${length}`);
    }
    return value.map((item, i) => new Reader(item, `${this.path}[${i}]`));
  }

  count(below = Infinity): number {
    const { value } = this;
    if (!Number.isSafeInteger(value) || (value as number) < 0 || (value as number) >= below) {
      this.fail(below === Infinity ? 'a whole number' : `a whole number below ${below}`);
    }
    return value as number;
  }

  sum(words: Float64Array, at: number, signed = false): void {
    const { value } = this;
    const pattern = signed ? /^-?[0-9a-f]{1,80}$/ : /^[0-9a-f]{1,80}$/;
    if (typeof value !== 'string' || !pattern.test(value)) this.fail('a sum in hexadecimal');
    const magnitude = BigInt(`0x${value.replace('-', '')}`);
    if (!putExactSum(words, at, value.startsWith('-') ? -magnitude : magnitude)) this.fail('a sum in range');
  }

  terms(words: Float64Array): void {
    const [sum, ...counts] = this.list(4);
    sum!.sum(words, 0, true);
    counts.forEach((count, i) => (words[termWords - 3 + i] = count.count()));
  }
}

/** An evaluator's parts, to be filled. */
interface Parts<E> {
  readonly evaluator: E;
  readonly hash: string;
  readonly statistics: Statistics;
  readonly criteria: ReadonlyMap<string, Criterion>;
}

/** Makes an evaluator of the state's configuration, by `make`, and fills it. */
export function readState<E>(value: unknown, make: (config: EvaluatorConfig) => Parts<E>): E {
  const state = new Reader(value, 'the state');
  if (state.get('schema').value !== schema) state.get('schema').fail(`'${schema}'`);
  if (state.get('version').value !== version) {
    throw rangeError(
      'ERR_OPTION',
      `${owner}: expected a state of version ${version}, got version ${describe(state.get('version').value)}; ` +
        `read it with the release of surprisal that wrote it`,
    );
  }
  const config = state.get('config');
  if (typeof config.get('losses').value !== 'object' || config.get('losses').value === null) {
    config.get('losses').fail('an object');
  }
  const hash = hashOf(config.value);
  if (hash !== state.get('hash').value) {
    throw rangeError(
      'ERR_OPTION',
      `${owner}: expected the hash of the configuration, ${hash}, got ${describe(state.get('hash').value)}; ` +
        `one of them was changed`,
    );
  }
  const { evaluator, statistics, criteria } = make(config.value as EvaluatorConfig);
  fill(state, statistics);
  for (const [name, { sum, denominator }] of criteria) {
    const terms = state.get('losses').get(name);
    terms.get('sum').terms(sum);
    terms.get('denominator').terms(denominator);
  }
  return evaluator;
}

function fill(state: Reader, statistics: Statistics): void {
  const { layout, words, classes, ranks, bins, confusion } = statistics;
  words[layout.ignored] = state.get('ignored').count();
  words[layout.undefined] = state.get('undefined').count();
  state.get('brier').sum(words, layout.brier);
  state.get('entropy').sum(words, layout.entropy);
  state
    .get('ranks')
    .list(ranks)
    .forEach((rows, r) => (words[layout.ranks + r] = rows.count()));
  state
    .get('bins')
    .list(bins + 1)
    .forEach((bin, b) => {
      const at = statistics.bin(b);
      const [rows, right, confidence] = bin.list(3);
      words[at] = rows!.count();
      words[at + 1] = right!.count(words[at] + 1);
      confidence!.sum(words, at + 2);
    });
  let last = -1;
  for (const label of state.get('labels').list()) {
    const [y, ...counts] = label.list(6);
    const at = statistics.label(y!.count(classes));
    if (y!.count() <= last) y!.fail('a class after the one before');
    last = y!.count();
    counts.slice(0, 4).forEach((count, i) => (words[at + i] = count.count()));
    counts[4]!.sum(words, at + 4);
  }
  if (confusion === undefined) {
    if (state.get('confusion').value !== null) state.get('confusion').fail('null');
    return;
  }
  for (const entry of state.get('confusion').list()) {
    const [cell, rows] = entry.list(2);
    const at = cell!.count(confusion.length);
    if (at % (classes + 1) === 0) cell!.fail('a cell off the diagonal');
    confusion[at] = rows!.count();
  }
}
