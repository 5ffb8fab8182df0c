/**
 * What a loss is measured against: a plain read, copy or fill of the same memory, in native code (native/floor.cc),
 * built here for this machine.
 */

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { childEnv } from './child_env.js';

const require = createRequire(import.meta.url);
const root = dirname(require.resolve('surprisal/package.json'));

type View = Float32Array | Float64Array | Uint16Array | BigInt64Array;

/** The bytes at i·rowStep + indices[i]·indexStep, for each i. */
export interface Gather {
  readonly from: View;
  readonly indices: Int32Array;
  readonly rowStep: number;
  readonly indexStep: number;
  readonly bytes: number;
}

/** What has to move, at the least. */
export interface Traffic {
  /** In words: 'read', 'copy', ... */
  readonly kind: string;
  readonly reads?: readonly View[];
  readonly gathers?: readonly Gather[];
  readonly copies?: readonly { readonly from: View; readonly to: View }[];
  readonly fills?: readonly View[];
}

/** A function of the addon's that moves the bytes once. */
export type Mover = () => void;

interface Addon {
  readonly readMethods: readonly string[];
  readonly copyMethods: readonly string[];
  readonly fillMethods: readonly string[];
  readonly plan: (
    description: Required<Omit<Traffic, 'kind'>> & {
      readonly threads: number;
      readonly pieces: number;
      readonly readMethod: string;
      readonly copyMethod: string;
      readonly fillMethod: string;
    },
  ) => Mover;
  /** Sum of the 64-bit words that a plan read when it last ran, modulo 2⁶⁴. */
  readonly sum: (plan: Mover) => bigint;
  readonly empty: (...values: readonly unknown[]) => void;
}

function build(folder: string): void {
  const env = childEnv();
  const run = (...args: string[]) => {
    const { error, status, stdout, stderr } = spawnSync('cmake', args, { cwd: root, env, encoding: 'utf8' });
    if (error || status !== 0) {
      throw new Error(
        `the bench needs CMake and a C++20 compiler to build ${join('bench', 'native')}: cmake ${args.join(' ')} ` +
          `failed with ${error?.message ?? `exit code ${status}`}\n${stdout}${stderr}`,
      );
    }
  };
  if (!existsSync(join(folder, 'CMakeCache.txt'))) {
    const headers = dirname(require.resolve('node-api-headers/package.json'));
    const generator = spawnSync('ninja', ['--version'], { env }).error ? 'Unix Makefiles' : 'Ninja';
    const include = `-DNODE_API_INCLUDE=${join(headers, 'include')}`;
    run('-S', join('bench', 'native'), '-B', folder, '-G', generator, include);
  }
  run('--build', folder);
}

let addon: Addon | undefined;

/** The addon, built first where that is due. */
export function floorAddon(): Addon {
  if (addon === undefined) {
    const folder = join(root, 'build-bench');
    build(folder);
    addon = require(join(folder, 'floor.node')) as Addon;
  }
  return addon;
}

const sizeOf = (views: readonly View[]): number => views.reduce((sum, { byteLength }) => sum + byteLength, 0);

/** Bytes read and written. */
export function bytesOf({ reads = [], gathers = [], copies = [], fills = [] }: Traffic): number {
  return (
    sizeOf(reads) +
    gathers.reduce((sum, { indices, bytes }) => sum + indices.length * bytes, 0) +
    2 * sizeOf(copies.map(({ from }) => from)) +
    sizeOf(fills)
  );
}

export interface FastestFloor {
  readonly kind: string;
  readonly method: string;
  readonly bytes: number;
  /** It copies, by other means than memcpy. */
  readonly copiesOtherwise: boolean;
  readonly run: Mover;
}

const tries = 7;

/** The shortest of several runs: what a way can do, whoever else was on the machine meanwhile. */
function shortestTime(run: Mover): number {
  let shortest = Infinity;
  for (let i = 0; i < tries; i++) {
    run();
    const start = process.hrtime.bigint();
    run();
    shortest = Math.min(shortest, Number(process.hrtime.bigint() - start));
  }
  return shortest;
}

/** Up to so many bytes one thread can be done before another is awake. */
const worthOneThread = 2 ** 20;

/** Bytes of each array that a thread moves before it turns to the next array. */
const pieceBytes = 65536;

/**
 * The fastest way that this machine has to move these bytes with so many threads, or, for few bytes, with one where waking
 * the others takes longer; and where there is more than one array, one after the other or by turns. Reads, copies and fills are
 * chosen in this order. A plain one copies by memcpy, whatever else would be faster.
 */
export function fastestFloor(traffic: Traffic, threads: number, plain = false): FastestFloor {
  const { plan, readMethods, copyMethods, fillMethods } = floorAddon();
  const { kind, reads = [], gathers = [], copies = [], fills = [] } = traffic;
  let best = {
    threads,
    pieces: 1,
    readMethod: readMethods[0]!,
    copyMethod: copyMethods[0]!,
    fillMethod: fillMethods[0]!,
    ...{ reads, gathers, copies, fills },
  };
  let run = plan(best);
  let time = shortestTime(run);
  const consider = (changes: readonly Partial<typeof best>[]) => {
    for (const change of changes) {
      const candidate = { ...best, ...change };
      const candidateRun = plan(candidate);
      const candidateTime = shortestTime(candidateRun);
      if (candidateTime < time) [best, run, time] = [candidate, candidateRun, candidateTime];
    }
  };
  const reading = reads.length + gathers.length > 0;
  if (reading) consider(readMethods.slice(1).map((readMethod) => ({ readMethod })));
  if (copies.length > 0 && !plain) consider(copyMethods.slice(1).map((copyMethod) => ({ copyMethod })));
  if (fills.length > 0) consider(fillMethods.slice(1).map((fillMethod) => ({ fillMethod })));
  const arrays = reads.length + gathers.length + copies.length + fills.length;
  const pieces = Math.ceil(bytesOf(traffic) / arrays / threads / pieceBytes);
  if (arrays > 1 && pieces > 1) consider([{ pieces }]);
  if (threads > 1 && bytesOf(traffic) <= worthOneThread) consider([{ threads: 1 }]);
  const methods = [
    ...(reading ? [best.readMethod] : []),
    ...(copies.length > 0 ? [best.copyMethod] : []),
    ...(fills.length > 0 ? [best.fillMethod] : []),
    ...(best.pieces > 1 ? ['by turns'] : []),
    ...(best.threads < threads ? ['one thread'] : []),
  ];
  const copiesOtherwise = copies.length > 0 && best.copyMethod !== copyMethods[0];
  return { kind, method: methods.join('; '), bytes: bytesOf(traffic), copiesOtherwise, run };
}
