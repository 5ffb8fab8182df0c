/**
 * The metrics of an evaluation by their published definitions, row by row in float64, on purpose in the plainest way:
 * every probability is written down, ranks are found by sorting, bins by comparing with every boundary.
 */

export interface Reference {
  readonly rows: number;
  readonly loss: number;
  readonly topK: ReadonlyMap<number, number>;
  readonly expectedCalibrationError: number;
  readonly maximumCalibrationError: number;
  readonly brierScore: number;
  readonly entropy: number;
  readonly perClassLoss: readonly number[];
  readonly perClassAccuracy: readonly number[];
  readonly confusion: readonly number[];
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** torch.softmax */
function softmax(logits: readonly number[]): number[] {
  const max = Math.max(...logits);
  const exponentials = logits.map((z) => Math.exp(z - max));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((e) => e / sum);
}

/** Classes from the most likely on; of equal ones the smaller index comes first. */
const ranking = (logits: readonly number[]): number[] =>
  logits.map((_, c) => c).sort((a, b) => logits[b]! - logits[a]! || a - b);

/**
 * torchmetrics' MulticlassCalibrationError: of its `_binning_bucketize` the boundaries are linspace(0, 1, bins + 1), the
 * bin is bucketize(confidence, boundaries, right=True) − 1, and there are as many bins as boundaries.
 */
function calibrationErrors(
  confidences: readonly number[],
  right: readonly boolean[],
  bins: number,
  round: (x: number) => number,
): { l1: number; max: number } {
  const boundaries = Array.from({ length: bins + 1 }, (_, i) => round(i / bins));
  const gaps = boundaries.map((_, bin) => {
    const inBin = confidences
      .map((confidence, row) => ({ confidence, right: right[row]! }))
      .filter(({ confidence }) => boundaries.filter((boundary) => boundary <= confidence).length - 1 === bin);
    if (inBin.length === 0) return { gap: 0, share: 0 };
    const accuracy = mean(inBin.map((row) => (row.right ? 1 : 0)));
    return {
      gap: Math.abs(accuracy - mean(inBin.map(({ confidence }) => confidence))),
      share: inBin.length / confidences.length,
    };
  });
  return {
    l1: gaps.reduce((sum, { gap, share }) => sum + gap * share, 0),
    max: Math.max(...gaps.map(({ gap }) => gap)),
  };
}

/** Of rows that all count, with finite logits or −∞. `round` is what confidences are rounded by. */
export function evaluateByDefinition(
  rows: readonly (readonly number[])[],
  labels: readonly number[],
  { topK, bins, round }: { topK: readonly number[]; bins: number; round: (x: number) => number },
): Reference {
  const classes = rows[0]!.length;
  const probabilities = rows.map(softmax);
  const rankings = rows.map(ranking);
  const predictions = rankings.map(([first]) => first!);
  // sklearn.metrics.log_loss
  const losses = rows.map((logits, row) => {
    const max = Math.max(...logits);
    return Math.log(logits.reduce((sum, z) => sum + Math.exp(z - max), 0)) + max - logits[labels[row]!]!;
  });
  const right = predictions.map((prediction, row) => prediction === labels[row]);
  const { l1, max } = calibrationErrors(
    probabilities.map((p) => round(Math.max(...p))),
    right,
    bins,
    round,
  );
  // sklearn.metrics.confusion_matrix: [label, prediction]
  const confusion = new Array<number>(classes * classes).fill(0);
  predictions.forEach((prediction, row) => confusion[labels[row]! * classes + prediction]!++);
  const ofClass = (values: readonly number[], y: number) =>
    mean(values.filter((_, row) => labels[row] === y));
  return {
    rows: rows.length,
    loss: mean(losses),
    // sklearn.metrics.top_k_accuracy_score, but for the order of equal scores
    topK: new Map(
      topK.map((k) => [
        k,
        mean(rankings.map((order, row) => (order.slice(0, k).includes(labels[row]!) ? 1 : 0))),
      ]),
    ),
    expectedCalibrationError: l1,
    maximumCalibrationError: max,
    // sklearn.metrics.brier_score_loss of several classes, scale_by_half=False
    brierScore: mean(
      probabilities.map((p, row) => p.reduce((sum, x, c) => sum + (x - (c === labels[row] ? 1 : 0)) ** 2, 0)),
    ),
    // scipy.stats.entropy
    entropy: mean(probabilities.map((p) => p.reduce((sum, x) => sum - (x > 0 ? x * Math.log(x) : 0), 0))),
    perClassLoss: Array.from({ length: classes }, (_, y) => ofClass(losses, y)),
    perClassAccuracy: Array.from({ length: classes }, (_, y) => ofClass(right.map(Number), y)),
    confusion,
  };
}
