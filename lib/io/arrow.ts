/** Arrow IPC: the chosen columns' bytes are read from the file into the blocks, wherever its metadata say that they are. */
import { allocate, type DType, type TypedArray } from '../dtype.js';
import { fileError, unsupportedFile } from '../errors.js';
import { numel } from '../shape.js';
import {
  damaged,
  headerOf,
  importArrow,
  openTable,
  type ApacheArrow,
  type ArrowColumn,
  type FoundMessage,
  type OpenTable,
  type RecordBatchHeader,
} from './arrow_metadata.js';
import { selectColumns } from './columns.js';
import { byteLength, bytesOf, hostIsLittleEndian, itemSizes, swapBytes } from './elements.js';
import { checkRows, type ArrayInfo, type ArrayRows, type RowPass } from './rows.js';
import { count, readFully, type ByteSource } from './source.js';

/** Part of a column: some rows whose elements stand together. */
interface Part {
  /** Of the first element, in the source. */
  readonly offset: number;
}

interface Batch {
  readonly start: number;
  readonly rows: number;
  /** Of each chosen column. */
  readonly parts: readonly Part[];
}

/** Where the chosen columns' elements are in a batch. */
function locate(
  source: ByteSource,
  { body, message: { bodyLength } }: FoundMessage,
  { length, nodes, buffers, compression, variadicBufferCounts }: RecordBatchHeader,
  chosen: readonly ArrowColumn[],
): readonly Part[] {
  if (compression !== null && compression !== undefined && chosen.length > 0) {
    throw unsupportedFile(
      `${source.name}: its record batches are compressed, which is not read here; write them without compression, as with ` +
        `pyarrow.feather.write_feather(table, path, compression='uncompressed')`,
    );
  }
  return chosen.map(({ name, dtype, rowShape, levels, node, buffer, viewsBefore }) => {
    const where = `record batch at byte ${count(body)}, column ${JSON.stringify(name)}`;
    let items = length;
    for (let level = 0; level <= levels; level++) {
      const { length: nodeLength, nullCount } = nodes[node + level] ?? { length: -1, nullCount: 0 };
      if (nodeLength !== items) {
        throw fileError(
          `${source.name}: ${where}: expected ${count(items)} values, got ${count(nodeLength)}; it is damaged`,
        );
      }
      if (nullCount !== 0) {
        throw unsupportedFile(
          `${source.name}: ${where}: has ${count(nullCount)} nulls, which are no numbers; fill them before writing the file`,
        );
      }
      if (level < levels) items *= rowShape[level]!;
    }
    const views = variadicBufferCounts.slice(0, viewsBefore).reduce((sum, views) => sum + views, 0);
    const region = buffers[buffer + views + levels + 1];
    const bits = dtype === 'bool' ? 1 : 8 * itemSizes[dtype!];
    const bytes = Math.ceil((items * bits) / 8);
    if (
      region === undefined ||
      !(region.offset >= 0 && bytes <= region.length && region.offset + region.length <= bodyLength)
    ) {
      throw fileError(
        `${source.name}: ${where}: expected ${count(bytes)} bytes of values within a body of ${count(bodyLength)}, got ` +
          `${region === undefined ? 'none' : `${count(region.length)} at ${count(region.offset)}`}; it is damaged`,
      );
    }
    return { offset: body + region.offset };
  });
}

/** Bytes of several columns that are read at once. */
const windowBytes = 16 * 2 ** 20;
const readsAtOnce = 16;
const tileColumns = 64;

/** Rows of the chosen columns, read out of the batches' bodies as they stand. */
class ArrowRows implements ArrayRows {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly #source: ByteSource;
  readonly #batches: readonly Batch[];
  readonly #width: number;

  constructor(
    source: ByteSource,
    shape: readonly number[],
    dtype: DType,
    batches: readonly Batch[],
    width: number,
  ) {
    this.shape = shape;
    this.dtype = dtype;
    this.#source = source;
    this.#batches = batches;
    this.#width = width;
  }

  /** Elements [from, from + data.length) of a part. */
  async #readPart({ offset }: Part, from: number, data: TypedArray): Promise<void> {
    if (this.dtype === 'bool') {
      const first = Math.floor(from / 8);
      const bits = new Uint8Array(Math.ceil((from + data.length) / 8) - first);
      await readFully(this.#source, bits, offset + first);
      for (let i = 0; i < data.length; i++) {
        const bit = from + i - 8 * first;
        data[i] = (bits[bit >> 3]! >> (bit & 7)) & 1;
      }
      return;
    }
    const itemSize = itemSizes[this.dtype];
    const bytes = bytesOf(data);
    await readFully(this.#source, bytes, offset + from * itemSize);
    if (!hostIsLittleEndian) swapBytes(bytes, itemSize);
  }

  /** Rows [from, from + rows) of a batch, column after column. */
  async #readColumns({ parts }: Batch, from: number, rows: number, data: TypedArray): Promise<void> {
    for (let first = 0; first < parts.length; first += readsAtOnce) {
      await Promise.all(
        parts
          .slice(first, first + readsAtOnce)
          .map((part, i) =>
            this.#readPart(part, from, data.subarray((first + i) * rows, (first + i + 1) * rows)),
          ),
      );
    }
  }

  pass(start: number): RowPass {
    let row = start;
    let next = this.#batches.findIndex((batch) => start < batch.start + batch.rows);
    const rowLength = numel(this.shape, 1);
    const width = this.#width;
    // Of several columns more rows are read at once than a block has: their reads would be short.
    const windowRows = Math.max(1, Math.floor(windowBytes / (width * itemSizes[this.dtype])));
    let columns: { readonly from: number; readonly rows: number; readonly data: TypedArray } | undefined;
    return {
      fill: async (data) => {
        for (let done = 0; done < data.length;) {
          const batch = this.#batches[next]!;
          const from = row - batch.start;
          let rows = Math.min(batch.rows - from, (data.length - done) / rowLength);
          if (width === 1) {
            await this.#readPart(
              batch.parts[0]!,
              from * rowLength,
              data.subarray(done, done + rows * rowLength),
            );
          } else {
            if (columns === undefined || from >= columns.from + columns.rows) {
              const taken = Math.min(windowRows, batch.rows - from);
              const length = taken * width;
              const memory = columns?.data.length === length ? columns.data : allocate(this.dtype, length);
              await this.#readColumns(batch, from, taken, memory);
              columns = { from, rows: taken, data: memory };
            }
            rows = Math.min(rows, columns.from + columns.rows - from);
            const block = data.subarray(done, done + rows * width);
            interleave(columns.data, columns.rows, from - columns.from, block, width);
          }
          done += rows * rowLength;
          row += rows;
          if (from + rows === batch.rows) {
            next++;
            columns = undefined;
          }
        }
      },
    };
  }
}

/** Rows of a block, `width` classes each, out of columns of `length` values, from value `first` of each on. */
function interleave(
  columns: TypedArray,
  length: number,
  first: number,
  block: TypedArray,
  width: number,
): void {
  const rows = block.length / width;
  // As many columns at a time as have their lines in the first-level cache beside the block's.
  for (let start = 0; start < width; start += tileColumns) {
    const end = Math.min(width, start + tileColumns);
    for (let row = 0; row < rows; row++) {
      const [to, from] = [row * width, first + row];
      for (let c = start; c < end; c++) block[to + c] = columns[c * length + from]!;
    }
  }
}

/** The batches of a table with rows, with the parts of the chosen columns. */
async function readBatches(
  arrow: ApacheArrow,
  source: ByteSource,
  { messages }: OpenTable,
  chosen: readonly ArrowColumn[],
): Promise<{ batches: Batch[]; numRows: number }> {
  const batches: Batch[] = [];
  let start = 0;
  for await (const found of messages) {
    const { headerType } = found.message;
    if (headerType === arrow.MessageHeader.DictionaryBatch) continue;
    if (headerType !== arrow.MessageHeader.RecordBatch) {
      throw unsupportedFile(
        `${source.name}: expected record batches after the schema, got a message of type ${headerType}`,
      );
    }
    const header = headerOf(source, found) as RecordBatchHeader;
    const rows = header.length;
    if (!(rows >= 0) || !Number.isSafeInteger(start + rows)) {
      throw damaged(source, found.body, `claims ${count(rows)} rows`);
    }
    const parts = locate(source, found, header, chosen);
    if (rows > 0) batches.push({ start, rows, parts });
    start += rows;
  }
  return { batches, numRows: start };
}

export async function listArrow(source: ByteSource): Promise<ArrayInfo[]> {
  const arrow = await importArrow();
  const table = await openTable(arrow, source);
  const { numRows } = await readBatches(arrow, source, table, []);
  return table.columns.map(({ name, dtype, type, rowShape }) => ({
    name,
    shape: [numRows, ...rowShape],
    dtype: dtype ?? type,
  }));
}

export async function openArrow(
  source: ByteSource,
  wanted: string | readonly string[] | undefined,
): Promise<{ name: string | undefined; rows: ArrayRows }> {
  const arrow = await importArrow();
  const table = await openTable(arrow, source);
  const { name, columns, dtype, rowShape } = selectColumns(source, table.columns, wanted);
  if (byteLength(rowShape, itemSizes[dtype]) === undefined) {
    throw fileError(`${source.name}: its lists have [${rowShape.join(', ')}] elements; it is damaged`);
  }
  checkRows(source, name === undefined ? 'the columns' : `column ${JSON.stringify(name)}`, [1, ...rowShape]);
  const { batches, numRows } = await readBatches(arrow, source, table, columns);
  return { name, rows: new ArrowRows(source, [numRows, ...rowShape], dtype, batches, columns.length) };
}
