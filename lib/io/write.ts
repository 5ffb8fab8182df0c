import { fileURLToPath } from 'node:url';
import type { DType } from '../dtype.js';
import { describe, rangeError, typeError, unsupportedFile } from '../errors.js';
import { checkOptions } from '../options.js';
import { numel, sameShape, showShape } from '../shape.js';
import { asTensor, contiguous, type Tensor, type TensorLike } from '../tensor.js';
import { byteLength, bytesOf, hostIsLittleEndian, itemSizes, swapBytes } from './elements.js';
import { Replacement } from './replacement.js';
import { throwIfAborted } from './rows.js';
import { lengthBytes, longestHeader, safetensorsDTypes } from './safetensors.js';
import { count } from './source.js';

export interface NpyWriterOptions {
  /** By default the first block's. */
  dtype?: DType;
  /** The shape of one row; by default the first block's. */
  rowShape?: readonly number[];
}

export interface WriteOptions {
  /** Stops writing: the path stays as it was, and the call rejects with an AbortError whose code is ERR_ABORTED. */
  signal?: AbortSignal;
}

export interface WriteSafetensorsOptions extends WriteOptions {
  /** The header's `__metadata__`. */
  metadata?: Readonly<Record<string, string>>;
}

/** Rows that come block by block, with their shape and dtype known from the start: a `RowReader`, or your own. */
export interface RowBlocks {
  /** [N, ...]: of all blocks together. */
  readonly shape: readonly number[];
  readonly dtype: DType;
  /** Tensors of shape [n, ...], each used up before the next one is asked for. */
  blocks(): AsyncIterable<TensorLike>;
}

const npyTypes: Partial<Record<DType, string>> = {
  float64: 'f8',
  float32: 'f4',
  float16: 'f2',
  int64: 'i8',
  uint64: 'u8',
  int32: 'i4',
  uint32: 'u4',
  int16: 'i2',
  uint16: 'u2',
  int8: 'i1',
  uint8: 'u1',
  bool: 'b1',
};

function npyDescr(owner: string, dtype: DType): string {
  const type = npyTypes[dtype];
  if (type === undefined) {
    throw unsupportedFile(
      `${owner}: expected a dtype that NumPy has, got ${dtype}; write it with writeSafetensors, or convert it to float32`,
    );
  }
  return (itemSizes[dtype] === 1 ? '|' : hostIsLittleEndian ? '<' : '>') + type;
}

/** The bytes before the elements: version 1.0, padded to a multiple of 64 as NumPy does, and to at least `length`. */
function npyHeader(descr: string, sizes: readonly string[], length = 0): Uint8Array {
  const shape = sizes.length === 1 ? `(${sizes[0]!},)` : `(${sizes.join(', ')})`;
  const dictionary = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`;
  const whole = Math.max(length, Math.ceil((10 + dictionary.length + 1) / 64) * 64);
  const bytes = Buffer.from('\x93NUMPY\x01\x00  ' + dictionary.padEnd(whole - 11) + '\n', 'latin1');
  bytes.writeUInt16LE(whole - 10, 8);
  return bytes;
}

/** A tensor's elements in row-major order: its own memory where it is so already. */
function elements(tensor: Tensor, littleEndian = hostIsLittleEndian): Uint8Array {
  const itemSize = itemSizes[tensor.dtype];
  const own = bytesOf(contiguous(tensor).data).subarray(0, numel(tensor.shape) * itemSize);
  if (littleEndian === hostIsLittleEndian || itemSize === 1) return own;
  const bytes = own.slice();
  swapBytes(bytes, itemSize);
  return bytes;
}

function checkPath(owner: string, path: unknown): string {
  if (typeof path === 'string') return path;
  if (path instanceof URL && path.protocol === 'file:') return fileURLToPath(path);
  throw typeError('ERR_OPTION', `${owner}: expected a path or a file: URL, got ${describe(path)}`);
}

function checkWriteOptions<T extends WriteOptions>(
  owner: string,
  options: T | undefined,
  known: readonly (keyof T & string)[],
): T {
  const checked = checkOptions(owner, options, known);
  const { signal } = checked;
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw typeError('ERR_OPTION', `${owner}: expected an AbortSignal for signal, got ${describe(signal)}`);
  }
  throwIfAborted(signal);
  return checked;
}

/** The widest number of rows that a header is written for, before it is known. */
const widestCount = String(Number.MAX_SAFE_INTEGER);

/**
 * Writes a .npy file of rows that come block by block. The file takes the place of the path in `close()`, once it is
 * whole: it is written beside it, under a name that ends in .tmp, brought to the disk and renamed. Leaving the scope of an
 * `await using` before `close()`, or `discard()`, removes it and leaves the path as it was.
 */
export class NpyWriter implements AsyncDisposable {
  readonly #file: Replacement;
  #dtype: DType | undefined;
  #rowShape: readonly number[] | undefined;
  #header: Uint8Array | undefined;
  #offset = 0;
  #numRows = 0;
  readonly #writes = new Set<Promise<void>>();
  #failure: Error | undefined;
  #ended = false;

  private constructor(file: Replacement, dtype: DType | undefined, rowShape: readonly number[] | undefined) {
    this.#file = file;
    this.#dtype = dtype;
    this.#rowShape = rowShape;
  }

  /**
   * @throws ERR_OPTION, ERR_FILE_UNSUPPORTED for bfloat16, which .npy does not have, and the file system's own errors
   */
  static async open(path: string | URL, options?: NpyWriterOptions): Promise<NpyWriter> {
    const owner = 'NpyWriter';
    const { dtype, rowShape } = checkOptions(owner, options, ['dtype', 'rowShape']);
    if (dtype !== undefined && !Object.hasOwn(itemSizes, dtype)) {
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected a dtype among ${Object.keys(itemSizes).join(', ')}, got ${describe(dtype)}`,
      );
    }
    if (dtype !== undefined) npyDescr(owner, dtype);
    if (rowShape !== undefined && (!Array.isArray(rowShape) || byteLength(rowShape, 1) === undefined)) {
      throw typeError('ERR_SHAPE', `${owner}: expected a shape for rowShape, got ${describe(rowShape)}`);
    }
    return new NpyWriter(await Replacement.open(checkPath(owner, path)), dtype, rowShape);
  }

  /** Rows written so far. */
  get numRows(): number {
    return this.#numRows;
  }

  #start(dtype: DType, rowShape: readonly number[]): void {
    this.#header = npyHeader(npyDescr('NpyWriter', dtype), [widestCount, ...rowShape.map(String)]);
    this.#dtype = dtype;
    this.#rowShape = rowShape;
    this.#offset = this.#header.length;
  }

  /**
   * Appends rows: a tensor of shape [n, ...rowShape]. Don't write to its memory until the promise settles.
   *
   * @throws ERR_SHAPE and ERR_DTYPE for rows unlike the first ones, ERR_DISPOSED after `close()`, and the file system's
   * own errors
   */
  async write(block: TensorLike): Promise<void> {
    const owner = 'NpyWriter.write';
    if (this.#ended) throw typeError('ERR_DISPOSED', `${owner}: the file was closed; open another writer`);
    const tensor = asTensor(block, 'block');
    const [rows, ...rowShape] = tensor.shape;
    if (rows === undefined) {
      throw rangeError('ERR_SHAPE', `${owner}: expected rows, a tensor of shape [n, ...], got shape []`);
    }
    if (tensor.dtype !== (this.#dtype ?? tensor.dtype)) {
      throw typeError('ERR_DTYPE', `${owner}: expected rows of ${this.#dtype!}, got ${tensor.dtype}`);
    }
    if (!sameShape(rowShape, this.#rowShape ?? rowShape)) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected rows of shape ${showShape(this.#rowShape!)}, got ${showShape(rowShape)}`,
      );
    }
    if (this.#header === undefined) this.#start(tensor.dtype, rowShape);
    const bytes = elements(tensor);
    const offset = this.#offset;
    this.#offset += bytes.length;
    this.#numRows += rows;
    const writing = this.#file.write(bytes, offset);
    const settled = writing.catch((error: unknown) => {
      this.#failure ??= error as Error;
    });
    this.#writes.add(settled);
    await settled;
    this.#writes.delete(settled);
    await writing;
  }

  /**
   * Completes the file and puts it in its place. Where a write failed it is removed instead, with that write's error.
   *
   * @throws ERR_SHAPE where nothing was written and the options don't say what of, and the file system's own errors
   */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await Promise.all(this.#writes);
    try {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#header === undefined) {
        if (this.#dtype === undefined || this.#rowShape === undefined) {
          throw rangeError(
            'ERR_SHAPE',
            'NpyWriter: expected a block before close(), or dtype and rowShape among the options, to know what no rows are of',
          );
        }
        this.#start(this.#dtype, this.#rowShape);
      }
      const sizes = [this.#numRows, ...this.#rowShape!].map(String);
      await this.#file.write(npyHeader(npyDescr('NpyWriter', this.#dtype!), sizes, this.#header!.length), 0);
    } catch (error) {
      await this.#file.discard();
      throw error;
    }
    await this.#file.commit();
  }

  /** Removes what was written; the path stays as it was. After `close()` it does nothing. */
  async discard(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await Promise.all(this.#writes);
    await this.#file.discard();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.discard();
  }
}

const isAsyncIterable = (value: unknown): value is AsyncIterable<TensorLike> =>
  typeof value === 'object' && value !== null && Symbol.asyncIterator in value;

const isRowBlocks = (value: unknown): value is RowBlocks =>
  typeof value === 'object' && value !== null && typeof (value as RowBlocks).blocks === 'function';

/**
 * Writes a .npy file: of one tensor of any shape, or of rows that come in blocks of shape [n, ...], as a `RowReader`'s do,
 * which may be more than memory holds. The path is replaced once the file is whole, as `NpyWriter` does it.
 *
 * @throws ERR_FILE_UNSUPPORTED for bfloat16, which .npy does not have; ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_ABORTED; what
 * the blocks' iterator throws, and the file system's own errors
 */
export async function writeNpy(
  path: string | URL,
  data: TensorLike | RowBlocks | AsyncIterable<TensorLike>,
  options?: WriteOptions,
): Promise<void> {
  const owner = 'writeNpy';
  const { signal } = checkWriteOptions(owner, options, ['signal']);
  if (isRowBlocks(data) || isAsyncIterable(data)) {
    const known = isRowBlocks(data) ? { dtype: data.dtype, rowShape: data.shape.slice(1) } : {};
    await using writer = await NpyWriter.open(path, known);
    for await (const block of isRowBlocks(data) ? data.blocks() : data) {
      throwIfAborted(signal);
      await writer.write(block);
    }
    throwIfAborted(signal);
    await writer.close();
    return;
  }
  const tensor = asTensor(data, 'data');
  const header = npyHeader(npyDescr(owner, tensor.dtype), tensor.shape.map(String));
  const file = await Replacement.open(checkPath(owner, path));
  try {
    await file.write(header, 0);
    await file.write(elements(tensor), header.length);
    throwIfAborted(signal);
  } catch (error) {
    await file.discard();
    throw error;
  }
  await file.commit();
}

interface Entry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly blocks: () => AsyncIterable<TensorLike>;
  readonly bytes: number;
}

function entryOf(owner: string, name: string, value: TensorLike | RowBlocks): Entry {
  if (name === '__metadata__') {
    throw rangeError(
      'ERR_OPTION',
      `${owner}: expected another name than __metadata__ for a tensor; it is the format's own`,
    );
  }
  const rows = isRowBlocks(value) ? value : wholeTensor(asTensor(value, name));
  const { shape, dtype } = rows;
  const itemSize = Object.hasOwn(itemSizes, dtype) ? itemSizes[dtype] : undefined;
  const bytes = itemSize === undefined || !Array.isArray(shape) ? undefined : byteLength(shape, itemSize);
  if (bytes === undefined) {
    throw typeError(
      'ERR_SHAPE',
      `${owner}: expected a shape and a dtype of ${describe(name)}, got ${describe(shape)} and ${describe(dtype)}`,
    );
  }
  return { name, shape, dtype, blocks: () => rows.blocks(), bytes };
}

const wholeTensor = (tensor: Tensor): RowBlocks => ({
  shape: tensor.shape,
  dtype: tensor.dtype,
  blocks: async function* () {
    yield tensor;
  },
});

/** Those with larger elements first, so that each is aligned; then by name. */
const inOrder = (a: Entry, b: Entry): number =>
  itemSizes[b.dtype] - itemSizes[a.dtype] || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);

function safetensorsHeader(owner: string, entries: readonly Entry[], metadata: unknown): Uint8Array {
  const header: [string, unknown][] = [];
  if (metadata !== undefined) {
    const values: readonly unknown[] =
      typeof metadata === 'object' && metadata !== null ? Object.values(metadata) : [0];
    if (!values.every((value) => typeof value === 'string')) {
      throw typeError(
        'ERR_OPTION',
        `${owner}: expected an object of strings for metadata, got ${describe(metadata)}`,
      );
    }
    header.push(['__metadata__', metadata]);
  }
  let begin = 0;
  for (const { name, shape, dtype, bytes } of entries) {
    header.push([name, { dtype: safetensorsDTypes[dtype], shape, data_offsets: [begin, begin + bytes] }]);
    begin += bytes;
  }
  // Text of its own, since an object would put names that are integers in front.
  const json = `{${header.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`;
  const text = Buffer.from(json, 'utf8');
  // Spaces, so that the first tensor starts at a cache line, as in .npy: it is read faster.
  const length = Math.ceil((lengthBytes + text.length) / 64) * 64 - lengthBytes;
  if (length > longestHeader) {
    throw rangeError(
      'ERR_OPTION',
      `${owner}: expected names of fewer than ${count(longestHeader)} bytes in all`,
    );
  }
  const bytes = Buffer.alloc(lengthBytes + length, ' ');
  bytes.writeBigUInt64LE(BigInt(length), 0);
  text.copy(bytes, lengthBytes);
  return bytes;
}

/**
 * Writes a safetensors file of tensors by name: any tensors, or rows that come in blocks, as a `RowReader` gives them.
 * The path is replaced once the file is whole, as `NpyWriter` does it.
 *
 * @throws ERR_SHAPE and ERR_DTYPE, also for blocks unlike what their `shape` and `dtype` say; ERR_OPTION, ERR_ABORTED; what
 * the blocks' iterators throw, and the file system's own errors
 */
export async function writeSafetensors(
  path: string | URL,
  tensors: Readonly<Record<string, TensorLike | RowBlocks>>,
  options?: WriteSafetensorsOptions,
): Promise<void> {
  const owner = 'writeSafetensors';
  const { metadata, signal } = checkWriteOptions(owner, options, ['metadata', 'signal']);
  if (typeof tensors !== 'object' || tensors === null || Array.isArray(tensors)) {
    throw typeError('ERR_OPTION', `${owner}: expected tensors by name, got ${describe(tensors)}`);
  }
  const entries = Object.entries(tensors)
    .map(([name, value]) => entryOf(owner, name, value))
    .sort(inOrder);
  const header = safetensorsHeader(owner, entries, metadata);
  const file = await Replacement.open(checkPath(owner, path));
  try {
    await file.write(header, 0);
    let offset = header.length;
    for (const entry of entries) {
      await writeBlocks(owner, file, entry, offset, signal);
      offset += entry.bytes;
    }
  } catch (error) {
    await file.discard();
    throw error;
  }
  await file.commit();
}

async function writeBlocks(
  owner: string,
  file: Replacement,
  { name, shape, dtype, blocks, bytes }: Entry,
  start: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  let done = 0;
  for await (const value of blocks()) {
    throwIfAborted(signal);
    const block = asTensor(value, name);
    const part = elements(block, true);
    if (
      block.dtype !== dtype ||
      !sameShape(block.shape.slice(1), shape.slice(1)) ||
      done + part.length > bytes
    ) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected blocks that make up ${describe(name)}, ${dtype} of shape ${showShape(shape)}, got ${block.dtype} of ` +
          `shape ${showShape(block.shape)} after ${count(done)} bytes`,
      );
    }
    await file.write(part, start + done);
    done += part.length;
  }
  throwIfAborted(signal);
  if (done < bytes) {
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected blocks that make up ${describe(name)}, ${dtype} of shape ${showShape(shape)}, but they ended after ` +
        `${count(done)} of ${count(bytes)} bytes`,
    );
  }
}
