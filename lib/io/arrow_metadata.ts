/**
 * The metadata of Arrow IPC, the file and the stream: https://arrow.apache.org/docs/format/Columnar.html. It is decoded by
 * the package apache-arrow, once it was verified.
 */
import type { DType } from '../dtype.js';
import { fileError, unsupportedFile } from '../errors.js';
import type { Column } from './columns.js';
import {
  FlatbufferFault,
  readInt16,
  readStructs,
  tableAt,
  verifyFlatbuffer,
  type FieldKind,
  type TableType,
} from './flatbuffer.js';
import { importPackage } from './packages.js';
import { count, readBytes, type ByteSource } from './source.js';

// Schema.fbs and Message.fbs of Arrow: the fields of each table in order.

const keyValue: TableType = ['string', 'string'];
const integer: TableType = [4, 1];
const dictionaryEncoding: TableType = [8, { table: integer }, 1, 2];
const typeTables: Readonly<Record<number, TableType>> = {
  1: [], // Null
  2: integer,
  3: [2], // FloatingPoint
  4: [], // Binary
  5: [], // Utf8
  6: [], // Bool
  7: [4, 4, 4], // Decimal
  8: [2], // Date
  9: [2, 4], // Time
  10: [2, 'string'], // Timestamp
  11: [2], // Interval
  12: [], // List
  13: [], // Struct_
  14: [2, { vectorOf: 4 }], // Union
  15: [4], // FixedSizeBinary
  16: [4], // FixedSizeList
  17: [1], // Map
  18: [2], // Duration
};
const field = (): readonly FieldKind[] => [
  'string',
  1,
  1,
  { union: typeTables },
  { table: dictionaryEncoding },
  { tables: field },
  { tables: keyValue },
];
const schema: TableType = [2, { tables: field }, { tables: keyValue }, { vectorOf: 8 }];
const recordBatch: TableType = [8, { vectorOf: 16 }, { vectorOf: 16 }, { table: [1, 1] }, { vectorOf: 8 }];
const message: TableType = [2, 1, { union: { 1: schema, 3: recordBatch } }, 8, { tables: keyValue }];

const blockLength = 24;
const footerTable: TableType = [
  2,
  { table: schema },
  { vectorOf: blockLength },
  { vectorOf: blockLength },
  { tables: keyValue },
];

// Fields that are read from the verified metadata itself.
const headerField = 2;
const endiannessField = 0;
const versionField = 0;
const schemaField = 1;
const schemaType = 1;
const batchesField = 3;

/** V4, as MetadataVersion counts. */
const oldestVersion = 3;

// What is used of apache-arrow.

interface ArrowType {
  readonly typeId: number;
  readonly children?: readonly (ArrowField | undefined)[] | null;
  readonly bitWidth?: number;
  readonly isSigned?: boolean;
  readonly precision?: number;
  readonly listSize?: number;
  readonly mode?: number;
  toString(): string;
}

interface ArrowField {
  readonly name: string;
  readonly type: ArrowType;
}

export interface RecordBatchHeader {
  readonly length: number;
  readonly nodes: readonly { readonly length: number; readonly nullCount: number }[];
  readonly buffers: readonly { readonly offset: number; readonly length: number }[];
  readonly compression: object | null;
  readonly variadicBufferCounts: readonly number[];
}

interface DecodedMessage {
  readonly headerType: number;
  readonly bodyLength: number;
  readonly version: number;
  header(): unknown;
}

export interface ApacheArrow {
  readonly Message: { decode(bytes: Uint8Array): DecodedMessage };
  readonly MessageHeader: Readonly<Record<'Schema' | 'RecordBatch' | 'DictionaryBatch', number>>;
  readonly Type: Readonly<Record<string, number>>;
}

export const importArrow = () => importPackage<ApacheArrow>('apache-arrow', 'Arrow files');

export interface ArrowColumn extends Column {
  /** Number of its lists within lists. */
  readonly levels: number;
  /** Indices of its first node and buffer in each batch, but for the buffers of views in front of it. */
  readonly node: number;
  readonly buffer: number;
  readonly viewsBefore: number;
}

function numberType({ Type }: ApacheArrow, type: ArrowType): DType | undefined {
  if (type.typeId === Type['Bool']) return 'bool';
  if (type.typeId === Type['Float'])
    return (['float16', 'float32', 'float64'] as const)[type.precision ?? -1];
  if (type.typeId !== Type['Int'] || ![8, 16, 32, 64].includes(type.bitWidth ?? 0)) return undefined;
  return `${type.isSigned ? 'int' : 'uint'}${type.bitWidth as 8 | 16 | 32 | 64}`;
}

/** The columns of a schema, and where batches have their nodes and buffers: in pre-order over the fields. */
function layOut(arrow: ApacheArrow, fields: readonly ArrowField[], version: number): ArrowColumn[] {
  const { Type } = arrow;
  let node = 0;
  let buffer = 0;
  let viewsBefore = 0;
  const buffersOf = ({ typeId, mode }: ArrowType): number => {
    switch (typeId) {
      case Type['Null']:
        return 0;
      case Type['FixedSizeList']:
      case Type['Struct']:
        return 1;
      case Type['Union']:
        // Of V4 with a validity bitmap. Mode 1 is dense, which has offsets.
        return 1 + (mode === 1 ? 1 : 0) + (version < 4 ? 1 : 0);
      case Type['Binary']:
      case Type['Utf8']:
      case Type['LargeBinary']:
      case Type['LargeUtf8']:
        return 3;
      default:
        return 2;
    }
  };
  const step = (type: ArrowType): void => {
    node++;
    buffer += buffersOf(type);
    if (type.typeId === Type['Utf8View'] || type.typeId === Type['BinaryView']) viewsBefore++;
    // A dictionary's columns are indices; their values come in batches of their own.
    if (type.typeId === Type['Dictionary']) return;
    for (const child of type.children ?? []) {
      // apache-arrow takes a list's item as given.
      if (child === undefined) throw new FlatbufferFault('a list has no items');
      step(child.type);
    }
  };
  return fields.map(({ name, type }) => {
    const rowShape: number[] = [];
    let element = type;
    while (element.typeId === Type['FixedSizeList'] && element.children?.[0] !== undefined) {
      rowShape.push(element.listSize ?? -1);
      element = element.children[0].type;
    }
    const place = { node, buffer, viewsBefore };
    step(type);
    return {
      name,
      type: type.toString(),
      dtype: numberType(arrow, element),
      rowShape,
      levels: rowShape.length,
      ...place,
    };
  });
}

/** The columns of a schema that apache-arrow decoded, which takes types without their parts for whole. */
function columnsOf(
  { name }: ByteSource,
  arrow: ApacheArrow,
  fields: readonly ArrowField[],
  version: number,
): ArrowColumn[] {
  try {
    return layOut(arrow, fields, version);
  } catch (error) {
    throw fileError(`${name}: its schema has types that lack a part${reasonOf(error)}; it is damaged`, error);
  }
}

const magic = 'ARROW1';
const startLength = 8;

export interface FoundMessage {
  readonly message: DecodedMessage;
  readonly metadata: Uint8Array;
  /** Of the body, in the source. */
  readonly body: number;
}

export const damaged = ({ name }: ByteSource, at: number, what: string, cause?: unknown) =>
  fileError(
    `${name}: the Arrow message at byte ${count(at)} ${what}; the file was cut off or is damaged`,
    cause,
  );

const reasonOf = (error: unknown): string => (error instanceof FlatbufferFault ? `: ${error.message}` : '');

/** The message at `at`, without its body, all of it in front of `end`; undefined where the stream ends. */
async function readMessage(
  arrow: ApacheArrow,
  source: ByteSource,
  at: number,
  end: number,
): Promise<FoundMessage | undefined> {
  if (at + 4 > end) throw damaged(source, at, 'ends within its length');
  const prefix = new DataView((await readBytes(source, at, Math.min(8, end - at), 'a message')).buffer);
  // Before Arrow 0.15 the length came without a marker.
  const marked = prefix.getInt32(0, true) === -1;
  if (marked && prefix.byteLength < 8) throw damaged(source, at, 'ends within its length');
  const length = prefix.getInt32(marked ? 4 : 0, true);
  if (length === 0) return undefined;
  const metadata = at + (marked ? 8 : 4);
  if (length < 0 || metadata + length > end) {
    throw damaged(
      source,
      at,
      `claims ${count(length)} bytes of metadata, where ${count(end - metadata)} are left`,
    );
  }
  const bytes = await readBytes(source, metadata, length, "a message's metadata");
  let decoded: DecodedMessage;
  try {
    verifyFlatbuffer(bytes, message);
    decoded = arrow.Message.decode(bytes);
  } catch (error) {
    throw damaged(source, at, `has metadata that can't be decoded${reasonOf(error)}`, error);
  }
  const body = metadata + length;
  if (!(decoded.bodyLength >= 0 && body + decoded.bodyLength <= end)) {
    throw damaged(
      source,
      at,
      `claims a body of ${count(decoded.bodyLength)} bytes, where ${count(end - body)} are left`,
    );
  }
  return { message: decoded, metadata: bytes, body };
}

/** Decodes a message's header, which apache-arrow does when it is asked for. */
export function headerOf(source: ByteSource, { message: decoded, body }: FoundMessage): unknown {
  try {
    return decoded.header();
  } catch (error) {
    throw damaged(source, body, "ends with a header that can't be decoded", error);
  }
}

export interface OpenTable {
  readonly columns: readonly ArrowColumn[];
  /** Messages after the schema. */
  readonly messages: AsyncGenerator<FoundMessage, void, undefined>;
}

/** Refuses what apache-arrow does not look at, and would read as something else. */
function checkSchema({ name }: ByteSource, version: number, endianness: number): void {
  if (version < oldestVersion) {
    throw unsupportedFile(`${name}: is of a version of Arrow before 0.8; write it anew with a later one`);
  }
  if (endianness !== 0) {
    throw unsupportedFile(`${name}: is of a big-endian machine; write it on a little-endian one`);
  }
}

async function* streamMessages(
  arrow: ApacheArrow,
  source: ByteSource,
  start: number,
): AsyncGenerator<FoundMessage, void, undefined> {
  for (let at = start; at < source.size;) {
    const found = await readMessage(arrow, source, at, source.size);
    if (found === undefined) return;
    yield found;
    at = found.body + found.message.bodyLength;
  }
}

async function openStream(arrow: ApacheArrow, source: ByteSource): Promise<OpenTable> {
  const first = source.size === 0 ? undefined : await readMessage(arrow, source, 0, source.size);
  if (first?.message.headerType !== arrow.MessageHeader.Schema) {
    throw fileError(
      `${source.name}: expected an Arrow schema as the first message; it is damaged, or no Arrow file`,
    );
  }
  const { version, bodyLength } = first.message;
  checkSchema(source, version, readInt16(first.metadata, [headerField], endiannessField));
  const { fields } = headerOf(source, first) as { readonly fields: readonly ArrowField[] };
  return {
    columns: columnsOf(source, arrow, fields, version),
    messages: streamMessages(arrow, source, first.body + bodyLength),
  };
}

/** Where a file's footer says that a record batch is. */
interface Block {
  readonly offset: number;
  readonly end: number;
}

async function* fileMessages(
  arrow: ApacheArrow,
  source: ByteSource,
  blocks: readonly Block[],
): AsyncGenerator<FoundMessage, void, undefined> {
  for (const { offset, end } of blocks) {
    const found = await readMessage(arrow, source, offset, end);
    if (found === undefined) throw damaged(source, offset, 'is empty');
    yield found;
  }
}

function readBlocks(source: ByteSource, footer: Uint8Array, footerStart: number): Block[] {
  const blocks = readStructs(footer, batchesField, blockLength).map((view) => {
    const offset = Number(view.getBigInt64(0, true));
    return { offset, end: offset + view.getInt32(8, true) + Number(view.getBigInt64(16, true)) };
  });
  // Batches that share bytes would be a large table in a small file.
  let reached = startLength;
  for (const { offset, end } of [...blocks].sort((a, b) => a.offset - b.offset)) {
    if (!(offset >= reached && end > offset && end <= footerStart)) {
      throw fileError(
        `${source.name}: its footer has a record batch at bytes ${count(offset)} to ${count(end)}, which are not free in front ` +
          `of byte ${count(footerStart)}; it was cut off or is damaged`,
      );
    }
    reached = end;
  }
  return blocks;
}

/**
 * A footer's schema as a message, which is what apache-arrow decodes: a table of the version, the header's type and the
 * header, which leads into the footer behind it.
 */
function schemaMessage(footer: Uint8Array): Uint8Array {
  const [vtable, table, length] = [4, 16, 32];
  const bytes = new Uint8Array(length + footer.length);
  bytes.set(footer, length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, table, true);
  [10, 12, 4, 6, 8].forEach((value, i) => view.setUint16(vtable + 2 * i, value, true));
  view.setInt32(table, table - vtable, true);
  view.setInt16(table + 4, readInt16(footer, [], versionField), true);
  view.setUint8(table + 6, schemaType);
  view.setUint32(table + 8, length + tableAt(footer, schemaField) - (table + 8), true);
  return bytes;
}

async function openFile(arrow: ApacheArrow, source: ByteSource): Promise<OpenTable> {
  const { name, size } = source;
  const endLength = 4 + magic.length;
  const tail = await readBytes(source, size - endLength, endLength, 'the end of an Arrow file');
  if (Buffer.from(tail).toString('latin1', 4) !== magic) {
    throw fileError(`${name}: expected ARROW1 at the end of an Arrow file too; it was cut off or is damaged`);
  }
  const length = new DataView(tail.buffer).getInt32(0, true);
  const footerStart = size - endLength - length;
  if (length <= 0 || footerStart < startLength) {
    throw fileError(
      `${name}: expected a footer within its ${count(size)} bytes, got one of ${count(length)}; it is damaged`,
    );
  }
  const footer = await readBytes(source, footerStart, length, 'the footer');
  let fields: readonly ArrowField[];
  try {
    verifyFlatbuffer(footer, footerTable);
    const decoded = arrow.Message.decode(schemaMessage(footer));
    ({ fields } = decoded.header() as { readonly fields: readonly ArrowField[] });
  } catch (error) {
    throw fileError(`${name}: its footer can't be decoded${reasonOf(error)}; it is damaged`, error);
  }
  const version = readInt16(footer, [], versionField);
  checkSchema(source, version, readInt16(footer, [schemaField], endiannessField));
  return {
    columns: columnsOf(source, arrow, fields, version),
    messages: fileMessages(arrow, source, readBlocks(source, footer, footerStart)),
  };
}

export async function openTable(arrow: ApacheArrow, source: ByteSource): Promise<OpenTable> {
  const start = await readBytes(source, 0, Math.min(magic.length, source.size), 'the magic ARROW1');
  const isFile = Buffer.from(start).toString('latin1') === magic;
  return isFile ? openFile(arrow, source) : openStream(arrow, source);
}
