/**
 * Trains a penguin classifier with three losses of the addon and compares them; then draws the divergence of
 * JsdCrossEntropy. Options: --out FOLDER for the drawing, --runs N for the number of seeds.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { CrossEntropyLoss, JsdCrossEntropy, LabelSmoothingCrossEntropy, type Loss } from 'surprisal/loss';
import { jsdCurve } from './curve.js';
import { evaluate, evaluateUnderNoise, type Scores } from './evaluation.js';
import { loadPenguins, measurements, species } from './penguins.js';
import { curveInTerminal, curveSvg } from './plot.js';
import { startProgress } from './progress.js';
import { penguinSplit, recipe, train } from './training.js';

/** Noise of the held-out copies: far beyond the views', so that it is new to every model. */
const heldOutNoise = { deviation: 1, copies: 10 };

interface Result {
  readonly name: string;
  /** A run each. */
  readonly clean: readonly Scores[];
  readonly noisy: readonly Scores[];
}

function readOptions(): { out: string; runs: number } {
  const { values } = parseArgs({
    options: {
      out: { type: 'string', default: fileURLToPath(new URL('../../examples/out', import.meta.url)) },
      runs: { type: 'string', default: '10' },
    },
  });
  const runs = Number(values.runs);
  if (!Number.isInteger(runs) || runs < 2) {
    console.error(`--runs: expected an integer of at least 2, for a spread, got '${values.runs}'`);
    process.exit(2);
  }
  return { out: resolve(values.out), runs };
}

function trainAndScore(name: string, criterion: Loss, runs: number): Result {
  const progress = startProgress(name.padEnd(26), runs * recipe.epochs);
  const clean: Scores[] = [];
  const noisy: Scores[] = [];
  for (let seed = 0; seed < runs; seed++) {
    const { train: samples, heldOut } = penguinSplit(seed);
    const model = train(criterion, samples, seed, (loss) =>
      progress.step(`training loss ${loss.toFixed(3)}`),
    );
    clean.push(evaluate(model, heldOut));
    noisy.push(evaluateUnderNoise(model, heldOut, heldOutNoise.deviation, heldOutNoise.copies, seed));
  }
  progress.stop();
  return { name, clean, noisy };
}

/** Mean ± sample standard deviation of a number of each run. */
function spread(scores: readonly Scores[], pick: (one: Scores) => number, digits: number): string {
  const values = scores.map(pick);
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (values.length - 1);
  return `${mean.toFixed(digits)} ± ${Math.sqrt(variance).toFixed(digits)}`;
}

const cells = (scores: readonly Scores[]): string[] => [
  spread(scores, ({ accuracy }) => 100 * accuracy, 1),
  spread(scores, ({ meanLoss }) => meanLoss, 3),
  spread(scores, ({ calibrationError }) => 100 * calibrationError, 1),
];

function comparison(results: readonly Result[]): string {
  const table = new Table({
    head: ['trained with', 'accuracy, %', 'mean loss, nats', 'ECE, %'],
    colAligns: ['left', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  const section = (content: string) => table.push([{ content, colSpan: 4 }]);
  section('held-out penguins');
  for (const { name, clean } of results) table.push([`  ${name}`, ...cells(clean)]);
  section(`the same, with measurement noise of ${heldOutNoise.deviation} standard deviation`);
  for (const { name, noisy } of results) table.push([`  ${name}`, ...cells(noisy)]);
  return table.toString();
}

const { out, runs } = readOptions();
const points = jsdCurve();
const { labels, dropped } = loadPenguins();
const { train: samples, heldOut } = penguinSplit(0);
const commonest = Math.max(...Array.from(species, (_, label) => labels.filter((y) => y === label).length));

console.log(`
WHICH PENGUIN IS IT?

${labels.length} penguins of ${species.length} species, ${measurements.length} measurements each (${dropped} rows had none and are out).
${samples.labels.length} of them train a perceptron with ${recipe.hidden} hidden units, ${heldOut.labels.length} are held out;
${runs} seeds, each with its own split. Every step sees ${recipe.views} noisy views of a batch.
Loss and gradient come from the addon; the model is plain TypeScript.
`);

const results = [
  trainAndScore('JsdCrossEntropy', new JsdCrossEntropy({ numSplits: recipe.views }), runs),
  trainAndScore('CrossEntropyLoss', new CrossEntropyLoss(), runs),
  trainAndScore('LabelSmoothingCrossEntropy', new LabelSmoothingCrossEntropy(), runs),
];

console.log(`
${comparison(results)}
Mean ± standard deviation over the seeds; with one seed all losses start from
the same weights and see the same views. The mean loss is plain cross entropy
for all three; ECE is the expected calibration error, of 10 bins. Who always
guesses ${species[0]} is right in ${((100 * commonest) / labels.length).toFixed(1)} %. An illustration, no ranking.

WHAT THE DIVERGENCE PENALISES

Three equal predictions, of which the third is then changed.

${curveInTerminal(points)}
`);

const file = join(out, 'jsd_curve.svg');
mkdirSync(out, { recursive: true });
writeFileSync(file, await curveSvg(points));
const path = relative(process.cwd(), file);
console.log(
  `Drawn in ${path.startsWith('..') ? file : path}. ${(performance.now() / 1000).toFixed(1)} s in all.`,
);
