/**
 * The three notebooks that the library comes from, step by step through its public API: what they print is printed
 * here, and compared with what stands in them. Exits with 1 where a value differs.
 */
import { tensor, type Tensor } from 'surprisal';
import { Random } from 'surprisal/data';
import * as F from 'surprisal/functional';
import {
  CrossEntropyLoss,
  JsdCrossEntropy,
  LabelSmoothingCrossEntropy,
  LensedCrossEntropy,
} from 'surprisal/loss';
import { jsdCurve } from './curve.js';
import { curveInTerminal } from './plot.js';
import { show, showSize } from './torch_format.js';

const numbersIn = (text: string): string[] => text.match(/-?\d+\.?\d*(e[+-]\d+)?/g) ?? [];

let differences = 0;

function verdict(passed: boolean, good: string, bad: string): string {
  if (passed) return good;
  differences++;
  return `DIFFERS: ${bad}`;
}

const title = (text: string): void => console.log(`\n${text}\n${'='.repeat(text.length)}`);

const heading = (text: string): void => console.log(`\n${text}`);

/** Prints what an expression of the notebook gives, with a remark. Lines of more than 80 columns are broken. */
function result(expression: string, text: string, remark = ''): void {
  const line = `  ${expression.padEnd(41)} ${text}`;
  if (text.includes('\n') || line.length > 80) {
    console.log(`  ${expression}${remark && ` (${remark})`}`);
    console.log(text.replace(/^/gm, '    '));
  } else if (line.length + 2 + remark.length > 80) {
    console.log(`${line}\n${' '.repeat(44)}${remark}`);
  } else {
    console.log(`${line}  ${remark}`.trimEnd());
  }
}

/**
 * A result that stands in the notebook. Where its text is not the same, its numbers may differ by `tolerance`, which
 * then has a reason in the code that calls.
 */
function known(expression: string, text: string, printed: string, tolerance = 0): void {
  if (text === printed) {
    result(expression, text, 'as in the notebook');
    return;
  }
  const got = numbersIn(text);
  const expected = numbersIn(printed);
  const isClose = (x: string, i: number): boolean => Math.abs(Number(x) - Number(expected[i])) <= tolerance;
  const passed = got.length === expected.length && got.every(isClose);
  const theirs = expected.filter((x, i) => x !== got[i]).join(', ') || printed;
  result(expression, text, verdict(passed, `notebook: ${theirs}`, `the notebook has ${theirs}`));
}

/** Two results that the notebook shows to be equal; its input is random and not printed, so its digits are not these. */
function equal(expression: string, value: Tensor, otherExpression: string, other: Tensor): void {
  result(expression, show(value));
  // Each comes to its float32 in its own way. Below 8 those stand 4.8e-7 apart: a few of them.
  const passed = Math.abs(value.item() - other.item()) <= 2e-6;
  result(
    otherExpression,
    show(other),
    verdict(passed, 'equal', `expected ${value.item()}, got ${other.item()}`),
  );
}

const mapped = (source: Tensor, change: (x: number) => number): Tensor =>
  tensor((source.data as Float32Array).map(change), { shape: source.shape });

/** Rows `from` to `to` − 1, without a copy. */
function rows({ data, shape }: Tensor, from: number, to: number): Tensor {
  const classes = shape[1]!;
  return tensor((data as Float32Array).subarray(from * classes, to * classes), {
    shape: [to - from, classes],
  });
}

/** As torch.rand. */
function rand(shape: readonly [number, number], seed: number): Tensor {
  const random = new Random(seed);
  return tensor(
    Float32Array.from({ length: shape[0] * shape[1] }, () => random.uniform()),
    { shape },
  );
}

function jsdNotebook(): void {
  title('JSD cross entropy');

  heading('Without smoothing and alpha: the cross entropy of the first of three splits');
  const output = F.oneHot([0, 9, 0]);
  const labels = [0];
  known(
    'jsd(output,labels)',
    show(new JsdCrossEntropy({ smoothing: 0, alpha: 0 }).forward(output, labels)),
    'tensor(1.4612)',
  );
  known('base_loss', show(F.crossEntropy(rows(output, 0, 1), labels)), 'tensor(1.4612)');

  heading('A single split is plain cross entropy');
  const single = new JsdCrossEntropy({ numSplits: 1, smoothing: 0, alpha: 0 });
  equal(
    'jsd(output[0,None],labels)',
    single.forward(rows(output, 0, 1), labels),
    'F.cross_entropy(output[0,None],labels)',
    F.crossEntropy(rows(output, 0, 1), labels),
  );

  heading('Two splits of two samples');
  const twoByTwo = F.oneHot([0, 9, 1, 0]);
  const twoSplits = new JsdCrossEntropy({ numSplits: 2, smoothing: 0, alpha: 0 });
  known('jsd(output,labels)', show(twoSplits.forward(twoByTwo, [0, 9])), 'tensor(1.4612)');
  known(
    'F.cross_entropy(output[[0,1]],labels)',
    show(F.crossEntropy(rows(twoByTwo, 0, 2), [0, 9])),
    'tensor(1.4612)',
  );

  heading('One prediction of three moves by this much a step');
  const deltas = tensor([-1, 1, 0, 0, 0, 0, 0, 0, 0, 0].map((x) => x * 0.1));
  known(
    'deltas[2]',
    show(deltas),
    'tensor([-0.1000,  0.1000,  0.0000,  0.0000,  0.0000,  0.0000,  0.0000,  0.0000,\n         0.0000,  0.0000])',
  );

  heading('The losses less base_loss, from 10 steps back to 10 steps on (a plot there)');
  const curve = jsdCurve();
  for (let i = 0; i < curve.length; i += 7) {
    const line = curve.slice(i, i + 7).map(({ divergence }) => divergence.toFixed(6));
    console.log(`  ${i === 0 ? 'losses' : '      '} ${line.join('  ')}`);
  }
  console.log(`\n${curveInTerminal(curve)}`);
}

function labelSmoothingNotebook(): void {
  title('Label smoothing');
  const output = tensor([
    [4, 5, 10],
    [1, 5, 4],
    [1, 15, 4],
  ]);
  const label = tensor([2, 1, 1], { dtype: 'int64' });
  const crossEntropy = new CrossEntropyLoss().forward(output, label).item();
  // The notebook prints its float32 in full. The exact value is 0.1119182196, of which 0.1119182184 is the nearest
  // float32 and the notebook's 0.1119182333 the next but one; they stand 7.5e-9 apart.
  const full = 2e-8;
  // The notebook's log probability of the confident row is the logarithm of a float32 just above 1, where they stand
  // 2^-23 apart: it is right to half of that.
  const confident = 6e-8;

  heading('Cross entropy');
  known('CrossEntropy', String(crossEntropy), '0.11191823333501816', full);

  heading('Its parts: the log probabilities, and the one of each label');
  const index = tensor(label.data, { shape: [3, 1] });
  const logProbs = F.logSoftmax(output);
  const nll = mapped(F.gather(logProbs, index, { dim: -1 }), (x) => -x);
  known(
    'index',
    `${show(index)} ${showSize(index)}`,
    'tensor([[2],\n        [1],\n        [1]]) torch.Size([3, 1])',
  );
  known(
    'log_probs',
    `${show(logProbs)} ${showSize(logProbs)}`,
    'tensor([[-6.0092e+00, -5.0092e+00, -9.1745e-03],\n' +
      '        [-4.3266e+00, -3.2656e-01, -1.3266e+00],\n' +
      '        [-1.4000e+01, -1.7524e-05, -1.1000e+01]]) torch.Size([3, 3])',
    confident,
  );
  known(
    'H_qp',
    `${show(nll)} ${showSize(nll)}`,
    'tensor([[9.1745e-03],\n        [3.2656e-01],\n        [1.7524e-05]]) torch.Size([3, 1])',
    confident,
  );

  heading('Label smoothing of 0.001');
  const smoothed = new LabelSmoothingCrossEntropy({ smoothing: 0.001 }).forward(output, label).item();
  known('CrossEntropy', String(crossEntropy), '0.11191823333501816', full);
  known('LableSmoothingCrossEntropy', String(smoothed), '0.11647378653287888', full);

  heading('torch.gather');
  const inputs = tensor(
    [
      [1, 2],
      [3, 4],
    ],
    { dtype: 'int64' },
  );
  const picked = F.gather(
    inputs,
    [
      [0, 0],
      [1, 0],
    ],
    { dim: 1 },
  );
  known('torch.gather(inputs, dim=1, index)', show(picked), 'tensor([[1, 1],\n        [4, 3]])');
}

function lensingNotebook(): void {
  title('Lensing softmax');
  const logQ = tensor([0.4, 0.3, 0.2, 0.1].map(Math.log));
  const logQBatch = tensor(logQ.data, { shape: [1, 4] });
  const sum = { reduction: 'sum' } as const;

  heading('A single example: class 0 is right; then class 0 or class 1 is');
  known('F.kl_div(logQ, P)', show(F.klDiv(logQ, [1, 0, 0, 0], sum)), 'tensor(0.9163)');
  known('F.kl_div(logQ, Cw)', show(F.klDiv(logQ, [0.5, 0.5, 0, 0], sum)), 'tensor(0.3670)');

  heading('Cross entropy is log softmax and negative log likelihood');
  const example = tensor([[0.5616, 0.8824, 0.8206, 0.0873, 0.4063]]);
  result('input', show(example), 'as in the notebook');
  // The input is printed to 5e-5, the loss moves by at most twice what logits do, and both losses are rounded to 5e-5.
  known('F.cross_entropy(input, target)', show(F.crossEntropy(example, [0])), 'tensor(1.6394)', 2e-4);
  known(
    'F.nll_loss(F.log_softmax(input), target)',
    show(F.nllLoss(F.logSoftmax(example, { dim: 1 }), [0])),
    'tensor(1.6394)',
    2e-4,
  );

  heading('The same of the imagined log softmax');
  known('F.nll_loss(logQ_batch, target)', show(F.nllLoss(logQBatch, [0])), 'tensor(0.9163)');

  heading('Unlensed: the divergence from a delta distribution; lensed: from the lens');
  known('F.kl_div(logQ, P)', show(F.klDiv(logQ, [1, 0, 0, 0], sum)), 'tensor(0.9163)');
  known('F.kl_div(logQ_batch, P_batch)', show(F.klDiv(logQBatch, [[1, 0, 0, 0]], sum)), 'tensor(0.9163)');
  known(
    'F.kl_div(logQ_batch, Cw_batch)',
    show(F.klDiv(logQBatch, [[0.5, 0.5, 0, 0]], sum)),
    'tensor(0.3670)',
  );

  heading('With the identity lens it is cross entropy (random input, of a fixed seed)');
  const input = rand([3, 4], 0);
  const target = [0, 2, 2];
  const identityLens = F.oneHot([0, 1, 2, 3]);
  result('input', show(input));
  known(
    'identity_lens',
    show(identityLens),
    'tensor([[1., 0., 0., 0.],\n        [0., 1., 0., 0.],\n        [0., 0., 1., 0.],\n        [0., 0., 0., 1.]])',
  );
  equal(
    'lensed_cross_entropy(..., sum)',
    F.lensedCrossEntropy(input, target, identityLens, sum),
    'F.cross_entropy(..., sum)',
    F.crossEntropy(input, target, sum),
  );
  equal(
    'lensed_cross_entropy(..., mean)',
    F.lensedCrossEntropy(input, target, identityLens),
    'F.cross_entropy(..., mean)',
    F.crossEntropy(input, target),
  );

  heading('A lens that makes class 0 and class 1 interchangeable');
  const confusionLens = tensor([
    [0.5, 0.5, 0, 0],
    [0.5, 0.5, 0, 0],
    [0, 0, 1, 0],
    [0, 0, 0, 1],
  ]);
  known(
    'confusion_lens',
    show(confusionLens),
    'tensor([[0.5000, 0.5000, 0.0000, 0.0000],\n        [0.5000, 0.5000, 0.0000, 0.0000],\n' +
      '        [0.0000, 0.0000, 1.0000, 0.0000],\n        [0.0000, 0.0000, 0.0000, 1.0000]])',
  );
  equal(
    'lensed_cross_entropy(input, target, lens)',
    F.lensedCrossEntropy(input, target, confusionLens),
    'LensedCrossEntropy, the class',
    new LensedCrossEntropy({ confusionLens }).forward(input, target),
  );
  heading('Both lenses on the imagined log softmax, which is its own log softmax');
  known('unlensed', show(F.lensedCrossEntropy(logQBatch, [0], identityLens)), 'tensor(0.9163)');
  known('lensed', show(F.lensedCrossEntropy(logQBatch, [0], confusionLens)), 'tensor(0.3670)');
}

jsdNotebook();
labelSmoothingNotebook();
lensingNotebook();

if (differences > 0) {
  console.error(`\n${differences} values differ from the notebooks.`);
  process.exitCode = 1;
}
