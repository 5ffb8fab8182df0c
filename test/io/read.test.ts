import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import type { DType, Tensor } from 'surprisal';
import { listArrays, openRows, type ByteSource, type OpenRowsOptions } from 'surprisal/io';
import { CrossEntropyLoss } from 'surprisal/loss';
import { collect, fixture, fixtureValue, readInBlocks, temporaryFolder, valuesOf } from './files.js';

const numpyDTypes: Readonly<Record<string, DType>> = {
  f2: 'float16',
  f4: 'float32',
  f8: 'float64',
  i1: 'int8',
  i2: 'int16',
  i4: 'int32',
  i8: 'int64',
  u1: 'uint8',
  u2: 'uint16',
  u4: 'uint32',
  u8: 'uint64',
  b1: 'bool',
};

const expectedValues = (count: number, dtype: DType, from = 0): number[] =>
  Array.from({ length: count }, (_, i) => fixtureValue(from + i, dtype));

async function readsAs(
  name: string,
  dtype: DType,
  shape: readonly number[],
  options: OpenRowsOptions = {},
): Promise<void> {
  await using reader = await openRows(fixture(name), options);
  const [rows, ...rowShape] = shape;
  assert.equal(reader.dtype, dtype);
  assert.deepEqual(reader.shape, shape);
  assert.equal(reader.numRows, rows);
  assert.deepEqual(reader.rowShape, rowShape);
  const expected = expectedValues(
    shape.reduce((a, b) => a * b, 1),
    dtype,
  );
  assert.deepEqual(valuesOf(await reader.read()), expected);
  for (const rowsPerBlock of [1, 2, 1000]) {
    assert.deepEqual(await readInBlocks(reader, rowsPerBlock), expected, `${rowsPerBlock} rows a block`);
  }
}

describe('openRows() of NumPy files', () => {
  for (const [type, dtype] of Object.entries(numpyDTypes)) {
    it(`reads ${dtype}`, () => readsAs(`rows_${type}.npy`, dtype, [5, 3]));
  }

  for (const type of ['f2', 'f4', 'f8', 'i2', 'i8']) {
    it(`turns the bytes of >${type} round`, () =>
      readsAs(`big_endian_${type}.npy`, numpyDTypes[type]!, [5, 3]));
  }

  it('reads class indices, images, and arrays without rows', async () => {
    await readsAs('labels_i8.npy', 'int64', [7]);
    await readsAs('images_f4.npy', 'float32', [4, 3, 2, 2]);
    await readsAs('no_rows_f4.npy', 'float32', [0, 3]);
  });

  it('reads versions 2.0 and 3.0', async () => {
    await readsAs('version_2.npy', 'float32', [5, 3]);
    await readsAs('version_3.npy', 'float32', [5, 3]);
  });

  it('reads Fortran order where it is the same as C order', () =>
    readsAs('fortran_column_f4.npy', 'float32', [5, 1]));

  for (const name of ['stored.npz', 'deflated.npz']) {
    it(`reads the members of ${name}`, async () => {
      assert.deepEqual(await listArrays(fixture(name)), [
        { name: 'logits', shape: [40, 10], dtype: 'float32' },
        { name: 'labels', shape: [40], dtype: 'int64' },
      ]);
      await readsAs(name, 'float32', [40, 10], { name: 'logits' });
      await readsAs(name, 'int64', [40], { name: 'labels' });
    });
  }

  it('reads an archive with data descriptors, and its only member without a name', async () => {
    await readsAs('descriptor.npz', 'float32', [40, 10]);
    await readsAs('one.npz', 'float32', [5, 3], { name: 'arr_0' });
  });

  const refused: readonly (readonly [string, RegExp])[] = [
    ['fortran_f4.npy', /np\.ascontiguousarray/],
    ['objects.npy', /pickled Python objects.*would run code.*never read/],
    ['complex.npy', /<c8.*complex numbers.*astype/],
    ['strings.npy', /<U2.*strings/],
    ['records.npy', /records/],
    ['scalar_f8.npy', /array of rows.*shape \[\]/],
  ];
  for (const [name, message] of refused) {
    it(`refuses ${name} and says what to do`, async () => {
      await assert.rejects(openRows(fixture(name)), { code: 'ERR_FILE_UNSUPPORTED', message });
      const [array] = await listArrays(fixture(name));
      assert.ok(array, 'it is listed all the same');
    });
  }
});

describe('RowReader', () => {
  const path = temporaryFolder();
  const logits = () => openRows(fixture('stored.npz'), { name: 'logits' });

  it('gives rows [start, end) in blocks, the rest in the last', async () => {
    await using reader = await logits();
    const blocks = await collect(reader.blocks({ start: 3, end: 14, rowsPerBlock: 4, reuse: false }));
    assert.deepEqual(
      blocks.map(({ shape }) => shape),
      [
        [4, 10],
        [4, 10],
        [3, 10],
      ],
    );
    assert.deepEqual(blocks.flatMap(valuesOf), expectedValues(110, 'float32', 30));
    assert.deepEqual(valuesOf(await reader.read({ start: 39 })), expectedValues(10, 'float32', 390));
    assert.deepEqual((await reader.read({ start: 5, end: 5 })).shape, [0, 10]);
  });

  it('gives rows from the middle of a deflated member', async () => {
    await using reader = await openRows(fixture('deflated.npz'), { name: 'logits' });
    assert.deepEqual(valuesOf(await reader.read({ start: 7, end: 9 })), expectedValues(20, 'float32', 70));
  });

  for (const [name, options] of [
    ['stored.npz', { name: 'logits' }],
    ['deflated.npz', { name: 'logits' }],
  ] as const) {
    it(`gives the same rows of each split in a block, out of ${name}`, async () => {
      await using reader = await openRows(fixture(name), options);
      for (const splits of [1, 2, 4, 40]) {
        const samples = 40 / splits;
        const [start, end] = [Math.min(1, samples - 1), samples];
        const found = await collect(reader.blocks({ splits, start, end, rowsPerBlock: 3, reuse: false }));
        const expected: number[] = [];
        for (let first = start; first < end; first += 3) {
          const rows = Math.min(3, end - first);
          for (let k = 0; k < splits; k++) {
            expected.push(...expectedValues(10 * rows, 'float32', 10 * (k * samples + first)));
          }
        }
        assert.deepEqual(found[0]!.shape, [splits * Math.min(3, end - start), 10]);
        assert.deepEqual(found.flatMap(valuesOf), expected, `${splits} splits`);
      }
      assert.throws(() => reader.blocks({ splits: 3 }), {
        code: 'ERR_SHAPE',
        message: /rows that make up 3 splits, got 40/,
      });
      assert.throws(() => reader.blocks({ splits: 0 }), { code: 'ERR_OPTION' });
    });
  }

  it('takes turns with two buffers; a tensor whose memory was taken throws', async () => {
    await using reader = await logits();
    const buffers = new Set<ArrayBufferLike>();
    let last: Tensor | undefined;
    let beforeLast: Tensor | undefined;
    for await (const block of reader.blocks({ rowsPerBlock: 3 })) {
      buffers.add(block.data.buffer);
      if (beforeLast !== undefined) {
        const stale = beforeLast;
        assert.throws(() => stale.data, { code: 'ERR_DISPOSED' });
      }
      beforeLast = last;
      last = block;
    }
    assert.equal(buffers.size, 2);
  });

  it('gives each block memory of its own where they are to be kept', async () => {
    await using reader = await logits();
    const blocks = await collect(reader.blocks({ rowsPerBlock: 3, reuse: false }));
    assert.equal(new Set(blocks.map(({ data }) => data.buffer)).size, 14);
    assert.deepEqual(blocks.flatMap(valuesOf), expectedValues(400, 'float32'));
  });

  it('goes on where a block was disposed of or its memory transferred away', async () => {
    await using reader = await logits();
    const values: number[] = [];
    for await (const block of reader.blocks({ rowsPerBlock: 4 })) {
      values.push(...valuesOf(block));
      if (values.length % 80 === 0) block.dispose();
      else structuredClone(block.data.buffer, { transfer: [block.data.buffer as ArrayBuffer] });
    }
    assert.deepEqual(values, expectedValues(400, 'float32'));
  });

  it('is read by several iterators at once, and left early', async () => {
    await using reader = await openRows(fixture('deflated.npz'), { name: 'logits' });
    const [all, first] = await Promise.all([
      readInBlocks(reader, 7),
      (async () => {
        for await (const block of reader) return valuesOf(block).slice(0, 10);
        return [];
      })(),
    ]);
    assert.deepEqual(all, expectedValues(400, 'float32'));
    assert.deepEqual(first, expectedValues(10, 'float32'));
  });

  it('feeds a criterion: the blocks have the loss of the whole', async () => {
    await using reader = await logits();
    await using targets = await openRows(fixture('stored.npz'), { name: 'labels' });
    const labels = valuesOf(await targets.read())
      .map(Math.abs)
      .map((label) => label % 10);
    const criterion = new CrossEntropyLoss({ reduction: 'sum' });
    let sum = 0;
    let row = 0;
    for await (const block of reader.blocks({ rowsPerBlock: 6 })) {
      const rows = block.shape[0]!;
      sum += criterion.forward(block, labels.slice(row, row + rows)).item();
      row += rows;
    }
    const whole = criterion.forward(await reader.read(), labels).item();
    // Seven sums of float32 in another order: 7 roundings of half a unit of 2^-24.
    assert.ok(Math.abs(sum - whole) <= 7 * 2 ** -24 * whole);
  });

  it('refuses options that it does not know, and rows that are not there', async () => {
    await using reader = await logits();
    for (const [options, message] of [
      [{ rowsPerBlock: 0 }, /at least 1 for rowsPerBlock, got 0/],
      [{ rowsPerBlock: 1.5 }, /an integer.*rowsPerBlock/],
      [{ start: 41 }, /\[0, 40\] for start, got 41/],
      [{ start: 5, end: 4 }, /\[5, 40\] for end, got 4/],
      [{ rows: 3 }, /unknown option 'rows'.*rowsPerBlock/],
      [{ signal: 'now' }, /AbortSignal/],
    ] as const) {
      assert.throws(() => reader.blocks(options as object), { code: 'ERR_OPTION', message });
    }
  });

  it('stops at a signal, before and between blocks, and closes all the same', async () => {
    const reader = await logits();
    const aborted = { name: 'AbortError', code: 'ERR_ABORTED' };
    await assert.rejects(collect(reader.blocks({ signal: AbortSignal.abort() })), aborted);
    await assert.rejects(reader.read({ signal: AbortSignal.abort() }), aborted);
    const controller = new AbortController();
    let blocks = 0;
    await assert.rejects(async () => {
      for await (const block of reader.blocks({ rowsPerBlock: 1, signal: controller.signal })) {
        blocks += block.shape[0]!;
        if (blocks === 3) controller.abort(new Error('enough'));
      }
    }, aborted);
    assert.equal(blocks, 3);
    await reader.close();
  });

  it('refuses to read once it was closed; closing twice does nothing', async () => {
    const reader = await logits();
    const blocks = reader.blocks({ rowsPerBlock: 1 });
    await blocks.next();
    await reader.close();
    await reader.close();
    await assert.rejects(blocks.next(), { code: 'ERR_DISPOSED', message: /stored\.npz was closed/ });
    assert.throws(() => reader.blocks(), { code: 'ERR_DISPOSED' });
  });

  it('reads paths, URLs, bytes, and sources of your own, which it closes', async () => {
    const file = fixture('rows_f4.npy');
    const bytes = readFileSync(file);
    let closed = 0;
    const source: ByteSource = {
      name: 'an object in a store',
      size: bytes.length,
      // A few bytes at a time, some of them later.
      read: (into, offset) => {
        const length = bytes.copy(into, 0, offset, Math.min(offset + 7, offset + into.length));
        return offset % 2 === 0 ? length : Promise.resolve(length);
      },
      close: () => {
        closed++;
      },
    };
    const { buffer } = Uint8Array.from(bytes);
    for (const each of [file, pathToFileURL(file), bytes, buffer, source]) {
      await using reader = await openRows(each);
      assert.deepEqual(await readInBlocks(reader, 2), expectedValues(15, 'float32'));
    }
    assert.equal(closed, 1);
    await assert.rejects(openRows({ ...source, size: 20 }), { code: 'ERR_FILE' });
    assert.equal(closed, 2, 'a source that is refused is closed too');
  });

  it("passes the file system's own errors", async () => {
    await assert.rejects(openRows(path('missing.npy')), { code: 'ENOENT' });
    await assert.rejects(openRows('test/io'), { code: 'ERR_FILE_UNSUPPORTED', message: /regular file/ });
    await assert.rejects(openRows(7 as never), { code: 'ERR_OPTION', message: /expected a path.*got 7/ });
  });

  it('tells the format by the first bytes, or else by the name', async () => {
    const renamed = path('labels.safetensors');
    writeFileSync(renamed, readFileSync(fixture('labels_i8.npy')));
    await using reader = await openRows(renamed);
    assert.equal(reader.format, 'npy');
    writeFileSync(path('empty.npz'), '');
    await assert.rejects(openRows(path('empty.npz')), {
      code: 'ERR_FILE',
      message: /zip archive's directory/,
    });
    writeFileSync(path('notes.txt'), 'logits: none');
    await assert.rejects(openRows(path('notes.txt')), {
      code: 'ERR_FILE',
      message: /npy, npz, safetensors, arrow, parquet.*starts with 6c6f67/,
    });
    await assert.rejects(openRows(renamed, { format: 'parquet' }), {
      code: 'ERR_FILE',
      message: /starts with PAR1/,
    });
    await assert.rejects(openRows(renamed, { format: 'csv' as never }), { code: 'ERR_OPTION' });
  });

  it('says which names there are where the name does not fit', async () => {
    const file = fixture('stored.npz');
    await assert.rejects(openRows(file), {
      code: 'ERR_OPTION',
      message: /\{ name \}; it has 'logits', 'labels'/,
    });
    await assert.rejects(openRows(file, { name: 'logit' }), {
      code: 'ERR_OPTION',
      message: /got 'logit'; it has 'logits', 'labels'/,
    });
    await assert.rejects(openRows(file, { columns: ['logits'] }), {
      code: 'ERR_OPTION',
      message: /no columns/,
    });
    await assert.rejects(openRows(fixture('rows_f4.npy'), { name: 'x' }), {
      code: 'ERR_OPTION',
      message: /one array/,
    });
    await assert.rejects(openRows(file, { name: 'a', columns: ['b'] }), {
      code: 'ERR_OPTION',
      message: /got both/,
    });
  });

  it('finds damage in elements of an archive by its checksum', async () => {
    for (const name of ['stored.npz', 'deflated.npz']) {
      const bytes = readFileSync(fixture(name));
      // A little before the second member's header: in the last elements, not in the .npy header.
      const at = bytes.indexOf('PK\x03\x04', 4) - 12;
      bytes[at]! ^= 4;
      await using reader = await openRows(bytes, { name: 'logits' });
      await assert.rejects(collect(reader.blocks({ rowsPerBlock: 7 })), {
        code: 'ERR_FILE',
        message: /damaged/,
      });
    }
  });
});
