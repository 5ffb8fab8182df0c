/** Files that are cut off, lie about their sizes, or were made to do harm: an error says what, and nothing is allocated. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { crc32, deflateRawSync } from 'node:zlib';
import { tableToIPC } from 'apache-arrow';
import { listArrays, openRows, type FileFormat, type OpenRowsOptions } from 'surprisal/io';
import { countAllocations } from '../support/allocations.js';
import { collect, fixture, readInBlocks, valuesOf } from './files.js';
import { arrowTable } from './fuzzing.js';

/** Opens and reads; gives the error's code, 'read' where there is none, and how many bytes were asked for. */
async function outcome(
  bytes: Uint8Array,
  options: OpenRowsOptions,
): Promise<{ code: string; allocated: number }> {
  return countAllocations(async (allocations) => {
    let code = 'read';
    try {
      await using reader = await openRows(bytes, options);
      for await (const block of reader.blocks({ rowsPerBlock: 2 })) assert.ok(block.shape[0]! > 0);
    } catch (error) {
      ({ code } = error as { code: string });
      assert.equal(typeof code, 'string', (error as Error).stack);
    }
    return { code, allocated: allocations.total };
  });
}

/** Opening is refused so, and asks for no more memory than a small multiple of the file. */
async function refuses(bytes: Uint8Array, message: RegExp, options: OpenRowsOptions = {}, code = 'ERR_FILE') {
  await countAllocations(async (allocations) => {
    await assert.rejects(
      async () => {
        await using reader = await openRows(bytes, options);
        await collect(reader.blocks({ rowsPerBlock: 1 }));
      },
      (error: Error & { code?: unknown }) => {
        assert.equal(error.code, code, error.stack);
        assert.match(error.message, message);
        return true;
      },
    );
    assert.ok(allocations.total <= 4096 + 4 * bytes.length, `took ${allocations.total} bytes of memory`);
  });
}

const read = (name: string): Uint8Array => new Uint8Array(readFileSync(fixture(name)));

const npy = (dictionary: string, data: Uint8Array = new Uint8Array(0)): Uint8Array =>
  Buffer.concat([Buffer.from('\x93NUMPY\x01\x00\x76\x00' + dictionary.padEnd(117) + '\n', 'latin1'), data]);

const shaped = (shape: string, data?: Uint8Array): Uint8Array =>
  npy(`{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }`, data);

const safetensors = (header: string, data: Uint8Array = new Uint8Array(0)): Uint8Array => {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
};

interface Member {
  readonly name: string;
  readonly data: Uint8Array;
  readonly deflated?: boolean;
  /** What is said instead of the truth. */
  readonly size?: number;
  readonly compressedSize?: number;
  readonly offset?: number;
  readonly crc?: number;
  readonly method?: number;
  readonly flags?: number;
}

/** A zip archive, with zip64 fields where these are asked for. */
function zip(members: readonly Member[], zip64 = false): Uint8Array {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const member of members) {
    const bytes = member.deflated ? deflateRawSync(member.data) : member.data;
    const name = Buffer.from(member.name);
    const header = (length: number) => {
      const fields = Buffer.alloc(length);
      const start = length === 30 ? 6 : 8;
      fields.writeUInt16LE(member.flags ?? 0, start);
      fields.writeUInt16LE(member.method ?? (member.deflated ? 8 : 0), start + 2);
      fields.writeUInt32LE(member.crc ?? crc32(member.data), start + 8);
      fields.writeUInt32LE(zip64 ? 0xffffffff : (member.compressedSize ?? bytes.length), start + 12);
      fields.writeUInt32LE(zip64 ? 0xffffffff : (member.size ?? member.data.length), start + 16);
      fields.writeUInt16LE(name.length, start + 20);
      return fields;
    };
    const local = header(30);
    local.writeUInt32LE(0x04034b50);
    const central = header(46);
    central.writeUInt32LE(0x02014b50);
    const extra = Buffer.alloc(zip64 ? 28 : 0);
    if (zip64) {
      central.writeUInt16LE(extra.length, 30);
      central.writeUInt32LE(0xffffffff, 42);
      extra.writeUInt16LE(1);
      extra.writeUInt16LE(24, 2);
      extra.writeBigUInt64LE(BigInt(member.size ?? member.data.length), 4);
      extra.writeBigUInt64LE(BigInt(member.compressedSize ?? bytes.length), 12);
      extra.writeBigUInt64LE(BigInt(member.offset ?? at), 20);
    } else {
      central.writeUInt32LE(member.offset ?? at, 42);
    }
    parts.push(local, name, Buffer.from(bytes));
    directory.push(central, name, extra);
    at += local.length + name.length + bytes.length;
  }
  const list = Buffer.concat(directory);
  const end64 = Buffer.alloc(zip64 ? 76 : 0);
  if (zip64) {
    end64.writeUInt32LE(0x06064b50);
    end64.writeBigUInt64LE(BigInt(members.length), 32);
    end64.writeBigUInt64LE(BigInt(list.length), 40);
    end64.writeBigUInt64LE(BigInt(at), 48);
    end64.writeUInt32LE(0x07064b50, 56);
    end64.writeBigUInt64LE(BigInt(at + list.length), 64);
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50);
  end.writeUInt16LE(zip64 ? 0xffff : members.length, 10);
  end.writeUInt32LE(zip64 ? 0xffffffff : list.length, 12);
  end.writeUInt32LE(zip64 ? 0xffffffff : at, 16);
  return Buffer.concat([...parts, list, end64, end]);
}

const rows = shaped('(2, 2)', new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer));

describe('hostile files', () => {
  const small: readonly (readonly [FileFormat, string, string])[] = [
    ['npy', 'rows_f4.npy', ''],
    ['npy', 'version_2.npy', ''],
    ['npz', 'one.npz', ''],
    ['npz', 'descriptor.npz', ''],
    ['arrow', 'polars.arrow', 'c1'],
    ['arrow', 'polars.arrows', 'c1'],
    ['parquet', 'duckdb.parquet', 'logits'],
    ['parquet', 'duckdb_v2_zstd.parquet', 'logits'],
  ];
  const files = [
    ...small.map(([format, name, column]) => ({ format, name, column, bytes: read(name) })),
    {
      format: 'safetensors' as const,
      name: 'a safetensors file',
      column: 'a',
      bytes: safetensors(
        '{"a":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},"b":{"dtype":"I8","shape":[2],"data_offsets":[24,26]}}',
        new Uint8Array(26),
      ),
    },
  ];

  for (const { format, name, column, bytes } of files) {
    const options = { format, ...(column !== '' && { name: column }) };

    it(`${name}, cut off anywhere, is refused`, async () => {
      for (let length = 0; length < bytes.length; length++) {
        const { code, allocated } = await outcome(bytes.subarray(0, length), options);
        // An Arrow stream may end behind any message, also without its end marker; then there are fewer rows, or none.
        const isStreamEnd = name === 'polars.arrows' && code === 'read';
        assert.ok(code === 'ERR_FILE' || isStreamEnd, `${length} bytes: ${code}`);
        assert.ok(allocated <= 4096 + 4 * bytes.length, `${length} bytes: took ${allocated}`);
      }
      assert.equal((await outcome(bytes, options)).code, 'read');
    });

    it(`${name} with a huge number anywhere takes no memory for it`, async () => {
      for (const [value, width] of [
        [2n ** 31n - 1n, 4],
        [2n ** 32n - 1n, 4],
        [2n ** 60n, 8],
        [2n ** 64n - 1n, 8],
      ] as const) {
        for (let at = 0; at + width <= bytes.length; at++) {
          const changed = new Uint8Array(bytes);
          for (let i = 0; i < width; i++) changed[at + i] = Number((value >> BigInt(8 * i)) & 255n);
          const { code, allocated } = await outcome(changed, options);
          assert.match(code, /^(?:read|ERR_FILE|ERR_FILE_UNSUPPORTED|ERR_OPTION)$/);
          assert.ok(allocated <= 4096 + 8 * bytes.length, `${value} at ${at}: took ${allocated}`);
        }
      }
    });
  }

  it('.npy: shapes that overflow, disagree with the size or are none', async () => {
    const data = new Uint8Array(48);
    await refuses(shaped('(1099511627776, 1099511627776)', data), /more elements than any file/);
    await refuses(shaped('(9007199254740993,)', data), /more elements than any file/);
    await refuses(shaped('(0, 99999999999999999999)', data), /more elements than any file/);
    await refuses(shaped('(1000000000, 1000)', data), /takes 4,000,000,000,000 bytes, but 48 follow/);
    await refuses(shaped('(3, 5)', data), /\[3, 5\] of float32 takes 60 bytes, but 48 follow.*cut off/);
    await refuses(shaped('(3, 3)', data), /takes 36 bytes, but 48 follow.*appended/);
    await refuses(shaped('(-3, 4)', data), /expected a string, an integer.*'-3, 4\)/);
    await refuses(shaped('(12.0,)', data), /',' or '\)'/);
    await refuses(shaped("('12',)", data), /tuple of at most 64 integers/);
  });

  it('.npy: headers that are no dictionaries, or of other keys', async () => {
    await refuses(
      npy("{'descr': '<f4', 'shape': (1,), }"),
      /keys descr, fortran_order and shape.*got descr, shape/,
    );
    await refuses(
      npy("{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': ()}"),
      /each key once/,
    );
    await refuses(npy("__import__('os').system('true')"), /expected '\{'/);
    await refuses(npy('['.repeat(100)), /expected '\{'/);
    await refuses(npy(`{'a': ${'['.repeat(100)}`), /less deeply nested/);
    const header = Buffer.from(read('version_2.npy'));
    header.writeUInt32LE(2 ** 32 - 1, 8);
    await refuses(header, /header of 4,294,967,295 bytes, but the array has 188/);
  });

  it('safetensors: a header of 2^60 bytes, or past the limit of the format', async () => {
    const bytes = Buffer.from(safetensors('{}'));
    bytes.writeBigUInt64LE(2n ** 60n);
    await refuses(bytes, /header of 1,152,921,504,606,846,976 bytes, but the file has 10/, {
      format: 'safetensors',
    });
    const large = {
      name: 'large',
      size: 2 ** 40,
      read: (into: Uint8Array) => {
        into.fill(0);
        new DataView(into.buffer).setUint32(0, 100_000_001, true);
        return into.length;
      },
    };
    await countAllocations(async (allocations) => {
      await assert.rejects(listArrays(large, { format: 'safetensors' }), {
        code: 'ERR_FILE',
        message: /at most 100,000,000 bytes, which is the format's limit, got 100,000,001/,
      });
      assert.ok(allocations.total < 4096);
    });
  });

  it('safetensors: offsets, shapes and keys that contradict each other', async () => {
    const entry = (shape: string, offsets: string, dtype = 'F32') =>
      `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
    const data = new Uint8Array(16);
    for (const [header, message] of [
      [
        `{"a":${entry('[2]', '[0,8]')},"b":${entry('[2]', '[4,12]')}}`,
        /"b" has data_offsets \[4, 12\].*end at 8.*overlap/,
      ],
      [`{"a":${entry('[2]', '[0,8]')},"b":${entry('[1]', '[12,16]')}}`, /gaps/],
      [`{"a":${entry('[2]', '[8,16]')}}`, /end at 0/],
      [`{"a":${entry('[2]', '[0,8]')}}`, /take 8 bytes, but 16 follow/],
      [`{"a":${entry('[8]', '[0,32]')}}`, /take 32 bytes, but 16 follow/],
      [`{"a":${entry('[5]', '[0,16]')}}`, /\[5\] of F32, which takes 20 bytes, but data_offsets of 16/],
      [`{"a":${entry('[4294967296,4294967296]', '[0,16]')}}`, /more bytes than any file/],
      [`{"a":${entry('[4]', '[16,0]')}}`, /data_offsets \[16, 0\]/],
      [`{"a":${entry('[4]', '[0,16]')},"a":${entry('[4]', '[0,16]')}}`, /each name once, not "a" again/],
      [
        `{"a":${entry('[4]', '[0,16]').replace('}', ',"dtype":"F16"}')}}`,
        /each name once, not "dtype" again/,
      ],
      [`{"a":${entry('[4]', '[0,16]').replace('}', ',"pickle":"x"}')}}`, /not "pickle"/],
      [`{"a":${entry('[4.0]', '[0,16]')}}`, /an integer in \[0, 2\^53\)/],
      [`{"a":${entry('[-4]', '[0,16]')}}`, /an integer in/],
      [`{"a":${entry('[9007199254740993]', '[0,16]')}}`, /an integer in/],
      [`{"a":${entry('[4]', '[0,16,16]')}}`, /at most 2 integers/],
      [`{"a":${entry('[4]', '[0]')}}`, /two data_offsets/],
      [`{"a":[4]}`, /the entry of tensor "a"/],
      [`{"__metadata__":{"n":1},"a":${entry('[4]', '[0,16]')}}`, /a string/],
      [`{"a":${entry('[4]', '[0,16]')}} x`, /nothing but spaces/],
      [`{"a":${entry('[4]', '[0,16]')}`, /'}'.*its end/],
      [`{"\\x":${entry('[4]', '[0,16]')}}`, /as JSON writes it/],
      [`{"a`, /that ends/],
      ['['.repeat(100), /which starts a header/],
    ] as const) {
      await refuses(safetensors(header, data), message, { format: 'safetensors' });
    }
    const bytes = Buffer.from(safetensors('{"a":1}', data));
    bytes[10] = 0xff;
    await refuses(bytes, /UTF-8/, { format: 'safetensors' });
    const eight = safetensors(`{"a":${entry('[16]', '[0,16]', 'F8_E4M3')}}`, data);
    assert.deepEqual(await listArrays(eight), [{ name: 'a', shape: [16], dtype: 'F8_E4M3' }]);
    await refuses(eight, /"F8_E4M3"; convert it/, {}, 'ERR_FILE_UNSUPPORTED');
  });

  it('.npz: zip64, which NumPy writes past 4 GB, is read', async () => {
    for (const deflated of [false, true]) {
      await using reader = await openRows(zip([{ name: 'a.npy', data: rows, deflated }], true));
      assert.deepEqual(await readInBlocks(reader, 1), [1, 2, 3, 4]);
    }
  });

  it('.npz: members that share bytes, twice one name, sizes that lie', async () => {
    const a = { name: 'a.npy', data: rows };
    const b = { name: 'b.npy', data: rows };
    await refuses(zip([a, { ...b, offset: 0 }]), /reaches into what follows/, { name: 'a' });
    await refuses(zip([a, { ...b, offset: 10 }]), /reaches into what follows/, { name: 'a' });
    await refuses(zip([a, a]), /a\.npy is there twice/, { name: 'a' });
    await refuses(zip([{ ...a, offset: 2 ** 60 }], true), /reaches into what follows/);
    await refuses(zip([{ ...a, compressedSize: 2 ** 60, size: 2 ** 60 }], true), /reaches into what follows/);
    await refuses(
      zip([{ ...a, size: 1000 }]),
      /claims to be 1,000 bytes out of 144, which are stored as they are/,
    );
    await refuses(zip([{ ...a, flags: 1 }]), /encrypted/, {}, 'ERR_FILE_UNSUPPORTED');
    await refuses(zip([{ ...a, method: 12 }]), /compression method 12/, {}, 'ERR_FILE_UNSUPPORTED');
    await refuses(zip([{ ...a, crc: 7 }]), /expected the checksum 7, got/);
    const deflated = { ...a, deflated: true };
    await refuses(zip([{ ...deflated, size: 2 ** 40 }], true), /can't inflate to more than/);
    await refuses(zip([{ ...deflated, crc: 7 }]), /expected the checksum 7, got/);
  });

  it('.npz: members that inflate to more or less than they claim', async () => {
    const longer = shaped('(2, 2)', new Uint8Array(4000));
    await refuses(
      zip([{ name: 'a.npy', data: longer, deflated: true, size: 144 }]),
      /inflate to more than the 144/,
    );
    const shorter = shaped('(1000, 2)', new Uint8Array(16));
    await refuses(
      zip([{ name: 'a.npy', data: shorter, deflated: true, size: 8128 }]),
      /inflate to 144, not to 8,128/,
    );
  });

  it('.npz: a bomb of one row is refused, one of many rows takes the memory of its blocks', async () => {
    const bytes = 68 * 2 ** 20;
    const bomb = (shape: string) =>
      zip([{ name: 'a.npy', data: shaped(shape, new Uint8Array(bytes)), deflated: true }]);
    const row = bomb(`(1, ${bytes / 4})`);
    assert.ok(row.length < bytes / 500);
    await refuses(
      row,
      /rows of at most 67,108,864 bytes in compressed data.*71,303,168/,
      {},
      'ERR_FILE_UNSUPPORTED',
    );
    const many = bomb(`(${bytes / 4096}, 1024)`);
    await countAllocations(async (allocations) => {
      await using reader = await openRows(many);
      let numRows = 0;
      for await (const block of reader.blocks({ rowsPerBlock: 16 })) numRows += block.shape[0]!;
      assert.equal(numRows, bytes / 4096);
      // Two blocks; and the compressed bytes once for the header, once for the rows.
      assert.ok(allocations.total < 2 * 16 * 4096 + 3 * many.length, `took ${allocations.total}`);
    });
  });

  it('Arrow: lengths past the file, and tables that share their parts without end', async () => {
    const stream = Buffer.from(tableToIPC(arrowTable(), 'stream'));
    stream.writeInt32LE(2 ** 31 - 1, 4);
    await refuses(stream, /claims 2,147,483,647 bytes of metadata/, { name: 'logits' });
    const file = Buffer.from(tableToIPC(arrowTable(), 'file'));
    file.writeInt32LE(2 ** 31 - 1, file.length - 10);
    await refuses(file, /footer within its [\d,]+ bytes, got one of 2,147,483,647/, { name: 'logits' });
    await refuses(sharedFields(24, 40), /shared too often/, { format: 'arrow' });
    await refuses(sharedFields(100, 1), /nested too deeply/, { format: 'arrow' });
  });

  it('Parquet: a footer past the file, and lists that are longer than it', async () => {
    const bytes = Buffer.from(read('duckdb.parquet'));
    bytes.writeUInt32LE(2 ** 31, bytes.length - 8);
    await refuses(bytes, /footer within its 1,079 bytes, got one of 2,147,483,648/, { name: 'logits' });
    const footer = (...thrift: number[]) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(thrift.length);
      return Buffer.concat([Buffer.from('PAR1'), Buffer.from(thrift), length, Buffer.from('PAR1')]);
    };
    // Field 2, a list of 2^31 − 1 structs, or bools.
    for (const item of [0xfc, 0xf1]) {
      await refuses(footer(0x29, item, 0xff, 0xff, 0xff, 0xff, 0x07, 0), /a list has more items than bytes/);
    }
    await refuses(footer(0x28, 0xff, 0xff, 0xff, 0xff, 0x07), /a value reaches beyond its end/);
    await refuses(footer(...Array<number>(100).fill(0x1c)), /nested too deeply/);
    await refuses(footer(0x15, ...Array<number>(20).fill(0xff)), /more than 64 bits/);
    await refuses(footer(0), /can't be decoded/);
  });

  it('a file that shrinks while it is read', async () => {
    const bytes = Buffer.from(read('rows_f4.npy'));
    let size = bytes.length;
    const source = {
      name: 'shrinking',
      size: bytes.length,
      read: (into: Uint8Array, offset: number) =>
        bytes.copy(into, 0, offset, Math.min(size, offset + into.length)),
    };
    await using reader = await openRows(source);
    size = 150;
    await assert.rejects(reader.read(), {
      code: 'ERR_FILE',
      message: /shrinking: expected 60 bytes.*end after 22/,
    });
    size = bytes.length;
    assert.equal(valuesOf(await reader.read()).length, 15);
  });
});

/**
 * An Arrow stream whose schema has lists of lists, `depth` of them, each with `width` children that are one and the same:
 * width^depth fields in a few kilobytes.
 */
function sharedFields(depth: number, width: number): Uint8Array {
  const head = 64;
  const level = 40 + 4 * width;
  const bytes = Buffer.alloc(head + depth * level);
  // Root, and the message: version, header type 1 (a schema), header.
  bytes.writeUInt32LE(16, 0);
  [10, 12, 4, 6, 8].forEach((value, i) => bytes.writeUInt16LE(value, 4 + 2 * i));
  bytes.writeInt32LE(12, 16);
  bytes.writeInt16LE(4, 20);
  bytes.writeUInt8(1, 22);
  bytes.writeUInt32LE(40 - 24, 24);
  // The schema: its fields are a vector of one.
  [8, 8, 0, 4].forEach((value, i) => bytes.writeUInt16LE(value, 32 + 2 * i));
  bytes.writeInt32LE(8, 40);
  bytes.writeUInt32LE(48 - 44, 44);
  bytes.writeUInt32LE(1, 48);
  bytes.writeUInt32LE(head + 16 - 52, 52);
  for (let i = 0; i < depth; i++) {
    const at = head + i * level;
    // A field: its type's number (12, a list) and its children; the last has none.
    [16, 12, 0, 0, 4, 0, 0, i + 1 < depth ? 8 : 0].forEach((value, k) =>
      bytes.writeUInt16LE(value, at + 2 * k),
    );
    bytes.writeInt32LE(16, at + 16);
    bytes.writeUInt8(12, at + 20);
    bytes.writeUInt32LE(at + 28 - (at + 24), at + 24);
    bytes.writeUInt32LE(width, at + 28);
    for (let child = 0; child < width; child++) {
      bytes.writeUInt32LE(at + level + 16 - (at + 32 + 4 * child), at + 32 + 4 * child);
    }
  }
  const prefix = Buffer.alloc(8);
  prefix.writeInt32LE(-1);
  prefix.writeInt32LE(bytes.length, 4);
  return Buffer.concat([prefix, bytes]);
}
