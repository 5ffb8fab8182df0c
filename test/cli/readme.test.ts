import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from '../io/files.js';
import { output } from './command.js';

describe("the README's evaluation", () => {
  const path = temporaryFolder();

  it('is what the example and the command give', () => {
    const readme = readFileSync('README.md', 'utf8');
    const [, command, expected] =
      /^<!-- a real evaluation -->\n\n```console\n\$ npx surprisal (.*)\n([^`]*)```$/m.exec(readme)!;
    const { status } = spawnSync(process.execPath, [
      join('dist-dev', 'examples', 'scores.js'),
      '--out',
      path('.'),
    ]);
    assert.equal(status, 0);
    const args = command!.split(' ').map((arg) => (/\.\w+$/.test(arg) ? path(arg) : arg));
    const found = output(...args);

    const numbers = (text: string) =>
      [...text.matchAll(/\d[\d,.]*/g)].map(([n]) => Number(n.replaceAll(',', '')));
    const words = (text: string) => text.replaceAll(/\d[\d,.]*/g, 'N').replaceAll(/ +/g, ' ');
    assert.equal(words(found), words(expected!));
    numbers(expected!).forEach((number, i) => {
      // Instruction sets round their sums differently, and sixty epochs carry that on: a few rows of ten thousand.
      const actual = numbers(found)[i]!;
      assert.ok(Math.abs(actual - number) <= 0.02 * number, `${actual} is not ${number}`);
    });
    assert.match(readFileSync(path('report.html'), 'utf8'), /<section id="matrix">.*Chinstrap/s);
  });
});
