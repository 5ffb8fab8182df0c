import { resolveDevice } from '../device.js';
import { rangeError } from '../errors.js';
import type { RowReader } from '../io/rows.js';
import { ClassificationEvaluator } from '../metrics/classification_evaluator.js';
import { allocate, showShape, Tensor } from '../tensor.js';
import { readCheckpoint, removeCheckpoint, writeCheckpoint, writeText, type Position } from './checkpoint.js';
import { openArray, openShards, pairArguments, type Shard } from './inputs.js';
import { chooseLoss, lossNames, lossOptions } from './losses.js';
import { Progress } from './progress.js';
import { htmlReport } from './html.js';
import { jsonReport, textReport, type Extent } from './report.js';
import { RowLosses } from './row_losses.js';
import {
  CommandError,
  exitCodes,
  isErrorWithCode,
  note,
  numberArgument,
  parseArguments,
  print,
  showCount,
  toJson,
  UsageError,
  type Parsed,
} from './terminal.js';

const help = `surprisal eval LOGITS TARGETS [LOGITS TARGETS]... [options]
surprisal eval --logits FILE... --targets FILE... [options]

Reads logits [N, C] and class indices [N] of .npy, .npz, safetensors, Arrow or Parquet files, and prints loss, accuracy and
calibration. Several files are one evaluation. FILE:NAME is an array of a file that has several.

  --loss NAME               a loss beside cross entropy: ${lossNames.join(', ')}
  --smoothing E             label smoothing of that loss
  --num-splits K            of jsd: the rows of each file are K splits of a batch, one after another; 3 by default.
                            Targets are of all rows, or of the first split alone, if they are the same in each
  --alpha A                 of jsd: the factor of the divergence, 12 by default
  --gamma-pos G, --gamma-neg G, --eps E     of asymmetric-single-label
  --target-threshold T      of binary-cross-entropy
  --top-k K,...             accuracies of the label among the K largest logits; 1,5 by default
  --bins N                  of the calibration errors; 15 by default
  --ignore-index I          rows of this label count nowhere; -100 by default
  --rows-per-block N        rows read at once, of each split; by default as many as 4 MiB hold
  --device auto|cpu         where to count; auto by default
  --json                    one JSON object, for programs
  --html FILE               a report that stands alone: calibration, losses, the worst rows, what is confused
  --state FILE              the state, for 'surprisal merge'
  --checkpoint FILE         keep the progress in this file, and go on from there if it exists; removed when done
  --checkpoint-every S      seconds between two writes of it; 5 by default

Ctrl-C prints the metrics of the rows so far, and exits with 130.

Example:
  surprisal eval logits.npy labels.npy --loss jsd --num-splits 3 --top-k 1,5 --checkpoint progress.json`;

const text = { type: 'string' } as const;
const files = { type: 'string', multiple: true } as const;
const options = {
  logits: files,
  targets: files,
  loss: text,
  ...Object.fromEntries(Object.keys(lossOptions).map((name) => [name, text])),
  'top-k': text,
  bins: text,
  'ignore-index': text,
  'rows-per-block': text,
  device: text,
  json: { type: 'boolean' },
  html: text,
  state: text,
  checkpoint: text,
  'checkpoint-every': text,
} as const;

/** Values of options that start with a minus, as --ignore-index -1 has one, which parseArgs takes for an option. */
const joinNegative = (args: readonly string[]): string[] =>
  args.reduce<string[]>((joined, arg) => {
    const last = joined.at(-1);
    if (/^-\d/.test(arg) && last?.startsWith('--') && !last.includes('='))
      joined[joined.length - 1] = `${last}=${arg}`;
    else joined.push(arg);
    return joined;
  }, []);

function checkDevice(device: string): void {
  if (device === 'auto' || device === 'cpu') return;
  if (!/^cuda(:\d+)?$/.test(device)) {
    throw new UsageError(`--device: expected auto or cpu, got '${device}'`);
  }
  resolveDevice(device);
  throw new CommandError(`--device ${device}: evaluations are counted on the CPU so far; use --device auto`);
}

interface Plan {
  readonly parsed: Parsed;
  readonly topK: readonly number[];
  readonly bins: number;
  readonly ignoreIndex: number;
  readonly splits: number;
  readonly loss: ReturnType<typeof chooseLoss>;
  readonly rowsPerBlock: number | undefined;
  readonly every: number;
  readonly paths: Readonly<Record<'html' | 'state' | 'checkpoint', string | undefined>>;
}

function planOf(args: readonly string[]): Plan {
  const parsed = parseArguments(joinNegative(args), options);
  const { values } = parsed;
  const given = (name: string, otherwise: string) => (values[name] as string | undefined) ?? otherwise;
  const topK = given('top-k', '1,5')
    .split(',')
    .map((k) => numberArgument('top-k', k, { min: 1, below: 2 ** 24, integer: true }));
  const ignoreIndex = numberArgument('ignore-index', given('ignore-index', '-100'), { integer: true });
  const loss = chooseLoss(parsed, ignoreIndex);
  checkDevice(given('device', 'auto'));
  if (values['checkpoint-every'] !== undefined && values['checkpoint'] === undefined) {
    throw new UsageError('--checkpoint-every goes with --checkpoint FILE');
  }
  return {
    parsed,
    topK,
    bins: numberArgument('bins', given('bins', '15'), { min: 1, below: 2 ** 20, integer: true }),
    ignoreIndex,
    splits: loss?.splits ?? 1,
    loss,
    rowsPerBlock:
      values['rows-per-block'] === undefined
        ? undefined
        : numberArgument('rows-per-block', given('rows-per-block', ''), { min: 1, integer: true }),
    every: 1000 * numberArgument('checkpoint-every', given('checkpoint-every', '5'), { min: 0 }),
    paths: {
      html: values['html'] as string | undefined,
      state: values['state'] as string | undefined,
      checkpoint: values['checkpoint'] as string | undefined,
    },
  };
}

/** Classes whose confusion matrix is kept: 134 MB. */
const mostConfused = 4096;

function makeEvaluator({ topK, bins, ignoreIndex, loss }: Plan, classes: number): ClassificationEvaluator {
  return new ClassificationEvaluator({
    numClasses: classes,
    topK,
    bins,
    ignoreIndex,
    confusion: classes <= mostConfused,
    losses: loss === undefined ? undefined : { [loss.name]: loss.loss },
  });
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
  { ignoreIndex, loss }: Plan,
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

/** Ctrl-C and termination: the first ends the evaluation after its block, the second ends the process. */
class Interruption {
  code: number | undefined;
  readonly #handlers = (['SIGINT', 'SIGTERM'] as const).map((signal) => {
    const handler = () => {
      const code = signal === 'SIGINT' ? exitCodes.interrupted : exitCodes.terminated;
      if (this.code !== undefined) process.exit(code);
      this.code = code;
    };
    process.on(signal, handler);
    return [signal, handler] as const;
  });

  end(): void {
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
  }
}

const blockBytes = 4 * 2 ** 20;

/** Counts shards from a position on. */
class Evaluation {
  readonly evaluator: ClassificationEvaluator;
  readonly totalRows: number;
  /** Of the report's. */
  readonly rowLosses: RowLosses | undefined;
  /** Of each shard. */
  readonly #rowsBefore: readonly number[];
  #position: Position = { shard: 0, row: 0 };
  #written = performance.now();
  /** What a checkpoint took, in ms: large states are written less often. */
  #cost = 0;

  constructor(
    readonly plan: Plan,
    readonly shards: readonly Shard[],
  ) {
    this.evaluator = makeEvaluator(plan, shards[0]!.shape[1]!);
    if (plan.paths.html !== undefined) {
      const other = shards.find(({ shape }) => shape.length !== 2);
      if (other !== undefined) {
        throw new CommandError(
          `${other.logits.text}: expected logits [N, C] for --html, got ${showShape(other.shape)}`,
        );
      }
      this.rowLosses = new RowLosses(shards[0]!.shape[1]!, plan.ignoreIndex);
    }
    let rows = 0;
    this.#rowsBefore = [0, ...shards.map(({ shape }) => (rows += shape[0]!))];
    this.totalRows = rows;
  }

  /** Rows of the files that were counted. */
  get done(): number {
    const { shard, row } = this.#position;
    return this.#rowsBefore[shard]! + row * this.plan.splits;
  }

  async resume(path: string): Promise<void> {
    const { splits, loss, paths } = this.plan;
    const checkpoint = await readCheckpoint(path, this.shards, splits, paths.html !== undefined);
    if (checkpoint === undefined) return;
    try {
      const losses = loss === undefined ? {} : { losses: { [loss.name]: loss.loss } };
      this.evaluator.merge(ClassificationEvaluator.fromJSON(checkpoint.evaluator, losses));
    } catch (error) {
      if (!isErrorWithCode(error, 'ERR_OPTION')) throw error;
      throw new CommandError(
        `${path}: can't resume with these options: ${error.message.replace(/^[\w.]+: /, '')}; delete it to start over`,
      );
    }
    this.rowLosses?.restore(path, checkpoint.rows);
    this.#position = checkpoint.position;
    note(`resumed at row ${showCount(this.done)} of ${showCount(this.totalRows)} (${path})`);
  }

  async save(path: string): Promise<void> {
    const start = performance.now();
    await writeCheckpoint(path, {
      schema: 'surprisal.checkpoint',
      version: 1,
      files: this.shards.map(({ identity }) => identity),
      splits: this.plan.splits,
      position: this.#position,
      evaluator: this.evaluator,
      rows: this.rowLosses ?? null,
    });
    this.#written = performance.now();
    this.#cost = this.#written - start;
  }

  async #saveWhenDue(): Promise<void> {
    const { paths, every } = this.plan;
    if (paths.checkpoint === undefined) return;
    if (performance.now() - this.#written >= Math.max(every, every > 0 ? 10 * this.#cost : 0)) {
      await this.save(paths.checkpoint);
    }
  }

  async run(interruption: Interruption, progress: Progress): Promise<void> {
    while (this.#position.shard < this.shards.length && interruption.code === undefined) {
      const { shard: index, row } = this.#position;
      const shard = this.shards[index]!;
      await using logits = await openArray(shard.logits);
      await using labels = await openArray(shard.targets);
      await this.#shard(shard, logits, labels, row, interruption, progress);
      if (this.#position.row === shard.samples) this.#position = { shard: index + 1, row: 0 };
    }
  }

  async #shard(
    shard: Shard,
    logits: RowReader,
    labels: RowReader,
    start: number,
    interruption: Interruption,
    progress: Progress,
  ): Promise<void> {
    const { splits } = this.plan;
    const { rowsPerBlock = Math.max(1, Math.floor(blockBytes / (splits * shard.bytesPerRow))) } = this.plan;
    const targets = labels.blocks({ splits: shard.targetSplits, start, rowsPerBlock });
    let row = start;
    try {
      for await (const block of logits.blocks({ splits, start, rowsPerBlock })) {
        const given = (await targets.next()).value!;
        const target = shard.targetSplits < splits ? repeated(given, splits) : given;
        let losses: Tensor | undefined;
        try {
          losses = await this.rowLosses?.losses(block, target);
          await this.evaluator.updateAsync(block, target);
        } catch (error) {
          throw explain(error, shard, given, row, this.plan);
        }
        // From here on the rows count, and the position says so: a checkpoint is of both or of neither.
        const rows = block.shape[0]! / splits;
        if (losses !== undefined) {
          const first = row;
          const rowOf = (i: number) => Math.floor(i / rows) * shard.samples + first + (i % rows);
          this.rowLosses!.add(losses, block, target, this.#position.shard, rowOf);
        }
        row += rows;
        this.#position = { shard: this.#position.shard, row };
        progress.update(this.done);
        await this.#saveWhenDue();
        if (interruption.code !== undefined) return;
      }
    } finally {
      await targets.return();
    }
  }
}

export const command = {
  help,
  async run(args: readonly string[]): Promise<number> {
    const plan = planOf(args);
    const { paths, parsed, splits } = plan;
    const shards = await openShards(pairArguments(parsed), splits);
    const evaluation = new Evaluation(plan, shards);
    const { evaluator, totalRows } = evaluation;
    if (paths.checkpoint !== undefined) await evaluation.resume(paths.checkpoint);
    const interruption = new Interruption();
    const progress = new Progress(process.stderr, totalRows, evaluation.done);
    try {
      await evaluation.run(interruption, progress);
      if (interruption.code !== undefined && paths.checkpoint !== undefined)
        await evaluation.save(paths.checkpoint);
    } finally {
      progress.clear();
      interruption.end();
    }
    const partial = interruption.code !== undefined;
    const extent: Extent = { partial, totalRows, splits };
    const metrics = evaluator.compute();
    if (paths.state !== undefined && !partial) await writeText(paths.state, JSON.stringify(evaluator));
    if (paths.html !== undefined) {
      await writeText(paths.html, htmlReport(evaluator, metrics, extent, shards, evaluation.rowLosses!));
    }
    await print(
      parsed.values['json']
        ? toJson(jsonReport(evaluator, metrics, extent))
        : textReport(evaluator, metrics, extent),
    );
    if (interruption.code === undefined) {
      if (paths.checkpoint !== undefined) await removeCheckpoint(paths.checkpoint);
      return 0;
    }
    note(
      `interrupted after ${showCount(evaluation.done)} of ${showCount(totalRows)} rows: the result is partial` +
        (paths.checkpoint === undefined ? '' : `; the same command goes on from ${paths.checkpoint}`) +
        (paths.state === undefined ? '' : `; ${paths.state} was not written`),
    );
    return interruption.code;
  },
};
