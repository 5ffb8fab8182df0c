/** NumPy's .npz: a zip archive of .npy arrays, as np.savez and np.savez_compressed write it. */
import { bytesOf, itemSizes, swapBytes } from './elements.js';
import { chooseArray } from './choice.js';
import {
  checkNpyArray,
  npyDTypeName,
  npyHeaderEnd,
  npyPreambleLength,
  parseNpyHeader,
  readNpyHeader,
  type NpyHeader,
} from './npy.js';
import { checkCompressedRow, PlainRows, type ArrayInfo, type ArrayRows, type RowPass } from './rows.js';
import { PartSource, readBytes, type ByteSource } from './source.js';
import { InflatedMember, MemberChecksum, memberData, readZipDirectory, type ZipMember } from './zip.js';
import type { DType } from '../dtype.js';
import { numel } from '../shape.js';

const suffix = '.npy';

const arrayName = ({ name }: ZipMember): string => name.slice(0, -suffix.length);

/** The .npy members; np.savez writes no others. */
async function readArrays(source: ByteSource): Promise<ZipMember[]> {
  return (await readZipDirectory(source)).filter(({ name }) => name.endsWith(suffix));
}

interface OpenMember {
  /** What messages call it: the archive and the member. */
  readonly part: PartSource;
  readonly data: number;
  readonly header: NpyHeader;
}

async function openMember(source: ByteSource, member: ZipMember): Promise<OpenMember> {
  const data = await memberData(source, member);
  const part = new PartSource(source, data, member.size, `${source.name}: ${member.name}`);
  if (member.method === 0) return { part, data, header: await readNpyHeader(part) };
  const inflated = new InflatedMember(source, member, data);
  try {
    const preamble = new Uint8Array(Math.min(npyPreambleLength, member.size));
    await inflated.fill(preamble);
    const end = npyHeaderEnd(part.name, preamble, member.size);
    const bytes = new Uint8Array(end);
    bytes.set(preamble.subarray(0, end));
    await inflated.fill(bytes.subarray(preamble.length));
    return { part, data, header: parseNpyHeader(part.name, bytes) };
  } finally {
    inflated.close();
  }
}

/** Rows of a deflated member: each pass inflates it from its start. */
class InflatedRows implements ArrayRows {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly #open: () => InflatedMember;
  readonly #offset: number;
  readonly #swapped: boolean;

  constructor(
    open: () => InflatedMember,
    offset: number,
    { shape, dtype, swapped }: { shape: readonly number[]; dtype: DType; swapped: boolean },
  ) {
    this.shape = shape;
    this.dtype = dtype;
    this.#open = open;
    this.#offset = offset;
    this.#swapped = swapped;
  }

  pass(start: number): RowPass {
    const itemSize = itemSizes[this.dtype];
    let skip = this.#offset + start * numel(this.shape, 1) * itemSize;
    let member: InflatedMember | undefined;
    return {
      fill: async (data) => {
        member ??= this.#open();
        await member.skip(skip);
        skip = 0;
        const bytes = bytesOf(data);
        await member.fill(bytes);
        if (this.#swapped) swapBytes(bytes, itemSize);
      },
      close: () => member?.close(),
    };
  }
}

export async function listNpz(source: ByteSource): Promise<ArrayInfo[]> {
  const arrays: ArrayInfo[] = [];
  for (const member of await readArrays(source)) {
    const { header } = await openMember(source, member);
    arrays.push({ name: arrayName(member), shape: header.shape, dtype: npyDTypeName(header.descr) });
  }
  return arrays;
}

export async function openNpz(
  source: ByteSource,
  name: string | undefined,
): Promise<{ name: string; rows: ArrayRows }> {
  const arrays = await readArrays(source);
  const member = chooseArray(
    source,
    'array',
    new Map(arrays.map((array) => [arrayName(array), array])),
    name,
  );
  const { part, data, header } = await openMember(source, member);
  const array = checkNpyArray(part, header, member.size);
  if (member.method === 0) {
    const head = await readBytes(part, 0, header.offset, 'the header');
    const check = (): MemberChecksum => {
      const checksum = new MemberChecksum(source, member);
      checksum.update(head);
      return checksum;
    };
    const rows = new PlainRows(part, header.offset, array.shape, array.dtype, array.swapped, check);
    return { name: arrayName(member), rows };
  }
  checkCompressedRow(source, member.name, numel(array.shape, 1) * itemSizes[array.dtype]);
  const rows = new InflatedRows(() => new InflatedMember(source, member, data), header.offset, array);
  return { name: arrayName(member), rows };
}
