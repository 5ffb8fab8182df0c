/**
 * Losses on a GPU, on tensors that live there, beside a copy from device to device in the same rounds. NOTES.md tells
 * what was tried and what came of it; scripts/gpu_run.sh bench runs this, and peers.py after it.
 *
 *   node dist-dev/bench/gpu/bench.js [--quick] [--out FILE] [--peers FILE] [word ...]
 *
 * Words choose the cases whose lines hold all of them, as '32768x1000 bfloat16'.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { devices, Event, tensor, type FloatDType, type Tensor } from 'surprisal';
import {
  AsymmetricLossMultiLabel,
  AsymmetricLossSingleLabel,
  BinaryCrossEntropy,
  CrossEntropyLoss,
  JsdCrossEntropy,
  LabelSmoothingCrossEntropy,
  NLLLoss,
  SoftTargetCrossEntropy,
  type Loss,
} from 'surprisal/loss';
import type { DeviceArray } from '../../binding.js';
import { binding } from '../binding.js';
import { bytesPerElement } from '../cases.js';
import { Batch, generator, type Values } from '../data.js';
import { ratios, summarise, type Summary } from '../statistics.js';

const { values: options, positionals: words } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean', default: false },
    out: { type: 'string' },
    peers: { type: 'string' },
  },
});

const gpu = devices()[1];
if (gpu === undefined) {
  console.log('bench/gpu: left out, as no GPU was found');
  process.exit(0);
}

interface Shape {
  readonly rows: number;
  readonly classes: number;
  readonly dtypes: readonly FloatDType[];
  /** Rows of a sample of the losses that are measured on it: 1 unless said otherwise. */
  readonly splits?: number;
}

const shapes: readonly Shape[] = options.quick
  ? [
      { rows: 48, classes: 256, dtypes: ['float32', 'bfloat16', 'float16', 'float64'] },
      { rows: 6, classes: 9000, dtypes: ['float32'], splits: 3 },
    ]
  : (JSON.parse(
      readFileSync(new URL('../../../bench/gpu/shapes.json', import.meta.url), 'utf8'),
    ) as readonly Shape[]);

type Target = 'labels' | 'dense';

interface Subject {
  readonly name: string;
  readonly loss: Loss;
  readonly target: Target;
  /** Rows of a sample. */
  readonly splits: number;
}

const subjects: readonly Subject[] = [
  { name: 'CrossEntropyLoss', loss: new CrossEntropyLoss(), target: 'labels', splits: 1 },
  { name: 'LabelSmoothingCrossEntropy', loss: new LabelSmoothingCrossEntropy(), target: 'labels', splits: 1 },
  { name: 'SoftTargetCrossEntropy', loss: new SoftTargetCrossEntropy(), target: 'dense', splits: 1 },
  { name: 'JsdCrossEntropy', loss: new JsdCrossEntropy(), target: 'labels', splits: 3 },
  { name: 'BinaryCrossEntropy', loss: new BinaryCrossEntropy(), target: 'labels', splits: 1 },
  { name: 'AsymmetricLossSingleLabel', loss: new AsymmetricLossSingleLabel(), target: 'labels', splits: 1 },
  { name: 'AsymmetricLossMultiLabel', loss: new AsymmetricLossMultiLabel(), target: 'dense', splits: 1 },
];

interface Case {
  readonly loss: string;
  readonly pass: 'forward' | 'loss and gradient';
  readonly dtype: FloatDType;
  readonly rows: number;
  readonly classes: number;
  readonly microseconds: Summary;
  /** Of the bytes that have to move: logits, a dense target, the gradient. */
  readonly gigabytesPerSecond: number;
  /** Of a copy that moves as many bytes: half of them it reads, half it writes. */
  readonly copyGigabytesPerSecond: number;
  /** Speed over the copy's, round by round. */
  readonly ratio: Summary;
}

const random = generator(11);
/**
 * As many of a batch's rows, repeated, as a tensor on the GPU: values don't matter to its speed, and rows drawn one by
 * one would take longer than the measurement.
 */
function upload(rows: number, source: Tensor): Tensor {
  const { data, shape, dtype } = source;
  const drawn = data as Values;
  const all = new (drawn.constructor as Float32ArrayConstructor)(rows * shape[1]!);
  for (let at = 0; at < all.length; at += drawn.length) all.set(drawn.subarray(0, all.length - at), at);
  return tensor(all, { shape: [rows, shape[1]!], dtype }).to('cuda');
}

/** Milliseconds of the GPU for one of `count` calls. */
function time(count: number, call: (i: number) => void): number {
  const [begin, end] = [new Event(), new Event()];
  begin.record();
  for (let i = 0; i < count; i++) call(i);
  end.record();
  end.synchronize();
  return begin.elapsedTime(end) / count;
}

/** More than twice what an H200's caches hold, so that no buffer is there when its turn comes again. */
const rotatingBytes = options.quick ? 0 : 256 * 2 ** 20;
const rounds = options.quick ? 3 : 9;
/** Of one side of a round. */
const roundMilliseconds = options.quick ? 1 : 6;

const setsOf = (bytes: number) => Math.max(1, Math.min(8, Math.ceil(rotatingBytes / bytes)));

/** Copies of half of so many bytes from device to device, between buffers that take turns. */
class Copies {
  readonly #pairs: readonly (readonly [DeviceArray, DeviceArray])[];

  constructor(bytesMoved: number) {
    const half = bytesMoved / 2;
    const allocate = () => binding.allocateDevice(1, half);
    this.#pairs = Array.from({ length: setsOf(half) }, () => [allocate(), allocate()] as const);
  }

  run(i: number): void {
    const [from, to] = this.#pairs[i % this.#pairs.length]!;
    binding.copyDevice(from, to);
  }

  free(): void {
    for (const each of this.#pairs.flat()) binding.freeDevice(each);
  }
}

/** Distinct rows of a tensor. */
const distinctRows = 64;

const cases: Case[] = [];

for (const { rows, classes, dtypes, splits = 1 } of shapes) {
  for (const dtype of dtypes) {
    const lines = subjects
      .filter((subject) => subject.splits === splits)
      .flatMap((subject) =>
        (['forward', 'loss and gradient'] as const).map((pass) => ({
          subject,
          pass,
          line: `${subject.name} ${pass} ${dtype} ${rows}x${classes}`.toLowerCase(),
        })),
      );
    const chosen = lines.filter(({ line }) => words.every((word) => line.includes(word.toLowerCase())));
    if (chosen.length === 0) continue;
    const batch = new Batch(Math.min(rows, distinctRows), classes, dtype);
    const bytes = rows * classes * bytesPerElement[dtype];
    const sets = setsOf(bytes);
    const inputs = Array.from({ length: sets }, () => upload(rows, batch.input));
    const labels = tensor(Int32Array.from({ length: rows }, () => Math.floor(random() * classes))).to('cuda');
    const value = tensor(dtype === 'float64' ? new Float64Array(1) : new Float32Array(1), { shape: [] }).to(
      'cuda',
    );
    const grads = inputs.map((input) => new NLLLoss().valueAndGrad(input, labels).grad);
    const copiesOf = new Map<number, Copies>();
    let dense: Tensor | undefined;
    for (const { subject, pass, line } of chosen) {
      // Dense targets of the largest shapes leave no room for the rest.
      if (subject.target === 'dense' && bytes > 4 * 2 ** 30) continue;
      if (subject.target === 'dense') dense ??= upload(rows, batch.soft);
      const target = subject.target === 'dense' ? dense! : labels;
      const run = (i: number) => {
        const input = inputs[i % sets]!;
        if (pass === 'forward') return subject.loss.forward(input, target, { out: { value } });
        const out = { value, grad: grads[i % sets]! };
        return subject.loss.valueAndGrad(input, target, { out });
      };
      const moved = bytes * ((pass === 'forward' ? 1 : 2) + (subject.target === 'dense' ? 1 : 0));
      if (!copiesOf.has(moved)) copiesOf.set(moved, new Copies(moved));
      const copies = copiesOf.get(moved)!;
      const copy = (i: number) => copies.run(i);
      for (let i = 0; i < 3; i++) {
        run(i);
        copy(i);
      }
      const calls = Math.max(2, Math.min(200, Math.ceil(roundMilliseconds / Math.max(time(3, run), 1e-3))));
      const [ours, theirs]: [number[], number[]] = [[], []];
      for (let round = 0; round < rounds; round++) {
        ours.push(time(calls, run));
        theirs.push(time(calls, copy));
      }
      const speeds = ours.map((ms) => moved / ms / 1e6);
      const copySpeeds = theirs.map((ms) => moved / ms / 1e6);
      const result: Case = {
        loss: subject.name,
        pass,
        dtype,
        rows,
        classes,
        microseconds: summarise(ours.map((ms) => ms * 1e3)),
        gigabytesPerSecond: summarise(speeds).median,
        copyGigabytesPerSecond: summarise(copySpeeds).median,
        ratio: summarise(ratios(speeds, copySpeeds)),
      };
      cases.push(result);
      console.log(
        `${line.padEnd(64)} ${result.microseconds.median.toFixed(1).padStart(9)} µs ` +
          `${result.gigabytesPerSecond.toFixed(0).padStart(6)} GB/s  ${(100 * result.ratio.median).toFixed(1).padStart(5)}% of copy`,
      );
    }
    for (const each of [...inputs, ...grads, labels, value]) each.dispose();
    dense?.dispose();
    for (const each of copiesOf.values()) each.free();
  }
}

/** Host time of a call that does little on the GPU, in microseconds: what it takes to enqueue one. */
function enqueue(): Record<string, number> {
  const batch = new Batch(1, 10, 'float32');
  const input = upload(1, batch.input);
  const labels = tensor(new Int32Array([3])).to('cuda');
  const loss = new LabelSmoothingCrossEntropy();
  const out = {
    value: tensor(new Float32Array(1), { shape: [] }).to('cuda'),
    grad: upload(1, batch.grad),
  };
  const calls: Record<string, () => unknown> = {
    forward: () => loss.forward(input, labels),
    'forward into out': () => loss.forward(input, labels, { out: { value: out.value } }),
    'loss and gradient into out': () => loss.valueAndGrad(input, labels, { out }),
  };
  const times: Record<string, number> = {};
  for (const [name, call] of Object.entries(calls)) {
    const samples: number[] = [];
    for (let round = 0; round < 20; round++) {
      out.value.item(); // nothing is at work
      const begin = process.hrtime.bigint();
      for (let i = 0; i < 200; i++) call();
      samples.push(Number(process.hrtime.bigint() - begin) / 200e3);
    }
    times[name] = summarise(samples).median;
    console.log(`enqueue ${name}: ${times[name].toFixed(2)} µs`);
  }
  return times;
}

/** Arrays in host memory, brought to the GPU and back: beside plain copies of as many bytes there and back. */
function fromHost(): Record<string, number> {
  const [rows, classes] = options.quick ? [64, 1000] : [16384, 8192];
  const host = tensor(new Float32Array(rows * classes).fill(0.5), { shape: [rows, classes] });
  const labels = tensor(new Int32Array(rows));
  const out = { grad: tensor(new Float32Array(rows * classes), { shape: [rows, classes] }) };
  const loss = new LabelSmoothingCrossEntropy();
  const seconds = (call: () => unknown) => {
    call();
    const samples = Array.from({ length: 5 }, () => {
      const begin = process.hrtime.bigint();
      call();
      return Number(process.hrtime.bigint() - begin) / 1e9;
    });
    return summarise(samples).median;
  };
  const bytes = 4 * rows * classes;
  const result = {
    bytes,
    lossAndGradientSeconds: seconds(() => loss.valueAndGrad(host, labels, { device: 'cuda', out })),
    thereAndBackSeconds: seconds(() => {
      const there = host.to('cuda');
      there.to('cpu');
      there.dispose();
    }),
    onTheCpuSeconds: seconds(() => loss.valueAndGrad(host, labels, { out })),
  };
  console.log(`from host memory: ${JSON.stringify(result)}`);
  return result;
}

const results = {
  schema: 1,
  device: gpu.name,
  capability: gpu.capability,
  date: new Date().toISOString(),
  node: process.versions.node,
  rounds,
  cases,
  ...(words.length === 0 ? { enqueueMicroseconds: enqueue(), fromHost: fromHost() } : {}),
  ...(options.peers === undefined
    ? {}
    : { peers: JSON.parse(readFileSync(options.peers, 'utf8')) as unknown }),
};
if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify(results, null, 1)}\n`);
