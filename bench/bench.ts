/**
 * Each loss with its gradient beside a plain copy of its logits, in interleaved rounds of one run: the ratio of the
 * medians is what to look at, as machines and their neighbours change from minute to minute.
 *
 *   npm run bench -- [--rows 4096] [--classes 1000] [--rounds 41] [--threads 1]
 */

import { parseArgs } from 'node:util';
import { diagnose, setNumThreads, tensor } from 'surprisal';
import {
  AsymmetricLossMultiLabel,
  AsymmetricLossSingleLabel,
  BinaryCrossEntropy,
  CrossEntropyLoss,
  JsdCrossEntropy,
  LabelSmoothingCrossEntropy,
  SoftTargetCrossEntropy,
} from 'surprisal/loss';

const { values: options } = parseArgs({
  options: {
    rows: { type: 'string', default: '4096' },
    classes: { type: 'string', default: '1000' },
    rounds: { type: 'string', default: '41' },
    threads: { type: 'string', default: '1' },
  },
});
const [rows, classes, rounds, threads] = [options.rows, options.classes, options.rounds, options.threads].map(
  Number,
) as [number, number, number, number];
setNumThreads(threads);

const count = rows * classes;
const random = (() => {
  let state = 1;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
})();
const logits = tensor(
  Float32Array.from({ length: count }, () => random() * 8 - 4),
  { shape: [rows, classes] },
);
const grad = tensor(new Float32Array(count), { shape: [rows, classes] });
const labels = Int32Array.from({ length: rows }, () => Math.floor(random() * classes));
const soft = tensor(new Float32Array(count).fill(1 / classes), { shape: [rows, classes] });
const multiHot = tensor(
  Float32Array.from({ length: count }, () => (random() < 0.02 ? 1 : 0)),
  { shape: [rows, classes] },
);
const out = { out: { grad } };

const splits = 3;
const stacked = rows - (rows % splits);
const head = ({ data }: { readonly data: unknown }) => (data as Float32Array).subarray(0, stacked * classes);
const views = tensor(head(logits), { shape: [stacked, classes] });
const viewsOut = { out: { grad: tensor(head(grad), { shape: [stacked, classes] }) } };

const crossEntropy = new CrossEntropyLoss();
const smoothed = new LabelSmoothingCrossEntropy();
const softTarget = new SoftTargetCrossEntropy();
const jsd = new JsdCrossEntropy({ numSplits: splits });
const binary = new BinaryCrossEntropy();
const multiLabel = new AsymmetricLossMultiLabel();
const singleLabel = new AsymmetricLossSingleLabel();

const copy = 'a plain copy';
const passes: Record<string, () => unknown> = {
  [copy]: () => (grad.data as Float32Array).set(logits.data as Float32Array),
  'CrossEntropyLoss, forward': () => crossEntropy.forward(logits, labels),
  CrossEntropyLoss: () => crossEntropy.valueAndGrad(logits, labels, out),
  LabelSmoothingCrossEntropy: () => smoothed.valueAndGrad(logits, labels, out),
  SoftTargetCrossEntropy: () => softTarget.valueAndGrad(logits, soft, out),
  [`JsdCrossEntropy, K = ${splits}`]: () => jsd.valueAndGrad(views, labels, viewsOut),
  BinaryCrossEntropy: () => binary.valueAndGrad(logits, multiHot, out),
  AsymmetricLossMultiLabel: () => multiLabel.valueAndGrad(logits, multiHot, out),
  AsymmetricLossSingleLabel: () => singleLabel.valueAndGrad(logits, labels, out),
};

const times = new Map<string, number[]>(Object.keys(passes).map((name) => [name, []]));
const warmUp = 3;
for (let round = -warmUp; round < rounds; round++) {
  for (const [name, pass] of Object.entries(passes)) {
    const start = process.hrtime.bigint();
    pass();
    if (round >= 0) times.get(name)!.push(Number(process.hrtime.bigint() - start));
  }
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;
const base = median(times.get(copy)!);
console.log(diagnose());
console.log(`float32, ${rows} × ${classes}, ${threads} thread(s), medians of ${rounds} interleaved rounds\n`);
for (const [name, values] of times) {
  const middle = median(values);
  console.log(
    `${name.padEnd(30)} ${(middle / 1e6).toFixed(2).padStart(7)} ms  ${(middle / count).toFixed(3)} ns an element  ` +
      `${(middle / base).toFixed(2).padStart(5)} × the copy`,
  );
}
