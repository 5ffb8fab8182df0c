/** What the tests of files share. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DType, NestedArray, Tensor } from 'surprisal';
import type { RowReader } from 'surprisal/io';

export const fixture = (name: string): string => join('test', 'io', 'fixtures', name);

/** A folder for the tests of the suite that calls it, removed after them. Gives the path of a file in it. */
export function temporaryFolder(): (name: string) => string {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'surprisal-'));
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return (name) => join(folder, name);
}

/** Element i of an array of the fixtures, as make_fixtures.py has it. */
export function fixtureValue(i: number, dtype: DType): number {
  const step = (7 * i) % 23;
  if (dtype === 'bool') return step % 2;
  if (dtype.startsWith('uint')) return step;
  return dtype.startsWith('int') ? step - 11 : (step - 11) / 4;
}

export const flat = (value: number | NestedArray<number>): number[] => [value].flat(9) as number[];

/** All elements, read in blocks of this many rows. */
export async function readInBlocks(reader: RowReader, rowsPerBlock: number): Promise<number[]> {
  const values: number[] = [];
  for await (const block of reader.blocks({ rowsPerBlock })) {
    assert.equal(block.dtype, reader.dtype);
    assert.deepEqual(block.shape.slice(1), reader.rowShape);
    values.push(...flat(block.toArray()));
  }
  return values;
}

export const valuesOf = (tensor: Tensor): number[] => flat(tensor.toArray());

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
