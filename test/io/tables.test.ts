/** Arrow and Parquet: files of Polars and DuckDB, and what apache-arrow writes. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import {
  Bool,
  Field,
  FixedSizeList,
  Float16,
  Float32,
  Float64,
  Int32,
  Table,
  Utf8,
  tableToIPC,
  vectorFromArray,
} from 'apache-arrow';
import { listArrays, openRows } from 'surprisal/io';
import { fixture, fixtureValue, readInBlocks, temporaryFolder, valuesOf } from './files.js';
import { arrowTable, fixtures } from './fuzzing.js';

const rows = Array.from({ length: 12 }, (_, row) => row);
const logits = Array.from({ length: 36 }, (_, i) => fixtureValue(i, 'float32'));
const columns = ['c0', 'c1', 'c2'];

/** The columns of make_fixtures.mjs. */
const expected = [
  ...columns.map((name, c) => ({ name, dtype: 'float32', values: rows.map((row) => logits[3 * row + c]!) })),
  { name: 'label', dtype: 'int64', values: rows.map((row) => (7 * row) % 3) },
  { name: 'small', dtype: 'int16', values: rows.map((row) => row - 5) },
  { name: 'flag', dtype: 'bool', values: rows.map((row) => row % 2) },
];

describe('openRows() of Arrow and Parquet files', () => {
  const polars = [...fixtures(/^polars\.arrows?$/), ...fixtures(/^polars.*\.parquet$/)];
  assert.equal(polars.length, 8);

  for (const path of polars) {
    it(`reads columns of ${path}, of which Polars wrote it`, async () => {
      const listed = await listArrays(path);
      for (const { name, dtype, values } of expected) {
        assert.deepEqual(
          listed.find((array) => array.name === name),
          { name, shape: [12], dtype },
        );
        await using reader = await openRows(path, { name });
        assert.deepEqual(await readInBlocks(reader, 5), values);
        assert.deepEqual(valuesOf(await reader.read({ start: 4, end: 11 })), values.slice(4, 11));
      }
    });

    it(`reads columns of ${path} as classes`, async () => {
      await using reader = await openRows(path, { columns });
      assert.equal(reader.name, undefined);
      assert.deepEqual(reader.shape, [12, 3]);
      assert.deepEqual(await readInBlocks(reader, 5), logits);
      assert.deepEqual(valuesOf(await reader.read({ start: 7, end: 12 })), logits.slice(21));
      await using one = await openRows(path, { columns: ['c2'] });
      assert.deepEqual(one.shape, [12, 1]);
    });

    it(`says what is not read of ${path}`, async () => {
      await assert.rejects(openRows(path), { code: 'ERR_OPTION', message: /'c0', 'c1'.*'text'/ });
      await assert.rejects(openRows(path, { name: 'text' }), {
        code: 'ERR_FILE_UNSUPPORTED',
        message: /column of numbers.*"text" is/,
      });
      await assert.rejects(openRows(path, { columns: ['c0', 'label'] }), {
        code: 'ERR_OPTION',
        message: /one dtype as classes/,
      });
    });
  }

  for (const path of fixtures(/^duckdb.*\.parquet$/)) {
    it(`reads lists of ${path}, of which DuckDB wrote it`, async () => {
      await using reader = await openRows(path, { name: 'logits' });
      assert.deepEqual(reader.shape, [12, 3]);
      assert.equal(reader.dtype, 'float32');
      assert.deepEqual(await readInBlocks(reader, 5), logits);
      await using scores = await openRows(path, { name: 'score' });
      assert.deepEqual(
        valuesOf(await scores.read()),
        rows.map((row) => Math.fround(row / 3)),
      );
      await using labels = await openRows(path, { name: 'label' });
      assert.deepEqual(await readInBlocks(labels, 7), expected[3]!.values);
      const nulls = await openRows(path, { name: 'holes' });
      await assert.rejects(nulls.read(), { code: 'ERR_FILE_UNSUPPORTED', message: /has nulls/ });
      await nulls.close();
      await assert.rejects(openRows(path, { name: 'ragged' }), {
        code: 'ERR_FILE_UNSUPPORTED',
        message: /lists of one length/,
      });
      await assert.rejects(openRows(path, { columns: ['logits', 'logits'] }), { code: 'ERR_OPTION' });
    });
  }

  for (const form of ['file', 'stream'] as const) {
    it(`reads the record batches of an Arrow ${form} with lists of one length`, async () => {
      const bytes = tableToIPC(arrowTable(), form);
      assert.deepEqual(await listArrays(bytes), [
        { name: 'logits', shape: [10, 3], dtype: 'float32' },
        { name: 'label', shape: [10], dtype: 'int32' },
      ]);
      await using reader = await openRows(bytes, { name: 'logits' });
      const values = Array.from({ length: 30 }, (_, i) => i / 4);
      for (const rowsPerBlock of [1, 3, 5, 10])
        assert.deepEqual(await readInBlocks(reader, rowsPerBlock), values);
      assert.deepEqual(valuesOf(await reader.read({ start: 4, end: 6 })), values.slice(12, 18));
    });

    it(`finds its columns behind others in an Arrow ${form}: strings, nested lists, bools, dictionaries`, async () => {
      const pairs = new FixedSizeList(
        2,
        new Field('pair', new FixedSizeList(2, new Field('item', new Float64()))),
      );
      const table = new Table({
        text: vectorFromArray(['a', 'bc', null], new Utf8()),
        word: vectorFromArray(['x', 'y', 'x']),
        pairs: vectorFromArray(
          [0, 4, 8].map((i) => [
            [i, i + 1],
            [i + 2, i + 3],
          ]),
          pairs,
        ),
        flag: vectorFromArray([true, false, true], new Bool()),
        half: vectorFromArray([1, -2, 0.5], new Float16()),
        holes: vectorFromArray([1, null, 3], new Int32()),
      });
      const bytes = tableToIPC(table, form);
      const read = async (name: string) => {
        await using reader = await openRows(bytes, { name });
        return [reader.dtype, reader.shape, await readInBlocks(reader, 2)];
      };
      assert.deepEqual(await read('pairs'), ['float64', [3, 2, 2], Array.from({ length: 12 }, (_, i) => i)]);
      assert.deepEqual(await read('flag'), ['bool', [3], [1, 0, 1]]);
      assert.deepEqual(await read('half'), ['float16', [3], [1, -2, 0.5]]);
      await assert.rejects(read('holes'), { code: 'ERR_FILE_UNSUPPORTED', message: /has 1 nulls/ });
      await assert.rejects(read('word'), { code: 'ERR_FILE_UNSUPPORTED', message: /Dictionary/ });
    });
  }

  it('reads no rows', async () => {
    const type = new FixedSizeList(3, new Field('item', new Float32()));
    const bytes = tableToIPC(new Table({ logits: vectorFromArray([], type) }), 'file');
    await using reader = await openRows(bytes);
    assert.deepEqual(reader.shape, [0, 3]);
    assert.deepEqual(await readInBlocks(reader, 2), []);
  });

  it('refuses compressed record batches and says what to do', async () => {
    await assert.rejects(openRows(fixture('polars_lz4.arrow'), { name: 'c0' }), {
      code: 'ERR_FILE_UNSUPPORTED',
      message: /compression='uncompressed'/,
    });
  });
});

describe('packages that are not installed', () => {
  const path = temporaryFolder();

  /** The code and message of opening a file where `name` can't be found. */
  function openWithout(name: string, file: string, column: string): { code: string; message: string } {
    const hooks = `export async function resolve(specifier, context, next) {
      if (specifier === ${JSON.stringify(name)}) {
        throw Object.assign(new Error('no such package'), { code: 'ERR_MODULE_NOT_FOUND' });
      }
      return next(specifier, context);
    }`;
    const code = `
      import { register } from 'node:module';
      register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(hooks)}`)});
      const { openRows } = await import('surprisal/io');
      await openRows(${JSON.stringify(file)}, { name: ${JSON.stringify(column)} }).then(
        () => console.log(JSON.stringify({ code: 'none', message: '' })),
        ({ code, message }) => console.log(JSON.stringify({ code, message })),
      );`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
      encoding: 'utf8',
    });
    assert.ok(stdout !== '', stderr);
    return JSON.parse(stdout) as { code: string; message: string };
  }

  for (const [name, file] of [
    ['apache-arrow', 'polars.arrow'],
    ['hyparquet', 'polars_snappy.parquet'],
    ['hyparquet-compressors', 'polars_lz4.parquet'],
  ] as const) {
    it(`are named with the command that installs them: ${name}`, () => {
      const { code, message } = openWithout(name, fixture(file), 'c0');
      assert.equal(code, 'ERR_PACKAGE_MISSING');
      assert.match(
        message,
        new RegExp(`takes the package ${name}, which is not installed; run: npm install ${name}$`),
      );
    });
  }

  it('are needed for their own files alone', () => {
    assert.equal(openWithout('apache-arrow', fixture('polars_snappy.parquet'), 'c0').code, 'none');
    assert.equal(openWithout('hyparquet-compressors', fixture('polars_gzip.parquet'), 'c0').code, 'none');
    writeFileSync(path('none.arrow'), readFileSync(fixture('polars.arrow')));
    assert.equal(openWithout('hyparquet', path('none.arrow'), 'c0').code, 'none');
  });
});
