import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type * as ProgressModule from '../../dist/cli/progress.js';

// No export of the package: it is part of a program.
const url = pathToFileURL(resolve('dist', 'cli', 'progress.js')).href;
const { Progress, showRate, showTime } = (await import(url)) as typeof ProgressModule;

describe('the progress of a command', () => {
  const draw = (isTTY: boolean, columns = 100) => {
    const written: string[] = [];
    let now = 0;
    const stream = { isTTY, columns, write: (text: string) => written.push(text) };
    const progress = new Progress(stream, 10_000, 2000, () => now);
    return { written, progress, at: (time: number) => (now = time) };
  };

  it('is one line with rows, rows per second and the time left', () => {
    const { written, progress, at } = draw(true);
    at(2000);
    progress.update(6000);
    assert.deepEqual(written, [
      '\r\x1b[2K[##############----------] 60 %  6,000 of 10,000 rows  2000 rows/s  0:02 left',
    ]);
  });

  it('is drawn ten times a second at most, at the end, and taken away', () => {
    const { written, progress, at } = draw(true);
    for (let ms = 1; ms <= 1000; ms++) {
      at(ms);
      progress.update(2000 + ms);
    }
    assert.ok(written.length <= 11, `${written.length} times`);
    progress.update(10_000);
    assert.match(written.at(-1)!, /100 % {2}10,000 of 10,000 rows .* 0:00 left$/);
    progress.clear();
    assert.equal(written.at(-1), '\r\x1b[2K');
    const length = written.length;
    progress.clear();
    assert.equal(written.length, length);
  });

  it('fits into the terminal', () => {
    const { written, progress, at } = draw(true, 40);
    at(1000);
    progress.update(3000);
    assert.equal(written[0]!.length, '\r\x1b[2K'.length + 39);
  });

  it('is nothing where there is no terminal', () => {
    const { written, progress, at } = draw(false);
    at(1000);
    progress.update(6000);
    progress.clear();
    assert.deepEqual(written, []);
  });

  it('shows times and rates in units that fit', () => {
    assert.deepEqual([0, 59.2, 61, 3600, 7325, Infinity, NaN].map(showTime), [
      ...['0:00', '1:00', '1:01', '1:00:00', '2:02:05', '-:--', '-:--'],
    ]);
    assert.deepEqual([0, 512, 9999, 15_400, 2_500_000, 34e6].map(showRate), [
      ...['0 rows/s', '512 rows/s', '9999 rows/s', '15k rows/s', '2.5M rows/s', '34M rows/s'],
    ]);
  });
});
