import { tensor } from 'surprisal';
import * as F from 'surprisal/functional';
import { JsdCrossEntropy } from 'surprisal/loss';

export interface CurvePoint {
  /** How far the third prediction's logits moved. */
  readonly change: number;
  /** What the loss is above plain cross entropy: α times the Jensen-Shannon divergence, in nats. */
  readonly divergence: number;
}

const classes = 10;
const label = 0;

/** α of the curve, the default of JsdCrossEntropy. */
export const alpha = 12;

/**
 * The curve of the JSD notebook: three equal predictions, one-hot logits of class 0, of which the third gives `change`
 * of its logit for class 0 to class 1; 21 changes from −1 to 1.
 */
export function jsdCurve(): CurvePoint[] {
  const criterion = new JsdCrossEntropy({ alpha, smoothing: 0 });
  const prediction = Array.from({ length: classes }, (_, c) => Number(c === label));
  // In float64: the curve is what is left of two losses that nearly agree.
  const float64 = (logits: number[][]) => tensor(logits, { dtype: 'float64' });
  const base = F.crossEntropy(float64([prediction]), [label]).item();
  return Array.from({ length: 21 }, (_, i) => {
    const change = (i - 10) / 10;
    const moved = prediction.map((logit, c) => (c === 0 ? logit - change : c === 1 ? logit + change : logit));
    const loss = criterion.forward(float64([prediction, prediction, moved]), [label]).item();
    return { change, divergence: loss - base };
  });
}
