import { allocate, type DType, type TypedArray } from '../dtype.js';
import { abortError, describe, rangeError, typeError, unsupportedFile } from '../errors.js';
import { checkOptions, booleanOption, numberOption } from '../options.js';
import { numel, showShape } from '../shape.js';
import { Tensor } from '../tensor.js';
import { bytesOf, itemSizes, swapBytes } from './elements.js';
import { count, readFully, type ByteSource } from './source.js';

/** 'arrow' is both of its forms, the file and the stream. */
export type FileFormat = 'npy' | 'npz' | 'safetensors' | 'arrow' | 'parquet';

export const fileFormats: readonly FileFormat[] = ['npy', 'npz', 'safetensors', 'arrow', 'parquet'];

/** An array of a file. */
export interface ArrayInfo {
  /** Undefined in a file that has one array without a name, as .npy. */
  readonly name: string | undefined;
  readonly shape: readonly number[];
  /** As the file calls it where it is none of surprisal's. */
  readonly dtype: string;
}

export interface BlockOptions {
  /** Rows of each block but the last. By default as many as 4 MiB hold, at least one. */
  rowsPerBlock?: number;
  /** The first row. 0 by default. */
  start?: number;
  /** The row after the last. By default the number of rows. */
  end?: number;
  /**
   * Take turns with two buffers, which is what keeps up with the file: a block is valid until the next one is asked for,
   * and using its tensor after its memory was taken throws ERR_DISPOSED. True by default; false gives each block memory of
   * its own, to be kept.
   */
  reuse?: boolean;
  /**
   * K: the rows are K splits of a batch, one after another, as JsdCrossEntropy has them. A block is then the same rows of
   * each split, K·rowsPerBlock in all, and start, end and rowsPerBlock are of one split. 1 by default.
   */
  splits?: number;
  /** Stops reading: the iterator throws an AbortError with the code ERR_ABORTED. */
  signal?: AbortSignal;
}

/** A pass over the rows of an array, from the first asked for to the last. */
export interface RowPass {
  /** Whether a `fill` may start before the last one has ended. */
  readonly concurrent?: boolean;
  /** Fills `data` with the next whole rows. */
  fill(data: TypedArray): Promise<void>;
  close?(): void | Promise<void>;
}

/** What a format says of one array, checked against the file's size. */
export interface ArrayRows {
  readonly shape: readonly number[];
  readonly dtype: DType;
  pass(start: number, end: number): RowPass;
}

export const defaultBlockBytes = 4 * 2 ** 20;

/** Bytes of a row of what is compressed, at most: it may be one a thousand times as large as its file. */
const largestCompressedRow = 64 * 2 ** 20;

/** Refuses rows that would take much more memory than their file. */
export function checkCompressedRow(source: ByteSource, what: string, rowBytes: number): void {
  if (rowBytes <= Math.max(largestCompressedRow, source.size)) return;
  throw unsupportedFile(
    `${source.name}: expected rows of at most ${count(largestCompressedRow)} bytes in compressed data, but those of ` +
      `${what} have ${count(rowBytes)} in a file of ${count(source.size)}; save it without compression if that is right`,
  );
}

/** Refuses arrays that are no rows of numbers. */
export function checkRows(source: ByteSource, what: string, shape: readonly number[]): void {
  if (shape.length > 0 && !shape.includes(0, 1)) return;
  throw unsupportedFile(
    `${source.name}: expected an array of rows, [N] or [N, C, ...] with C above 0, but ${what} has shape ${showShape(shape)}`,
  );
}

/** What sees the bytes of a pass as they are read: a checksum. */
export interface PassCheck {
  update(bytes: Uint8Array): void;
  /** Throws ERR_FILE where the array is not what it was when it was written. */
  finish(): void;
}

/** Rows that stand in a source one after another, as elements stand in memory. */
export class PlainRows implements ArrayRows {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly #source: ByteSource;
  readonly #offset: number;
  readonly #swapped: boolean;
  readonly #check: (() => PassCheck) | undefined;

  /**
   * @param offset of the first element, in bytes
   * @param swapped whether the bytes of an element are in the other order than here
   * @param check for passes over all rows
   */
  constructor(
    source: ByteSource,
    offset: number,
    shape: readonly number[],
    dtype: DType,
    swapped = false,
    check?: () => PassCheck,
  ) {
    this.shape = shape;
    this.dtype = dtype;
    this.#source = source;
    this.#offset = offset;
    this.#swapped = swapped;
    this.#check = check;
  }

  pass(start: number, end: number): RowPass {
    const itemSize = itemSizes[this.dtype];
    const rowBytes = numel(this.shape, 1) * itemSize;
    let offset = this.#offset + start * rowBytes;
    const stop = this.#offset + end * rowBytes;
    const check = start === 0 && end === this.shape[0] ? this.#check?.() : undefined;
    return {
      // A checksum takes the bytes in order.
      concurrent: check === undefined,
      fill: async (data) => {
        const bytes = bytesOf(data);
        const from = offset;
        offset += bytes.length;
        await readFully(this.#source, bytes, from);
        check?.update(bytes);
        if (from + bytes.length === stop) check?.finish();
        if (this.#swapped) swapBytes(bytes, itemSize);
      },
    };
  }
}

function checkSignal(owner: string, signal: unknown): AbortSignal | undefined {
  if (signal === undefined || signal instanceof AbortSignal) return signal;
  throw typeError('ERR_OPTION', `${owner}: expected an AbortSignal for signal, got ${describe(signal)}`);
}

export const throwIfAborted = (signal: AbortSignal | undefined): void => {
  if (signal?.aborted) throw abortError(signal.reason, 'the operation was aborted');
};

/** Fills each pass's part of a block; all of them have ended when it settles. */
async function fillParts(passes: readonly RowPass[], data: TypedArray, length: number): Promise<void> {
  const fills = await Promise.allSettled(
    passes.map((pass, k) => pass.fill(data.subarray(k * length, (k + 1) * length))),
  );
  for (const fill of fills) if (fill.status === 'rejected') throw fill.reason;
}

interface Plan {
  readonly start: number;
  readonly end: number;
  readonly splits: number;
  readonly rowsPerBlock: number;
  readonly reuse: boolean;
  readonly signal: AbortSignal | undefined;
}

/**
 * The rows of one array of an open file, read in blocks. `openRows` makes it; `close()` or `await using` closes the file.
 */
export class RowReader implements AsyncDisposable, AsyncIterable<Tensor> {
  readonly format: FileFormat;
  /** The array's name in its file; undefined in .npy. */
  readonly name: string | undefined;
  /** [N, ...]: all rows. */
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly #rows: ArrayRows;
  readonly #source: ByteSource;
  #closing: Promise<void> | undefined;
  readonly #reads = new Set<Promise<unknown>>();

  /** Use `openRows()`, which checks. */
  constructor(format: FileFormat, name: string | undefined, rows: ArrayRows, source: ByteSource) {
    this.format = format;
    this.name = name;
    this.shape = rows.shape;
    this.dtype = rows.dtype;
    this.#rows = rows;
    this.#source = source;
  }

  get numRows(): number {
    return this.shape[0]!;
  }

  /** The shape of one row: [C] of logits [N, C], [] of class indices [N]. */
  get rowShape(): readonly number[] {
    return this.shape.slice(1);
  }

  /** Bytes of one row in memory. */
  get bytesPerRow(): number {
    return numel(this.shape, 1) * itemSizes[this.dtype];
  }

  #plan(owner: string, options: BlockOptions | undefined): Plan {
    const checked = checkOptions(owner, options, [
      'rowsPerBlock',
      'start',
      'end',
      'reuse',
      'splits',
      'signal',
    ]);
    const splits = numberOption(owner, 'splits', checked.splits ?? 1, { min: 1, integer: true });
    if (this.numRows % splits !== 0) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected rows that make up ${splits} splits, got ${count(this.numRows)} in ${this.#source.name}`,
      );
    }
    const numRows = this.numRows / splits;
    const start = numberOption(owner, 'start', checked.start ?? 0, { min: 0, max: numRows, integer: true });
    const end = numberOption(owner, 'end', checked.end ?? numRows, {
      min: start,
      max: numRows,
      integer: true,
    });
    const rowsPerBlock = numberOption(
      owner,
      'rowsPerBlock',
      checked.rowsPerBlock ?? Math.max(1, Math.floor(defaultBlockBytes / (splits * this.bytesPerRow))),
      { min: 1, integer: true },
    );
    const reuse = booleanOption(owner, 'reuse', checked.reuse ?? true);
    const signal = checkSignal(owner, checked.signal);
    this.#checkOpen(owner);
    return { start, end, splits, rowsPerBlock, reuse, signal };
  }

  #checkOpen(owner: string): void {
    if (this.#closing === undefined) return;
    throw typeError('ERR_DISPOSED', `${owner}: ${this.#source.name} was closed; open it again`);
  }

  /**
   * The rows in order, in tensors of shape [n, ...rowShape], n rows each and the rest in the last. While one is worked at
   * the next is being read. A block is valid until the next one is asked for, unless `reuse` is false. Each iterator reads
   * for itself; several may be at work.
   *
   * @throws ERR_OPTION; while iterating ERR_ABORTED, ERR_FILE for data that is damaged or gone, ERR_DISPOSED after
   * `close()`, and the file system's own errors.
   */
  blocks(options?: BlockOptions): AsyncGenerator<Tensor, void, undefined> {
    return this.#generate(this.#plan('blocks', options));
  }

  [Symbol.asyncIterator](): AsyncGenerator<Tensor, void, undefined> {
    return this.blocks();
  }

  async *#generate({
    start,
    end,
    splits,
    rowsPerBlock,
    reuse,
    signal,
  }: Plan): AsyncGenerator<Tensor, void, undefined> {
    throwIfAborted(signal);
    this.#checkOpen('blocks');
    const splitRows = this.numRows / splits;
    const passes = Array.from({ length: splits }, (_, k) =>
      this.#rows.pass(k * splitRows + start, k * splitRows + end),
    );
    const concurrent = passes.every((pass) => pass.concurrent);
    const rowLength = numel(this.shape, 1);
    const taken: { readonly data: TypedArray; readonly block: Tensor }[] = [];
    let turn = 0;
    const read = async (first: number): Promise<Tensor> => {
      const rows = Math.min(rowsPerBlock, end - first);
      const part = rows * rowLength;
      const length = splits * part;
      const last = reuse ? taken[turn] : undefined;
      last?.block.dispose();
      // Memory that was transferred away has length 0.
      let data = last !== undefined && last.data.length >= length ? last.data : allocate(this.dtype, length);
      if (data.length > length) data = data.subarray(0, length);
      const block = new Tensor(data, [splits * rows, ...this.rowShape], this.dtype);
      if (reuse) taken[turn] = { data, block };
      turn = 1 - turn;
      if (!concurrent) await Promise.all(queue);
      if (splits === 1) await passes[0]!.fill(data);
      else await fillParts(passes, data, part);
      return block;
    };
    // Two reads are under way where nothing is at work in a block: then no time passes between the two.
    const queue: Promise<Tensor>[] = [];
    let row = start;
    const readNext = (): void => {
      if (row >= end) return;
      const reading = read(row);
      row += rowsPerBlock;
      queue.push(reading);
      // Whoever awaits it sees the error; until then it is nobody's.
      const settled = reading.then(
        () => undefined,
        () => undefined,
      );
      this.#reads.add(settled);
      void settled.then(() => this.#reads.delete(settled));
    };
    try {
      readNext();
      readNext();
      while (queue.length > 0) {
        const block = await queue[0]!;
        throwIfAborted(signal);
        this.#checkOpen('blocks');
        void queue.shift();
        yield block;
        throwIfAborted(signal);
        this.#checkOpen('blocks');
        readNext();
      }
    } finally {
      await Promise.allSettled(queue);
      for (const pass of passes) await pass.close?.();
    }
  }

  /**
   * Rows [start, end) in one tensor; all of them by default.
   *
   * @throws as `blocks` does, and ERR_OUT_OF_MEMORY
   */
  async read(options: Pick<BlockOptions, 'start' | 'end' | 'signal'> = {}): Promise<Tensor> {
    const owner = 'read';
    const { start, end, signal } = checkOptions(owner, options, ['start', 'end', 'signal']);
    const plan = this.#plan(owner, {
      ...(start !== undefined && { start }),
      ...(end !== undefined && { end }),
      ...(signal !== undefined && { signal }),
      rowsPerBlock: Math.max(1, (end ?? this.numRows) - (start ?? 0)),
      reuse: false,
    });
    for await (const block of this.#generate(plan)) return block;
    return new Tensor(allocate(this.dtype, 0), [0, ...this.rowShape], this.dtype);
  }

  /** Closes the file, once the reads at work are done. Closing it again does nothing. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      await Promise.all(this.#reads);
      await this.#source.close?.();
    })();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
