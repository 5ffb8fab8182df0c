import { constants } from 'node:buffer';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, fileError, typeError, unsupportedFile } from '../errors.js';

/**
 * Bytes that can be read at any offset: a file, memory, an object in a store. Every reader works on one, so that one of
 * your own is read as a file is.
 */
export interface ByteSource {
  /** How messages call it. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /**
   * Writes the bytes from `offset` on to the start of `into` and gives their number, at most `into.length`; 0 where there
   * are none. Reads may overlap in time.
   */
  read(into: Uint8Array, offset: number): number | Promise<number>;
  /** Called once, when no read is at work. */
  close?(): void | Promise<void>;
}

/** What readers open: a path, a `file:` URL, the bytes themselves, or a source of your own. */
export type FileLike = string | URL | Uint8Array | ArrayBuffer | ByteSource;

/** libuv takes no more in one read. */
const longestRead = 2 ** 30;

class FileSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #handle: FileHandle;

  constructor(name: string, size: number, handle: FileHandle) {
    this.name = name;
    this.size = size;
    this.#handle = handle;
  }

  async read(into: Uint8Array, offset: number): Promise<number> {
    const { bytesRead } = await this.#handle.read(into, 0, Math.min(into.length, longestRead), offset);
    return bytesRead;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

class MemorySource implements ByteSource {
  readonly name = 'the bytes given';
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get size(): number {
    return this.#bytes.length;
  }

  read(into: Uint8Array, offset: number): number {
    const part = this.#bytes.subarray(offset, offset + into.length);
    into.set(part);
    return part.length;
  }
}

const isByteSource = (value: unknown): value is ByteSource =>
  typeof value === 'object' &&
  value !== null &&
  Number.isSafeInteger((value as ByteSource).size) &&
  (value as ByteSource).size >= 0 &&
  typeof (value as ByteSource).read === 'function';

async function openFile(path: string): Promise<ByteSource> {
  const name = basename(path);
  // Looked at before it is opened: opening a pipe waits until somebody writes to it.
  if (!(await stat(path)).isFile()) {
    throw unsupportedFile(
      `${name}: expected a regular file, whose parts can be read in any order, but ${path} is a directory, a pipe or a device`,
    );
  }
  const handle = await open(path, 'r');
  try {
    return new FileSource(name, (await handle.stat()).size, handle);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** The source of what a caller gave. Errors of the file system pass as they are. */
export async function openSource(owner: string, file: unknown): Promise<ByteSource> {
  if (typeof file === 'string') return openFile(file);
  if (file instanceof URL && file.protocol === 'file:') return openFile(fileURLToPath(file));
  if (file instanceof Uint8Array) return new MemorySource(file);
  if (file instanceof ArrayBuffer) return new MemorySource(new Uint8Array(file));
  if (isByteSource(file)) return file;
  throw typeError(
    'ERR_OPTION',
    `${owner}: expected a path, a file: URL, a Uint8Array or a source { name, size, read(into, offset) }, ` +
      `got ${describe(file)}`,
  );
}

/** A count of bytes or rows as messages show it. */
export const count = (n: number | bigint): string => n.toLocaleString('en-US');

/** Fills `into` with the bytes from `offset` on. Throws ERR_FILE where the source ends before. */
export async function readFully(source: ByteSource, into: Uint8Array, offset: number): Promise<void> {
  let done = 0;
  while (done < into.length) {
    // Without an await where none is needed: sources in memory answer at once.
    const pending = source.read(done === 0 ? into : into.subarray(done), offset + done);
    const bytes = typeof pending === 'number' ? pending : await pending;
    if (!(bytes > 0 && bytes <= into.length - done)) {
      throw fileError(
        `${source.name}: expected ${count(into.length)} bytes from byte ${count(offset)} on, but they end after ` +
          `${count(done)}; it was cut off, or is being written to`,
      );
    }
    done += bytes;
  }
}

/**
 * The bytes [offset, offset + length) in memory of their own. Throws ERR_FILE, before it allocates, where the source
 * does not have them. `what` says what they are.
 */
export async function readBytes(
  source: ByteSource,
  offset: number,
  length: number,
  what: string,
): Promise<Uint8Array<ArrayBuffer>> {
  checkRange(source, offset, length, what);
  if (length > constants.MAX_LENGTH) {
    throw unsupportedFile(`${source.name}: ${what} has ${count(length)} bytes, more than Node.js can hold`);
  }
  const bytes = new Uint8Array(length);
  await readFully(source, bytes, offset);
  return bytes;
}

/** Throws ERR_FILE unless [offset, offset + length) lies within the source. */
export function checkRange(source: ByteSource, offset: number, length: number, what: string): void {
  if (offset >= 0 && length >= 0 && offset + length <= source.size) return;
  throw fileError(
    `${source.name}: expected ${what} of ${count(length)} bytes at byte ${count(offset)}, but the file has ` +
      `${count(source.size)} bytes; it was cut off or is damaged`,
  );
}

/** Part of a source as a source: a member of an archive. */
export class PartSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #whole: ByteSource;
  readonly #start: number;

  constructor(whole: ByteSource, start: number, size: number, name: string) {
    this.name = name;
    this.size = size;
    this.#whole = whole;
    this.#start = start;
  }

  read(into: Uint8Array, offset: number): number | Promise<number> {
    const length = Math.min(into.length, Math.max(this.size - offset, 0));
    if (length === 0) return 0;
    return this.#whole.read(into.subarray(0, length), this.#start + offset);
  }
}
