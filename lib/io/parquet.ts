/** Parquet, decoded by the package hyparquet, row group by row group. */
import type { DType, TypedArray } from '../dtype.js';
import { describe, fileError, unsupportedFile } from '../errors.js';
import { numel } from '../shape.js';
import { selectColumns, type Column } from './columns.js';
import { byteLength, itemSizes } from './elements.js';
import { importPackage } from './packages.js';
import {
  flattenPages,
  nodeCodecs,
  PageFault,
  PageUnsupported,
  type ChunkLayout,
  type Decompress,
} from './parquet_pages.js';
import { checkCompressedRow, checkRows, type ArrayInfo, type ArrayRows, type RowPass } from './rows.js';
import { count, readBytes, type ByteSource } from './source.js';
import { ThriftFault, ThriftReader } from './thrift.js';

// What is used of hyparquet.

interface SchemaElement {
  readonly type?: string;
  readonly type_length?: number;
  readonly repetition_type?: string;
  readonly name: string;
  readonly num_children?: number;
  readonly converted_type?: string;
  readonly logical_type?: { readonly type?: string; readonly bitWidth?: number; readonly isSigned?: boolean };
}

interface ColumnMetadata {
  readonly type: string;
  readonly path_in_schema: readonly string[];
  readonly codec: string;
  readonly num_values: bigint;
  readonly total_compressed_size: bigint;
  readonly data_page_offset: bigint;
  readonly dictionary_page_offset?: bigint;
}

interface ColumnChunk {
  readonly file_path?: string;
  readonly meta_data?: ColumnMetadata;
  readonly crypto_metadata?: unknown;
}

interface RowGroup {
  readonly columns: readonly ColumnChunk[];
  readonly num_rows: bigint;
}

interface FileMetadata {
  readonly schema: readonly SchemaElement[];
  readonly num_rows: bigint;
  readonly row_groups: readonly RowGroup[];
}

type Values = ArrayLike<unknown>;

interface Hyparquet {
  parquetMetadata(bytes: Uint8Array, options: { geoparquet: boolean }): FileMetadata;
  parquetRead(options: {
    file: { byteLength: number; slice(start: number, end?: number): Promise<ArrayBuffer> };
    metadata: FileMetadata;
    columns: string[];
    onChunk: (chunk: { columnData: Values }) => void;
  }): Promise<void>;
  readonly snappyUncompress: (input: Uint8Array, output: Uint8Array) => void;
}

interface HyparquetCompressors {
  decompressLz4(input: Uint8Array, length: number): Uint8Array;
  decompressLz4Raw(input: Uint8Array, length: number): Uint8Array;
  decompressZstd(input: Uint8Array, output: Uint8Array): Uint8Array;
}

const importHyparquet = () => importPackage<Hyparquet>('hyparquet', 'Parquet files');

/** The codecs of the one package are its own, those of the other come with it. */
async function importCodecs(codecs: ReadonlySet<string>, { snappyUncompress }: Hyparquet) {
  const snappy: Decompress = (compressed, length) => {
    const page = new Uint8Array(length);
    snappyUncompress(compressed, page);
    return page;
  };
  const own: Readonly<Record<string, Decompress>> = { SNAPPY: snappy, ...nodeCodecs };
  const others = [...codecs].filter((codec) => codec !== 'UNCOMPRESSED' && !Object.hasOwn(own, codec));
  if (others.length === 0) return own;
  const purpose = `Parquet files that are compressed with ${others.join(', ')}`;
  const library = await importPackage<HyparquetCompressors>('hyparquet-compressors', purpose);
  return {
    LZ4: (compressed: Uint8Array, length: number) => library.decompressLz4(compressed, length),
    LZ4_RAW: (compressed: Uint8Array, length: number) => library.decompressLz4Raw(compressed, length),
    // Into memory of the right length: by itself it would allocate what the compressed data claims.
    ZSTD: (compressed: Uint8Array, length: number) =>
      library.decompressZstd(compressed, new Uint8Array(length)),
    ...own,
  };
}

interface ParquetColumn extends Column {
  /** Its place among the physical columns. */
  readonly leaf: number;
  readonly path: readonly string[];
  /** Its own part of the schema. */
  readonly elements: readonly SchemaElement[];
  /** Its list has another length in each row, for all that the schema says. */
  readonly isList: boolean;
  readonly maxRepetition: number;
  readonly maxDefinition: number;
  readonly physicalType: string;
}

const magic = 'PAR1';
const endLength = 8;

const isMagic = (bytes: Uint8Array, text: string): boolean => Buffer.from(bytes).toString('latin1') === text;

async function readMetadata(hyparquet: Hyparquet, source: ByteSource): Promise<FileMetadata> {
  const { name, size } = source;
  const start = await readBytes(source, 0, Math.min(magic.length, size), 'the magic PAR1');
  if (isMagic(start, 'PARE')) {
    throw unsupportedFile(`${name}: its footer is encrypted; write it without encryption`);
  }
  if (!isMagic(start, magic)) {
    throw fileError(`${name}: expected a Parquet file, which starts with PAR1; this is another kind of file`);
  }
  const end = await readBytes(source, size - endLength, endLength, 'the end of a Parquet file');
  if (!isMagic(end.subarray(4), magic)) {
    throw fileError(`${name}: expected PAR1 at the end of a Parquet file too; it was cut off or is damaged`);
  }
  const length = new DataView(end.buffer).getUint32(0, true);
  if (length > size - endLength - magic.length) {
    throw fileError(
      `${name}: expected a footer within its ${count(size)} bytes, got one of ${count(length)}; it is damaged`,
    );
  }
  const bytes = await readBytes(source, size - endLength - length, length + endLength, 'the footer');
  try {
    new ThriftReader(bytes.subarray(0, length)).struct();
    return hyparquet.parquetMetadata(bytes, { geoparquet: false });
  } catch (error) {
    const reason = error instanceof ThriftFault ? `: ${error.message}` : '';
    throw fileError(`${name}: its footer can't be decoded${reason}; it is damaged`, error);
  }
}

const integerTypes: Readonly<Record<string, DType>> = {
  UINT_8: 'uint8',
  UINT_16: 'uint16',
  UINT_32: 'uint32',
  UINT_64: 'uint64',
  INT_8: 'int8',
  INT_16: 'int16',
  INT_32: 'int32',
  INT_64: 'int64',
};

function numberType({ type, type_length, converted_type, logical_type }: SchemaElement): DType | undefined {
  const plain = converted_type === undefined && logical_type?.type === undefined;
  switch (type) {
    case 'FLOAT':
      return plain ? 'float32' : undefined;
    case 'DOUBLE':
      return plain ? 'float64' : undefined;
    case 'BOOLEAN':
      return plain ? 'bool' : undefined;
    case 'FIXED_LEN_BYTE_ARRAY':
      // hyparquet gives numbers, and float32 holds every one of them.
      return logical_type?.type === 'FLOAT16' && type_length === 2 ? 'float32' : undefined;
    case 'INT32':
    case 'INT64': {
      const bits = type === 'INT32' ? 32 : 64;
      let name = `INT_${bits}`;
      if (logical_type?.type === 'INTEGER') {
        name = `${logical_type.isSigned ? '' : 'U'}INT_${logical_type.bitWidth ?? 0}`;
      } else if (converted_type !== undefined) {
        name = converted_type;
      } else if (!plain) {
        return undefined;
      }
      const dtype = Object.hasOwn(integerTypes, name) ? integerTypes[name]! : undefined;
      return dtype !== undefined && (itemSizes[dtype] === 8) === (bits === 64) ? dtype : undefined;
    }
    default:
      return undefined;
  }
}

const deepestSchema = 16;

/** The top-level columns of a schema: each a field, and what is below it. */
function readColumns(source: ByteSource, schema: readonly SchemaElement[]): ParquetColumn[] {
  const broken = (what: string) => fileError(`${source.name}: ${what} in its schema; it is damaged`);
  let at = 0;
  let leaf = 0;
  /** Skips an element and all below it; tells of its last leaf. */
  const skip = (
    depth: number,
    path: readonly string[],
  ): { element: SchemaElement; path: readonly string[] } => {
    const element = schema[at++];
    if (element === undefined) throw broken('a column is missing');
    if (typeof element.name !== 'string') throw broken('a column has no name');
    if (depth > deepestSchema) throw broken('columns are nested too deeply');
    const children = element.num_children ?? 0;
    const own = [...path, element.name];
    if (!(children > 0)) {
      leaf++;
      return { element, path: own };
    }
    let last = skip(depth + 1, own);
    for (let child = 1; child < children; child++) last = skip(depth + 1, own);
    return last;
  };
  const fields = schema[at++]?.num_children ?? 0;
  const columns: ParquetColumn[] = [];
  for (let field = 0; field < fields; field++) {
    const [start, firstLeaf] = [at, leaf];
    const last = skip(0, []);
    const elements = schema.slice(start, at);
    const levels = (kinds: readonly string[]) =>
      elements.filter(({ repetition_type = '' }) => kinds.includes(repetition_type)).length;
    const maxRepetition = levels(['REPEATED']);
    const isChain = leaf === firstLeaf + 1;
    const [top] = elements as [SchemaElement, ...SchemaElement[]];
    const isFlat = elements.length === 1 && maxRepetition === 0;
    const isListGroup = top.converted_type === 'LIST' || top.logical_type?.type === 'LIST';
    const isList = isChain && elements.length > 1 && maxRepetition === 1 && isListGroup;
    const dtype = isFlat || isList ? numberType(last.element) : undefined;
    const described =
      last.element.logical_type?.type ?? last.element.converted_type ?? last.element.type ?? 'unknown';
    columns.push({
      name: top.name,
      dtype,
      type: isFlat ? described : isList ? `List<${described}>` : 'nested',
      // A list's length is not in the schema.
      rowShape: isList ? [1] : [],
      leaf: firstLeaf,
      path: last.path,
      elements,
      isList,
      maxRepetition,
      maxDefinition: levels(['REPEATED', 'OPTIONAL']),
      physicalType: last.element.type ?? '',
    });
  }
  return columns;
}

interface Chunk {
  readonly offset: number;
  readonly length: number;
  readonly layout: ChunkLayout;
  readonly metadata: ColumnChunk;
}

interface Group {
  readonly start: number;
  readonly rows: number;
  readonly chunks: readonly Chunk[];
}

/** Bytes of a column's values in a row group, at most, whatever their compression: a row group is decoded at once. */
const largestGroup = 2 ** 28;

function readChunk(
  source: ByteSource,
  column: ParquetColumn,
  { columns }: RowGroup,
  rows: number,
  index: number,
): Chunk {
  const where = `${source.name}: row group ${index}, column ${JSON.stringify(column.name)}`;
  const chunk = columns[column.leaf];
  const metadata = chunk?.meta_data;
  if (chunk?.crypto_metadata !== undefined)
    throw unsupportedFile(`${where}: is encrypted; write it without encryption`);
  if (chunk?.file_path) throw unsupportedFile(`${where}: is in another file; write one file`);
  const broken = () =>
    fileError(`${where}: is another than the schema's, or not there; the footer is damaged`);
  if (chunk === undefined || metadata === undefined) throw broken();
  if (
    metadata.type !== column.physicalType ||
    metadata.path_in_schema.join('\n') !== column.path.join('\n') ||
    typeof metadata.codec !== 'string'
  ) {
    throw broken();
  }
  const [numValues, offset, length] = [
    metadata.num_values,
    // As hyparquet has it: 0 is none.
    (metadata.dictionary_page_offset ?? 0n) > 0n
      ? metadata.dictionary_page_offset
      : metadata.data_page_offset,
    metadata.total_compressed_size,
  ].map(Number) as [number, number, number];
  if (!(offset >= magic.length && length >= 0 && offset + length <= source.size - endLength)) {
    throw fileError(
      `${where}: its ${count(length)} bytes at byte ${count(offset)} are not within the ${count(source.size)} of the file; it ` +
        `was cut off or is damaged`,
    );
  }
  const expected = column.isList ? undefined : rows;
  if (!Number.isSafeInteger(numValues) || numValues < 0 || numValues !== (expected ?? numValues)) {
    throw fileError(`${where}: expected ${count(rows)} values, got ${count(numValues)}; it is damaged`);
  }
  if (numValues * 8 > largestGroup + 1032 * length) {
    throw unsupportedFile(
      `${where}: claims ${count(numValues)} values in ${count(length)} bytes, too many to decode at once; write smaller row groups`,
    );
  }
  const isFloat16 = column.physicalType === 'FIXED_LEN_BYTE_ARRAY';
  const width =
    column.dtype === 'bool' ? 0 : isFloat16 ? 2 : /^(?:INT64|DOUBLE)$/.test(column.physicalType) ? 8 : 4;
  const { maxRepetition, maxDefinition } = column;
  const listLength = column.isList ? numValues / rows : undefined;
  const layout = { width, maxRepetition, maxDefinition, numValues, listLength, codec: metadata.codec };
  return { offset, length, layout, metadata: chunk };
}

/** The row groups with rows; `numRows` of each has to fit the file's. */
function readGroups(source: ByteSource, metadata: FileMetadata, columns: readonly ParquetColumn[]): Group[] {
  const groups: Group[] = [];
  let start = 0;
  metadata.row_groups.forEach((group, index) => {
    const rows = Number(group.num_rows);
    if (!Number.isSafeInteger(start + rows) || rows < 0) {
      throw fileError(`${source.name}: row group ${index} claims ${count(rows)} rows; it is damaged`);
    }
    if (rows > 0) {
      const chunks = columns.map((column) => readChunk(source, column, group, rows, index));
      groups.push({ start, rows, chunks });
    }
    start += rows;
  });
  if (start !== Number(metadata.num_rows)) {
    throw fileError(
      `${source.name}: its row groups have ${count(start)} rows, its footer says ${count(Number(metadata.num_rows))}; it is ` +
        `damaged`,
    );
  }
  return groups;
}

/** The length of a list column's lists where it can be the same in every row: values over rows. */
function listLength(groups: readonly Group[]): number | undefined {
  let length: number | undefined;
  for (const { rows, chunks } of groups) {
    const { numValues } = chunks[0]!.layout;
    length ??= numValues / rows;
    if (numValues !== length * rows || !Number.isInteger(length)) return undefined;
  }
  return length ?? 1;
}

/** A decoded column of a row group: its values in order, in pieces. */
type Decoded = readonly Values[];

class ParquetRows implements ArrayRows {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly #source: ByteSource;
  readonly #hyparquet: Hyparquet;
  readonly #codecs: Readonly<Record<string, Decompress>>;
  readonly #columns: readonly ParquetColumn[];
  readonly #groups: readonly Group[];

  constructor(
    source: ByteSource,
    hyparquet: Hyparquet,
    codecs: Readonly<Record<string, Decompress>>,
    table: { shape: readonly number[]; dtype: DType; columns: readonly ParquetColumn[] },
    groups: readonly Group[],
  ) {
    this.shape = table.shape;
    this.dtype = table.dtype;
    this.#source = source;
    this.#hyparquet = hyparquet;
    this.#codecs = codecs;
    this.#columns = table.columns;
    this.#groups = groups;
  }

  async #decode(chunk: Chunk, column: ParquetColumn): Promise<Decoded> {
    const where = `${this.#source.name}: column ${JSON.stringify(column.name)}, a page from byte ${count(chunk.offset)} on`;
    const bytes = await readBytes(this.#source, chunk.offset, chunk.length, 'a column');
    const pieces: Values[] = [];
    try {
      const flat = flattenPages(bytes, chunk.layout, this.#codecs);
      const { numValues } = chunk.layout;
      const leaf = { ...column.elements.at(-1)!, name: column.name, repetition_type: 'REQUIRED' };
      const metadata = {
        type: column.physicalType,
        path_in_schema: [column.name],
        codec: 'UNCOMPRESSED',
        num_values: BigInt(numValues),
        total_compressed_size: BigInt(flat.length),
        data_page_offset: BigInt(magic.length),
      };
      await this.#hyparquet.parquetRead({
        file: { byteLength: magic.length + flat.length, slice: async () => flat.buffer },
        metadata: {
          schema: [{ name: 'schema', num_children: 1 }, leaf],
          num_rows: BigInt(numValues),
          row_groups: [{ columns: [{ meta_data: metadata }], num_rows: BigInt(numValues) }],
        },
        columns: [column.name],
        onChunk: ({ columnData }) => pieces.push(columnData),
      });
    } catch (error) {
      if (error instanceof PageUnsupported) {
        throw unsupportedFile(
          `${where}: ${error.message}; write the file without nulls, compressed with Snappy or not at all`,
          error,
        );
      }
      const reason =
        error instanceof PageFault || error instanceof ThriftFault
          ? ` ${error.message}`
          : " can't be decoded";
      throw fileError(`${where}:${reason}; it is damaged`, error);
    }
    const decoded = pieces.reduce((sum, { length }) => sum + length, 0);
    if (decoded !== chunk.layout.numValues) {
      throw fileError(
        `${where}: expected ${count(chunk.layout.numValues)} values, got ${count(decoded)}; it is damaged`,
      );
    }
    return pieces;
  }

  pass(start: number): RowPass {
    let row = start;
    let next = this.#groups.findIndex((group) => start < group.start + group.rows);
    let decoded: Decoded[] | undefined;
    const rowLength = numel(this.shape, 1);
    const width = this.#columns.length;
    // A column's own values in each row: several columns have one.
    const perRow = rowLength / width;
    return {
      fill: async (data) => {
        for (let done = 0; done < data.length;) {
          const group = this.#groups[next]!;
          if (decoded === undefined) {
            decoded = [];
            for (const [i, column] of this.#columns.entries()) {
              decoded.push(await this.#decode(group.chunks[i]!, column));
            }
          }
          const from = row - group.start;
          const rows = Math.min(group.rows - from, (data.length - done) / rowLength);
          const block = data.subarray(done, done + rows * rowLength);
          for (const [i, column] of this.#columns.entries()) {
            copyValues(this.#source, column, decoded[i]!, from * perRow, rows * perRow, block, i, width);
          }
          done += block.length;
          row += rows;
          if (from + rows === group.rows) {
            next++;
            decoded = undefined;
          }
        }
      },
    };
  }
}

/** Copies values [from, from + values) of a decoded column to every `stride`th place of a block; checks that they are numbers. */
function copyValues(
  source: ByteSource,
  { name, dtype }: ParquetColumn,
  pieces: Decoded,
  from: number,
  values: number,
  block: TypedArray,
  offset: number,
  stride: number,
): void {
  const wide = dtype === 'int64' || dtype === 'uint64';
  const isInteger = !dtype!.startsWith('float');
  const put = (value: unknown, at: number): void => {
    if (typeof value === 'boolean' ? dtype === 'bool' : typeof value === (wide ? 'bigint' : 'number')) {
      // An integer wraps where the dtype does not hold it.
      block[at] = value as never;
      if (!isInteger || typeof value === 'boolean' || block[at] === value) return;
    }
    throw unsupportedFile(
      `${source.name}: expected ${dtype!} in every row of column ${JSON.stringify(name)}, got ${
        value === null || value === undefined ? 'null; fill nulls' : `${describe(value)}; cast the column`
      } before writing the file`,
    );
  };
  let pieceStart = 0;
  let at = offset;
  for (const piece of pieces) {
    const pieceEnd = pieceStart + piece.length;
    const [first, last] = [Math.max(from, pieceStart), Math.min(from + values, pieceEnd)];
    if (first < last && stride === 1 && piece.constructor === block.constructor) {
      block.set((piece as Float32Array).subarray(first - pieceStart, last - pieceStart) as never, at);
      at += last - first;
    } else {
      for (let i = first; i < last; i++, at += stride) put(piece[i - pieceStart], at);
    }
    pieceStart = pieceEnd;
  }
}

interface Table {
  readonly hyparquet: Hyparquet;
  readonly metadata: FileMetadata;
  readonly columns: readonly ParquetColumn[];
}

async function openTable(source: ByteSource): Promise<Table> {
  const hyparquet = await importHyparquet();
  const metadata = await readMetadata(hyparquet, source);
  return { hyparquet, metadata, columns: readColumns(source, metadata.schema) };
}

export async function listParquet(source: ByteSource): Promise<ArrayInfo[]> {
  const { metadata, columns } = await openTable(source);
  readGroups(source, metadata, []);
  const numRows = Number(metadata.num_rows);
  return columns.map((column) => {
    const lists = column.isList && column.dtype !== undefined;
    const length = lists ? listLength(readGroups(source, metadata, [column])) : undefined;
    const readable = lists === (length !== undefined) ? column.dtype : undefined;
    const rowShape = length === undefined ? [] : [length];
    return { name: column.name, shape: [numRows, ...rowShape], dtype: readable ?? column.type };
  });
}

export async function openParquet(
  source: ByteSource,
  wanted: string | readonly string[] | undefined,
): Promise<{ name: string | undefined; rows: ArrayRows }> {
  const { hyparquet, metadata, columns: all } = await openTable(source);
  const { name, columns, dtype } = selectColumns(source, all, wanted);
  const groups = readGroups(source, metadata, columns);
  const [first] = columns as [ParquetColumn];
  let rowShape: readonly number[] = name === undefined ? [columns.length] : [];
  if (name !== undefined && first.isList) {
    const length = listLength(groups);
    if (length === undefined) {
      throw unsupportedFile(
        `${source.name}: expected lists of one length in every row of column ${JSON.stringify(name)}, but they differ, or some ` +
          `are null`,
      );
    }
    rowShape = [length];
  }
  const shape = [Number(metadata.num_rows), ...rowShape];
  const what = name === undefined ? 'the columns' : `column ${JSON.stringify(name)}`;
  if (byteLength(shape, itemSizes[dtype]) === undefined) {
    throw fileError(`${source.name}: ${what} claims more values than any file has; it is damaged`);
  }
  checkRows(source, what, shape);
  checkCompressedRow(source, what, numel(shape, 1) * itemSizes[dtype]);
  const codecs = new Set(groups.flatMap(({ chunks }) => chunks.map(({ layout }) => layout.codec)));
  const table = { shape, dtype, columns };
  return {
    name,
    rows: new ParquetRows(source, hyparquet, await importCodecs(codecs, hyparquet), table, groups),
  };
}
