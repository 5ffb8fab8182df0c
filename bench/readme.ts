/**
 * Writes the README's section on speed from a run's JSON, and draws the run's charts.
 *
 *   node dist-dev/bench/readme.js [bench/results/<cpu>.json]
 *   node dist-dev/bench/readme.js --check
 *
 * Without a file it takes the one that the README names. --check writes nothing and fails where README or charts are
 * not what the JSON says.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { parseArgs } from 'node:util';
import { charts } from './chart.js';
import { readResults } from './results.js';
import { sourceOf, withSpeedSection } from './speed_section.js';

const root = dirname(createRequire(import.meta.url).resolve('surprisal/package.json'));
const { values, positionals } = parseArgs({
  options: { check: { type: 'boolean', default: false } },
  allowPositionals: true,
});

const page = join(root, 'README.md');
const readme = readFileSync(page, 'utf8');
const [asked] = positionals;
const json = asked === undefined ? join(root, sourceOf(readme)) : resolve(asked);
const results = readResults(json);
const link = relative(root, json).split(sep).join('/');
const wanted = new Map([
  [page, await withSpeedSection(readme, results, link)],
  ...(await charts(results, json)),
]);

let stale = 0;
for (const [file, text] of wanted) {
  if (existsSync(file) && readFileSync(file, 'utf8') === text) continue;
  stale++;
  if (values.check) {
    console.error(`${relative(root, file)} is not what ${link} says; run: npm run readme`);
  } else {
    writeFileSync(file, text);
    console.log(`wrote ${relative(root, file)}`);
  }
}
if (values.check && stale > 0) process.exitCode = 1;
