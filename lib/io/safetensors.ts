/** Hugging Face's safetensors: a length, a JSON header, and the tensors' bytes without gaps. */
import type { DType } from '../dtype.js';
import { fileError, unsupportedFile } from '../errors.js';
import { numel, showShape } from '../shape.js';
import { chooseArray } from './choice.js';
import { byteLength, hostIsLittleEndian, itemSizes } from './elements.js';
import { checkRows, PlainRows, type ArrayInfo, type ArrayRows } from './rows.js';
import { count, readBytes, type ByteSource } from './source.js';

/** The format's own limit. */
export const longestHeader = 100_000_000;

/** Bytes in front of the header. */
export const lengthBytes = 8;

/** The names that dtypes have in the format. */
export const safetensorsDTypes: Readonly<Record<DType, string>> = {
  float64: 'F64',
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
  int64: 'I64',
  uint64: 'U64',
  int32: 'I32',
  uint32: 'U32',
  int16: 'I16',
  uint16: 'U16',
  int8: 'I8',
  uint8: 'U8',
  bool: 'BOOL',
};

const dtypeOf = new Map(
  (Object.entries(safetensorsDTypes) as [DType, string][]).map(([dtype, name]) => [name, dtype]),
);

interface TensorEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Of the first tensor's bytes. */
  readonly dataOffset: number;
}

/** No array of numbers has more dimensions. */
const mostDimensions = 64;

/**
 * The header's JSON, which is objects of a fixed form: parsed as such, so that nothing is made of any other JSON, and
 * a key that comes twice is found.
 */
class HeaderParser {
  readonly #name: string;
  readonly #text: string;
  #at = 0;

  constructor(name: string, text: string) {
    this.#name = name;
    this.#text = text;
  }

  fail(expected: string): never {
    const got =
      this.#at < this.#text.length ? JSON.stringify(this.#text.slice(this.#at, this.#at + 20)) : 'its end';
    throw fileError(
      `${this.#name}: expected ${expected} at character ${count(this.#at)} of the header, got ${got}; it is damaged`,
    );
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #take(token: string): boolean {
    if (this.#text[this.#at] !== token) return false;
    this.#at++;
    this.#match(/[ \t\n\r]*/y);
    return true;
  }

  #need(token: string): void {
    if (!this.#take(token)) this.fail(`'${token}'`);
  }

  #string(what: string): string {
    const start = this.#at;
    if (this.#text[start] !== '"') this.fail(what);
    // No regular expression: V8's would recurse over a string of megabytes.
    let end = this.#text.indexOf('"', start + 1);
    while (end > 0 && this.#isEscaped(end)) end = this.#text.indexOf('"', end + 1);
    if (end < 0) this.fail(`${what} that ends`);
    let value: string;
    try {
      value = JSON.parse(this.#text.slice(start, end + 1)) as string;
    } catch {
      return this.fail(`${what} as JSON writes it`);
    }
    this.#at = end + 1;
    this.#match(/[ \t\n\r]*/y);
    return value;
  }

  #isEscaped(at: number): boolean {
    let backslashes = 0;
    while (this.#text[at - 1 - backslashes] === '\\') backslashes++;
    return backslashes % 2 === 1;
  }

  /** The entries of an object, each handed to `entry` when its value is next. */
  #object(what: string, entry: (key: string) => void): void {
    if (!this.#take('{')) this.fail(what);
    const keys = new Set<string>();
    if (this.#take('}')) return;
    do {
      const key = this.#string('a name');
      if (keys.has(key)) this.fail(`each name once, not ${JSON.stringify(key)} again before this`);
      keys.add(key);
      this.#need(':');
      entry(key);
    } while (this.#take(','));
    this.#need('}');
  }

  #integers(what: string, most: number): number[] {
    const integers: number[] = [];
    if (!this.#take('[')) this.fail(what);
    if (this.#take(']')) return integers;
    do {
      if (integers.length === most) this.fail(`at most ${most} integers`);
      const digits = this.#match(/(?:0|[1-9]\d{0,15})(?![\d.eE])/y);
      if (digits === undefined || !Number.isSafeInteger(Number(digits)))
        return this.fail('an integer in [0, 2^53)');
      integers.push(Number(digits));
      this.#match(/[ \t\n\r]*/y);
    } while (this.#take(','));
    this.#need(']');
    return integers;
  }

  #tensor(name: string): TensorEntry {
    let dtype: string | undefined;
    let shape: number[] | undefined;
    let offsets: number[] | undefined;
    this.#object(`the entry of tensor ${JSON.stringify(name)}`, (key) => {
      if (key === 'dtype') dtype = this.#string('a dtype');
      else if (key === 'shape') shape = this.#integers('a shape', mostDimensions);
      else if (key === 'data_offsets') offsets = this.#integers('two offsets', 2);
      else this.fail(`dtype, shape and data_offsets, not ${JSON.stringify(key)}, before this`);
    });
    const [begin, end] = offsets ?? [];
    if (dtype === undefined || shape === undefined || begin === undefined || end === undefined) {
      return this.fail(`dtype, shape and two data_offsets of ${JSON.stringify(name)} before this`);
    }
    return { dtype, shape, begin, end };
  }

  parse(): { tensors: Map<string, TensorEntry>; metadata: Record<string, string> } {
    const tensors = new Map<string, TensorEntry>();
    const metadata = new Map<string, string>();
    this.#object("'{', which starts a header,", (name) => {
      if (name === '__metadata__') {
        this.#object('an object of strings', (key) => metadata.set(key, this.#string('a string')));
      } else {
        tensors.set(name, this.#tensor(name));
      }
    });
    if (this.#at < this.#text.length) this.fail('nothing but spaces');
    return { tensors, metadata: Object.fromEntries(metadata) };
  }
}

/** Each tensor's bytes start where the last one's end, and the last ones end with the file. */
function checkOffsets(name: string, tensors: ReadonlyMap<string, TensorEntry>, dataBytes: number): void {
  let reached = 0;
  for (const [tensor, { dtype, shape, begin, end }] of [...tensors].sort(
    ([, a], [, b]) => a.begin - b.begin || a.end - b.end,
  )) {
    const where = `${name}: tensor ${JSON.stringify(tensor.slice(0, 80))}`;
    if (begin !== reached || end < begin) {
      throw fileError(
        `${where} has data_offsets [${begin}, ${end}], but the tensors in front of it end at ${reached}; tensors may neither ` +
          `overlap nor leave gaps`,
      );
    }
    reached = end;
    const known = dtypeOf.get(dtype);
    if (known === undefined) continue;
    const bytes = byteLength(shape, itemSizes[known]);
    if (bytes !== end - begin) {
      throw fileError(
        `${where} has shape ${showShape(shape)} of ${dtype}, which takes ${bytes === undefined ? 'more bytes than any file has' : `${count(bytes)} bytes`}, ` +
          `but data_offsets of ${count(end - begin)} bytes; it is damaged`,
      );
    }
  }
  if (reached !== dataBytes) {
    throw fileError(
      `${name}: its tensors take ${count(reached)} bytes, but ${count(dataBytes)} follow the header; it was cut off, or has ` +
        `something else appended`,
    );
  }
}

export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const { name, size } = source;
  const prefix = await readBytes(source, 0, lengthBytes, "the header's length");
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(size - lengthBytes)) {
    throw fileError(
      `${name}: expected a safetensors header of ${count(length)} bytes, but the file has ${count(size)}; it was cut off or ` +
        `is damaged`,
    );
  }
  if (length > longestHeader) {
    throw fileError(
      `${name}: expected a header of at most ${count(longestHeader)} bytes, which is the format's limit, got ${count(length)}`,
    );
  }
  const bytes = await readBytes(source, lengthBytes, Number(length), 'the header');
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw fileError(`${name}: expected a header in UTF-8; it is damaged`, cause);
  }
  const { tensors, metadata } = new HeaderParser(name, text).parse();
  const dataOffset = lengthBytes + Number(length);
  checkOffsets(name, tensors, size - dataOffset);
  return { tensors, metadata, dataOffset };
}

export async function listSafetensors(source: ByteSource): Promise<ArrayInfo[]> {
  const { tensors } = await readSafetensorsHeader(source);
  return [...tensors].map(([name, { dtype, shape }]) => ({
    name,
    shape,
    dtype: dtypeOf.get(dtype) ?? dtype,
  }));
}

export async function openSafetensors(
  source: ByteSource,
  name: string | undefined,
): Promise<{ name: string; rows: ArrayRows }> {
  const { tensors, dataOffset } = await readSafetensorsHeader(source);
  const entry = chooseArray(source, 'tensor', tensors, name);
  const chosen = name ?? [...tensors.keys()][0]!;
  const dtype = dtypeOf.get(entry.dtype);
  if (dtype === undefined) {
    throw unsupportedFile(
      `${source.name}: expected a dtype among ${[...dtypeOf.keys()].join(', ')}, but tensor ${JSON.stringify(chosen)} has ` +
        `${JSON.stringify(entry.dtype.slice(0, 40))}; convert it before saving`,
    );
  }
  checkRows(source, `tensor ${JSON.stringify(chosen)}`, entry.shape);
  const swapped = !hostIsLittleEndian && numel(entry.shape) > 0;
  return { name: chosen, rows: new PlainRows(source, dataOffset + entry.begin, entry.shape, dtype, swapped) };
}
