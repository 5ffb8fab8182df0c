/**
 * Writes the README's sections on speed and on the speed of evaluation from runs' JSON, and draws the charts.
 *
 *   node dist-dev/bench/readme.js [bench/results/<cpu>.json]
 *   node dist-dev/bench/readme.js --check
 *
 * Files that are not given are those that the README names. --check writes nothing and fails where README or charts
 * are not what the JSON says.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { parseArgs } from 'node:util';
import { charts } from './chart.js';
import { evaluation, withEvaluationSection } from './evaluation_section.js';
import { readEvaluation, readResults } from './results.js';
import { sourceOf } from './section.js';
import { speed, withSpeedSection } from './speed_section.js';

const root = dirname(createRequire(import.meta.url).resolve('surprisal/package.json'));
const { values, positionals } = parseArgs({
  options: { check: { type: 'boolean', default: false } },
  allowPositionals: true,
});

const page = join(root, 'README.md');
const readme = readFileSync(page, 'utf8');
/** The file that is given for a section, or that the README names; and its name in the README. */
function jsonOf(name: string, asked: string | undefined): [json: string, link: string] {
  const json = asked === undefined ? join(root, sourceOf(readme, name)) : resolve(asked);
  return [json, relative(root, json).split(sep).join('/')];
}

const isEvaluation = (file: string): boolean => file.endsWith('_evaluation.json');
const [json, link] = jsonOf(
  speed,
  positionals.find((file) => !isEvaluation(file)),
);
const [evaluationJson, evaluationLink] = jsonOf(evaluation, positionals.find(isEvaluation));
const results = readResults(json);
const withSpeed = await withSpeedSection(readme, results, link);
const wanted = new Map([
  [page, await withEvaluationSection(withSpeed, readEvaluation(evaluationJson), evaluationLink)],
  ...(await charts(results, json)),
]);

let stale = 0;
for (const [file, text] of wanted) {
  if (existsSync(file) && readFileSync(file, 'utf8') === text) continue;
  stale++;
  if (values.check) {
    console.error(`${relative(root, file)} is not what the JSON says; run: npm run readme`);
  } else {
    writeFileSync(file, text);
    console.log(`wrote ${relative(root, file)}`);
  }
}
if (values.check && stale > 0) process.exitCode = 1;
