/** Plain float64 formulas, row by row, that tests compare with. */

/** log softmax of a row. */
export function logSoftmax(row: ArrayLike<number>): Float64Array {
  const z = Float64Array.from(row);
  const max = z.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = z.reduce((s, x) => s + Math.exp(x - max), 0);
  return z.map((x) => x - max - Math.log(sum));
}

export const softmax = (row: ArrayLike<number>): Float64Array => logSoftmax(row).map(Math.exp);

/** Row `i` of a matrix with this many columns. */
export const rowOf = (values: Float64Array, i: number, columns: number): Float64Array =>
  values.subarray(i * columns, (i + 1) * columns);

/** −log p of the label and d/dz, with the label's own term left out of the sum, so that small losses keep their digits. */
export function hardCrossEntropy(
  row: ArrayLike<number>,
  label: number,
): { loss: number; grad: Float64Array } {
  const others = Float64Array.from(row, (z, c) => (c === label ? 0 : Math.exp(z - row[label]!)));
  const rest = others.reduce((a, b) => a + b, 0);
  const grad = others.map((e) => e / (1 + rest));
  grad[label] = -rest / (1 + rest);
  return { loss: Math.log1p(rest), grad };
}

export interface JsdOptions {
  readonly numSplits: number;
  readonly alpha: number;
  readonly smoothing: number;
}

/** timm.loss.JsdCrossEntropy of [K·B, C] logits, with x·log x = 0 at 0. */
export function jsd(
  logits: Float64Array,
  classes: number,
  labels: ArrayLike<number>,
  { numSplits: K, alpha, smoothing }: JsdOptions,
): { loss: number; grad: Float64Array } {
  const B = logits.length / classes / K;
  const grad = new Float64Array(logits.length);
  let loss = 0;
  for (let i = 0; i < B; i++) {
    const logP = Array.from({ length: K }, (_, k) => logSoftmax(rowOf(logits, i + k * B, classes)));
    const p = logP.map((row) => row.map(Math.exp));

    for (let c = 0; c < classes; c++) {
      const q = smoothing / classes + (c === labels[i] ? 1 - smoothing : 0);
      if (q > 0) loss -= (q * logP[0]![c]!) / B;
      grad[i * classes + c]! += (p[0]![c]! - q) / B;
    }

    // With g = ∂L/∂log p: dz = g − p·Σg. The mixture's own derivative cancels but where it is clamped.
    const mixture = Float64Array.from(
      { length: classes },
      (_, c) => p.reduce((s, row) => s + row[c]!, 0) / K,
    );
    const scale = alpha / (K * B);
    for (let k = 0; k < K; k++) {
      const g = p[k]!.map((x, c) => {
        if (x === 0) return 0;
        const clamped = Math.min(Math.max(mixture[c]!, 1e-7), 1);
        const ratio = logP[k]![c]! - Math.log(clamped);
        loss += scale * x * ratio;
        return scale * x * (ratio + (clamped === mixture[c] ? 0 : 1));
      });
      const sum = g.reduce((a, b) => a + b, 0);
      g.forEach((x, c) => (grad[(i + k * B) * classes + c]! += x - p[k]![c]! * sum));
    }
  }
  return { loss, grad };
}
