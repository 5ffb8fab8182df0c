import { availableParallelism } from 'node:os';
import { getNumThreads, setNumThreads } from '../device.js';
import { ClassificationEvaluator } from '../metrics/classification_evaluator.js';
import { readCheckpoint, removeCheckpoint, writeCheckpoint, type Position } from './checkpoint.js';
import { Counter, type Range } from './counter.js';
import { checkOutputs, readText, writeText } from './files.js';
import { htmlReport } from './html.js';
import { openArray, openShards, pairArguments, type Shard } from './inputs.js';
import { help, planOf, type Plan } from './plan.js';
import { Progress } from './progress.js';
import { jsonReport, textReport, type Extent } from './report.js';
import { CommandError, exitCodes, isErrorWithCode, note, print, showCount, toJson } from './terminal.js';
import { CountingThreads } from './threads.js';

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

/** Bytes of logits in a block, by who reads it: what one thread reads and counts is to stay in its processor's cache. */
const blockBytes = { eventLoop: 4 * 2 ** 20, thread: 2 ** 20 };
/**
 * Bytes of logits that a thread is told to count at once: at first, and at most; and the time in ms that they are to take,
 * which Ctrl-C waits for.
 */
const rangeBytes = { first: 8 * 2 ** 20, most: 128 * 2 ** 20 };
const rangeTime = 100;
/** Bytes of logits from which on threads are worth their start, and bytes of confusion matrices that they may have. */
const [leastForThreads, mostForConfusion] = [256 * 2 ** 20, 512 * 2 ** 20];

/** How many threads read and count; 1 where the event loop and the pool of threads do. */
function threadsFor({ threads }: Plan, shards: readonly Shard[], confusion: boolean): number {
  if (!shards.every(({ seekable }) => seekable)) return 1;
  if (threads !== undefined) return threads;
  const bytes = shards.reduce((sum, { shape, bytesPerRow }) => sum + shape[0]! * bytesPerRow, 0);
  if (bytes < leastForThreads) return 1;
  const classes = shards[0]!.shape[1]!;
  const most = confusion ? Math.floor(mostForConfusion / (8 * classes ** 2)) : Infinity;
  return Math.max(1, Math.min(getNumThreads(), availableParallelism(), most));
}

/** Counts shards from a position on. */
class Evaluation {
  readonly totalRows: number;
  readonly #counter: Counter;
  /** Of each shard. */
  readonly #rowsBefore: readonly number[];
  /** All rows before it are counted, or being counted by threads. */
  #position: Position = { shard: 0, row: 0 };
  #written = performance.now();
  /** What a checkpoint took, in ms: large states are written less often. */
  #cost = 0;
  #rangeBytes = rangeBytes.first;

  constructor(
    readonly plan: Plan,
    readonly shards: readonly Shard[],
  ) {
    this.#counter = new Counter(plan, shards);
    let rows = 0;
    this.#rowsBefore = [0, ...shards.map(({ shape }) => (rows += shape[0]!))];
    this.totalRows = rows;
  }

  get evaluator(): ClassificationEvaluator {
    return this.#counter.evaluator;
  }

  get rowLosses(): Counter['rowLosses'] {
    return this.#counter.rowLosses;
  }

  /** Rows of the files that were counted. */
  get done(): number {
    const { shard, row } = this.#position;
    return this.#rowsBefore[shard]! + row * this.plan.splits;
  }

  #merge(state: unknown): void {
    const { loss } = this.plan;
    const losses = loss === undefined ? {} : { losses: { [loss.name]: loss.loss } };
    this.evaluator.merge(ClassificationEvaluator.fromJSON(state, losses));
  }

  async resume(path: string): Promise<void> {
    const { splits, paths } = this.plan;
    const checkpoint = await readCheckpoint(path, this.shards, splits, paths.html !== undefined);
    if (checkpoint === undefined) return;
    try {
      this.#merge(checkpoint.evaluator);
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

  get #saveIsDue(): boolean {
    const { paths, every } = this.plan;
    if (paths.checkpoint === undefined) return false;
    return performance.now() - this.#written >= Math.max(every, every > 0 ? 10 * this.#cost : 0);
  }

  async run(args: readonly string[], interruption: Interruption, progress: Progress): Promise<void> {
    const { threads } = this.plan;
    const count = threadsFor(this.plan, this.shards, this.evaluator.config.confusion);
    if (count > 1) return this.#runThreads(count, args, interruption, progress);
    if (threads !== undefined) setNumThreads(threads);
    while (this.#position.shard < this.shards.length && interruption.code === undefined) {
      const { shard: index, row } = this.#position;
      const shard = this.shards[index]!;
      await using logits = await openArray(shard.logits);
      await using labels = await openArray(shard.targets);
      const range = { shard: index, start: row, end: shard.samples };
      const rowsPerBlock = this.#rowsPerBlock(shard, blockBytes.eventLoop);
      await this.#counter.count(range, logits, labels, rowsPerBlock, false, async (after) => {
        // From here on the rows count, and the position says so: a checkpoint is of both or of neither.
        this.#position = { shard: index, row: after };
        progress.update(this.done);
        if (this.#saveIsDue) await this.save(this.plan.paths.checkpoint!);
        return interruption.code === undefined;
      });
      if (this.#position.row === shard.samples) this.#position = { shard: index + 1, row: 0 };
    }
  }

  #rowsPerBlock({ bytesPerRow }: Shard, bytes: number): number {
    const { rowsPerBlock, splits } = this.plan;
    return rowsPerBlock ?? Math.max(1, Math.floor(bytes / (splits * bytesPerRow)));
  }

  /** The next rows, for one of `threads`. The position is behind them from now on. */
  #take(threads: number): (Range & { rowsPerBlock: number }) | undefined {
    const { shard: index, row: start } = this.#position;
    const shard = this.shards[index];
    if (shard === undefined) return undefined;
    const rowsPerBlock = this.#rowsPerBlock(shard, blockBytes.thread);
    const blockSize = rowsPerBlock * this.plan.splits * shard.bytesPerRow;
    // Less towards the end, so that the threads come to it together.
    const left = (this.totalRows - this.done) * shard.bytesPerRow;
    const bytes = Math.min(this.#rangeBytes, left / (2 * threads));
    const end = Math.min(shard.samples, start + Math.max(1, Math.floor(bytes / blockSize)) * rowsPerBlock);
    this.#position = end === shard.samples ? { shard: index + 1, row: 0 } : { shard: index, row: end };
    return { shard: index, start, end, rowsPerBlock };
  }

  async #runThreads(
    count: number,
    args: readonly string[],
    interruption: Interruption,
    progress: Progress,
  ): Promise<void> {
    // Each thread computes what it counts itself.
    setNumThreads(1);
    await using threads = new CountingThreads(count, { args, shards: this.shards });
    let done = this.done;
    for (;;) {
      let begun = 0;
      // A range for each at least, however often checkpoints are written.
      const next = () =>
        interruption.code !== undefined || (begun++ >= count && this.#saveIsDue)
          ? undefined
          : this.#take(count);
      await threads.count(next, ({ start, end }, time) => {
        this.#rangeBytes = Math.min(rangeBytes.most, this.#rangeBytes * (time < rangeTime ? 2 : 0.5));
        done += (end - start) * this.plan.splits;
        progress.update(done);
      });
      for (const { evaluator, rows } of await threads.collect()) {
        this.#merge(JSON.parse(evaluator));
        if (rows !== null) this.rowLosses!.merge(rows);
      }
      if (this.#position.shard === this.shards.length || interruption.code !== undefined) return;
      await this.save(this.plan.paths.checkpoint!);
    }
  }
}

/** The lines of a file, one for each class. */
async function classNames(
  path: string | undefined,
  { shape, logits }: Shard,
): Promise<readonly string[] | undefined> {
  if (path === undefined) return undefined;
  const names = (await readText(path)).replace(/\r?\n$/, '').split(/\r?\n/);
  if (names.length === shape[1]) return names;
  throw new CommandError(
    `${path}: expected ${showCount(shape[1]!)} lines, a name for each class of ${logits.text}, got ${showCount(names.length)}`,
  );
}

export const command = {
  help,
  async run(args: readonly string[]): Promise<number> {
    const plan = planOf(args);
    const { paths, parsed, splits } = plan;
    const shards = await openShards(pairArguments(parsed), splits);
    await checkOutputs(
      paths,
      shards.flatMap(({ logits, targets }) => [logits.path, targets.path]),
    );
    const names = await classNames(parsed.values['class-names'] as string | undefined, shards[0]!);
    const evaluation = new Evaluation(plan, shards);
    const { evaluator, totalRows } = evaluation;
    if (paths.checkpoint !== undefined) await evaluation.resume(paths.checkpoint);
    const interruption = new Interruption();
    const progress = new Progress(process.stderr, totalRows, evaluation.done);
    try {
      await evaluation.run(args, interruption, progress);
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
      await writeText(
        paths.html,
        htmlReport(evaluator, metrics, extent, shards, evaluation.rowLosses!, names),
      );
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
