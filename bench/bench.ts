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
import { matchesPeers, measureBesidePeers, Ours, type Comparison } from './beside_peers.js';
import { binding } from './binding.js';
import { charts } from './chart.js';
import { generator } from './data.js';
import { floorAddon } from './floor.js';
import { describeMachine, fileNameOf } from './machine.js';
import {
  Bench,
  matchesStrided,
  measureStrided,
  shapes,
  stridedShapes,
  type Selection,
  type Shape,
} from './matrix.js';
import { parseOptions, usage, type Options } from './options.js';
import { openPeers } from './peers/index.js';
import * as report from './report.js';
import {
  readResults,
  schema,
  writeResults,
  type Measurement,
  type Noise,
  type PeerMeasurement,
  type PeerStatus,
  type Results,
  type SmallCall,
} from './results.js';
import { runTasks, type Task } from './schedule.js';
import { scorecard } from './scorecard.js';
import { measureSmallCalls } from './small_calls.js';

const root = dirname(createRequire(import.meta.url).resolve('surprisal/package.json'));

setFlagsFromString('--expose-gc');
/** Gives a shape's arrays, up to gigabytes, back before the next one's are made. */
const collectGarbage = runInNewContext('gc') as () => void;

const quickShapes = ['32x10', '1024x1000', '4096x1000'];

function chosenShapes({ shapes: asked, quick }: Options): Shape[] {
  if (asked === undefined) return shapes.filter(({ name }) => !quick || quickShapes.includes(name));
  return asked.map(([rows, classes]) => {
    const name = `${rows}x${classes}`;
    return (
      shapes.find((known) => known.name === name) ?? { name, rows, classes, allDTypes: true, allSets: true }
    );
  });
}

/** Where peers are measured: in the caches on one thread and on all, and out of them on all. */
function chosenComparisons(options: Options): Comparison[] {
  const most = Math.max(...options.threads);
  const all: readonly Comparison[] = [
    { shape: '4096x1000', rows: 4096, classes: 1000, threads: 1 },
    { shape: '4096x1000', rows: 4096, classes: 1000, threads: most },
    { shape: '512x32000', rows: 512, classes: 32000, threads: most },
  ];
  return all.filter(
    ({ shape, threads }, i) =>
      options.threads.includes(threads) &&
      (options.shapes === undefined || options.shapes.some((dims) => dims.join('x') === shape)) &&
      (!options.quick || shape === quickShapes.at(-1)) &&
      all.findIndex((other) => other.shape === shape && other.threads === threads) === i,
  );
}

/** More time for more work, though not in proportion: small shapes need rounds too. */
const weightOf = (elements: number): number => elements ** 0.7 + 5000;

async function main(): Promise<void> {
  const everySet = binding.instructionSets;
  const options = parseOptions(process.argv.slice(2), getNumThreads(), everySet);
  if (options === undefined) {
    console.log(usage);
    return;
  }
  const started = Date.now();
  const machine = describeMachine();
  const node = process.versions.node;
  const { threads, instructionSets, words, quick } = options;
  const [instructionSet] = instructionSets;
  binding.setInstructionSet(instructionSet!);
  console.log(`${report.machineLines(machine, node, instructionSets.join(', '))}\n`);
  report.showStatus('building the floor ...');
  floorAddon();
  report.showStatus('');

  const random = generator(7);
  const matches = (line: string) => words.every((word) => line.toLowerCase().includes(word));
  const selection: Selection = {
    dtypes: options.dtypes ?? (quick ? ['float32'] : ['float32', 'float16', 'bfloat16', 'float64']),
    threads,
    instructionSets: quick ? instructionSets.slice(0, 1) : instructionSets,
    matches,
  };

  const measurements: Measurement[] = [];
  const noise: Noise[] = [];
  const leftOut: string[] = [];
  const peerMeasurements: PeerMeasurement[] = [];
  let smallCalls: SmallCall[] = [];
  let peers: PeerStatus[] = [];
  const tasks: Task[] = [];

  if (matches('small calls')) {
    tasks.push({
      title: 'small calls',
      weight: weightOf(0),
      run: async () => {
        smallCalls = measureSmallCalls(quick ? 1e5 : 1e6, random);
        print(report.smallCallTable(smallCalls));
      },
    });
  }

  for (const shape of chosenShapes(options)) {
    let bench: Bench | undefined;
    const own: Measurement[] = [];
    const chosen = new Bench(shape, selection).cases;
    chosen.forEach((subject, i) => {
      tasks.push({
        title: `${shape.name} · ${subject.name}`,
        weight: (shape.allSets ? 1.5 : 1) * weightOf(shape.rows * shape.classes),
        run: async (limits) => {
          bench ??= new Bench(shape, selection);
          const result = await bench.measure(subject, limits, random);
          own.push(...result.measurements);
          measurements.push(...result.measurements);
          noise.push(...result.noise);
          leftOut.push(...result.leftOut);
          if (i === chosen.length - 1) {
            print(report.shapeTables(shape.name, own));
            bench = undefined;
          }
          collectGarbage();
        },
      });
    });
  }

  if (matchesStrided(selection) && options.shapes === undefined && selection.dtypes.includes('float32')) {
    for (const dims of quick ? stridedShapes.slice(0, 1) : stridedShapes) {
      tasks.push({
        title: `${dims.join('x')} · strided`,
        weight: weightOf(dims.reduce((product, size) => product * size, 1)),
        run: async (limits) => {
          const strided = await measureStrided(dims, selection, limits, random);
          measurements.push(...strided);
          print(report.stridedTable(dims.join('x'), strided));
          collectGarbage();
        },
      });
    }
  }

  const comparisons = selection.dtypes.includes('float32') ? chosenComparisons(options) : [];
  const wanted = comparisons.filter((comparison) => matchesPeers(matches, comparison).length > 0);
  const opened = wanted.length > 0 ? await openPeers() : { present: [], absent: [] };
  peers = [
    ...opened.present.map(({ name, detail }) => ({ name, present: true, detail })),
    ...opened.absent.map(({ name, reason }) => ({ name, present: false, detail: reason })),
  ];
  if (peers.length > 0) print(report.peerLines(peers));
  for (const comparison of wanted) {
    const { shape, rows, classes } = comparison;
    const losses = matchesPeers(matches, comparison);
    let ours: Ours | undefined;
    const own: PeerMeasurement[] = [];
    losses.forEach((loss, i) => {
      tasks.push({
        title: `${shape} · ${loss} · beside peers`,
        weight: weightOf(rows * classes),
        run: async (limits) => {
          if (ours === undefined) {
            ours = new Ours(rows, classes);
            for (const peer of opened.present) await peer.load(ours.batch);
          }
          // Peers take up to seconds a run; the noise of a long run is small.
          const minRounds = Math.min(rows * classes > 1e7 ? 3 : 5, limits.minRounds);
          own.push(
            ...(await measureBesidePeers(
              ...([ours, loss, opened.present, comparison, matches] as const),
              { ...limits, minRounds },
              random,
            )),
          );
          if (i === losses.length - 1) {
            ours = undefined;
            peerMeasurements.push(...own);
            print(report.peerTable(shape, comparison.threads, own, peers));
            collectGarbage();
          }
        },
      });
    });
  }

  if (tasks.length === 0) throw new RangeError(`nothing matches --filter ${words.join(' ')}`);
  const scheduling = { budget: options.budget, minRounds: options.rounds, maxRounds: 101, precision: 0.003 };
  await runTasks(tasks, scheduling, ({ title }, i) => {
    report.showStatus(`${i + 1} of ${tasks.length} · ${title}`);
  });
  report.showStatus('');
  for (const peer of opened.present) await peer.close();

  const targets = scorecard(measurements, smallCalls, threads, selection.instructionSets);
  for (const line of leftOut) console.log(`left out: ${line}`);
  if (noise.length > 0) console.log(`\n${report.noiseLine(noise)}`);
  if (targets.length > 0) print(report.scorecardTable(targets));

  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const results: Results = {
    schema,
    date: new Date(started).toISOString(),
    surprisal: version,
    node,
    machine,
    instructionSet: instructionSet!,
    instructionSets: selection.instructionSets,
    threads,
    arguments: process.argv.slice(2),
    seconds: Math.round((Date.now() - started) / 1000),
    measurements,
    noise,
    peers,
    peerMeasurements,
    smallCalls,
    leftOut,
    scorecard: targets,
  };
  const file =
    options.json ??
    (options.everything ? join(root, 'bench', 'results', `${fileNameOf(machine)}.json`) : undefined);
  if (file === undefined) {
    console.log(`\n${results.seconds} s; --json <file> writes the results of a run of parts`);
    return;
  }
  writeResults(file, results);
  console.log(`\n${results.seconds} s; wrote ${file}`);
  if (!options.chart) return;
  // From the file, whose figures are rounded: whoever draws it again gets the same.
  for (const [name, svg] of await charts(readResults(file), file)) {
    writeFileSync(name, svg);
    console.log(`drew ${name}`);
  }
}

function print(text: string): void {
  report.showStatus('');
  console.log(`\n${text}`);
}

try {
  await main();
} catch (error) {
  report.showStatus('');
  if (!(error instanceof RangeError || error instanceof TypeError)) throw error;
  console.error(`bench: ${error.message}`);
  process.exitCode = 1;
}
