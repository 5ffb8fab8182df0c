import type { Arrays } from '../../binding.js';
import { evaluateAsync } from '../async.js';
import { binding, slot } from '../binding.js';
import { describe, rangeError, typeError } from '../errors.js';
import { internals, Loss, type AsyncOptions } from '../loss/loss.js';
import { booleanOption, checkOptions, numberOption } from '../options.js';
import { showShape } from '../shape.js';
import { asTensor, Tensor, type TensorLike } from '../tensor.js';
import { Criterion } from './criterion.js';
import {
  canonical,
  hashOf,
  readState,
  writeState,
  type EvaluatorConfig,
  type EvaluatorState,
} from './state.js';
import { carry, Statistics, sumOf } from './statistics.js';

export type { EvaluatorConfig, EvaluatorState } from './state.js';

export interface ClassificationEvaluatorOptions {
  /** C, the size of the logits' class dimension. */
  numClasses: number;
  /** The k of top-k accuracies; [1, 5] by default. */
  topK?: readonly number[] | undefined;
  /** Of equal width in [0, 1), by which calibration errors compare confidence with accuracy; 15 by default. */
  bins?: number | undefined;
  /** Rows of this class index count nowhere; −100 by default. */
  ignoreIndex?: number | undefined;
  /**
   * Whether a confusion matrix is kept, of C² float64. It is by default; with more than 4096 classes say which.
   */
  confusion?: boolean | undefined;
  /** More losses by name, of those that take class indices; each is a pass of its own. */
  losses?: Readonly<Record<string, Loss>> | undefined;
}

/** What an evaluator knows of the rows so far. Entropies and losses are in nats; NaN is what there is no row for. */
export interface ClassificationMetrics {
  /** How many count: those that are not ignored. */
  readonly rows: number;
  readonly ignored: number;
  /** Rows with a NaN among their logits, or an infinite largest one: their loss is NaN, and they have no prediction. */
  readonly undefined: number;
  /** Mean cross entropy, −log p of the label. */
  readonly loss: number;
  /** e^loss */
  readonly perplexity: number;
  /** Fraction of rows whose label has the largest logit: `topK[1]`. */
  readonly accuracy: number;
  /** By k, the fraction of rows whose label is among the k largest logits; of equal ones those of smaller index are. */
  readonly topK: Readonly<Record<number, number>>;
  /** Σ over bins of |accuracy − mean confidence|, by the bins' share of the rows. */
  readonly expectedCalibrationError: number;
  /** The largest |accuracy − mean confidence| of a bin. */
  readonly maximumCalibrationError: number;
  /** Mean of Σ_c (p_c − [c = label])², in [0, 2]. */
  readonly brierScore: number;
  /** Mean of −Σ p·log p. */
  readonly entropy: number;
  /** By class index as label: rows, mean loss, and fraction of rows that are right. */
  readonly perClass: {
    readonly rows: Float64Array;
    readonly loss: Float64Array;
    readonly accuracy: Float64Array;
  };
  /** A reliability diagram: bin b is of confidences in [b/bins, (b + 1)/bins), and the last, one more, of those of 1. */
  readonly calibration: {
    readonly rows: Float64Array;
    readonly accuracy: Float64Array;
    readonly confidence: Float64Array;
  };
  /** [C, C], float64: how many rows of each label, by row, were taken for each class, by column. */
  readonly confusionMatrix?: Tensor;
  /** The mean of each of `losses`, by its own denominator; the sum, where its reduction is 'sum'. */
  readonly losses: Readonly<Record<string, number>>;
}

const owner = 'ClassificationEvaluator';

/** Classes whose confusion matrix is kept unasked: 134 MB. */
export const mostUnasked = 4096;

/** Classes are numbered in the type that logits are computed in. */
const mostClasses = 2 ** 24;

/** Cross entropy, of whose rows the native side counts the rest. */
class CrossEntropyRows extends Loss {
  constructor(ignoreIndex: number) {
    super({
      owner,
      name: 'cross_entropy',
      parameters: { smoothing: 0 },
      reduction: 'sum',
      targets: ['indices'],
      classAxis: 1,
      ignoreIndex,
    });
  }
}

/** Statistics that asynchronous calls will be added to: these are all that keep them, once nobody waits. */
const awaited = new Map<Statistics, number>();

function checkTopK(topK: unknown): number[] {
  if (!Array.isArray(topK) || topK.length === 0) {
    throw typeError(
      'ERR_OPTION',
      `${owner}: expected topK as an array of at least one k, got ${describe(topK)}`,
    );
  }
  const ks = topK.map((k, i) =>
    numberOption(owner, `topK[${i}]`, k, { min: 1, max: mostClasses, integer: true }),
  );
  return [...new Set(ks)].sort((a, b) => a - b);
}

function checkConfusion(confusion: unknown, classes: number): boolean {
  if (confusion !== undefined) return booleanOption(owner, 'confusion', confusion);
  if (classes <= mostUnasked) return true;
  throw rangeError(
    'ERR_OPTION',
    `${owner}: a confusion matrix of ${classes} classes takes ${(classes ** 2 * 8) / 1e9} GB; ` +
      `say confusion: false to go without it, or confusion: true to keep it`,
  );
}

function checkLosses(losses: unknown): Map<string, Criterion> {
  if (losses === undefined) return new Map<string, Criterion>();
  if (typeof losses !== 'object' || losses === null || Array.isArray(losses)) {
    throw typeError(
      'ERR_OPTION',
      `${owner}: expected losses as an object of losses by name, got ${describe(losses)}`,
    );
  }
  const names = Object.keys(losses).sort();
  return new Map(
    names.map((name) => [name, new Criterion(owner, name, (losses as Record<string, unknown>)[name])]),
  );
}

/** How two configurations differ, in words. */
function difference(own: EvaluatorConfig, other: EvaluatorConfig): string {
  const keys = Object.keys(own) as (keyof EvaluatorConfig)[];
  return keys
    .filter((key) => canonical(own[key]) !== canonical(other[key]))
    .map((key) => {
      const show = (config: EvaluatorConfig) => {
        const text = JSON.stringify(config[key]);
        return text.length > 60 ? `${text.slice(0, 60)}…` : text;
      };
      return `${key} is ${show(own)} here, ${show(other)} there`;
    })
    .join('; ');
}

/**
 * Evaluates a classifier over any number of batches: loss, perplexity, top-k accuracies, calibration errors, Brier score,
 * entropy and confusion matrix, from one pass over the logits in native code.
 *
 * What it keeps are sums and counts, and the sums are exact: batches give the same bits in any order, and so do the
 * states of any shards, merged. A row's Brier score, entropy and confidence are cut off to multiples of 2^-80, its loss
 * to one of 2^-112; a loss of 2^132 or more counts as infinite.
 */
export class ClassificationEvaluator {
  readonly config: EvaluatorConfig;
  /** SHA-256 of the configuration: evaluators of the same one can be merged. */
  readonly hash: string;
  readonly #rows: CrossEntropyRows;
  readonly #statistics: Statistics;
  readonly #criteria: Map<string, Criterion>;

  /** @throws ERR_OPTION, ERR_OUT_OF_MEMORY */
  constructor(options: ClassificationEvaluatorOptions) {
    const {
      numClasses,
      topK = [1, 5],
      bins = 15,
      ignoreIndex = -100,
      confusion,
      losses,
    } = checkOptions(owner, options, ['numClasses', 'topK', 'bins', 'ignoreIndex', 'confusion', 'losses']);
    numberOption(owner, 'numClasses', numClasses, { min: 1, max: mostClasses, integer: true });
    const ks = checkTopK(topK);
    numberOption(owner, 'bins', bins, { min: 1, max: 2 ** 20, integer: true });
    numberOption(owner, 'ignoreIndex', ignoreIndex, { integer: true });
    this.#criteria = checkLosses(losses);
    this.config = {
      numClasses,
      topK: ks,
      bins,
      ignoreIndex,
      confusion: checkConfusion(confusion, numClasses),
      losses: Object.fromEntries(
        [...this.#criteria].map(([name, criterion]) => [name, criterion.describe()]),
      ),
    };
    this.hash = hashOf(this.config);
    this.#rows = new CrossEntropyRows(ignoreIndex);
    this.#statistics = new Statistics(numClasses, ks.at(-1)!, bins, this.config.confusion);
  }

  /**
   * Counts a batch: logits [C], [N, C] or [N, C, d1, ...] of any floating dtype, strided or not; class indices of that
   * shape without C. What throws has counted nothing. Tensors of a GPU are brought to the CPU, where the work is done.
   *
   * @throws ERR_SHAPE, ERR_DTYPE, ERR_TARGET_OUT_OF_RANGE
   */
  update(logits: TensorLike, target: TensorLike): this {
    const [input, labels] = this.#tensors(logits, target).map((given) => given.to('cpu')) as [Tensor, Tensor];
    const addends = [...this.#criteria.values()].map((criterion) => criterion.evaluate(input, labels));
    binding.evaluate(...this.#arrays(input, labels));
    this.#add(addends);
    return this;
  }

  /**
   * `update` off the event loop, on the threads that all calls share. The batch counts when the promise settles, and not
   * at all where it rejects. Any number may be at work; don't write to the arrays meanwhile.
   */
  async updateAsync(logits: TensorLike, target: TensorLike, options?: AsyncOptions): Promise<this> {
    const { signal } = checkOptions(`${owner}.updateAsync`, options, ['signal']);
    if (signal !== undefined && !(signal instanceof AbortSignal)) {
      throw typeError('ERR_OPTION', `${owner}: expected an AbortSignal for signal, got ${describe(signal)}`);
    }
    let [input, labels] = this.#tensors(logits, target);
    // Only of what is elsewhere: arrays in host memory are in the hands of the call from here on.
    if (input.device !== 'cpu') input = await input.toAsync('cpu');
    if (labels.device !== 'cpu') labels = await labels.toAsync('cpu');
    const statistics = this.#statistics;
    awaited.set(statistics, (awaited.get(statistics) ?? 0) + 1);
    try {
      const addends = await Promise.all(
        [...this.#criteria.values()].map((criterion) =>
          criterion.evaluateAsync(owner, input, labels, signal),
        ),
      );
      await evaluateAsync(owner, this.#arrays(input, labels), {}, signal);
      this.#add(addends);
    } finally {
      const calls = awaited.get(statistics)! - 1;
      if (calls > 0) awaited.set(statistics, calls);
      else awaited.delete(statistics);
    }
    return this;
  }

  /**
   * Adds what another evaluator of the same configuration has counted. The result is, bit for bit, that of one evaluator
   * of all batches.
   *
   * @throws ERR_OPTION where the configurations differ
   */
  merge(other: ClassificationEvaluator): this {
    if (!(other instanceof ClassificationEvaluator)) {
      throw typeError(
        'ERR_OPTION',
        `${owner}.merge: expected another ClassificationEvaluator, got ${describe(other)}; make one of JSON by fromJSON`,
      );
    }
    if (other.hash !== this.hash) {
      throw rangeError(
        'ERR_OPTION',
        `${owner}.merge: expected an evaluator of the configuration ${this.hash.slice(0, 12)}, got ` +
          `${other.hash.slice(0, 12)}: ${difference(this.config, other.config)}`,
      );
    }
    this.#statistics.add(other.#statistics);
    for (const [name, criterion] of this.#criteria) criterion.merge(other.#criteria.get(name)!);
    return this;
  }

  /** The state as JSON takes it, exactly; `fromJSON` makes an evaluator of it again. */
  toJSON(): EvaluatorState {
    return writeState(this.config, this.hash, this.#statistics, this.#criteria);
  }

  /**
   * The evaluator whose `toJSON` this was. Where it has `losses`, they are given once more: their options must be the same.
   *
   * @throws ERR_OPTION where it is no such state, of another version, or of other losses
   */
  static fromJSON(
    state: unknown,
    options?: Pick<ClassificationEvaluatorOptions, 'losses'>,
  ): ClassificationEvaluator {
    const { losses } = checkOptions(`${owner}.fromJSON`, options, ['losses']);
    return readState(state, (config) => {
      const { losses: described, ...rest } = config;
      const evaluator = new ClassificationEvaluator({ ...rest, losses });
      const own = Object.keys(evaluator.config.losses);
      const missing = Object.keys(described).filter((name) => !own.includes(name));
      if (missing.length > 0) {
        throw typeError(
          'ERR_OPTION',
          `${owner}.fromJSON: the state has losses that are to be given as options: ${missing.join(', ')}`,
        );
      }
      if (evaluator.hash !== hashOf(config)) {
        throw rangeError(
          'ERR_OPTION',
          `${owner}.fromJSON: the state is of another configuration: ${difference(evaluator.config, config)}`,
        );
      }
      return {
        evaluator,
        hash: evaluator.hash,
        statistics: evaluator.#statistics,
        criteria: evaluator.#criteria,
      };
    });
  }

  /** The metrics of what was counted so far. It changes nothing. */
  compute(): ClassificationMetrics {
    const { topK, bins, numClasses, confusion } = this.config;
    const { layout, words, ...statistics } = this.#summary();
    const { rows, right, perClass, lossSum } = statistics;
    const undefinedRows = words[layout.undefined]!;
    /** Mean of a number that undefined rows have not. */
    const mean = (sum: number) => (undefinedRows > 0 ? NaN : sum / rows);

    const calibration = {
      rows: new Float64Array(bins + 1),
      accuracy: new Float64Array(bins + 1),
      confidence: new Float64Array(bins + 1),
    };
    let expected = 0;
    let maximum = 0;
    for (let b = 0; b <= bins; b++) {
      const at = this.#statistics.bin(b);
      const count = words[at]!;
      calibration.rows[b] = count;
      calibration.accuracy[b] = words[at + 1]! / count;
      calibration.confidence[b] = sumOf(words, at + 2) / count;
      if (count === 0) continue;
      const gap = Math.abs(calibration.accuracy[b]! - calibration.confidence[b]!);
      expected += (gap * count) / rows;
      maximum = Math.max(maximum, gap);
    }

    const accuracies: Record<number, number> = {};
    let hits = 0;
    for (let rank = 0; rank < topK.at(-1)!; rank++) {
      hits += words[layout.ranks + rank]!;
      if (topK.includes(rank + 1)) accuracies[rank + 1] = hits / rows;
    }

    const loss = lossSum / rows;
    return {
      rows,
      ignored: words[layout.ignored]!,
      undefined: undefinedRows,
      loss,
      perplexity: Math.exp(loss),
      accuracy: right / rows,
      topK: accuracies,
      expectedCalibrationError: rows === 0 ? NaN : mean(expected * rows),
      maximumCalibrationError: rows === 0 || undefinedRows > 0 ? NaN : maximum,
      brierScore: mean(sumOf(words, layout.brier)),
      entropy: mean(sumOf(words, layout.entropy)),
      perClass,
      calibration,
      ...(confusion && {
        confusionMatrix: new Tensor(this.#statistics.confusionMatrix()!, [numClasses, numClasses], 'float64'),
      }),
      losses: Object.fromEntries([...this.#criteria].map(([name, criterion]) => [name, criterion.value()])),
    };
  }

  /** What is known by class, and its totals. */
  #summary() {
    const { numClasses } = this.config;
    const statistics = this.#statistics;
    const { layout, words } = statistics;
    const perClass = {
      rows: new Float64Array(numClasses),
      loss: new Float64Array(numClasses),
      accuracy: new Float64Array(numClasses),
    };
    const totals = new Float64Array(layout.labelWords);
    const lossOf = (group: Float64Array) =>
      group[3]! > 0 ? NaN : group[2]! > 0 ? Infinity : sumOf(group, 4);
    for (let y = 0; y < numClasses; y++) {
      const group = words.slice(statistics.label(y), statistics.label(y + 1));
      carry(group, 4);
      const [rows, right] = group;
      perClass.rows[y] = rows!;
      perClass.accuracy[y] = right! / rows!;
      perClass.loss[y] = lossOf(group) / rows!;
      for (let i = 0; i < group.length; i++) totals[i] = totals[i]! + group[i]!;
      // Digits are below 2^32, so that as many add up exactly.
      if (y % 2 ** 20 === 0) carry(totals, 4);
    }
    const [rows, right] = totals;
    return { layout, words, perClass, rows: rows!, right: right!, lossSum: lossOf(totals) };
  }

  /** The tensors of a batch whose class dimension is the evaluator's. */
  #tensors(logits: TensorLike, target: TensorLike): [Tensor, Tensor] {
    const input = asTensor(logits, 'logits');
    const { shape } = input;
    const classes = shape[shape.length > 1 ? 1 : 0];
    if (classes !== this.config.numClasses) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected logits of ${this.config.numClasses} classes, [N, ${this.config.numClasses}], got ${showShape(shape)}`,
      );
    }
    return [input, asTensor(target, 'target', 'indices')];
  }

  /** A call that counts these rows. */
  #arrays(logits: Tensor, target: Tensor): Arrays {
    const { arrays } = internals.arraysOf(this.#rows, logits, target);
    const { words, confusion, ranks, bins } = this.#statistics;
    const [header] = arrays;
    header[slot.ranks] = ranks;
    header[slot.bins] = bins;
    while (arrays.length < 10) arrays.push(undefined);
    arrays.push(words, confusion);
    return arrays;
  }

  #add(addends: readonly { readonly terms: Tensor; readonly denominator: Float64Array }[]): void {
    [...this.#criteria.values()].forEach((criterion, i) => criterion.add(addends[i]!));
  }
}
