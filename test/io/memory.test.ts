import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { open } from 'node:fs/promises';
import { temporaryFolder } from './files.js';

const [numRows, classes, rowsPerBlock] = [100_000, 1000, 2000];
const blockBytes = 4 * classes * rowsPerBlock;

/** A file of 400 MB that takes no place on the disk: a header and a hole. */
async function sparseNpy(path: string): Promise<void> {
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${numRows}, ${classes}), }`;
  const bytes = Buffer.from(`\x93NUMPY\x01\x00\x76\x00${header.padEnd(117)}\n`, 'latin1');
  const file = await open(path, 'w');
  await file.write(bytes);
  await file.truncate(bytes.length + 4 * numRows * classes);
  await file.close();
}

/** Runs `work` over a reader of the file in a process of its own; gives how much its memory grew by, at most, in bytes. */
function growthOf(path: string, work: string): number {
  const code = `
    import { openRows } from 'surprisal/io';
    const reader = await openRows(${JSON.stringify(path)});
    // What a first block brings besides its memory: compiled code, and a thread for files.
    for await (const block of reader.blocks({ end: 1 })) if (block.shape[0] !== 1) throw new Error('no block');
    globalThis.gc();
    const before = process.memoryUsage.rss();
    let most = before;
    let rows = 0;
    const look = (block) => {
      rows += block.shape[0];
      most = Math.max(most, process.memoryUsage.rss());
    };
    ${work}
    await reader.close();
    console.log(JSON.stringify({ growth: most - before, rows }));
  `;
  const options = ['--expose-gc', '--input-type=module', '-e', code];
  const { stdout, stderr } = spawnSync(process.execPath, options, { encoding: 'utf8' });
  assert.ok(stdout !== '', stderr);
  const { growth, rows } = JSON.parse(stdout) as { growth: number; rows: number };
  assert.equal(rows, numRows);
  return growth;
}

describe('a file of 400 MB', () => {
  const path = temporaryFolder();
  before(() => sparseNpy(path('large.npy')));

  // Two buffers of 8 MB are used; the third block is for what else a process's memory does.
  it('is read with less than three blocks of memory', () => {
    const growth = growthOf(
      path('large.npy'),
      `for await (const block of reader.blocks({ rowsPerBlock: ${rowsPerBlock} })) look(block);`,
    );
    assert.ok(growth < 3 * blockBytes, `grew by ${growth} bytes`);
  });

  it('is left at once by a signal', () => {
    const code = `
      import { openRows } from 'surprisal/io';
      const reader = await openRows(${JSON.stringify(path('large.npy'))});
      const controller = new AbortController();
      let rows = 0;
      try {
        for await (const block of reader.blocks({ rowsPerBlock: 10, signal: controller.signal })) {
          rows += block.shape[0];
          if (rows === 500) setImmediate(() => controller.abort());
        }
      } catch ({ code }) {
        await reader.close();
        console.log(JSON.stringify({ code, early: rows < ${numRows} }));
      }`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
      encoding: 'utf8',
    });
    assert.ok(stdout !== '', stderr);
    assert.deepEqual(JSON.parse(stdout), { code: 'ERR_ABORTED', early: true });
  });
});
