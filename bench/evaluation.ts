/**
 * An evaluator beside its loss, and 'surprisal eval' beside a plain read of the same files, in turn:
 * `node dist-dev/bench/evaluation.js`. A plain read is fs.readSync into one buffer of 4 MiB, on one thread; eval is
 * timed as a process, its start and end included. Options: --rounds N, --gigabytes G of each shape, --times N that both
 * go over the files, --folder FOLDER for the files, --cold to drop them from the page cache before each read (GNU dd),
 * --loss NAME, --json FILE for the figures.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { diagnose, setNumThreads, tensor } from 'surprisal';
import { Random } from 'surprisal/data';
import { NpyWriter } from 'surprisal/io';
import { CrossEntropyLoss } from 'surprisal/loss';
import { ClassificationEvaluator } from 'surprisal/metrics';
import { binding } from './binding.js';
import { generator } from './data.js';
import { describeMachine, fileNameOf } from './machine.js';
import { interleave, timed } from './measure.js';
import { duration, ratioDigits, threadsOf } from './report.js';
import {
  type EvaluationResults,
  type FileEvaluation,
  schema,
  type Summary,
  type UpdateBesideLoss,
  writeResults,
} from './results.js';
import { gigabytesPerSecond, ratios, summarise } from './statistics.js';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    gigabytes: { type: 'string', default: '4' },
    times: { type: 'string', default: '4' },
    folder: { type: 'string', default: join(tmpdir(), 'surprisal-evaluation') },
    cold: { type: 'boolean', default: false },
    loss: { type: 'string', default: 'cross-entropy' },
    json: { type: 'string' },
  },
});

const shapes = [
  { classes: 32_000, dtype: 'float32' },
  { classes: 1000, dtype: 'float32' },
  { classes: 10, dtype: 'float32' },
  { classes: 32_000, dtype: 'float16' },
] as const;

type Shape = (typeof shapes)[number];

/** Rows and classes in memory. */
const memoryShapes = [
  [512, 32_000],
  [4096, 1000],
  [16_384, 100],
  [65_536, 10],
] as const;

/** Logits from −4 to 4 and the label's up to 12 more, in blocks that repeat; class indices. And their rows. */
async function writeFiles(
  { classes, dtype }: Shape,
  bytes: number,
): Promise<[paths: [string, string], rows: number]> {
  const size = dtype === 'float16' ? 2 : 4;
  const rowsPerBlock = Math.floor(2 ** 25 / (size * classes));
  const blocks = Math.ceil(bytes / (rowsPerBlock * classes * size));
  const random = new Random(classes);
  const labels = Int32Array.from({ length: rowsPerBlock }, () => Math.floor(random.uniform() * classes));
  const logits = Float32Array.from({ length: rowsPerBlock * classes }, () => 8 * random.uniform() - 4);
  labels.forEach((y, row) => (logits[row * classes + y]! += 12 * random.uniform()));
  const half = (x: number): number => {
    const bits = new Uint32Array(Float32Array.of(x).buffer)[0]!;
    const exponent = ((bits >>> 23) & 255) - 112;
    return ((bits >>> 16) & 0x8000) | (exponent <= 0 ? 0 : (exponent << 10) | ((bits >>> 13) & 1023));
  };
  const data = dtype === 'float16' ? Uint16Array.from(logits, half) : logits;
  const paths: [string, string] = [
    join(values.folder, `${classes}_${dtype}.npy`),
    join(values.folder, `${classes}_${dtype}_labels.npy`),
  ];
  await using logitsFile = await NpyWriter.open(paths[0]);
  await using labelsFile = await NpyWriter.open(paths[1]);
  for (let block = 0; block < blocks; block++) {
    await logitsFile.write(tensor(data, { shape: [rowsPerBlock, classes], dtype }));
    await labelsFile.write(tensor(labels, { shape: [rowsPerBlock] }));
  }
  await logitsFile.close();
  await labelsFile.close();
  return [paths, blocks * rowsPerBlock];
}

const buffer = Buffer.alloc(2 ** 22);

function read(path: string): void {
  const file = openSync(path, 'r');
  for (let offset = 0, bytes; (bytes = readSync(file, buffer, 0, buffer.length, offset)) > 0;)
    offset += bytes;
  closeSync(file);
}

function run(program: string, args: readonly string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program}: ${stderr}`);
}

const drop = (path: string): void => run('dd', [`if=${path}`, 'iflag=nocache', 'count=0']);

const times = Number(values.times);
const rounds = Number(values.rounds);

function nanoseconds(work: () => void): number {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start);
}

/** An evaluator's update beside its loss. */
async function besideLoss(threads: number, rows: number, classes: number): Promise<UpdateBesideLoss> {
  setNumThreads(threads);
  const random = new Random(classes);
  const logits = tensor(
    Float32Array.from({ length: rows * classes }, () => 8 * random.uniform() - 4),
    { shape: [rows, classes] },
  );
  const target = tensor(Int32Array.from({ length: rows }, () => Math.floor(random.uniform() * classes)));
  const criterion = new CrossEntropyLoss();
  const evaluator = new ClassificationEvaluator({ numClasses: classes, confusion: classes <= 1000 });
  const samples = await interleave(
    [
      timed('loss', () => criterion.forward(logits, target)),
      timed('update', () => evaluator.update(logits, target)),
    ],
    [['update', 'loss']],
    { minRounds: 5 * rounds, maxRounds: 50 * rounds, budget: 5e9, precision: 0.003 },
    generator(rows * classes),
  );
  const [loss, update] = [samples.get('loss')!, samples.get('update')!];
  return {
    shape: [rows, classes],
    threads,
    rounds: loss.length,
    loss: summarise(loss),
    update: summarise(update),
    ratio: summarise(ratios(update, loss)),
  };
}

/** 'surprisal eval' beside a plain read. */
async function besideRead(shape: Shape): Promise<FileEvaluation> {
  const [paths, rows] = await writeFiles(shape, Number(values.gigabytes) * 1e9);
  const bytes = times * statSync(paths[0]).size;
  const reads: number[] = [];
  const evals: number[] = [];
  const ready = () => paths.forEach(values.cold ? drop : read);
  const args = [join('dist', 'cli', 'main.js'), 'eval', '--loss', values.loss, '--json'];
  args.push(...Array.from({ length: times }, () => paths).flat());
  for (let round = 0; round < rounds; round++) {
    ready();
    reads.push(
      nanoseconds(() => {
        for (let i = 0; i < times; i++) read(paths[0]);
      }),
    );
    ready();
    evals.push(nanoseconds(() => run(process.execPath, args)));
  }
  paths.forEach((path) => rmSync(path));
  const { classes, dtype } = shape;
  return {
    classes,
    dtype,
    bytes,
    rows: times * rows,
    rounds,
    read: summarise(reads),
    evaluated: summarise(evals),
    share: summarise(ratios(reads, evals)),
  };
}

mkdirSync(values.folder, { recursive: true });
const machine = describeMachine();
const { version } = createRequire(import.meta.url)('surprisal/package.json') as { version: string };
console.log(diagnose());
const between = ({ q1, q3 }: Summary, digits: (x: number) => string) => `${digits(q1)} to ${digits(q3)}`;
const updates: UpdateBesideLoss[] = [];
for (const threads of new Set([1, machine.processors])) {
  for (const [rows, classes] of memoryShapes) {
    const update = await besideLoss(threads, rows, classes);
    updates.push(update);
    const { loss, ratio } = update;
    console.log(
      `${rows} x ${classes}, ${threadsOf(threads)}: loss ${duration(loss.median)}, evaluator ` +
        `${ratioDigits(ratio.median)} times it (half of the rounds ${between(ratio, ratioDigits)})`,
    );
  }
}
console.log(`files ${values.cold ? 'from the disk' : 'from the page cache'}, --loss ${values.loss}`);
const files: FileEvaluation[] = [];
for (const shape of shapes) {
  const file = await besideRead(shape);
  files.push(file);
  const rate = ({ median }: Summary) => `${gigabytesPerSecond(file.bytes, median).toFixed(2)} GB/s`;
  const percent = (fraction: number) => `${(100 * fraction).toFixed(0)} %`;
  console.log(
    `${file.classes}, ${file.dtype}: ${(file.bytes / 1e9).toFixed(1)} GB read at ${rate(file.read)}, evaluated at ` +
      `${rate(file.evaluated)}: ${percent(file.share.median)} (half of the rounds ${between(file.share, percent)})`,
  );
}
const json = values.json ?? join('bench', 'results', `${fileNameOf(machine)}_evaluation.json`);
const results: EvaluationResults = {
  schema,
  date: new Date().toISOString(),
  surprisal: version,
  node: process.versions.node,
  machine,
  instructionSet: binding.getInstructionSet(),
  arguments: process.argv.slice(2),
  cold: values.cold,
  updates,
  files,
};
writeResults(json, results);
console.log(`wrote ${json}; npm run readme -- ${json} writes the README's section`);
