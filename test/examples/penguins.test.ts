import assert from 'node:assert/strict';
import { Random } from 'surprisal/data';
import {
  loadPenguins,
  measurements,
  noisyViews,
  species,
  splitByLabel,
  standardise,
  take,
} from '../../examples/penguins.js';
import { expectedCalibrationError } from '../../examples/evaluation.js';

const countOf = (labels: Int32Array, label: number): number => labels.filter((y) => y === label).length;

const column = (features: Float32Array, feature: number): Float32Array =>
  features.filter((_, i) => i % measurements.length === feature);

describe('examples/penguins', () => {
  const penguins = loadPenguins();

  it('reads the penguins that were measured', () => {
    assert.equal(penguins.dropped, 2);
    assert.deepEqual(
      [...species.keys()].map((label) => countOf(penguins.labels, label)),
      [151, 68, 123],
    );
    assert.deepEqual([...penguins.features.subarray(0, 4)], [39.1, 18.7, 181, 3750].map(Math.fround));
    assert.ok(penguins.features.every((x) => x > 0));
  });

  it('splits without losing or repeating a row, with each species at its share', () => {
    const { train, heldOut } = splitByLabel(penguins, 0.7, new Random(3));
    for (const [label, count] of [151, 68, 123].entries()) {
      assert.equal(countOf(train.labels, label), Math.round(0.7 * count));
      assert.equal(countOf(train.labels, label) + countOf(heldOut.labels, label), count);
    }
    const keys = (features: Float32Array): string[] =>
      Array.from({ length: features.length / 4 }, (_, row) =>
        String(features.subarray(4 * row, 4 * row + 4)),
      );
    assert.deepEqual(
      [...keys(train.features), ...keys(heldOut.features)].sort(),
      keys(penguins.features).sort(),
    );
    assert.notDeepEqual(splitByLabel(penguins, 0.7, new Random(4)).train.features, train.features);
  });

  it('standardises by the training rows alone', () => {
    const split = splitByLabel(penguins, 0.7, new Random(3));
    const { train, heldOut } = standardise(split.train, split.heldOut);
    for (const feature of measurements.keys()) {
      const values = column(train.features, feature);
      const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
      const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length;
      // 240 values of size 1, each rounded to float32.
      assert.ok(Math.abs(mean) < 1e-6 && Math.abs(variance - 1) < 1e-6, `mean ${mean}, variance ${variance}`);
    }
    const heldOutMean = column(heldOut.features, 0).reduce((sum, x) => sum + x, 0) / heldOut.labels.length;
    // Its own mean would have made this 0; a mean of 102 rows is 0.1 from the training mean, give or take.
    assert.ok(Math.abs(heldOutMean) > 1e-4, `${heldOutMean}`);
  });

  it('stacks its noisy views one after the other', () => {
    const batch = take(standardise(penguins, penguins).train, [5, 200]);
    const views = noisyViews(batch, 3, 1e-3, new Random(5));
    assert.deepEqual([...views.labels], [...batch.labels, ...batch.labels, ...batch.labels]);
    assert.equal(new Set(views.features).size, 3 * batch.features.length);
    for (const [i, x] of views.features.entries()) {
      // Six standard deviations: one normal draw in 5e8 is farther.
      assert.ok(Math.abs(x - batch.features[i % batch.features.length]!) < 6e-3);
    }
  });
});

describe('examples/evaluation', () => {
  it('measures how far confidence is from accuracy, bin by bin', () => {
    // Bin 9: two of four right at 0.9 to 1, off by |2 − 3.8| / 6; bin 5: both right at 0.5, off by |2 − 1| / 6.
    const predictions = [
      { confidence: 1, correct: true },
      { confidence: 1, correct: true },
      { confidence: 0.9, correct: false },
      { confidence: 0.9, correct: false },
      { confidence: 0.5, correct: true },
      { confidence: 0.5, correct: true },
    ];
    // Sums of six doubles of size 1.
    assert.ok(Math.abs(expectedCalibrationError(predictions, 10) - (1.8 + 1) / 6) < 1e-15);
    assert.equal(expectedCalibrationError([{ confidence: 1, correct: true }], 10), 0);
  });
});
