/** What a report needs of single rows: how their losses are distributed, and which are the worst. */
import { CrossEntropyLoss } from '../loss/cross_entropy.js';
import { Tensor } from '../tensor.js';
import { CommandError } from './terminal.js';

export interface WorstRow {
  readonly shard: number;
  /** In its file. */
  readonly row: number;
  readonly label: number;
  /** The class of the largest logit; −1 where there is none. */
  readonly prediction: number;
  readonly loss: number;
}

/** As JSON. */
export interface RowLossesState {
  readonly counts: readonly number[];
  readonly undefined: number;
  readonly worst: readonly WorstRow[];
}

const histogramBins = 40;
const mostWorst = 25;

/** By loss, the largest first; of equal ones in the order of the files. */
const order = (a: WorstRow, b: WorstRow) => b.loss - a.loss || a.shard - b.shard || a.row - b.row;

export class RowLosses {
  /** Of the histogram's bins but the last, which is of all larger losses: from 0 to three times that of a guess, log C. */
  readonly width: number;
  readonly counts = new Array<number>(histogramBins + 1).fill(0);
  /** Rows whose loss is NaN. */
  undefined = 0;
  worst: WorstRow[] = [];
  readonly #criterion: CrossEntropyLoss;
  readonly #ignoreIndex: number;

  constructor(classes: number, ignoreIndex: number) {
    this.width = (3 * Math.log(Math.max(2, classes))) / histogramBins;
    this.#criterion = new CrossEntropyLoss({ reduction: 'none', ignoreIndex });
    this.#ignoreIndex = ignoreIndex;
  }

  /** The losses of a block's rows, of which nothing is counted yet. */
  losses(block: Tensor, labels: Tensor): Tensor {
    return this.#criterion.forward(block, labels);
  }

  lossesAsync(block: Tensor, labels: Tensor): Promise<Tensor> {
    return this.#criterion.forwardAsync(block, labels);
  }

  /**
   * Counts a block.
   *
   * @param rowOf the row in its file of a row of the block
   */
  add(losses: Tensor, block: Tensor, labels: Tensor, shard: number, rowOf: (row: number) => number): void {
    const values = losses.data as Float32Array;
    const classes = block.shape[1]!;
    for (let row = 0; row < values.length; row++) {
      const loss = values[row]!;
      const label = Number(labels.data[row]);
      if (label === this.#ignoreIndex) continue;
      if (Number.isNaN(loss)) {
        this.undefined++;
        continue;
      }
      this.counts[Math.min(histogramBins, Math.floor(loss / this.width))]!++;
      const last = this.worst[mostWorst - 1];
      if (last !== undefined && loss < last.loss) continue;
      const logits = block.data.subarray(row * classes, (row + 1) * classes);
      const prediction = argmax(new Tensor(logits, [classes], block.dtype).toArray() as number[]);
      this.worst = [...this.worst, { shard, row: rowOf(row), label, prediction, loss }]
        .sort(order)
        .slice(0, mostWorst);
    }
  }

  toJSON(): RowLossesState {
    return { counts: this.counts, undefined: this.undefined, worst: this.worst };
  }

  /** Adds what was counted elsewhere, of other rows. */
  merge({ counts, undefined: undefinedRows, worst }: RowLossesState): void {
    counts.forEach((rows, bin) => (this.counts[bin]! += rows));
    this.undefined += undefinedRows;
    this.worst = [...this.worst, ...worst].sort(order).slice(0, mostWorst);
  }

  /** Takes the place of what was counted. */
  restore(file: string, state: unknown): void {
    const { counts, undefined: undefinedRows, worst } = state as Partial<RowLossesState>;
    const count = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0;
    if (
      !Array.isArray(counts) ||
      counts.length !== histogramBins + 1 ||
      !counts.every(count) ||
      !Array.isArray(worst)
    ) {
      throw new CommandError(`${file}: its losses of rows are damaged; delete it to start over`);
    }
    this.counts.splice(0, counts.length, ...(counts as number[]));
    this.undefined = undefinedRows ?? 0;
    // JSON has no ∞, which a loss may be.
    this.worst = (worst as WorstRow[]).map((row) => ({ ...row, loss: row.loss ?? Infinity }));
  }
}

function argmax(values: readonly number[]): number {
  let best = -1;
  values.forEach((value, c) => {
    if (value > (values[best] ?? -Infinity)) best = c;
  });
  return best;
}
