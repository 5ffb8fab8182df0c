/**
 * The losses in plain JavaScript, as fast as it gets on one thread: fused passes over rows that stay in the cache, no
 * allocation, and an exponential that the compiler inlines, in less than half of Math.exp's time.
 *
 * Inputs are float32 matrices in row-major order. Each function returns the loss of the batch, a mean over rows but
 * where it says otherwise, and writes its gradient unless `grad` is undefined.
 */

import type { PeerBatch } from './peer.js';

type Grad = Float32Array | undefined;

/** exp x = 2^(k/64)·exp r, with k = round(64·x / ln 2) and |r| ≤ ln 2 / 128. */
const steps = 64;
const fractions = Float64Array.from({ length: steps }, (_, i) => 2 ** (i / steps));
/** Of −708, below which exp x is subnormal, to 708. */
const powers = Float64Array.from({ length: 2048 }, (_, i) => 2 ** (i - 1024));
const stepsPerUnit = steps / Math.LN2;
const unitsPerStep = Math.LN2 / steps;
/** Adding and subtracting it rounds to an integer. */
const rounder = 1.5 * 2 ** 52;

/** Within 1e-10 of exp x, relatively; x is clamped to where that is a normal number. */
function exp(x: number): number {
  const clamped = x < -708 ? -708 : x > 708 ? 708 : x;
  const k = clamped * stepsPerUnit + rounder - rounder;
  const r = clamped - k * unitsPerStep;
  const step = k | 0;
  const power = fractions[step & (steps - 1)]! * powers[((step >> 6) + 1024) & 2047]!;
  return power * (1 + r * (1 + r * (0.5 + r * (1 / 6))));
}

const bits = new Int32Array(2);
const number = new Float64Array(bits.buffer);
/** Of the 64 steps of a significand in [1, 2): the reciprocal of its middle, and the middle's logarithm. */
const middles = Array.from({ length: steps }, (_, i) => 1 + (i + 0.5) / steps);
const reciprocals = Float64Array.from(middles, (middle) => 1 / middle);
const logarithms = Float64Array.from(reciprocals, (reciprocal) => -Math.log(reciprocal));
/** Which half of a float64 has the exponent. */
const upper = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 1 : 0;

/** Within 1e-10 of log x, or of x − 1 near 1; for normal numbers above 0. */
function log(x: number): number {
  number[0] = x;
  const high = bits[upper]!;
  const exponent = (high >> 20) - 1023;
  const step = (high >> (20 - 6)) & (steps - 1);
  // Scaled by a power of two: to put another exponent into the bits, the processor would wait for the first store.
  const r = x * powers[1024 - exponent]! * reciprocals[step]! - 1;
  return exponent * Math.LN2 + logarithms[step]! + r * (1 - r * (0.5 - r * (1 / 3 - r * 0.25)));
}

/** Grows with the longest row that was seen. */
let scratch = new Float64Array(0);

function rowsOfScratch(length: number): Float64Array {
  if (scratch.length < length) scratch = new Float64Array(length);
  return scratch;
}

/** The largest element of a row, on four chains of comparisons. */
function maximum(x: Float32Array, from: number, to: number): number {
  let [a, b, c, d] = [-Infinity, -Infinity, -Infinity, -Infinity];
  let i = from;
  for (; i + 4 <= to; i += 4) {
    if (x[i]! > a) a = x[i]!;
    if (x[i + 1]! > b) b = x[i + 1]!;
    if (x[i + 2]! > c) c = x[i + 2]!;
    if (x[i + 3]! > d) d = x[i + 3]!;
  }
  for (; i < to; i++) if (x[i]! > a) a = x[i]!;
  return Math.max(a, b, c, d);
}

/** Writes exp(x − max) to `e` and returns their sum. */
function exponentials(x: Float32Array, from: number, classes: number, max: number, e: Float64Array): number {
  let sum = 0;
  for (let c = 0; c < classes; c++) {
    const value = exp(x[from + c]! - max);
    e[c] = value;
    sum += value;
  }
  return sum;
}

/** Cross entropy with label smoothing. */
export function crossEntropy(batch: PeerBatch, smoothing: number, grad: Grad): number {
  const { rows, classes, logits, labels } = batch;
  const e = rowsOfScratch(classes);
  const floor = smoothing / classes;
  const peak = 1 - smoothing;
  let loss = 0;
  for (let row = 0; row < rows; row++) {
    const from = row * classes;
    const max = maximum(logits, from, from + classes);
    const sum = exponentials(logits, from, classes, max, e);
    const label = from + labels[row]!;
    loss += Math.log(sum) + max - peak * logits[label]!;
    if (smoothing > 0) {
      let total = 0;
      for (let i = from; i < from + classes; i++) total += logits[i]!;
      loss -= floor * total;
    }
    if (grad) {
      const scale = 1 / (sum * rows);
      const less = floor / rows;
      for (let c = 0; c < classes; c++) grad[from + c] = e[c]! * scale - less;
      grad[label]! -= peak / rows;
    }
  }
  return loss / rows;
}

/** Cross entropy with a target distribution a row. */
export function softTarget(batch: PeerBatch, grad: Grad): number {
  const { rows, classes, logits, soft } = batch;
  const e = rowsOfScratch(classes);
  let loss = 0;
  for (let row = 0; row < rows; row++) {
    const from = row * classes;
    const max = maximum(logits, from, from + classes);
    let [sum, weight, dot] = [0, 0, 0];
    for (let c = 0; c < classes; c++) {
      const z = logits[from + c]! - max;
      const q = soft[from + c]!;
      const value = exp(z);
      e[c] = value;
      sum += value;
      weight += q;
      dot += q * z;
    }
    loss += weight * Math.log(sum) - dot;
    if (grad) {
      const scale = weight / (sum * rows);
      for (let c = 0; c < classes; c++) grad[from + c] = e[c]! * scale - soft[from + c]! / rows;
    }
  }
  return loss / rows;
}

/** Cross entropy of the first of K splits plus α times the Jensen-Shannon divergence of all. */
export function jsd(batch: PeerBatch, splits: number, alpha: number, smoothing: number, grad: Grad): number {
  const { classes, logits, labels } = batch;
  const samples = Math.floor(batch.rows / splits);
  const p = rowsOfScratch((splits + 1) * classes);
  const logSums = new Float64Array(splits);
  const mixture = p.subarray(splits * classes, (splits + 1) * classes);
  const factor = alpha / (splits * samples);
  const [floor, peak] = [smoothing / classes, 1 - smoothing];
  let loss = 0;
  for (let sample = 0; sample < samples; sample++) {
    mixture.fill(0);
    for (let k = 0; k < splits; k++) {
      const from = (sample + k * samples) * classes;
      const own = p.subarray(k * classes, (k + 1) * classes);
      const max = maximum(logits, from, from + classes);
      const sum = exponentials(logits, from, classes, max, own);
      const inverse = 1 / sum;
      const logSum = Math.log(sum) + max;
      logSums[k] = logSum;
      let [dot, total] = [0, 0];
      for (let c = 0; c < classes; c++) {
        const probability = own[c]! * inverse;
        own[c] = probability;
        mixture[c]! += probability;
        dot += probability * logits[from + c]!;
        total += logits[from + c]!;
      }
      // Σ p·log p
      loss += factor * (dot - logSum);
      if (k === 0) loss += (logSum - peak * logits[from + labels[sample]!]! - floor * total) / samples;
    }
    for (let c = 0; c < classes; c++) {
      const m = mixture[c]! / splits;
      const logM = log(m < 1e-7 ? 1e-7 : m > 1 ? 1 : m);
      loss -= factor * splits * m * logM;
      // Where the clamp holds, log m is a constant: its derivative no longer cancels the one of log p.
      mixture[c] = m < 1e-7 || m > 1 ? logM - 1 : logM;
    }
    if (!grad) continue;
    for (let k = 0; k < splits; k++) {
      const from = (sample + k * samples) * classes;
      const own = p.subarray(k * classes, (k + 1) * classes);
      const logSum = logSums[k]!;
      let sum = 0;
      for (let c = 0; c < classes; c++) sum += own[c]! * (logits[from + c]! - logSum - mixture[c]!);
      for (let c = 0; c < classes; c++) {
        const g = logits[from + c]! - logSum - mixture[c]!;
        grad[from + c] = factor * own[c]! * (g - sum);
      }
      if (k === 0) {
        for (let c = 0; c < classes; c++) grad[from + c]! += (own[c]! - floor) / samples;
        grad[from + labels[sample]!]! -= peak / samples;
      }
    }
  }
  return loss;
}

/** log(1 + e^z) − z·y, the mean over all elements. In float64 it needs no case for the sign, which nobody can predict. */
export function binaryCrossEntropy(batch: PeerBatch, grad: Grad): number {
  const { rows, classes, logits, multiHot } = batch;
  const count = rows * classes;
  let loss = 0;
  for (let i = 0; i < count; i++) {
    const z = logits[i]!;
    const y = multiHot[i]!;
    const e = exp(z);
    loss += log(1 + e) - z * y;
    if (grad) grad[i] = (e / (1 + e) - y) / count;
  }
  return loss / count;
}

/** With γ− = 4, γ+ = 1, multi-hot targets; the sum over all elements. */
export function asymmetricMultiLabel(batch: PeerBatch, clip: number, eps: number, grad: Grad): number {
  const { rows, classes, logits, multiHot } = batch;
  let loss = 0;
  for (let i = 0; i < rows * classes; i++) {
    const p = 1 / (1 + exp(-logits[i]!));
    const slope = p * (1 - p);
    if (multiHot[i]! > 0) {
      const logP = log(p < eps ? eps : p);
      loss -= (1 - p) * logP;
      // d/dp of −(1 − p)·log p; the clamp's logarithm is a constant.
      if (grad) grad[i] = slope * (logP - (p < eps ? 0 : (1 - p) / p));
    } else if (p <= clip) {
      if (grad) grad[i] = 0;
    } else {
      const q = 1 - p + clip;
      const weight = (p - clip) * (p - clip) * (p - clip);
      const logQ = log(q < eps ? eps : q);
      loss -= weight * (p - clip) * logQ;
      // d/dp of −(1 − q)⁴·log q, with dq/dp = −1.
      if (grad) grad[i] = slope * weight * ((q < eps ? 0 : (p - clip) / q) - 4 * logQ);
    }
  }
  return loss;
}

/** With γ+ = 1, γ− = 4. */
export function asymmetricSingleLabel(batch: PeerBatch, smoothing: number, grad: Grad): number {
  const { rows, classes, logits, labels } = batch;
  const e = rowsOfScratch(classes);
  const floor = smoothing / classes;
  let loss = 0;
  for (let row = 0; row < rows; row++) {
    const from = row * classes;
    const max = maximum(logits, from, from + classes);
    const sum = exponentials(logits, from, classes, max, e);
    const logSum = Math.log(sum) + max;
    const inverse = 1 / sum;
    const label = labels[row]!;
    // Of the label alone: (1 − p)·log p and its derivative by log p.
    const logP = logits[from + label]! - logSum;
    const p = e[label]! * inverse;
    const q = 1 - smoothing + floor;
    const labelGrad = -q * (1 - p - p * logP);
    loss -= q * (1 - p) * logP;
    let total = labelGrad;
    e[label] = 0;
    for (let c = 0; c < classes; c++) {
      const probability = e[c]! * inverse;
      const weight = floor * probability * probability * probability * probability;
      const logProbability = logits[from + c]! - logSum;
      loss -= weight * logProbability;
      total -= weight * (1 + 4 * logProbability);
    }
    if (!grad) continue;
    for (let c = 0; c < classes; c++) {
      const probability = e[c]! * inverse;
      const weight = floor * probability * probability * probability * probability;
      const g = -weight * (1 + 4 * (logits[from + c]! - logSum));
      grad[from + c] = (g - probability * total) / rows;
    }
    grad[from + label] = (labelGrad - p * total) / rows;
  }
  return loss / rows;
}
