/** Damage to files, the same in every run. */
import type { Samples } from './random.js';

/** Lengths, offsets and counts that parsers get wrong. */
const numbers = [
  0n,
  1n,
  2n,
  7n,
  8n,
  127n,
  128n,
  255n,
  256n,
  65535n,
  65536n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
]
  .concat([
    2n ** 32n,
    2n ** 53n,
    2n ** 53n + 1n,
    2n ** 60n,
    2n ** 62n,
    2n ** 63n - 1n,
    2n ** 63n,
    2n ** 64n - 1n,
  ])
  .concat([2n ** 61n + 1n, 3n * 2n ** 61n]);

const decimals = [
  '0',
  '1',
  '-1',
  '3',
  '5',
  '2147483648',
  '4294967296',
  '9007199254740993',
  '1152921504606846976',
].concat([
  '18446744073709551616',
  '1e9',
  '99999999999999999999999999',
  '0.5',
  'NaN',
  '[]',
  '""',
  'O',
  '>',
  '<',
  'True',
]);

/** A place in a file: where headers and directories are as often as anywhere. */
function place(samples: Samples, size: number): number {
  const where = samples.integer(4);
  const near = Math.min(size, 160);
  if (where === 0) return samples.integer(near);
  if (where === 1) return size - 1 - samples.integer(near);
  return samples.integer(size);
}

function setInteger(samples: Samples, bytes: Uint8Array): void {
  const width = [1, 2, 4, 8][samples.integer(4)]!;
  const at = place(samples, bytes.length);
  let value = numbers[samples.integer(numbers.length)]!;
  if (samples.integer(4) === 0) value = BigInt(bytes.length + samples.integer(5) - 2);
  for (let i = 0; i < width && at + i < bytes.length; i++) {
    bytes[at + i] = Number(BigInt.asUintN(8, value >> BigInt(8 * i)));
  }
}

const cut = (
  bytes: Uint8Array,
  from: number,
  to: number,
  into: Uint8Array = new Uint8Array(0),
): Uint8Array<ArrayBuffer> =>
  new Uint8Array(Buffer.concat([bytes.subarray(0, from), into, bytes.subarray(to)]));

/** A run of digits in place of another, as in the text of a header. */
function setDecimal(samples: Samples, bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 4096)).toString('latin1');
  const runs = [...text.matchAll(/\d+/g)];
  const run = runs[samples.integer(Math.max(runs.length, 1))];
  if (run === undefined) return bytes;
  const digits = Buffer.from(decimals[samples.integer(decimals.length)]!);
  // In a padded header the length may stay as it was.
  if (samples.integer(2) === 0) return cut(bytes, run.index, run.index + run[0].length, digits);
  const kept = new Uint8Array(bytes);
  kept.set(digits.subarray(0, kept.length - run.index), run.index);
  return kept;
}

/** One to four kinds of damage to one of the files, some of them with parts of another. */
export function mutated(samples: Samples, files: readonly Uint8Array[]): Uint8Array {
  // A copy: `slice` of a Buffer is none.
  let bytes = new Uint8Array(files[samples.integer(files.length)]!);
  const kinds = samples.integer(2) === 0 ? 1 : 1 + samples.integer(4);
  for (let left = kinds; left > 0 && bytes.length > 0; left--) {
    const at = place(samples, bytes.length);
    switch (samples.integer(10)) {
      case 0:
        bytes[at]! ^= 1 << samples.integer(8);
        break;
      case 1:
        bytes[at] = samples.integer(256);
        break;
      case 2:
      case 3:
        setInteger(samples, bytes);
        break;
      case 4:
        bytes = bytes.subarray(0, at);
        break;
      case 5:
        bytes = cut(bytes, at, Math.min(bytes.length, at + 1 + samples.integer(64)));
        break;
      case 6: {
        const from = place(samples, bytes.length);
        bytes = cut(bytes, at, at, bytes.subarray(from, from + 1 + samples.integer(64)));
        break;
      }
      case 7: {
        const other = files[samples.integer(files.length)]!;
        const from = place(samples, other.length);
        const part = other.subarray(from, from + 1 + samples.integer(64));
        bytes = samples.integer(2) === 0 ? cut(bytes, at, at + part.length, part) : cut(bytes, at, at, part);
        break;
      }
      case 8:
        bytes = setDecimal(samples, bytes);
        break;
      default:
        bytes.fill(samples.integer(2) * 255, at, Math.min(bytes.length, at + 1 + samples.integer(16)));
    }
  }
  return bytes;
}
