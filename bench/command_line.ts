/**
 * 'surprisal eval' beside a plain read of the same files, in turn: `node dist-dev/bench/command_line.js`. A plain read is
 * fs.readSync into one buffer of 4 MiB, on one thread; eval is timed as a process, its start and end included. Options:
 * --rounds N, --gigabytes G of each shape, --times N that both go over the files, --folder FOLDER for the files, --cold to drop them from the page cache before
 * each read (GNU dd), --loss NAME.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { diagnose, tensor } from 'surprisal';
import { Random } from 'surprisal/data';
import { NpyWriter } from 'surprisal/io';
import { gigabytesPerSecond, median, ratios, summarise } from './statistics.js';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    gigabytes: { type: 'string', default: '4' },
    times: { type: 'string', default: '4' },
    folder: { type: 'string', default: join(tmpdir(), 'surprisal-command-line') },
    cold: { type: 'boolean', default: false },
    loss: { type: 'string', default: 'cross-entropy' },
  },
});

const shapes = [
  { classes: 32_000, dtype: 'float32' },
  { classes: 1000, dtype: 'float32' },
  { classes: 10, dtype: 'float32' },
  { classes: 32_000, dtype: 'float16' },
] as const;

type Shape = (typeof shapes)[number];

/** Logits from −4 to 4 and the label's up to 12 more, in blocks that repeat; class indices. */
async function writeFiles({ classes, dtype }: Shape, bytes: number): Promise<[string, string]> {
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
  return paths;
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

function time(work: () => void): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}

mkdirSync(values.folder, { recursive: true });
console.log(diagnose());
console.log(
  `${values.cold ? 'from the disk' : 'from the page cache'}, --loss ${values.loss}; medians of ${values.rounds}`,
);
for (const shape of shapes) {
  const paths = await writeFiles(shape, Number(values.gigabytes) * 1e9);
  const bytes = times * statSync(paths[0]).size;
  const reads: number[] = [];
  const evals: number[] = [];
  const ready = () => paths.forEach(values.cold ? drop : read);
  for (let round = 0; round < Number(values.rounds); round++) {
    ready();
    reads.push(
      time(() => {
        for (let i = 0; i < times; i++) read(paths[0]);
      }),
    );
    ready();
    const args = [
      join('dist', 'cli', 'main.js'),
      'eval',
      ...Array.from({ length: times }, () => paths).flat(),
      '--loss',
      values.loss,
      '--json',
    ];
    evals.push(time(() => run(process.execPath, args)));
  }
  const rate = (times: readonly number[]) =>
    `${gigabytesPerSecond(bytes, 1e6 * median(times)).toFixed(2)} GB/s`;
  const percent = (fraction: number) => `${(100 * fraction).toFixed(0)} %`;
  const ratio = summarise(ratios(reads, evals));
  console.log(
    `${shape.classes} ${shape.dtype}: ${(bytes / 1e9).toFixed(1)} GB read at ${rate(reads)}, evaluated at ${rate(evals)}: ` +
      `${percent(ratio.median)} (half of the rounds ${percent(ratio.q1)} to ${percent(ratio.q3)})`,
  );
  paths.forEach((path) => rmSync(path));
}
