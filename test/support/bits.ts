import assert from 'node:assert/strict';
import type { Tensor } from 'surprisal';

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** Fails unless two arrays hold the same bits: NaNs of one pattern are equal, 0 and −0 are not. */
export function assertSameBits(actual: ArrayBufferView, expected: ArrayBufferView, what: string): void {
  const a = bytesOf(actual);
  const b = bytesOf(expected);
  assert.equal(a.length, b.length, `${what}: lengths differ`);
  if (Buffer.compare(a, b) === 0) return;
  const at = a.findIndex((byte, i) => byte !== b[i]);
  const size = (expected as Float32Array).BYTES_PER_ELEMENT;
  const element = Math.floor(at / size);
  const got = (actual as Float32Array)[element];
  const wanted = (expected as Float32Array)[element];
  const bits = (from: Uint8Array) =>
    Buffer.from(from.slice(element * size, (element + 1) * size)).toString('hex');
  assert.fail(
    `${what}: element ${element} differs: expected ${wanted} (bytes ${bits(b)}), got ${got} (bytes ${bits(a)})`,
  );
}

/** Fails unless two tensors have the same shape, dtype and bits. Both contiguous. */
export function assertSameTensor(actual: Tensor, expected: Tensor, what: string): void {
  assert.deepEqual(actual.shape, expected.shape, `${what}: shapes differ`);
  assert.equal(actual.dtype, expected.dtype, `${what}: dtypes differ`);
  assertSameBits(actual.data, expected.data, what);
}
