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
  SoftTargetCrossEntropy,
  type Loss,
} from 'surprisal/loss';
import { binding } from '../binding.js';
import { generator } from '../data.js';
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
  /** Of the losses that are measured on it: 1 unless said otherwise. */
  readonly group?: number;
}

const everyDType: readonly FloatDType[] = ['float32', 'bfloat16', 'float16', 'float64'];
const shapes: readonly Shape[] = options.quick
  ? [
      { rows: 48, classes: 256, dtypes: everyDType },
      { rows: 6, classes: 9000, dtypes: ['float32'], group: 3 },
    ]
  : [
      { rows: 32768, classes: 256, dtypes: everyDType },
      { rows: 32768, classes: 1000, dtypes: everyDType },
      { rows: 65536, classes: 1000, dtypes: ['float32'] },
      { rows: 32768, classes: 4096, dtypes: everyDType },
      { rows: 32768, classes: 32768, dtypes: ['float32', 'bfloat16'] },
      { rows: 8192, classes: 131072, dtypes: ['float32', 'bfloat16'] },
      { rows: 4096, classes: 262144, dtypes: ['float32', 'bfloat16'] },
      // As many as three splits divide.
      { rows: 32766, classes: 1000, dtypes: everyDType, group: 3 },
      { rows: 24576, classes: 32768, dtypes: ['float32', 'bfloat16'], group: 3 },
    ];

type Target = 'labels' | 'dense';

interface Subject {
  readonly name: string;
  readonly loss: Loss;
  readonly target: Target;
  /** Rows of a sample. */
  readonly group: number;
}

const subjects: readonly Subject[] = [
  { name: 'CrossEntropyLoss', loss: new CrossEntropyLoss(), target: 'labels', group: 1 },
  { name: 'LabelSmoothingCrossEntropy', loss: new LabelSmoothingCrossEntropy(), target: 'labels', group: 1 },
  { name: 'SoftTargetCrossEntropy', loss: new SoftTargetCrossEntropy(), target: 'dense', group: 1 },
  { name: 'JsdCrossEntropy', loss: new JsdCrossEntropy(), target: 'labels', group: 3 },
  { name: 'BinaryCrossEntropy', loss: new BinaryCrossEntropy(), target: 'labels', group: 1 },
  { name: 'AsymmetricLossSingleLabel', loss: new AsymmetricLossSingleLabel(), target: 'labels', group: 1 },
  { name: 'AsymmetricLossMultiLabel', loss: new AsymmetricLossMultiLabel(), target: 'dense', group: 1 },
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
  /** Of a copy of as many bytes, read and written. */
  readonly copyGigabytesPerSecond: number;
  /** Speed over the copy's, round by round. */
  readonly ratio: Summary;
}

const random = generator(11);
const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** Logits like a classifier's, of which a few million are drawn and then repeated. */
const drawn = Float32Array.from({ length: options.quick ? 1 << 14 : 1 << 22 }, () => 3 * normal());
const code = (dtype: string) => binding.dtypes.indexOf(dtype);

const bytesOf: Readonly<Record<FloatDType, number>> = { float32: 4, float64: 8, float16: 2, bfloat16: 2 };

/** A tensor of this shape on the GPU; `shift` tells rotating buffers apart. */
function upload(rows: number, classes: number, dtype: FloatDType, shift: number, positive = false): Tensor {
  const holders = {
    float32: Float32Array,
    float64: Float64Array,
    float16: Uint16Array,
    bfloat16: Uint16Array,
  };
  const source = positive ? drawn.map((x) => Math.abs(x) / (3 * classes)) : drawn;
  const converted = new holders[dtype](source.length);
  binding.convert(source, code('float32'), converted, code(dtype));
  const data = new holders[dtype](rows * classes);
  for (let at = 0, from = (shift * 7919) % converted.length; at < data.length; from = 0) {
    const part = converted.subarray(from, from + data.length - at);
    data.set(part, at);
    at += part.length;
  }
  return tensor(data, { shape: [rows, classes], dtype }).to('cuda');
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

const cases: Case[] = [];

for (const { rows, classes, dtypes, group = 1 } of shapes) {
  for (const dtype of dtypes) {
    const lines = subjects
      .filter((subject) => subject.group === group)
      .flatMap((subject) =>
        (['forward', 'loss and gradient'] as const).map((pass) => ({
          subject,
          pass,
          line: `${subject.name} ${pass} ${dtype} ${rows}x${classes}`.toLowerCase(),
        })),
      );
    const chosen = lines.filter(({ line }) => words.every((word) => line.includes(word.toLowerCase())));
    if (chosen.length === 0) continue;
    const bytes = rows * classes * bytesOf[dtype];
    const sets = Math.max(1, Math.min(8, Math.ceil(rotatingBytes / bytes)));
    const inputs = Array.from({ length: sets }, (_, i) => upload(rows, classes, dtype, i));
    const grads = Array.from({ length: sets }, (_, i) => upload(rows, classes, dtype, i));
    const labels = tensor(Int32Array.from({ length: rows }, () => Math.floor(random() * classes))).to('cuda');
    const value = tensor(dtype === 'float64' ? new Float64Array(1) : new Float32Array(1), { shape: [] }).to(
      'cuda',
    );
    // The same bytes travel in a copy: half are read, half are written.
    const [from, to] = [binding.allocateDevice(1, bytes), binding.allocateDevice(1, bytes)];
    let dense: Tensor | undefined;
    for (const { subject, pass, line } of chosen) {
      // Dense targets of the largest shapes leave no room for the rest.
      if (subject.target === 'dense' && bytes > 4 * 2 ** 30) continue;
      if (subject.target === 'dense') dense ??= upload(rows, classes, 'float32', 3, true);
      const target = subject.target === 'dense' ? dense! : labels;
      const run = (i: number) => {
        const input = inputs[i % sets]!;
        if (pass === 'forward') return subject.loss.forward(input, target, { out: { value } });
        const out = { value, grad: grads[i % sets]! };
        return subject.loss.valueAndGrad(input, target, { out });
      };
      const copy = () => binding.copyDevice(from, to);
      run(0);
      copy();
      const once = time(3, run);
      const calls = Math.max(2, Math.min(200, Math.ceil((options.quick ? 1 : 10) / Math.max(once, 1e-3))));
      const [ours, copies]: [number[], number[]] = [[], []];
      for (let round = 0; round < rounds; round++) {
        ours.push(time(calls, run));
        copies.push(time(calls, copy));
      }
      const moved =
        bytes * (pass === 'forward' ? 1 : 2) + (subject.target === 'dense' ? rows * classes * 4 : 0);
      const speeds = ours.map((ms) => moved / ms / 1e6);
      const copySpeeds = copies.map((ms) => (2 * bytes) / ms / 1e6);
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
    binding.freeDevice(from);
    binding.freeDevice(to);
  }
}

/** Host time of a call that does little on the GPU, in microseconds: what it takes to enqueue one. */
function enqueue(): Record<string, number> {
  const input = upload(1, 10, 'float32', 0);
  const labels = tensor(new Int32Array([3])).to('cuda');
  const loss = new LabelSmoothingCrossEntropy();
  const out = {
    value: tensor(new Float32Array(1), { shape: [] }).to('cuda'),
    grad: upload(1, 10, 'float32', 1),
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
