/**
 * How fast `surprisal/io` reads rows, beside plain reads of the same bytes into two buffers by turns:
 *
 *   node dist-dev/bench/files.js [megabytes a file, 400 by default] [rounds, 15 by default]
 *
 * The files are written anew, so they are in the system's cache if there is room: what is measured is the reader, not the
 * disk. Both sides of a round run within moments of each other, in an order that is drawn anew.
 */
import { mkdtemp, open, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  Field,
  FixedSizeList,
  Float32,
  RecordBatch,
  Schema,
  Struct,
  Table,
  makeData,
  tableToIPC,
} from 'apache-arrow';
import CliTable from 'cli-table3';
import { openRows, writeNpy, writeSafetensors, type RowBlocks } from 'surprisal/io';
import { describeMachine } from './machine.js';
import { gigabytesPerSecond, median, ratios, summarise } from './statistics.js';

const [megabytes = 400, rounds = 15] = process.argv.slice(2).map(Number);
const classes = 1000;
const rowBytes = 4 * classes;
const numRows = Math.floor((megabytes * 1e6) / rowBytes);
const rowsPerBlock = Math.floor((4 * 2 ** 20) / rowBytes);

const logits = Float32Array.from({ length: classes * rowsPerBlock }, (_, i) => Math.sin(i));

const source: RowBlocks = {
  shape: [numRows, classes],
  dtype: 'float32',
  blocks: async function* () {
    for (let row = 0; row < numRows; row += rowsPerBlock) {
      const rows = Math.min(rowsPerBlock, numRows - row);
      yield { data: logits.subarray(0, rows * classes), shape: [rows, classes] };
    }
  },
};

/** A stream of record batches, as many as there are blocks. */
async function writeArrow(path: string): Promise<void> {
  const type = new FixedSizeList(classes, new Field('item', new Float32()));
  const field = new Field('logits', type);
  const schema = new Schema([field]);
  const batches: RecordBatch[] = [];
  for await (const block of source.blocks()) {
    const { data, shape } = block as { data: Float32Array; shape: number[] };
    const list = makeData({ type, length: shape[0]!, child: makeData({ type: new Float32(), data }) });
    batches.push(new RecordBatch(schema, makeData({ type: new Struct([field]), children: [list] })));
  }
  await writeFile(path, tableToIPC(new Table(schema, batches), 'stream'));
}

type Pass = () => Promise<number>;

/** Time of a pass in nanoseconds. */
async function time(work: () => Promise<void>): Promise<number> {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start);
}

async function readPlainly(path: string): Promise<number> {
  const file = await open(path, 'r');
  const { size } = await stat(path);
  const taken = await time(async () => {
    const buffers = [new Uint8Array(rowsPerBlock * rowBytes), new Uint8Array(rowsPerBlock * rowBytes)];
    let turn = 0;
    for (let at = size - numRows * rowBytes; at < size;) {
      turn = 1 - turn;
      at += (await file.read(buffers[turn]!, 0, Math.min(rowsPerBlock * rowBytes, size - at), at)).bytesRead;
    }
  });
  await file.close();
  return taken;
}

async function readRows(path: string, reuse: boolean): Promise<number> {
  const reader = await openRows(path);
  const taken = await time(async () => {
    let rows = 0;
    for await (const block of reader.blocks({ rowsPerBlock, reuse })) rows += block.shape[0]!;
    if (rows !== numRows) throw new Error(`${path}: ${rows} of ${numRows} rows`);
  });
  await reader.close();
  return taken;
}

/** Runs passes beside plain reads, and prints what part of their speed each has. */
async function compare(plainPath: string, passes: readonly (readonly [string, Pass])[]): Promise<void> {
  const all: readonly (readonly [string, Pass])[] = [
    ['plain reads', () => readPlainly(plainPath)],
    ...passes,
  ];
  const samples = new Map(all.map(([name]) => [name, [] as number[]]));
  for (const [, pass] of all) await pass();
  for (let round = 0; round < rounds; round++) {
    for (const [name, pass] of [...all].sort(() => Math.random() - 0.5))
      samples.get(name)!.push(await pass());
  }
  const plain = samples.get('plain reads')!;
  const table = new CliTable({
    head: ['', 'GB/s', 'rows/s', 'of plain reads', 'quartiles'],
    style: { head: [], border: [] },
  });
  for (const [name, taken] of samples) {
    const { q1, median: middle, q3 } = summarise(ratios(plain, taken));
    const rate = gigabytesPerSecond(numRows * rowBytes, median(taken));
    const perSecond = Math.round((rate * 1e9) / rowBytes).toLocaleString('en-US');
    table.push([name, rate.toFixed(2), perSecond, middle.toFixed(3), `${q1.toFixed(3)} to ${q3.toFixed(3)}`]);
  }
  console.log(table.toString());
}

async function main(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'surprisal-bench-'));
  try {
    const [npy, safetensors, arrow] = ['npy', 'safetensors', 'arrow'].map((format) =>
      join(folder, `logits.${format}`),
    ) as [string, string, string];
    await writeNpy(npy, source);
    await writeSafetensors(safetensors, { logits: source });
    await writeArrow(arrow);
    const { cpu, load } = describeMachine();
    console.log(
      `${numRows} rows of ${classes} float32, blocks of ${rowsPerBlock}, ${rounds} rounds, on ${cpu} (load ${load.toFixed(1)})`,
    );
    await compare(npy, [
      ['.npy', () => readRows(npy, true)],
      ['safetensors', () => readRows(safetensors, true)],
      ['Arrow', () => readRows(arrow, true)],
    ]);
    // Apart: each pass leaves the whole file's memory to the collector.
    await compare(npy, [['.npy, reuse: false', () => readRows(npy, false)]]);
  } finally {
    await rm(folder, { recursive: true });
  }
}

await main();
