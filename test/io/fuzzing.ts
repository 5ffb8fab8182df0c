/** Files with damage for every reader: each is either read or refused with a code, within the memory that it may take. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  tableFromArrays,
  tableToIPC,
  vectorFromArray,
  FixedSizeList,
  Field,
  Float32,
  Table,
} from 'apache-arrow';
import { tensor } from 'surprisal';
import { listArrays, openRows, writeSafetensors, type FileFormat } from 'surprisal/io';
import { countAllocations } from '../support/allocations.js';
import { mutated } from '../support/mutations.js';
import { Samples } from '../support/random.js';

const folder = 'test/io/fixtures';

export const fixtures = (pattern: RegExp): string[] =>
  readdirSync(folder)
    .filter((name) => pattern.test(name))
    .sort()
    .map((name) => join(folder, name));

async function safetensorsFiles(): Promise<Uint8Array[]> {
  const temporary = await mkdtemp(join(tmpdir(), 'surprisal-'));
  const path = join(temporary, 'file.safetensors');
  const logits = tensor(
    Float32Array.from({ length: 30 }, (_, i) => i / 4),
    { shape: [10, 3] },
  );
  const labels = BigInt64Array.from({ length: 10 }, (_, i) => BigInt(i % 3));
  const half = tensor(new Uint16Array(30).fill(0x3f80), { shape: [10, 3], dtype: 'bfloat16' });
  try {
    const files: Uint8Array[] = [];
    for (const tensors of [{ logits }, { logits, labels, half }]) {
      await writeSafetensors(path, tensors, { metadata: { format: 'pt' } });
      files.push(readFileSync(path));
    }
    return files;
  } finally {
    await rm(temporary, { recursive: true });
  }
}

/** A table with a column of lists of three float32 and one of int32, in two batches. */
export function arrowTable(): Table {
  const type = new FixedSizeList(3, new Field('item', new Float32()));
  const batch = (from: number) => {
    const rows = Array.from({ length: 5 }, (_, row) => [0, 1, 2].map((c) => (from + 3 * row + c) / 4));
    return new Table({
      logits: vectorFromArray(rows, type),
      label: tableFromArrays({ label: Int32Array.from(rows, (_, row) => row % 3) }).getChild('label')!,
    });
  };
  return batch(0).concat(batch(15));
}

/** Sound files, most of them of other programs. */
async function filesOf(format: FileFormat): Promise<Uint8Array[]> {
  const read = (pattern: RegExp) => fixtures(pattern).map((path) => new Uint8Array(readFileSync(path)));
  switch (format) {
    case 'npy':
      return read(/\.npy$/);
    case 'npz':
      return read(/\.npz$/);
    case 'safetensors':
      return safetensorsFiles();
    case 'arrow':
      return [...read(/\.arrows?$/), tableToIPC(arrowTable(), 'file'), tableToIPC(arrowTable(), 'stream')];
    case 'parquet':
      return read(/\.parquet$/);
  }
}

/** What a file may be refused with. */
const codes = new Set(['ERR_FILE', 'ERR_FILE_UNSUPPORTED', 'ERR_OPTION']);

/**
 * Bytes that listing and reading a file may ask for in all: so many times the file's, and a constant. Deflate could make 1032
 * bytes of one, and a Parquet column of runs any number up to the readers' own bound; damage does not make such files here.
 */
const allowed: Readonly<Record<FileFormat, { readonly times: number; readonly constant: number }>> = {
  npy: { times: 2, constant: 512 },
  npz: { times: 8, constant: 4096 },
  safetensors: { times: 4, constant: 512 },
  arrow: { times: 4, constant: 2048 },
  parquet: { times: 8, constant: 4096 },
};

type Outcome = 'read' | 'refused';

async function tryToRead(bytes: Uint8Array, format: FileFormat, name: string): Promise<Outcome> {
  const source = { name: `file.${format}`, size: bytes.length, read: readFrom(bytes) };
  let outcome: Outcome = 'refused';
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      const { code, message } = error as { code?: unknown; message: string };
      if (typeof code !== 'string' || !codes.has(code)) throw error;
      // Every message names the file and is a sentence to act on.
      if (!message.includes(source.name) || message.length < 40) throw error;
    }
  };
  await attempt(async () => {
    await listArrays(source, { format });
  });
  await attempt(async () => {
    await using reader = await openRows(source, { format, ...(name !== '' && { name }) });
    let rows = 0;
    for await (const block of reader.blocks({ rowsPerBlock: 3 })) rows += block.shape[0]!;
    assert.equal(rows, reader.numRows);
    outcome = 'read';
  });
  return outcome;
}

const readFrom =
  (bytes: Uint8Array) =>
  (into: Uint8Array, offset: number): number => {
    const part = bytes.subarray(offset, offset + into.length);
    into.set(part);
    return part.length;
  };

/** Names of arrays to ask for; '' for none. */
const namesOf: Readonly<Record<FileFormat, readonly string[]>> = {
  npy: [''],
  npz: ['', 'logits'],
  safetensors: ['', 'logits'],
  arrow: ['logits', 'c0', 'flag'],
  parquet: ['logits', 'c0', 'label', 'flag'],
};

/** Adds the tests: `count` damaged files for each reader. */
export function fuzzReaders(count: number, timeout: number): void {
  for (const format of Object.keys(allowed) as FileFormat[]) {
    it(`${format}: ${count.toLocaleString('en-US')} damaged files are read or refused with a code, in bounded memory`, async function () {
      this.timeout(timeout);
      const files = await filesOf(format);
      const { times, constant } = allowed[format];
      const names = namesOf[format];
      const samples = new Samples(20_261_122);
      const outcomes = { read: 0, refused: 0 };
      await countAllocations(async (allocations) => {
        let sound = 0;
        for (const file of files) {
          allocations.reset();
          const tried = await Promise.all(names.map((name) => tryToRead(file, format, name)));
          if (!tried.includes('read')) continue;
          sound++;
          assert.ok(allocations.total > 0, 'what is allocated is not counted');
        }
        // The rest hold what is not read here.
        assert.ok(sound > files.length / 2, `${sound} of ${files.length} files are sound`);
        for (let i = 0; i < count; i++) {
          const bytes = mutated(samples, files);
          const name = names[i % names.length]!;
          allocations.reset();
          try {
            outcomes[await tryToRead(bytes, format, name)]++;
          } catch (error) {
            assert.fail(`file ${i}, ${JSON.stringify(name)}: ${(error as Error).stack ?? String(error)}`);
          }
          if (allocations.total > constant + times * bytes.length) {
            assert.fail(
              `file ${i} of ${bytes.length} bytes took ${allocations.total}, ${allocations.largest} at once`,
            );
          }
        }
      });
      // Damage in elements is no damage to the file, and most of the rest is.
      assert.ok(outcomes.read > count / 100 && outcomes.refused > count / 10, JSON.stringify(outcomes));
    });
  }
}
