/** NumPy's .npy, as numpy.lib.format describes it: versions 1.0, 2.0 and 3.0. */
import type { DType } from '../dtype.js';
import { fileError, unsupportedFile } from '../errors.js';
import { showShape } from '../shape.js';
import { byteLength, hostIsLittleEndian, itemSizes } from './elements.js';
import { checkRows, PlainRows, type ArrayRows } from './rows.js';
import { count, readBytes, type ByteSource } from './source.js';

export interface NpyHeader {
  readonly shape: readonly number[];
  /** As NumPy writes it: '<f4'. */
  readonly descr: string;
  readonly fortranOrder: boolean;
  /** Of the first element, in bytes from the start. */
  readonly offset: number;
}

export const npyMagic = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59); // \x93NUMPY

/** Bytes that say how long the header is. */
export const npyPreambleLength = 12;

/** A header names a dtype and a shape; NumPy itself takes no more than 10,000 bytes. */
const longestHeader = 2 ** 16;

/** The header's whole length with its preamble, which has `npyPreambleLength` bytes or less where the file ends. */
export function npyHeaderEnd(name: string, preamble: Uint8Array, size: number): number {
  if (npyMagic.some((byte, i) => preamble[i] !== byte)) {
    throw fileError(
      `${name}: expected a .npy array, which starts with \\x93NUMPY; this is another kind of file`,
    );
  }
  if (preamble.length < 10)
    throw fileError(`${name}: expected a .npy header, but it ends after ${size} bytes`);
  const [major, minor] = [preamble[6]!, preamble[7]!];
  if (major < 1 || major > 3 || minor !== 0) {
    throw unsupportedFile(`${name}: expected version 1.0, 2.0 or 3.0 of .npy, got ${major}.${minor}`);
  }
  const view = new DataView(preamble.buffer, preamble.byteOffset, preamble.length);
  if (major > 1 && preamble.length < npyPreambleLength) {
    throw fileError(`${name}: expected a .npy header, but it ends after ${size} bytes`);
  }
  const start = major === 1 ? 10 : 12;
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (start + length > size) {
    throw fileError(
      `${name}: expected a header of ${count(length)} bytes, but the array has ${count(size)} in all; it was cut off ` +
        `or is damaged`,
    );
  }
  if (length > longestHeader) {
    throw unsupportedFile(
      `${name}: expected a header of at most ${count(longestHeader)} bytes, got ${count(length)}; an array of numbers ` +
        `needs about 100`,
    );
  }
  return start + length;
}

type Literal = string | boolean | number | readonly Literal[] | ReadonlyMap<string, Literal>;

/**
 * Python's literals as far as a header has them: strings without escapes, True, False, non-negative integers, tuples and
 * lists, and the dictionary around them.
 */
class LiteralParser {
  readonly #name: string;
  readonly #text: string;
  #at = 0;

  constructor(name: string, text: string) {
    this.#name = name;
    this.#text = text;
  }

  fail(expected: string): never {
    const got = this.#at < this.#text.length ? `'${this.#text.slice(this.#at, this.#at + 20)}'` : 'its end';
    throw fileError(
      `${this.#name}: expected ${expected} at byte ${this.#at} of the header's dictionary, got ${got}; it is damaged`,
    );
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #skip(): void {
    this.#match(/[ \t\n\r]*/y);
  }

  #take(token: string): boolean {
    if (!this.#text.startsWith(token, this.#at)) return false;
    this.#at += token.length;
    this.#skip();
    return true;
  }

  /** Items up to `close`; a comma may follow the last. */
  #items(close: string, item: () => void): void {
    while (!this.#take(close)) {
      item();
      if (this.#take(',')) continue;
      if (this.#take(close)) return;
      this.fail(`',' or '${close}'`);
    }
  }

  #value(depth: number): Literal {
    if (depth > 8) this.fail('a dtype that is less deeply nested');
    const quoted = this.#match(/'[^'\\\n]*'|"[^"\\\n]*"/y);
    if (quoted !== undefined) {
      this.#skip();
      return quoted.slice(1, -1);
    }
    // Python 2 wrote long integers with an L.
    const digits = this.#match(/\d+L?/y);
    if (digits !== undefined) {
      this.#skip();
      return Number.parseInt(digits, 10);
    }
    if (this.#take('True')) return true;
    if (this.#take('False')) return false;
    for (const [open, close] of [
      ['(', ')'],
      ['[', ']'],
    ] as const) {
      if (!this.#take(open)) continue;
      const items: Literal[] = [];
      this.#items(close, () => void items.push(this.#value(depth + 1)));
      return items;
    }
    if (this.#take('{')) return this.#dictionary(depth);
    return this.fail('a string, an integer, True, False or a tuple');
  }

  #dictionary(depth: number): ReadonlyMap<string, Literal> {
    const entries = new Map<string, Literal>();
    this.#items('}', () => {
      const key = this.#value(depth + 1);
      if (typeof key !== 'string') return this.fail('a string as key before this');
      if (!this.#take(':')) this.fail("':'");
      if (entries.has(key)) this.fail(`each key once, not '${key}' again before this`);
      entries.set(key, this.#value(depth + 1));
    });
    return entries;
  }

  parse(): ReadonlyMap<string, Literal> {
    this.#skip();
    if (!this.#take('{')) this.fail("'{'");
    const entries = this.#dictionary(0);
    if (this.#at < this.#text.length) this.fail('nothing');
    return entries;
  }
}

/** Checks a header, which `bytes` ends with, and what it says of the array of `size` bytes that it starts. */
export function parseNpyHeader(name: string, bytes: Uint8Array): NpyHeader {
  const text = new TextDecoder(bytes[6] === 3 ? 'utf-8' : 'latin1').decode(
    bytes.subarray(bytes[6] === 1 ? 10 : 12),
  );
  const entries = new LiteralParser(name, text).parse();
  const [descr, fortranOrder, shape] = ['descr', 'fortran_order', 'shape'].map((key) => entries.get(key));
  if (
    entries.size !== 3 ||
    descr === undefined ||
    typeof fortranOrder !== 'boolean' ||
    !Array.isArray(shape)
  ) {
    throw fileError(
      `${name}: expected the keys descr, fortran_order and shape in the header, got ${[...entries.keys()].join(', ')}, ` +
        `or one of them is of the wrong type; it is damaged`,
    );
  }
  const sizes = shape as readonly Literal[];
  if (!sizes.every((size): size is number => typeof size === 'number') || sizes.length > 64) {
    throw fileError(`${name}: expected a tuple of at most 64 integers as shape; the header is damaged`);
  }
  return {
    shape: sizes,
    descr: typeof descr === 'string' ? descr : 'structured',
    fortranOrder,
    offset: bytes.length,
  };
}

const dtypes: Readonly<Record<string, DType>> = {
  f2: 'float16',
  f4: 'float32',
  f8: 'float64',
  i1: 'int8',
  i2: 'int16',
  i4: 'int32',
  i8: 'int64',
  u1: 'uint8',
  u2: 'uint16',
  u4: 'uint32',
  u8: 'uint64',
  b1: 'bool',
};

const kinds: Readonly<Record<string, string>> = {
  c: 'complex numbers',
  S: 'byte strings',
  U: 'strings',
  V: 'raw bytes or records',
  M: 'dates',
  m: 'time differences',
  f: 'extended precision',
  structured: 'records',
};

/** What a descr means, or why it is not read. */
function elementType(name: string, descr: string): { dtype: DType; swapped: boolean } {
  const dtype = /^[<>|=]?[fiub]\d$/.test(descr) ? dtypes[descr.slice(-2)] : undefined;
  if (dtype !== undefined) {
    const bigEndian = descr.startsWith('>');
    const stated = bigEndian || descr.startsWith('<');
    return { dtype, swapped: itemSizes[dtype] > 1 && stated && bigEndian === hostIsLittleEndian };
  }
  if (/^[<>|=]?O/.test(descr)) {
    throw unsupportedFile(
      `${name}: its elements are pickled Python objects (dtype ${descr}); reading them would run code out of the file, so ` +
        `they are never read. Save numbers instead: np.save(path, array.astype(np.float32))`,
    );
  }
  const kind = kinds[descr === 'structured' ? descr : descr.replace(/^[<>|=]/, '').charAt(0)] ?? 'unknown';
  throw unsupportedFile(
    `${name}: expected elements of ${Object.values(dtypes).join(', ')}, got dtype '${descr.slice(0, 40)}' (${kind}); ` +
      `convert them before saving, as with array.astype(np.float32)`,
  );
}

/** The dtype as messages and lists show it. */
export function npyDTypeName(descr: string): string {
  return dtypes[descr.replace(/^[<>|=]/, '')] ?? descr;
}

/** What a header says of an array that has `size` bytes with it. */
export function checkNpyArray(
  source: ByteSource,
  { shape, descr, fortranOrder, offset }: NpyHeader,
  size: number,
): { shape: readonly number[]; dtype: DType; swapped: boolean } {
  const { name } = source;
  const { dtype, swapped } = elementType(name, descr);
  const bytes = byteLength(shape, itemSizes[dtype]);
  if (bytes === undefined) {
    throw fileError(
      `${name}: its shape ${showShape(shape)} has more elements than any file; the header is damaged`,
    );
  }
  if (bytes !== size - offset) {
    throw fileError(
      `${name}: its shape ${showShape(shape)} of ${dtype} takes ${count(bytes)} bytes, but ${count(size - offset)} follow ` +
        `the header; it was cut off, is being written to, or has something else appended`,
    );
  }
  checkRows(source, 'the array', shape);
  if (fortranOrder && shape.filter((length) => length > 1).length > 1) {
    throw unsupportedFile(
      `${name}: its rows are not contiguous (fortran_order: True), so they can't be read in blocks; save it with ` +
        `np.save(path, np.ascontiguousarray(array))`,
    );
  }
  return { shape, dtype, swapped };
}

export async function readNpyHeader(source: ByteSource): Promise<NpyHeader> {
  const { name, size } = source;
  const preamble = await readBytes(source, 0, Math.min(npyPreambleLength, size), 'the preamble');
  const end = npyHeaderEnd(name, preamble, size);
  return parseNpyHeader(name, await readBytes(source, 0, end, 'the header'));
}

export async function openNpy(source: ByteSource): Promise<ArrayRows> {
  const header = await readNpyHeader(source);
  const { shape, dtype, swapped } = checkNpyArray(source, header, source.size);
  return new PlainRows(source, header.offset, shape, dtype, swapped);
}
