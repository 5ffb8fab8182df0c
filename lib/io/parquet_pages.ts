/**
 * The pages of a Parquet column chunk, checked before hyparquet decodes them: it takes their sizes, numbers of values and
 * run lengths on trust. https://parquet.apache.org/docs/file-format/data-pages/
 */
import * as zlib from 'node:zlib';
import { ThriftReader, type ThriftStruct } from './thrift.js';

/** What is wrong with a page, for the message of an error. */
export class PageFault extends Error {}

/** A page that has nulls or an encoding that is not read here; the file may be sound. */
export class PageUnsupported extends Error {}

export interface ChunkLayout {
  /** Bytes of a value: 4 or 8, 2 of float16; 0 of a bool, which is a bit. */
  readonly width: number;
  readonly maxRepetition: number;
  readonly maxDefinition: number;
  readonly numValues: number;
  /** Of each list in a column of lists. */
  readonly listLength: number | undefined;
  readonly codec: string;
}

export type Decompress = (compressed: Uint8Array, length: number) => Uint8Array;

const pageTypes = { data: 0, dictionary: 2, dataV2: 3 };
const encodings = {
  plain: 0,
  plainDictionary: 2,
  rle: 3,
  deltaBinaryPacked: 5,
  rleDictionary: 8,
  byteStreamSplit: 9,
};

const bitWidth = (value: number): number => 32 - Math.clz32(value);

function need(struct: ThriftStruct | undefined, field: number, what: string): number {
  const value = struct?.numbers.get(field);
  if (value === undefined || !Number.isSafeInteger(value) || value < 0) throw new PageFault(`has no ${what}`);
  return value;
}

/** Writers fill the last bit-packed run up with so many values, at most. */
const mostPadding = 1023;

interface RunLimits {
  /** Each value is less. */
  readonly below?: number;
  /** Each value is this one: a level that says that nothing is null. */
  readonly all?: number;
  /** Each value tells whether its element goes on in its list, 1, or starts one, 0; `first` is the number of the first. */
  readonly lists?: { readonly length: number; readonly first: number };
}

const missing = () => new PageUnsupported('has nulls or empty lists');
const ragged = () => new PageUnsupported('has lists of different lengths');

/** Whether each of the values that are packed into `width` bits from byte `start` on is `expected`. */
function allPacked(
  bytes: Uint8Array,
  start: number,
  width: number,
  values: number,
  expected: number,
): boolean {
  for (let i = 0, bit = 0; i < values; i++) {
    for (let k = 0; k < width; k++, bit++) {
      if ((((bytes[start + (bit >> 3)] ?? 0) >> (bit & 7)) & 1) !== ((expected >> k) & 1)) return false;
    }
  }
  return true;
}

const goesOn = ({ length, first }: { length: number; first: number }, i: number): number =>
  (first + i) % length === 0 ? 0 : 1;

/** Checks that runs of the RLE and bit-packed hybrid make up `values` values within [start, end). */
function checkRuns(
  bytes: Uint8Array,
  start: number,
  end: number,
  width: number,
  values: number,
  { below = Infinity, all, lists }: RunLimits = {},
): void {
  if (width > 32) throw new PageFault(`has values of ${width} bits`);
  const reader = new ThriftReader(bytes.subarray(0, end), start);
  for (let seen = 0; seen < values;) {
    if (reader.offset >= end) throw new PageFault(`has runs of ${seen} values instead of ${values}`);
    const head = reader.varint();
    if (head >= 2 ** 31) throw new PageFault('has a run of more than 2^30 values');
    const isPacked = head % 2 === 1;
    const run = isPacked ? 8 * (head >> 1) : head >> 1;
    if (run > values - seen + (isPacked ? mostPadding : 0)) {
      throw new PageFault(`has runs of more than ${values} values`);
    }
    if (isPacked) {
      const packed = reader.offset;
      reader.offset += (run / 8) * width;
      if (reader.offset > end) throw new PageFault('has bit-packed values beyond its end');
      const used = Math.min(run, values - seen);
      if (all !== undefined && !allPacked(bytes, packed, width, used, all)) throw missing();
      for (let i = 0; lists !== undefined && i < used; i++) {
        if (((bytes[packed + (i >> 3)]! >> (i & 7)) & 1) !== goesOn(lists, seen + i)) throw ragged();
      }
    } else {
      let value = 0;
      for (let i = 0; i < Math.ceil(width / 8); i++) value += (bytes[reader.offset++] ?? 0) * 2 ** (8 * i);
      if (reader.offset > end) throw new PageFault('has a run beyond its end');
      if (run > 0 && value >= below)
        throw new PageFault(`has the index ${value} into a dictionary of ${below} values`);
      if (run > 0 && all !== undefined && value !== all) throw missing();
      for (let i = 0; lists !== undefined && i < run; i++) {
        if (value !== goesOn(lists, seen + i)) throw ragged();
      }
    }
    seen += run;
  }
}

/** Levels with their length in front, as version 1 has them. Gives the offset after them. */
function checkLevels(
  bytes: Uint8Array,
  start: number,
  maxLevel: number,
  values: number,
  limits?: RunLimits,
): number {
  if (maxLevel === 0) return start;
  const length = lengthAt(bytes, start);
  checkRuns(bytes, start + 4, start + 4 + length, bitWidth(maxLevel), values, limits);
  return start + 4 + length;
}

function lengthAt(bytes: Uint8Array, start: number): number {
  if (start + 4 > bytes.length) throw new PageFault('ends within its levels');
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(start, true);
  if (start + 4 + length > bytes.length) throw new PageFault('has levels beyond its end');
  return length;
}

function checkValues(
  bytes: Uint8Array,
  start: number,
  encoding: number,
  values: number,
  { width }: ChunkLayout,
  dictionary: number | undefined,
): void {
  if (start > bytes.length) throw new PageFault('ends before its values');
  switch (encoding) {
    case encodings.plain:
    case encodings.byteStreamSplit:
      if ((width === 0 ? Math.ceil(values / 8) : values * width) > bytes.length - start) {
        throw new PageFault(`has ${bytes.length - start} bytes for ${values} values`);
      }
      break;
    case encodings.plainDictionary:
    case encodings.rleDictionary: {
      if (dictionary === undefined) throw new PageFault('has indices into a dictionary that is not there');
      const indexWidth = bytes[start];
      if (indexWidth === undefined) throw new PageFault('ends before its values');
      // Indices of no bits are all 0.
      if (indexWidth === 0 ? values > 0 && dictionary === 0 : false)
        throw new PageFault('has an empty dictionary');
      if (indexWidth > 0)
        checkRuns(bytes, start + 1, bytes.length, indexWidth, values, { below: dictionary });
      break;
    }
    case encodings.rle:
      if (width !== 0) throw new PageFault('has an encoding that is of bools alone');
      checkRuns(bytes, start + 4, start + 4 + lengthAt(bytes, start), 1, values);
      break;
    case encodings.deltaBinaryPacked: {
      const reader = new ThriftReader(bytes, start);
      const [block, miniblocks] = [reader.varint(), reader.varint()];
      if (!(block > 0 && block <= 2 ** 20 && miniblocks > 0 && block % (32 * miniblocks) === 0)) {
        throw new PageFault(`has blocks of ${block} differences in ${miniblocks} parts`);
      }
      break;
    }
    default:
      throw new PageUnsupported(`has the encoding ${encoding}, which is not read here`);
  }
}

/** Checks that Snappy's elements make up `length` bytes, which its decoder does not do for itself in every case. */
function checkSnappy(bytes: Uint8Array, length: number): void {
  const reader = new ThriftReader(bytes);
  if (reader.varint() !== length) throw new PageFault('claims another length than its header does');
  let made = 0;
  for (let at = reader.offset; at < bytes.length;) {
    const tag = bytes[at++]!;
    const kind = tag & 3;
    let size = (tag >> 2) + 1;
    if (kind === 0) {
      if (size > 60) {
        const extra = size - 60;
        size = 1;
        for (let i = 0; i < extra; i++) size += (bytes[at + i] ?? 0) * 2 ** (8 * i);
        at += extra;
      }
      at += size;
    } else {
      if (kind === 1) size = ((tag >> 2) & 7) + 4;
      at += kind === 3 ? 4 : kind;
    }
    made += size;
    if (at > bytes.length || made > length)
      throw new PageFault("has compressed data that doesn't end where it should");
  }
}

/** Checks that Zstandard's data is one frame, as writers make it: of many small ones, each would take a page's memory. */
function checkZstd(bytes: Uint8Array): void {
  const descriptor = bytes[4] ?? 0;
  const [sizeFlag, isSingle] = [descriptor >> 6, (descriptor >> 5) & 1];
  const dictionaryId = [0, 1, 2, 4][descriptor & 3]!;
  const contentSize = sizeFlag > 0 ? 2 ** sizeFlag : isSingle;
  let at = 5 + (1 - isSingle) + dictionaryId + contentSize;
  for (let last = false; !last && at <= bytes.length;) {
    const block = (bytes[at] ?? 0) + (bytes[at + 1] ?? 0) * 2 ** 8 + (bytes[at + 2] ?? 0) * 2 ** 16;
    last = block % 2 === 1;
    // A block of one byte repeated says in its size how often.
    at += 3 + (((block >> 1) & 3) === 1 ? 1 : block >> 3);
  }
  if ((descriptor >> 2) & 1) at += 4;
  if (at !== bytes.length) throw new PageFault("has compressed data that doesn't end where it should");
}

type ZlibFunction = (compressed: Uint8Array, options: { maxOutputLength: number }) => Uint8Array;

/** A function of Node's zlib, which stops at the length that it is given. */
const ofNode =
  (decompress: ZlibFunction): Decompress =>
  (compressed, length) =>
    decompress(compressed, { maxOutputLength: length });

/** Since Node 22.15. */
const { zstdDecompressSync } = zlib as { zstdDecompressSync?: ZlibFunction };

/** Decompressors that Node has itself: they are not only faster, but spend no more on damaged data than on sound data. */
export const nodeCodecs: Readonly<Record<string, Decompress>> = {
  GZIP: ofNode(zlib.gunzipSync),
  BROTLI: ofNode(zlib.brotliDecompressSync),
  ...(zstdDecompressSync && { ZSTD: ofNode(zstdDecompressSync) }),
};

/** A header of a page that is not compressed, as Thrift's compact protocol writes it. */
function pageHeader(type: number, size: number, values: number, encoding: number): Uint8Array {
  const bytes: number[] = [];
  const integer = (value: number): void => {
    // The sign is in the last bit, and there is none.
    let left = 2 * value;
    for (; left > 127; left = Math.floor(left / 128)) bytes.push((left % 128) + 128);
    bytes.push(left);
  };
  const [nextInteger, end] = [0x15, 0];
  for (const value of [type, size, size]) {
    bytes.push(nextInteger);
    integer(value);
  }
  // The fields that follow the third by two and by four: what is of a data page, and of a dictionary.
  const isData = type === pageTypes.data;
  bytes.push(isData ? 0x2c : 0x4c);
  for (const value of isData ? [values, encoding, encodings.rle, encodings.rle] : [values, encoding]) {
    bytes.push(nextInteger);
    integer(value);
  }
  bytes.push(end, end);
  return Uint8Array.from(bytes);
}

/**
 * Checks the pages of a chunk, and writes them anew as those of a flat column that has a value everywhere and is not
 * compressed: once their levels say that nothing is missing, they have nothing more to say, and hyparquet is spared building
 * a list for each row.
 *
 * @param codecs for what is compressed
 */
export function flattenPages(
  chunk: Uint8Array,
  layout: ChunkLayout,
  codecs: Readonly<Record<string, Decompress>>,
): Uint8Array<ArrayBuffer> {
  const { codec, numValues, width, maxRepetition, maxDefinition, listLength = 1 } = layout;
  const parts: Uint8Array[] = [];
  const add = (type: number, values: number, encoding: number, body: Uint8Array): void => {
    parts.push(pageHeader(type, body.length, values, encoding), body);
  };
  let seen = 0;
  let dictionary: number | undefined;
  // No writer gives a page much more than its values and their levels need.
  const largestPage = 4096 + numValues * (Math.max(width, 1) + 8);
  const decompress = (bytes: Uint8Array, length: number): Uint8Array => {
    let page: Uint8Array;
    if (codec === 'UNCOMPRESSED') {
      page = bytes;
    } else {
      const own = codecs[codec];
      if (own === undefined) throw new PageUnsupported(`is compressed with ${codec}`);
      if (codec === 'SNAPPY') checkSnappy(bytes, length);
      if (codec === 'ZSTD') checkZstd(bytes);
      page = length === 0 ? new Uint8Array(0) : own(bytes, length);
    }
    if (page.length !== length) throw new PageFault(`has ${page.length} bytes instead of ${length}`);
    return page;
  };
  for (let at = 0; at < chunk.length && seen < numValues;) {
    const reader = new ThriftReader(chunk, at);
    const header = reader.struct();
    const type = need(header, 1, 'type');
    const size = need(header, 2, 'uncompressed size');
    const compressed = need(header, 3, 'compressed size');
    if (reader.offset + compressed > chunk.length) throw new PageFault('reaches beyond its column');
    if (size > largestPage) throw new PageFault(`claims ${size} bytes, more than ${numValues} values take`);
    const bytes = chunk.subarray(reader.offset, reader.offset + compressed);
    at = reader.offset + compressed;
    if (type === pageTypes.dictionary) {
      const values = need(header.structs.get(7), 1, 'number of values');
      if (dictionary !== undefined) throw new PageFault('is a second dictionary');
      if (values > numValues) throw new PageFault(`is a dictionary of ${values} values for ${numValues}`);
      const page = decompress(bytes, size);
      checkValues(page, 0, encodings.plain, values, layout, undefined);
      dictionary = values;
      add(type, values, encodings.plain, page);
      continue;
    }
    if (type !== pageTypes.data && type !== pageTypes.dataV2) throw new PageUnsupported(`is of type ${type}`);
    const isV2 = type === pageTypes.dataV2;
    const data = header.structs.get(isV2 ? 8 : 5);
    const values = need(data, 1, 'number of values');
    const encoding = need(data, isV2 ? 4 : 2, 'encoding');
    const lists = { length: listLength, first: seen };
    seen += values;
    if (seen > numValues) throw new PageFault(`has more values than the ${numValues} of its column`);
    let page: Uint8Array;
    let start = 0;
    if (isV2) {
      if (need(data, 2, 'number of nulls') > 0) throw missing();
      const [definition, repetition] = [need(data, 5, 'length of levels'), need(data, 6, 'length of levels')];
      const levels = definition + repetition;
      if (levels > compressed || levels > size) throw new PageFault('has levels beyond its end');
      if (maxRepetition > 0) checkRuns(bytes, 0, repetition, bitWidth(maxRepetition), values, { lists });
      if (maxDefinition > 0) {
        checkRuns(bytes, repetition, levels, bitWidth(maxDefinition), values, { all: maxDefinition });
      }
      page = bytes.subarray(levels);
      if (data!.numbers.get(7) !== 0) page = decompress(page, size - levels);
      else if (page.length !== size - levels) throw new PageFault('is of another size than it claims');
    } else {
      page = decompress(bytes, size);
      start = checkLevels(page, 0, maxRepetition, values, { lists });
      start = checkLevels(page, start, maxDefinition, values, { all: maxDefinition });
    }
    checkValues(page, start, encoding, values, layout, dictionary);
    add(pageTypes.data, values, encoding, page.subarray(start));
  }
  if (seen !== numValues)
    throw new PageFault(`is the last, but has only ${seen} of ${numValues} values before its end`);
  const flat = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    flat.set(part, at);
    at += part.length;
  }
  return flat;
}
