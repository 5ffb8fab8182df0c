/** What a run does: its tasks, in order, and what they found. */

import { matchesPeers, measureBesidePeers, Ours, type Comparison } from './beside_peers.js';
import {
  Bench,
  matchesStrided,
  measureStrided,
  shapes,
  stridedShapes,
  type Selection,
  type Shape,
} from './matrix.js';
import type { Options } from './options.js';
import type { Peer } from './peers/index.js';
import * as report from './report.js';
import type { Measurement, Noise, PeerMeasurement, PeerStatus, SmallCall } from './results.js';
import type { Task } from './schedule.js';
import { measureSmallCalls } from './small_calls.js';

export interface Found {
  readonly measurements: Measurement[];
  readonly noise: Noise[];
  readonly peerMeasurements: PeerMeasurement[];
  readonly smallCalls: SmallCall[];
  readonly leftOut: string[];
}

export interface Surroundings {
  readonly options: Options;
  readonly selection: Selection;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  /** Shows a finished table. */
  readonly print: (text: string) => void;
  /** Gives arrays of up to gigabytes back before the next ones are made. */
  readonly collectGarbage: () => void;
}

const quickShapes = ['32x10', '1024x1000', '4096x1000'];
const allShapes = shapes;

function chosenShapes({ shapes: asked, quick }: Options): Shape[] {
  if (asked === undefined) return allShapes.filter(({ name }) => !quick || quickShapes.includes(name));
  return asked.map(([rows, classes]) => {
    const name = `${rows}x${classes}`;
    const known = allShapes.find((candidate) => candidate.name === name);
    return known ?? { name, rows, classes, allDTypes: true, allSets: true };
  });
}

/** Where peers are measured: at the size of a cache on one thread and on all, and out of the caches on all. */
export function comparisons({ options, selection }: Surroundings): Comparison[] {
  if (!selection.dtypes.includes('float32')) return [];
  const most = Math.max(...options.threads);
  const all: readonly Comparison[] = [
    { shape: '4096x1000', rows: 4096, classes: 1000, threads: 1 },
    { shape: '4096x1000', rows: 4096, classes: 1000, threads: most },
    { shape: '512x32000', rows: 512, classes: 32000, threads: most },
  ];
  return all.filter(
    (comparison, i) =>
      options.threads.includes(comparison.threads) &&
      (options.shapes?.some((dims) => dims.join('x') === comparison.shape) ?? true) &&
      (!options.quick || quickShapes.includes(comparison.shape)) &&
      all.findIndex(({ shape, threads }) => shape === comparison.shape && threads === comparison.threads) ===
        i &&
      matchesPeers(selection.matches, comparison).length > 0,
  );
}

/** More time for more work, though not in proportion: small shapes need rounds too. */
const weightOf = (elements: number): number => elements ** 0.7 + 5000;

const elementsOf = (dims: readonly number[]): number => dims.reduce((product, size) => product * size, 1);

function smallCallTasks({ options, selection, random, print }: Surroundings, found: Found): Task[] {
  if (!selection.matches('small calls')) return [];
  return [
    {
      title: 'small calls',
      weight: weightOf(0),
      run: async () => {
        found.smallCalls.push(...measureSmallCalls(options.quick ? 1e5 : 1e6, random));
        print(report.smallCallTable(found.smallCalls));
      },
    },
  ];
}

function matrixTasks(
  { options, selection, random, print, collectGarbage }: Surroundings,
  found: Found,
): Task[] {
  return chosenShapes(options).flatMap((shape) => {
    const { cases } = new Bench(shape, selection);
    const own: Measurement[] = [];
    // Made when the first of its tasks begins, and let go of when the last one ends.
    let bench: Bench | undefined;
    return cases.map((subject, i) => ({
      title: `${shape.name} · ${subject.name}`,
      weight: (shape.allSets ? 1.5 : 1) * weightOf(shape.rows * shape.classes),
      run: async (limits): Promise<void> => {
        bench ??= new Bench(shape, selection);
        const { measurements, noise, leftOut } = await bench.measure(subject, limits, random);
        own.push(...measurements);
        found.measurements.push(...measurements);
        found.noise.push(...noise);
        found.leftOut.push(...leftOut);
        if (i === cases.length - 1) {
          print(report.shapeTables(shape.name, own));
          bench = undefined;
        }
        collectGarbage();
      },
    })) satisfies Task[];
  });
}

function stridedTasks(
  { options, selection, random, print, collectGarbage }: Surroundings,
  found: Found,
): Task[] {
  const wanted = matchesStrided(selection) && selection.dtypes.includes('float32');
  if (!wanted || options.shapes !== undefined) return [];
  return stridedShapes.slice(0, options.quick ? 1 : undefined).map((dims) => ({
    title: `${dims.join('x')} · strided`,
    weight: weightOf(elementsOf(dims)),
    run: async (limits) => {
      const measurements = await measureStrided(dims, selection, limits, random);
      found.measurements.push(...measurements);
      print(report.stridedTable(dims.join('x'), measurements));
      collectGarbage();
    },
  }));
}

function peerTasks(
  surroundings: Surroundings,
  peers: readonly Peer[],
  statuses: readonly PeerStatus[],
  found: Found,
): Task[] {
  const { selection, random, print, collectGarbage } = surroundings;
  return comparisons(surroundings).flatMap((comparison) => {
    const { shape, rows, classes, threads } = comparison;
    const losses = matchesPeers(selection.matches, comparison);
    const own: PeerMeasurement[] = [];
    let ours: Ours | undefined;
    return losses.map((loss, i) => ({
      title: `${shape} · ${loss} · beside peers`,
      weight: weightOf(rows * classes),
      run: async (limits): Promise<void> => {
        if (ours === undefined) {
          ours = new Ours(rows, classes);
          for (const peer of peers) await peer.load(ours.batch);
        }
        // Peers take up to seconds a run; the noise of a long run is small.
        const minRounds = Math.min(rows * classes > 1e7 ? 3 : 5, limits.minRounds);
        const allowed = { ...limits, minRounds };
        own.push(
          ...(await measureBesidePeers(ours, loss, peers, comparison, selection.matches, allowed, random)),
        );
        if (i === losses.length - 1) {
          ours = undefined;
          found.peerMeasurements.push(...own);
          print(report.peerTable(shape, threads, own, statuses));
          collectGarbage();
        }
      },
    })) satisfies Task[];
  });
}

/** All tasks of a run; what they measure goes to `found`. */
export function planTasks(
  surroundings: Surroundings,
  peers: readonly Peer[],
  statuses: readonly PeerStatus[],
  found: Found,
): Task[] {
  return [
    ...smallCallTasks(surroundings, found),
    ...matrixTasks(surroundings, found),
    ...stridedTasks(surroundings, found),
    ...peerTasks(surroundings, peers, statuses, found),
  ];
}
