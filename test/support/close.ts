import assert from 'node:assert/strict';
import type { Tensor } from 'surprisal';
import { valuesOf } from './float_formats.js';

/** Fails unless `got` is at most `allowed` away from `wanted`. */
export function assertNear(got: number, wanted: number, allowed: number, what: () => string): void {
  const error = Math.abs(got - wanted);
  if (got === wanted || error <= allowed) return;
  assert.fail(`${what()} should be ${wanted}, but is ${got}: ${error} away, where ${allowed} is allowed`);
}

/**
 * Fails unless a tensor holds these numbers. The default tolerance is for float64: some dozen roundings of 1.1e-16,
 * relative to 1 for what is smaller. With a float32 tensor every rounding is 6e-8: give 3e-7 or what the case says.
 */
export function close(actual: Tensor, expected: number | ArrayLike<number>, tolerance = 2e-15): void {
  const wanted = typeof expected === 'number' ? [expected] : Array.from(expected);
  const values = valuesOf(actual);
  assert.equal(values.length, wanted.length, 'number of elements');
  for (const [i, x] of wanted.entries()) {
    assertNear(values[i]!, x, tolerance * Math.max(1, Math.abs(x)), () => `element ${i}`);
  }
}
