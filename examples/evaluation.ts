import { tensor } from 'surprisal';
import { Random } from 'surprisal/data';
import * as F from 'surprisal/functional';
import type { Mlp } from './model.js';
import { noisyViews, species, type Samples } from './penguins.js';

export interface Scores {
  /** Share of rows whose likeliest class is the label. */
  readonly accuracy: number;
  /** Cross entropy in nats, whichever loss the model was trained with. */
  readonly meanLoss: number;
  /** See `expectedCalibrationError`. */
  readonly calibrationError: number;
}

export function evaluate(model: Mlp, { features, labels }: Samples): Scores {
  const logits = tensor(model.forward(features), { shape: [labels.length, species.length] });
  const probabilities = F.softmax(logits).data as Float32Array;
  const predictions = Array.from(labels, (label, row) => {
    const p = probabilities.subarray(row * species.length, (row + 1) * species.length);
    const confidence = Math.max(...p);
    return { confidence, correct: p.indexOf(confidence) === label };
  });
  return {
    accuracy: predictions.filter(({ correct }) => correct).length / predictions.length,
    meanLoss: F.crossEntropy(logits, labels).item(),
    calibrationError: expectedCalibrationError(predictions, 10),
  };
}

/** `evaluate` on several noisy copies of every sample. */
export function evaluateUnderNoise(
  model: Mlp,
  samples: Samples,
  deviation: number,
  copies: number,
  seed: number,
): Scores {
  return evaluate(model, noisyViews(samples, copies, deviation, new Random(seed)));
}

/**
 * Σ (rows of the bin / N)·|accuracy of the bin − mean confidence of the bin| over equal bins of confidence
 * (Guo et al. 2017, arXiv:1706.04599).
 */
export function expectedCalibrationError(
  predictions: readonly { readonly confidence: number; readonly correct: boolean }[],
  binCount: number,
): number {
  // Σ (correct − confidence) of a bin is its size times that difference.
  const gaps = new Float64Array(binCount);
  for (const { confidence, correct } of predictions) {
    const bin = Math.min(Math.floor(confidence * binCount), binCount - 1);
    gaps[bin]! += Number(correct) - confidence;
  }
  return gaps.reduce((sum, gap) => sum + Math.abs(gap), 0) / predictions.length;
}
