/**
 * Each loss beside what the memory allows, and beside its peers. README.md tells the method; `npm run bench -- --help`
 * the options.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { getNumThreads } from 'surprisal';
import { binding } from './binding.js';
import { charts } from './chart.js';
import { generator } from './data.js';
import { floorAddon } from './floor.js';
import { describeMachine, fileNameOf } from './machine.js';
import type { Selection } from './matrix.js';
import { parseOptions, usage, type Options } from './options.js';
import { openPeers } from './peers/index.js';
import { comparisons, planTasks, type Found, type Surroundings } from './plan.js';
import * as report from './report.js';
import { readResults, schema, writeResults, type PeerStatus, type Results } from './results.js';
import { runTasks } from './schedule.js';
import { scorecard } from './scorecard.js';

const root = dirname(createRequire(import.meta.url).resolve('surprisal/package.json'));

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

function print(text: string): void {
  report.showStatus('');
  console.log(`\n${text}`);
}

function select({ dtypes, quick, threads, instructionSets, words }: Options): Selection {
  return {
    dtypes: dtypes ?? (quick ? ['float32'] : ['float32', 'float16', 'bfloat16', 'float64']),
    threads,
    instructionSets: quick ? instructionSets.slice(0, 1) : instructionSets,
    matches: (line) => words.every((word) => line.toLowerCase().includes(word)),
  };
}

/** Measures what the options ask for, and shows each table when it is complete. */
async function measure(options: Options): Promise<Results> {
  const started = Date.now();
  const machine = describeMachine();
  const node = process.versions.node;
  const selection = select(options);
  const { instructionSets, threads } = selection;
  const [instructionSet] = instructionSets;
  binding.setInstructionSet(instructionSet!);
  console.log(report.machineLines(machine, node, instructionSets.join(', ')));
  report.showStatus('building what measures the floors ...');
  floorAddon();

  const surroundings: Surroundings = { options, selection, random: generator(7), print, collectGarbage };
  const { present, absent } =
    comparisons(surroundings).length > 0 ? await openPeers() : { present: [], absent: [] };
  const peers: PeerStatus[] = [
    ...present.map(({ name, detail }) => ({ name, present: true, detail })),
    ...absent.map(({ name, reason }) => ({ name, present: false, detail: reason })),
  ];
  if (peers.length > 0) print(report.peerLines(peers));

  const found: Found = { measurements: [], noise: [], peerMeasurements: [], smallCalls: [], leftOut: [] };
  const tasks = planTasks(surroundings, present, peers, found);
  if (tasks.length === 0) throw new RangeError(`nothing matches --filter ${options.words.join(' ')}`);
  const scheduling = { budget: options.budget, minRounds: options.rounds, maxRounds: 101, precision: 0.003 };
  await runTasks(tasks, scheduling, ({ title }, i) => {
    report.showStatus(`${i + 1} of ${tasks.length} · ${title}`);
  });
  for (const peer of present) await peer.close();

  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  return {
    schema,
    date: new Date(started).toISOString(),
    surprisal: version,
    node,
    machine,
    instructionSet: instructionSet!,
    instructionSets,
    threads,
    arguments: process.argv.slice(2),
    seconds: Math.round((Date.now() - started) / 1000),
    peers,
    ...found,
    scorecard: scorecard(found.measurements, found.smallCalls, threads, instructionSets),
  };
}

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2), getNumThreads(), binding.instructionSets);
  if (options === undefined) {
    console.log(usage);
    return;
  }
  const results = await measure(options);
  if (results.leftOut.length > 0) print(results.leftOut.map((line) => `left out: ${line}`).join('\n'));
  if (results.noise.length > 0) print(report.noiseLine(results.noise));
  if (results.scorecard.length > 0) print(report.scorecardTable(results.scorecard));

  const usual = join(root, 'bench', 'results', `${fileNameOf(results.machine)}.json`);
  const file = options.json ?? (options.everything ? usual : undefined);
  if (file === undefined) {
    print(`${results.seconds} s; --json <file> writes the results of a run of parts`);
    return;
  }
  writeResults(file, results);
  print(`${results.seconds} s; wrote ${file}`);
  if (!options.chart) return;
  // From the file, whose figures are rounded: whoever draws it again gets the same.
  for (const [name, svg] of await charts(readResults(file), file)) {
    writeFileSync(name, svg);
    console.log(`drew ${name}`);
  }
}

try {
  await main();
} catch (error) {
  report.showStatus('');
  if (!(error instanceof RangeError || error instanceof TypeError)) throw error;
  console.error(`bench: ${error.message}`);
  process.exitCode = 1;
}
