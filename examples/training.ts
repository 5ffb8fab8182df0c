import type { Loss } from 'surprisal/loss';
import { Random } from 'surprisal/data';
import { tensor } from 'surprisal';
import { Adam, Mlp } from './model.js';
import {
  loadPenguins,
  measurements,
  noisyViews,
  species,
  splitByLabel,
  standardise,
  take,
  type Samples,
} from './penguins.js';

export const recipe = {
  hidden: 16,
  epochs: 60,
  /** Samples a step; the loss sees `views` rows of each. */
  batch: 40,
  views: 3,
  /** Standard deviation of the views' noise, in standard deviations of the feature. */
  noise: 0.25,
  learningRate: 0.01,
  trainShare: 0.7,
} as const;

/** One seed's split of the penguins, standardised by what its training part knows. */
export function penguinSplit(seed: number): { train: Samples; heldOut: Samples } {
  const { train, heldOut } = splitByLabel(loadPenguins(), recipe.trainShare, new Random(seed));
  return standardise(train, heldOut);
}

/**
 * A classifier trained with `criterion`. The seed alone says the initial weights, the order of the samples and the
 * noise of their views: two losses with one seed differ in nothing but the loss.
 */
export function train(
  criterion: Loss,
  samples: Samples,
  seed: number,
  onEpoch: (meanLoss: number) => void,
): Mlp {
  const random = new Random(seed);
  const model = new Mlp([measurements.length, recipe.hidden, species.length], random);
  const optimizer = new Adam(model.parameters.length, recipe.learningRate);
  const count = samples.labels.length;

  for (let epoch = 0; epoch < recipe.epochs; epoch++) {
    const order = random.permutation(count);
    let total = 0;
    for (let start = 0; start < count; start += recipe.batch) {
      const batch = take(samples, order.subarray(start, start + recipe.batch));
      const views = noisyViews(batch, recipe.views, recipe.noise, random);
      const logits = tensor(model.forward(views.features), { shape: [views.labels.length, species.length] });

      const { value, grad } = criterion.valueAndGrad(logits, views.labels);

      model.backward(grad.data as Float32Array);
      optimizer.step(model.parameters, model.gradients);
      total += value.item() * batch.labels.length;
    }
    onEpoch(total / count);
  }
  return model;
}
