// A loss of the package as one of an evaluation's: its terms are summed exactly, and divided at the end.

import { createHash } from 'node:crypto';
import { evaluateAsync } from '../async.js';
import { binding, dtypeCode } from '../binding.js';
import { describe, typeError } from '../errors.js';
import { internals, Loss, type LossDefinition } from '../loss/loss.js';
import { numel } from '../shape.js';
import { asTensor, contiguous, type Tensor } from '../tensor.js';
import { termWords, totalOf } from './statistics.js';

/** A loss of another's definition that gives its terms. */
class Terms extends Loss {
  constructor(definition: LossDefinition, reduction: 'none' | 'sum') {
    super({ ...definition, reduction });
  }
}

const kindOf = (name: string): string => binding.losses.find((entry) => entry.name === name)!.kind;

/** A short name of a tensor's numbers. */
const digest = (values: Tensor | undefined): string | undefined =>
  values &&
  `${values.dtype}[${values.shape.join(',')}]:${createHash('sha256').update(values.data).digest('hex')}`;

/** One call's terms and denominator, ready to be added. */
export interface Addend {
  readonly terms: Tensor;
  readonly denominator: Float64Array;
}

/** The terms of a loss, summed up over calls. */
export class Criterion {
  readonly #definition: LossDefinition;
  readonly #terms: Loss;
  readonly #grouped: boolean;
  /** The sum of the terms, and what a mean divides by. */
  readonly sum = new Float64Array(termWords);
  readonly denominator = new Float64Array(termWords);

  constructor(owner: string, name: string, loss: unknown) {
    if (!(loss instanceof Loss)) {
      throw typeError(
        'ERR_OPTION',
        `${owner}: expected losses.${name} to be a loss of surprisal/loss, got ${describe(loss)}`,
      );
    }
    this.#definition = internals.definitionOf(loss);
    if (!this.#definition.targets.includes('indices')) {
      throw typeError(
        'ERR_OPTION',
        `${owner}: losses.${name} is ${this.#definition.owner}, which takes no class indices; an evaluator has no other targets`,
      );
    }
    this.#grouped = kindOf(loss.name) === 'row_group';
    this.#terms = new Terms(this.#definition, this.#grouped ? 'sum' : 'none');
  }

  /** What makes two criteria the same, as JSON. */
  describe(): Record<string, unknown> {
    const {
      owner,
      name,
      parameters = {},
      reduction,
      ignoreIndex,
      weight,
      posWeight,
      lens,
      divisor,
    } = this.#definition;
    return {
      loss: owner,
      name,
      // JSON has no NaN, by which a threshold says that there is none.
      parameters: Object.fromEntries(
        Object.entries(parameters).map(([key, value]) => [key, Number.isNaN(value) ? null : value]),
      ),
      reduction: reduction === 'sum' ? 'sum' : 'mean',
      ignoreIndex: ignoreIndex ?? null,
      weight: digest(weight) ?? null,
      posWeight: digest(posWeight) ?? null,
      lens: digest(lens?.matrix) ?? null,
      sumClasses: divisor !== undefined,
    };
  }

  /** The terms of these rows, of which nothing is added yet. */
  evaluate(logits: Tensor, target: Tensor): Addend {
    const call = internals.arraysOf(this.#terms, logits, target);
    return this.#addend(call.value, binding.evaluate(...call.arrays), logits, target);
  }

  /** The same off the event loop. */
  async evaluateAsync(
    owner: string,
    logits: Tensor,
    target: Tensor,
    signal: AbortSignal | undefined,
  ): Promise<Addend> {
    const call = internals.arraysOf(this.#terms, logits, target);
    return this.#addend(call.value, await evaluateAsync(owner, call.arrays, {}, signal), logits, target);
  }

  add({ terms, denominator }: Addend): void {
    binding.addTerms(terms.data, dtypeCode[terms.dtype]!, this.sum);
    binding.addTerms(denominator, dtypeCode['float64']!, this.denominator);
  }

  /** Adds another's of the same definition. */
  merge(other: Criterion): void {
    mergeTerms(this.sum, other.sum);
    mergeTerms(this.denominator, other.denominator);
  }

  /** The mean, or of a loss that sums its sum. */
  value(): number {
    const sum = totalOf(this.sum);
    return this.#definition.reduction === 'sum' ? sum : sum / totalOf(this.denominator);
  }

  #addend(value: Tensor, loss: number | undefined, logits: Tensor, target: Tensor): Addend {
    const denominator = this.#denominators(logits, target, value);
    if (loss === undefined) return { terms: value, denominator };
    return { terms: asTensor(Float64Array.of(loss), 'loss'), denominator };
  }

  /** Terms of what the mean divides by. */
  #denominators(logits: Tensor, target: Tensor, value: Tensor): Float64Array {
    const { numSplits, weight, ignoreIndex, lens, name, divisor } = this.#definition;
    const rows = numel(target.shape);
    if (this.#grouped) return Float64Array.of(logits.shape[0]! / (numSplits ?? 1));
    const kind = kindOf(name);
    if (kind === 'elementwise') return Float64Array.of(divisor?.(logits.shape) ?? numel(value.shape));
    const weighs = (kind === 'softmax_linear' || kind === 'gather') && lens === undefined;
    if (!weighs || (weight === undefined && ignoreIndex === undefined)) return Float64Array.of(rows);
    const labels = contiguous(target).data;
    const own = weight?.data as Float64Array | undefined;
    const factor = (y: number) => (logits.dtype === 'float64' ? own![y]! : Math.fround(own![y]!));
    return Float64Array.from({ length: rows }, (_, row) => {
      const y = Number(labels[row]);
      return y === ignoreIndex ? 0 : own === undefined ? 1 : factor(y);
    });
  }
}

function mergeTerms(words: Float64Array, others: Float64Array): void {
  for (let i = 0; i < termWords; i++) words[i] = words[i]! + others[i]!;
  binding.addTerms(Float64Array.of(0), dtypeCode['float64']!, words);
}
