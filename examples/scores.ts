/**
 * Writes what 'surprisal eval' reads: logits and labels of penguins that ten models have not been trained with, as noisy
 * copies, and the names of the classes. Option: --out FOLDER.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { tensor } from 'surprisal';
import { Random } from 'surprisal/data';
import { NpyWriter } from 'surprisal/io';
import { CrossEntropyLoss } from 'surprisal/loss';
import { noisyViews, species } from './penguins.js';
import { penguinSplit, train } from './training.js';

const seeds = 10;
const [copies, deviation] = [10, 0.75];

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: fileURLToPath(new URL('../../examples/out', import.meta.url)) },
  },
});
const out = resolve(values.out);
mkdirSync(out, { recursive: true });

const logits = await NpyWriter.open(join(out, 'logits.npy'));
const labels = await NpyWriter.open(join(out, 'labels.npy'));
for (let seed = 0; seed < seeds; seed++) {
  const { train: samples, heldOut } = penguinSplit(seed);
  const model = train(new CrossEntropyLoss(), samples, seed, () => undefined);
  const views = noisyViews(heldOut, copies, deviation, new Random(seed));
  const shape = [views.labels.length, species.length];
  await logits.write(tensor(model.forward(views.features), { shape }));
  await labels.write(tensor(views.labels, { shape: [views.labels.length] }));
}
await logits.close();
await labels.close();
writeFileSync(join(out, 'species.txt'), `${species.join('\n')}\n`);
console.log(`logits.npy, labels.npy and species.txt are in ${relative('.', out) || '.'}`);
