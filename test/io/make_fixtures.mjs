// Writes test/io/fixtures/*.arrow, *.arrows and *.parquet with Polars and DuckDB, which are no dependencies of the package:
//
//   npm install --no-save nodejs-polars @duckdb/node-api && node test/io/make_fixtures.mjs [folder]
//
// (nodejs-polars 0.26, @duckdb/node-api 1.5; their native parts may have to be named too.) The columns are c0, c1 and c2,
// float32, of the rows of a [12, 3] array in which element i is ((7·i mod 23) − 11) / 4; label, int64, 7·row mod 3; small,
// int16, row − 5; flag, bool, whether row is odd; and text. DuckDB's have logits, lists of c0, c1 and c2, instead of columns.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DuckDBInstance } from '@duckdb/node-api';
import pl from 'nodejs-polars';

const folder = process.argv[2] ?? fileURLToPath(new URL('fixtures', import.meta.url));
mkdirSync(folder, { recursive: true });
const path = (name) => join(folder, name);

const rows = Array.from({ length: 12 }, (_, row) => row);
const value = (i) => (((7 * i) % 23) - 11) / 4;

const table = pl.DataFrame([
  ...[0, 1, 2].map((c) =>
    pl.Series(
      `c${c}`,
      rows.map((row) => value(3 * row + c)),
      pl.Float32,
    ),
  ),
  pl.Series(
    'label',
    rows.map((row) => (7 * row) % 3),
    pl.Int64,
  ),
  pl.Series(
    'small',
    rows.map((row) => row - 5),
    pl.Int16,
  ),
  pl.Series(
    'flag',
    rows.map((row) => row % 2 === 1),
    pl.Bool,
  ),
  pl.Series(
    'text',
    rows.map((row) => `row ${row}`),
  ),
]);
table.writeIPC(path('polars.arrow'), { compression: 'uncompressed' });
table.writeIPC(path('polars_lz4.arrow'), { compression: 'lz4' });
table.writeIPCStream(path('polars.arrows'));
for (const compression of ['uncompressed', 'snappy', 'gzip', 'brotli', 'zstd', 'lz4']) {
  table.writeParquet(path(`polars_${compression}.parquet`), {
    compression,
    rowGroupSize: 5,
    statistics: true,
  });
}

const connection = await (await DuckDBInstance.create()).connect();
await connection.run(`CREATE TABLE t AS SELECT
  [(((21 * i) % 23) - 11) / 4, (((21 * i + 7) % 23) - 11) / 4, (((21 * i + 14) % 23) - 11) / 4]::FLOAT[] AS logits,
  ((7 * i) % 3)::BIGINT AS label, i::FLOAT / 3 AS score,
  CASE WHEN i % 4 = 3 THEN NULL ELSE i END AS holes, range(i % 3) AS ragged
  FROM range(12) r(i)`);
for (const [name, options] of [
  ['duckdb', 'COMPRESSION snappy'],
  ['duckdb_v2', 'COMPRESSION uncompressed, PARQUET_VERSION V2'],
  ['duckdb_v2_zstd', 'COMPRESSION zstd, PARQUET_VERSION V2'],
]) {
  await connection.run(`COPY t TO '${path(`${name}.parquet`)}' (FORMAT parquet, ${options})`);
}
