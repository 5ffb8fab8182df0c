/**
 * What .npz needs of the zip format (PKWARE's APPNOTE 6.3): members that are stored or deflated, zip64, data descriptors.
 * The central directory alone says where members are and how large; the local headers have to agree with it.
 */
import { crc32, createInflateRaw, type InflateRaw } from 'node:zlib';
import { pipeline, Readable } from 'node:stream';
import { fileError, unsupportedFile } from '../errors.js';
import { checkRange, count, readBytes, readFully, type ByteSource } from './source.js';

export interface ZipMember {
  readonly name: string;
  /** 0: stored, 8: deflated. */
  readonly method: number;
  readonly encrypted: boolean;
  readonly crc: number;
  readonly compressedSize: number;
  readonly size: number;
  /** Of the local header. */
  readonly offset: number;
  /** Where the next member or the directory starts: the member can't reach beyond. */
  readonly limit: number;
}

const signatures = {
  local: 0x04034b50,
  central: 0x02014b50,
  end: 0x06054b50,
  end64: 0x06064b50,
  locator: 0x07064b50,
};

const endLength = 22;
const locatorLength = 20;
const end64Length = 56;
const centralLength = 46;
const localLength = 30;

/** The directory is kept in memory; this many bytes list half a million members. */
const longestDirectory = 2 ** 25;

/** Deflate makes at most 258 bytes of 2 bits, and a block costs a few bytes more. */
const mostInflation = 1032;

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** A 64-bit length or offset; past 2^53 it can't be right, and stays so as a number. */
const uint64 = (view: DataView, offset: number): number => Number(view.getBigUint64(offset, true));

interface Directory {
  readonly offset: number;
  readonly length: number;
  readonly members: number;
}

async function findDirectory(source: ByteSource): Promise<Directory> {
  const { name, size } = source;
  // A comment of up to 65,535 bytes may follow the record.
  const tailLength = Math.min(size, endLength + 0xffff);
  const tail = await readBytes(source, size - tailLength, tailLength, 'the end of the archive');
  const view = viewOf(tail);
  let at = tailLength - endLength;
  while (
    at >= 0 &&
    !(
      view.getUint32(at, true) === signatures.end &&
      at + endLength + view.getUint16(at + 20, true) === tailLength
    )
  ) {
    at--;
  }
  if (at < 0) {
    throw fileError(`${name}: expected a zip archive's directory at its end; it was cut off or is damaged`);
  }
  const [disk, firstDisk] = [view.getUint16(at + 4, true), view.getUint16(at + 6, true)];
  let members = view.getUint16(at + 10, true);
  let length = view.getUint32(at + 12, true);
  let offset = view.getUint32(at + 16, true);
  let end = size - tailLength + at;
  const locatorAt = at - locatorLength;
  if (locatorAt >= 0 && view.getUint32(locatorAt, true) === signatures.locator) {
    const end64 = uint64(view, locatorAt + 8);
    const record = viewOf(await readBytes(source, end64, end64Length, 'the zip64 directory record'));
    if (record.getUint32(0, true) !== signatures.end64) {
      throw fileError(`${name}: expected a zip64 directory record at byte ${count(end64)}; it is damaged`);
    }
    members = uint64(record, 32);
    length = uint64(record, 40);
    offset = uint64(record, 48);
    end = end64;
  } else if (disk !== 0 || firstDisk !== 0) {
    throw unsupportedFile(`${name}: expected a zip archive in one file, got a part of several`);
  }
  // Every member takes at least its fixed fields, so a false count is found before anything is made of it.
  if (!(offset + length <= end) || members * centralLength > length) {
    throw fileError(
      `${name}: its directory of ${count(members)} members in ${count(length)} bytes at byte ${count(offset)} doesn't fit ` +
        `in front of its end at byte ${count(end)}; it is damaged`,
    );
  }
  if (length > longestDirectory) {
    throw unsupportedFile(
      `${name}: expected a directory of at most ${count(longestDirectory)} bytes, got ${count(length)}`,
    );
  }
  return { offset, length, members };
}

type Entry = Omit<ZipMember, 'limit'>;

function readEntry(archive: string, view: DataView, at: number): { entry: Entry; end: number } {
  const damaged = (what: string) => fileError(`${archive}: ${what} in its directory; it is damaged`);
  if (at + centralLength > view.byteLength || view.getUint32(at, true) !== signatures.central) {
    throw damaged('a member is missing');
  }
  const flags = view.getUint16(at + 8, true);
  const nameLength = view.getUint16(at + 28, true);
  const extraLength = view.getUint16(at + 30, true);
  const extra = at + centralLength + nameLength;
  const end = extra + extraLength + view.getUint16(at + 32, true);
  if (end > view.byteLength) throw damaged('a member reaches beyond the end');
  const name = new TextDecoder(flags & 0x800 ? 'utf-8' : 'latin1').decode(
    new Uint8Array(view.buffer, view.byteOffset + at + centralLength, nameLength),
  );
  // The zip64 field has, in this order, those values that their own fields are too small for.
  const values = {
    size: view.getUint32(at + 24, true),
    compressedSize: view.getUint32(at + 20, true),
    offset: view.getUint32(at + 42, true),
  };
  for (let field = extra; field + 4 <= extra + extraLength;) {
    const [id, fieldLength] = [view.getUint16(field, true), view.getUint16(field + 2, true)];
    let value = field + 4;
    field = value + fieldLength;
    if (field > extra + extraLength) throw damaged(`the extra field of ${name} is cut off`);
    if (id !== 1) continue;
    for (const key of ['size', 'compressedSize', 'offset'] as const) {
      if (values[key] !== 0xffffffff) continue;
      if (value + 8 > field) throw damaged(`the zip64 field of ${name} is cut off`);
      values[key] = uint64(view, value);
      value += 8;
    }
    break;
  }
  const entry = {
    name,
    method: view.getUint16(at + 10, true),
    encrypted: (flags & 1) !== 0,
    crc: view.getUint32(at + 16, true),
    ...values,
  };
  return { entry, end };
}

/** The members of an archive, in the order of its directory. */
export async function readZipDirectory(source: ByteSource): Promise<ZipMember[]> {
  const directory = await findDirectory(source);
  const view = viewOf(await readBytes(source, directory.offset, directory.length, 'the directory'));
  const entries: Entry[] = [];
  for (let at = 0; entries.length < directory.members;) {
    const { entry, end } = readEntry(source.name, view, at);
    entries.push(entry);
    at = end;
  }
  const names = new Set<string>();
  const limits = new Map<Entry, number>();
  let limit = directory.offset;
  for (const entry of [...entries].sort((a, b) => b.offset - a.offset)) {
    const { name, offset, compressedSize } = entry;
    if (names.has(name))
      throw fileError(`${source.name}: ${name} is there twice; it is damaged or was made to mislead`);
    names.add(name);
    // Members that share bytes are how a small archive claims to be a huge one.
    if (!(offset + localLength + compressedSize <= limit)) {
      throw fileError(
        `${source.name}: ${name}, ${count(compressedSize)} bytes at byte ${count(offset)}, reaches into what follows at ` +
          `byte ${count(limit)}; it is damaged or was made to mislead`,
      );
    }
    limits.set(entry, limit);
    limit = offset;
  }
  return entries.map((entry) => ({ ...entry, limit: limits.get(entry)! }));
}

/** Checks a member's local header. Gives the offset of its data. */
export async function memberData(source: ByteSource, member: ZipMember): Promise<number> {
  const { name, method, encrypted, size, compressedSize, offset } = member;
  const where = `${source.name}: ${name}`;
  if (encrypted) throw unsupportedFile(`${where} is encrypted; save it without a password`);
  if (method !== 0 && method !== 8) {
    throw unsupportedFile(
      `${where}: expected a member that is stored or deflated, as np.savez and np.savez_compressed write them, got ` +
        `compression method ${method}`,
    );
  }
  if (method === 0 ? size !== compressedSize : size > compressedSize * mostInflation) {
    throw fileError(
      `${where} claims to be ${count(size)} bytes out of ${count(compressedSize)}, which ` +
        `${method === 0 ? 'are stored as they are' : `can't inflate to more than ${count(compressedSize * mostInflation)}`}; ` +
        `it is damaged or was made to mislead`,
    );
  }
  checkRange(source, offset, localLength, `the header of ${name}`);
  const view = viewOf(await readBytes(source, offset, localLength, `the header of ${name}`));
  const data = offset + localLength + view.getUint16(26, true) + view.getUint16(28, true);
  if (view.getUint32(0, true) !== signatures.local || view.getUint16(8, true) !== method) {
    throw fileError(
      `${where}: its header at byte ${count(offset)} is another than the directory's; it is damaged`,
    );
  }
  if (data + compressedSize > member.limit) {
    throw fileError(`${where} reaches into what follows it; it is damaged or was made to mislead`);
  }
  return data;
}

/** The checksum of a member that is read from its start to its end. */
export class MemberChecksum {
  readonly #where: string;
  readonly #expected: number;
  #crc = 0;

  constructor(source: ByteSource, member: ZipMember) {
    this.#where = `${source.name}: ${member.name}`;
    this.#expected = member.crc;
  }

  update(bytes: Uint8Array): void {
    this.#crc = crc32(bytes, this.#crc);
  }

  finish(): void {
    if (this.#crc === this.#expected) return;
    throw fileError(
      `${this.#where}: expected the checksum ${this.#expected.toString(16)}, got ${this.#crc.toString(16)}; it is damaged`,
    );
  }
}

const chunkBytes = 2 ** 16;

/** The bytes of a deflated member, from its start on, in memory of a chunk. */
export class InflatedMember {
  readonly #source: ByteSource;
  readonly #member: ZipMember;
  readonly #inflater: InflateRaw;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #checksum: MemberChecksum;
  #chunk: Uint8Array = new Uint8Array(0);
  #left: number;
  #failure: Error | undefined;

  /** @param data offset of the compressed bytes */
  constructor(source: ByteSource, member: ZipMember, data: number) {
    this.#source = source;
    this.#member = member;
    this.#left = member.size;
    this.#checksum = new MemberChecksum(source, member);
    this.#inflater = createInflateRaw({ chunkSize: Math.max(64, Math.min(chunkBytes, member.size)) });
    const compressed = Readable.from(this.#compressed(data), { objectMode: false });
    this.#chunks = pipeline(compressed, this.#inflater, () => undefined)[
      Symbol.asyncIterator
    ]() as AsyncIterator<Buffer>;
  }

  async *#compressed(data: number): AsyncGenerator<Uint8Array> {
    const end = data + this.#member.compressedSize;
    try {
      for (let offset = data; offset < end;) {
        const bytes = new Uint8Array(Math.min(chunkBytes, end - offset));
        await readFully(this.#source, bytes, offset);
        offset += bytes.length;
        yield bytes;
      }
    } catch (error) {
      this.#failure = error as Error;
      throw error;
    }
  }

  #damaged(what: string, cause?: unknown) {
    const { name, compressedSize } = this.#member;
    return fileError(
      `${this.#source.name}: ${name}: its ${count(compressedSize)} compressed bytes ${what}; it is damaged`,
      cause,
    );
  }

  async #next(): Promise<boolean> {
    try {
      const next = await this.#chunks.next();
      this.#chunk = next.done ? new Uint8Array(0) : next.value;
      return !next.done;
    } catch (error) {
      if (this.#failure !== undefined) throw this.#failure;
      throw this.#damaged(`can't be inflated (${(error as Error).message})`, error);
    }
  }

  /** The next bytes, at most `most`, in the inflater's memory; throws where there are none. */
  async #take(most: number): Promise<Uint8Array> {
    while (this.#chunk.length === 0) {
      if (!(await this.#next())) {
        throw this.#damaged(
          `inflate to ${count(this.#member.size - this.#left)}, not to ${count(this.#member.size)}`,
        );
      }
    }
    const part = this.#chunk.subarray(0, most);
    this.#chunk = this.#chunk.subarray(part.length);
    this.#left -= part.length;
    this.#checksum.update(part);
    return part;
  }

  /** Fills `into` with the next bytes. After the member's last byte its end is checked too. */
  async fill(into: Uint8Array): Promise<void> {
    for (let done = 0; done < into.length;) {
      const part = await this.#take(into.length - done);
      into.set(part, done);
      done += part.length;
    }
    await this.#checkEnd();
  }

  async skip(bytes: number): Promise<void> {
    for (let left = bytes; left > 0;) left -= (await this.#take(left)).length;
    await this.#checkEnd();
  }

  async #checkEnd(): Promise<void> {
    if (this.#left > 0) return;
    if (this.#chunk.length > 0 || (await this.#next())) {
      throw this.#damaged(`inflate to more than the ${count(this.#member.size)} that it claims`);
    }
    if (this.#inflater.bytesWritten !== this.#member.compressedSize) {
      throw this.#damaged(`end after ${count(this.#inflater.bytesWritten)}`);
    }
    this.#checksum.finish();
  }

  close(): void {
    this.#inflater.destroy();
  }
}
