/** Counts the rows of files: what one thread does. */
import { allocate } from '../dtype.js';
import { rangeError } from '../errors.js';
import type { RowReader } from '../io/rows.js';
import type { ClassificationEvaluator } from '../metrics/classification_evaluator.js';
import { showShape } from '../shape.js';
import { Tensor } from '../tensor.js';
import type { Shard } from './inputs.js';
import { makeEvaluator, type Plan } from './plan.js';
import { RowLosses } from './row_losses.js';
import { CommandError, isErrorWithCode, showCount } from './terminal.js';

/** Rows [start, end) of each split of a shard. */
export interface Range {
  readonly shard: number;
  readonly start: number;
  readonly end: number;
}

/** The labels of one split for each of `splits`. */
function repeated(labels: Tensor, splits: number): Tensor {
  const { length } = labels.data;
  const data = allocate(labels.dtype, splits * length) as Int32Array;
  for (let k = 0; k < splits; k++) data.set(labels.data as Int32Array, k * length);
  return new Tensor(data, [splits * length], labels.dtype);
}

/** Says of labels that are none where the first one stands in its file; else gives the error as it is. */
function explain(
  error: unknown,
  shard: Shard,
  labels: Tensor,
  row: number,
  { loss }: Plan,
  ignoreIndex: number,
): unknown {
  if (!isErrorWithCode(error, 'ERR_TARGET_OUT_OF_RANGE')) return error;
  const classes = shard.shape[1]!;
  const values = Array.from(labels.data as ArrayLike<number | bigint>, Number);
  const outside = (y: number) => y < 0 || y >= classes;
  let at = values.findIndex((y) => outside(y) && y !== ignoreIndex);
  const ignored = at < 0;
  if (ignored) at = values.findIndex(outside);
  // A block is the same rows of each split that the targets have.
  const line = Math.floor((at * labels.shape[0]!) / values.length);
  const perSplit = labels.shape[0]! / shard.targetSplits;
  const inFile = Math.floor(line / perSplit) * shard.samples + row + (line % perSplit);
  const hint = ignored
    ? `${loss?.name ?? 'this loss'} knows no rows to be ignored`
    : `rows to be ignored are ${ignoreIndex}; --ignore-index says otherwise`;
  return rangeError(
    'ERR_TARGET_OUT_OF_RANGE',
    `${shard.targets.text}: expected class indices in [0, ${classes}), but row ${showCount(inFile)} is ${values[at]!} (${hint})`,
  );
}

export class Counter {
  readonly evaluator: ClassificationEvaluator;
  /** Of the report's. */
  readonly rowLosses: RowLosses | undefined;

  constructor(
    readonly plan: Plan,
    readonly shards: readonly Shard[],
  ) {
    const [, classes] = shards[0]!.shape as [number, number];
    this.evaluator = makeEvaluator(plan, classes);
    if (plan.paths.html === undefined) return;
    const other = shards.find(({ shape }) => shape.length !== 2);
    if (other !== undefined) {
      throw new CommandError(
        `${other.logits.text}: expected logits [N, C] for --html, got ${showShape(other.shape)}`,
      );
    }
    this.rowLosses = new RowLosses(classes, this.evaluator.config.ignoreIndex);
  }

  /**
   * Counts a range.
   *
   * @param blocking whether on this thread, for one of which no others wait
   * @param counted called after each block, with the row of each split after it, when the block counts; the range ends
   * where it gives false
   */
  async count(
    { shard: index, start, end }: Range,
    logits: RowReader,
    labels: RowReader,
    rowsPerBlock: number,
    blocking: boolean,
    counted: (row: number) => boolean | Promise<boolean>,
  ): Promise<void> {
    const { evaluator, rowLosses, plan } = this;
    const { splits } = plan;
    const shard = this.shards[index]!;
    const targets = labels.blocks({ splits: shard.targetSplits, start, end, rowsPerBlock });
    let row = start;
    try {
      for await (const block of logits.blocks({ splits, start, end, rowsPerBlock })) {
        const given = (await targets.next()).value!;
        const target = shard.targetSplits < splits ? repeated(given, splits) : given;
        let losses: Tensor | undefined;
        try {
          if (blocking) {
            losses = rowLosses?.losses(block, target);
            evaluator.update(block, target);
          } else {
            losses = await rowLosses?.lossesAsync(block, target);
            await evaluator.updateAsync(block, target);
          }
        } catch (error) {
          throw explain(error, shard, given, row, plan, evaluator.config.ignoreIndex);
        }
        const rows = block.shape[0]! / splits;
        if (losses !== undefined) {
          const first = row;
          const rowOf = (i: number) => Math.floor(i / rows) * shard.samples + first + (i % rows);
          rowLosses!.add(losses, block, target, index, rowOf);
        }
        row += rows;
        if (!(await counted(row))) return;
      }
    } finally {
      await targets.return();
    }
  }
}
