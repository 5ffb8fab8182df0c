import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { tensor, type DType, type Tensor } from 'surprisal';
import { listArrays, NpyWriter, openRows, writeNpy, writeSafetensors } from 'surprisal/io';
import { collect, fixture, fixtureValue, readInBlocks, temporaryFolder, valuesOf } from './files.js';

const dtypes: readonly DType[] = (
  ['float64', 'float32', 'float16', 'bfloat16', 'int64', 'uint64'] as const
).concat(['int32', 'uint32', 'int16', 'uint16', 'int8', 'uint8', 'bool'] as never);

const sample = (dtype: DType, shape: readonly number[]): Tensor => {
  const count = shape.reduce((a, b) => a * b, 1);
  const values = Array.from({ length: count }, (_, i) => fixtureValue(i, dtype));
  return tensor(tensor(values, { dtype }).data, { shape, dtype });
};

async function* blocksOf(whole: Tensor, rows: number): AsyncGenerator<Tensor> {
  const [all, ...rowShape] = whole.shape as [number, ...number[]];
  const length = rowShape.reduce((a, b) => a * b, 1);
  for (let row = 0; row < all; row += rows) {
    const end = Math.min(all, row + rows);
    yield tensor(whole.data.slice(row * length, end * length), {
      shape: [end - row, ...rowShape],
      dtype: whole.dtype,
    });
  }
}

/** NumPy's way of saving is what `writeNpy` is held to, where its committed files say what that is. */
const numpyFiles: Readonly<Record<string, DType>> = {
  rows_f4: 'float32',
  rows_f2: 'float16',
  rows_i8: 'int64',
  rows_u1: 'uint8',
  rows_b1: 'bool',
};

describe('writeNpy()', () => {
  const path = temporaryFolder();

  for (const [name, dtype] of Object.entries(numpyFiles)) {
    it(`writes ${dtype} byte for byte as NumPy does`, async () => {
      await writeNpy(path('a.npy'), sample(dtype, [5, 3]));
      assert.deepEqual(readFileSync(path('a.npy')), readFileSync(fixture(`${name}.npy`)));
    });
  }

  it('writes vectors, images, no rows and a scalar byte for byte as NumPy does', async () => {
    for (const [name, dtype, shape] of [
      ['labels_i8', 'int64', [7]],
      ['images_f4', 'float32', [4, 3, 2, 2]],
      ['no_rows_f4', 'float32', [0, 3]],
      ['scalar_f8', 'float64', []],
    ] as const) {
      await writeNpy(path('a.npy'), sample(dtype, shape));
      assert.deepEqual(readFileSync(path('a.npy')), readFileSync(fixture(`${name}.npy`)), name);
    }
  });

  it('writes blocks of rows, whose number is not known before the end', async () => {
    for (const dtype of dtypes.filter((each) => each !== 'bfloat16')) {
      const whole = sample(dtype, [11, 3]);
      await writeNpy(path('blocks.npy'), blocksOf(whole, 4));
      await using reader = await openRows(path('blocks.npy'));
      assert.equal(reader.dtype, dtype);
      assert.deepEqual(await readInBlocks(reader, 3), valuesOf(whole));
    }
  });

  it('writes what a reader reads, with no more than its blocks in memory', async () => {
    await using source = await openRows(fixture('deflated.npz'), { name: 'logits' });
    await writeNpy(path('logits.npy'), source);
    await using reader = await openRows(path('logits.npy'));
    assert.deepEqual(reader.shape, [40, 10]);
    assert.deepEqual(valuesOf(await reader.read()), valuesOf(await source.read()));
  });

  it('writes strided tensors in row-major order, and nested arrays as float32', async () => {
    const transposed = tensor(Float64Array.of(1, 2, 3, 4, 5, 6), { shape: [3, 2], strides: [1, 3] });
    await writeNpy(path('t.npy'), transposed);
    await using reader = await openRows(path('t.npy'));
    assert.deepEqual(valuesOf(await reader.read()), [1, 4, 2, 5, 3, 6]);
    await writeNpy(path('n.npy'), [
      [1, 2],
      [3, 4],
    ]);
    assert.deepEqual(await listArrays(path('n.npy')), [{ name: undefined, shape: [2, 2], dtype: 'float32' }]);
  });

  it('refuses bfloat16, which NumPy does not have', async () => {
    const half = sample('bfloat16', [2, 2]);
    await assert.rejects(writeNpy(path('b.npy'), half), {
      code: 'ERR_FILE_UNSUPPORTED',
      message: /writeSafetensors/,
    });
    await assert.rejects(writeNpy(path('b.npy'), blocksOf(half, 1)), { code: 'ERR_FILE_UNSUPPORTED' });
  });

  it('leaves the path as it was where the blocks fail, differ or are aborted, and nothing beside it', async () => {
    mkdirSync(path('kept'));
    const file = path('kept/rows.npy');
    writeFileSync(file, 'what was there');
    const rows = sample('float32', [4, 3]);
    async function* failing(): AsyncGenerator<Tensor> {
      yield rows;
      throw new Error('the GPU is on fire');
    }
    async function* differing(): AsyncGenerator<Tensor> {
      yield rows;
      yield sample('float32', [4, 2]);
    }
    async function* mixed(): AsyncGenerator<Tensor> {
      yield rows;
      yield sample('float64', [4, 3]);
    }
    const controller = new AbortController();
    async function* aborting(): AsyncGenerator<Tensor> {
      yield rows;
      controller.abort();
      yield rows;
    }
    await assert.rejects(writeNpy(file, failing()), { message: 'the GPU is on fire' });
    await assert.rejects(writeNpy(file, differing()), {
      code: 'ERR_SHAPE',
      message: /shape \[3\], got \[2\]/,
    });
    await assert.rejects(writeNpy(file, mixed()), {
      code: 'ERR_DTYPE',
      message: /rows of float32, got float64/,
    });
    await assert.rejects(writeNpy(file, aborting(), { signal: controller.signal }), { code: 'ERR_ABORTED' });
    assert.equal(readFileSync(file, 'utf8'), 'what was there');
    assert.deepEqual(readdirSync(path('kept')), ['rows.npy']);
    await assert.rejects(writeNpy(path('missing/rows.npy'), rows), { code: 'ENOENT' });
  });

  it('refuses paths and options that are none', async () => {
    await assert.rejects(writeNpy(3 as never, [1]), { code: 'ERR_OPTION', message: /got 3/ });
    await assert.rejects(writeNpy(path('x.npy'), [1], { mode: 'w' } as never), {
      code: 'ERR_OPTION',
      message: /signal/,
    });
  });

  it('replaces a link by the file, not what it leads to', async () => {
    writeFileSync(path('target'), 'target');
    symlinkSync(path('target'), path('link.npy'));
    await writeNpy(path('link.npy'), [1, 2]);
    assert.equal(readFileSync(path('target'), 'utf8'), 'target');
    assert.deepEqual((await listArrays(path('link.npy')))[0]?.shape, [2]);
  });
});

describe('NpyWriter', () => {
  const path = temporaryFolder();

  it('takes the place of the path in close(), and not before', async () => {
    const writer = await NpyWriter.open(path('rows.npy'));
    await writer.write(sample('int32', [2, 3]));
    await Promise.all([writer.write(sample('int32', [1, 3])), writer.write(sample('int32', [2, 3]))]);
    assert.equal(writer.numRows, 5);
    assert.ok(!readdirSync(path('')).includes('rows.npy'));
    await writer.close();
    await writer.close();
    await using reader = await openRows(path('rows.npy'));
    const values = (rows: number) => Array.from({ length: 3 * rows }, (_, i) => fixtureValue(i, 'int32'));
    assert.deepEqual(await readInBlocks(reader, 2), [...values(2), ...values(1), ...values(2)]);
    await assert.rejects(writer.write(sample('int32', [1, 3])), { code: 'ERR_DISPOSED' });
  });

  it('removes what it wrote where its scope is left before close()', async () => {
    mkdirSync(path('scope'));
    await assert.rejects(async () => {
      await using writer = await NpyWriter.open(path('scope/rows.npy'));
      await writer.write([[1, 2]]);
      assert.equal(readdirSync(path('scope')).length, 1);
      throw new Error('left');
    }, /left/);
    assert.deepEqual(readdirSync(path('scope')), []);
  });

  it('writes no rows where it is told what of', async () => {
    const empty = await NpyWriter.open(path('none.npy'), { dtype: 'float32', rowShape: [3] });
    await empty.close();
    assert.deepEqual(await listArrays(path('none.npy')), [
      { name: undefined, shape: [0, 3], dtype: 'float32' },
    ]);
    const unknown = await NpyWriter.open(path('unknown.npy'));
    await assert.rejects(unknown.close(), { code: 'ERR_SHAPE', message: /dtype and rowShape/ });
    await assert.rejects(NpyWriter.open(path('x.npy'), { dtype: 'half' as never }), { code: 'ERR_DTYPE' });
    await assert.rejects(NpyWriter.open(path('x.npy'), { rowShape: [-1] }), { code: 'ERR_SHAPE' });
  });

  it('refuses what has no rows', async () => {
    await using writer = await NpyWriter.open(path('scalar.npy'));
    await assert.rejects(writer.write(3), { code: 'ERR_SHAPE', message: /\[n, \.\.\.\], got shape \[\]/ });
  });
});

describe('writeSafetensors()', () => {
  const path = temporaryFolder();

  it('writes every dtype, bfloat16 too', async () => {
    const tensors = Object.fromEntries(dtypes.map((dtype) => [`of ${dtype}`, sample(dtype, [4, 3])]));
    await writeSafetensors(path('all.safetensors'), tensors);
    for (const dtype of dtypes) {
      await using reader = await openRows(path('all.safetensors'), { name: `of ${dtype}` });
      assert.equal(reader.dtype, dtype);
      assert.deepEqual(await readInBlocks(reader, 3), valuesOf(tensors[`of ${dtype}`]!));
    }
  });

  it('writes the format: a length, a header padded to 64 bytes, tensors without gaps, aligned', async () => {
    const tensors = { 2: sample('int8', [3]), 1: sample('float32', [2, 2]), 'ö"\n': sample('bfloat16', []) };
    await writeSafetensors(path('some.safetensors'), tensors, { metadata: { format: 'pt' } });
    const bytes = readFileSync(path('some.safetensors'));
    const length = Number(bytes.readBigUInt64LE(0));
    assert.equal((8 + length) % 64, 0);
    assert.deepEqual(JSON.parse(bytes.toString('utf8', 8, 8 + length)), {
      __metadata__: { format: 'pt' },
      1: { dtype: 'F32', shape: [2, 2], data_offsets: [0, 16] },
      'ö"\n': { dtype: 'BF16', shape: [], data_offsets: [16, 18] },
      2: { dtype: 'I8', shape: [3], data_offsets: [18, 21] },
    });
    assert.equal(bytes.length, 8 + length + 21);
    assert.deepEqual(
      (await listArrays(path('some.safetensors'))).map(({ name }) => name),
      ['1', 'ö"\n', '2'],
    );
  });

  it('writes rows out of other files, block by block', async () => {
    await using logits = await openRows(fixture('stored.npz'), { name: 'logits' });
    await using labels = await openRows(fixture('deflated.npz'), { name: 'labels' });
    await writeSafetensors(path('rows.safetensors'), { logits, labels });
    await using reader = await openRows(path('rows.safetensors'), { name: 'logits' });
    assert.deepEqual(valuesOf(await reader.read()), valuesOf(await logits.read()));
  });

  it('leaves the path as it was where blocks are not what was said', async () => {
    mkdirSync(path('kept'));
    const rows = sample('float32', [4, 3]);
    const said = (shape: readonly number[], dtype: DType) => ({
      shape,
      dtype,
      blocks: () => blocksOf(rows, 2),
    });
    for (const [value, message] of [
      [said([5, 3], 'float32'), /ended after 48 of 60 bytes/],
      [said([3, 3], 'float32'), /float32 of shape \[3, 3\], got float32 of shape \[2, 3\] after 24 bytes/],
      [said([4, 3], 'int32'), /int32 of shape \[4, 3\], got float32/],
      [said([6, 2], 'float32'), /got float32 of shape \[2, 3\]/],
    ] as const) {
      await assert.rejects(writeSafetensors(path('kept/a.safetensors'), { value }), {
        code: 'ERR_SHAPE',
        message,
      });
    }
    assert.deepEqual(readdirSync(path('kept')), []);
  });

  it('refuses names and metadata that the format does not have', async () => {
    const file = path('x.safetensors');
    await assert.rejects(writeSafetensors(file, { __metadata__: [1] }), {
      code: 'ERR_OPTION',
      message: /another name/,
    });
    await assert.rejects(writeSafetensors(file, { a: [1] }, { metadata: { n: 1 as never } }), {
      code: 'ERR_OPTION',
    });
    await assert.rejects(writeSafetensors(file, [1] as never), { code: 'ERR_OPTION', message: /by name/ });
  });
});

/** A Python with NumPy, if there is one. */
const python = ['/usr/bin/python3', 'python3'].find(
  (command) => spawnSync(command, ['-c', 'import numpy']).status === 0,
);

describe('NumPy itself', () => {
  const path = temporaryFolder();

  (python === undefined ? it.skip : it)(
    `${python === undefined ? 'is not installed here, so only its committed files were read; it ' : ''}loads what is written here, and saves what is read here`,
    async () => {
      const shapes = [[5, 3], [7], [2, 3, 4]];
      for (const dtype of dtypes.filter((each) => each !== 'bfloat16')) {
        for (const [i, shape] of shapes.entries())
          await writeNpy(path(`${dtype}_${i}.npy`), sample(dtype, shape));
        await writeNpy(path(`${dtype}_blocks.npy`), blocksOf(sample(dtype, [5, 3]), 2));
      }
      const script = `
import sys, numpy as np
folder, dtypes = sys.argv[1], sys.argv[2:]
for dtype in dtypes:
    for i, shape in enumerate([(5, 3), (7,), (2, 3, 4), (5, 3)]):
        name = folder + dtype + '_' + (str(i) if i < 3 else 'blocks') + '.npy'
        array = np.load(name, allow_pickle=False)
        assert array.dtype == np.dtype(dtype) and array.shape == shape and array.flags.c_contiguous, name
        steps = 7 * np.arange(array.size) % 23
        kind = array.dtype.kind
        expected = {'f': (steps - 11) / 4, 'i': steps - 11, 'u': steps, 'b': steps % 2}[kind]
        assert (array.ravel() == expected.astype(dtype)).all(), name
        np.save(folder + 'again.npy', array)
        assert i == 3 or open(folder + 'again.npy', 'rb').read() == open(name, 'rb').read(), name + ' is not as NumPy saves it'
    np.savez(folder + dtype + '.npz', a=array)
    np.savez_compressed(folder + dtype + '_small.npz', a=array)
print(np.__version__)
`;
      const names = dtypes.filter((dtype) => dtype !== 'bfloat16');
      const { status, stdout, stderr } = spawnSync(python!, ['-c', script, path('/'), ...names], {
        encoding: 'utf8',
      });
      assert.equal(status, 0, stderr);
      assert.match(stdout, /^\d+\.\d+/);
      for (const dtype of names) {
        for (const archive of [`${dtype}.npz`, `${dtype}_small.npz`]) {
          await using reader = await openRows(path(archive));
          assert.equal(reader.dtype, dtype);
          assert.deepEqual(await readInBlocks(reader, 2), valuesOf(sample(dtype, [5, 3])), archive);
        }
      }
    },
  );
});

describe('a crash while writing', () => {
  const path = temporaryFolder();

  it('leaves what was there before', async () => {
    await writeNpy(path('rows.npy'), [1, 2, 3]);
    const code = `
      import { NpyWriter } from 'surprisal/io';
      const writer = await NpyWriter.open(${JSON.stringify(path('rows.npy'))});
      await writer.write([4, 5]);
      process.kill(process.pid, 'SIGKILL');
    `;
    const { signal } = spawnSync(process.execPath, ['--input-type=module', '-e', code]);
    assert.equal(signal, 'SIGKILL');
    await using reader = await openRows(path('rows.npy'));
    assert.deepEqual(valuesOf(await reader.read()), [1, 2, 3]);
    assert.equal((await collect(reader)).length, 1);
  });
});
