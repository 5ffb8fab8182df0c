import { cpus, totalmem } from 'node:os';
import { binding } from './binding.js';
import { cudaUnavailable, describe, typeError } from './errors.js';
import { numberOption } from './options.js';

/** 'cpu', or a CUDA device: 'cuda' is 'cuda:0'. */
export type Device = 'cpu' | 'cuda' | `cuda:${number}`;

export interface DeviceInfo {
  readonly device: Device;
  readonly name: string;
  /** Bytes. */
  readonly memory: number;
  /** Instruction set of the CPU kernels, or a GPU's compute capability. */
  readonly capability: string;
}

/** The devices that losses can run on. */
export function devices(): DeviceInfo[] {
  const name = cpus()[0]?.model.trim() || process.arch;
  return [
    { device: 'cpu', name, memory: totalmem(), capability: binding.getInstructionSet() },
    ...binding.cuda().devices.map((gpu, i): DeviceInfo => ({ device: `cuda:${i}`, ...gpu })),
  ];
}

function describeCuda(): string[] {
  const { devices, unavailable } = binding.cuda();
  if (unavailable !== undefined) return [`cuda: not available: ${unavailable}`];
  return devices.map(
    ({ name, memory, capability }, i) =>
      `cuda:${i}: ${name}, ${(memory / 2 ** 30).toFixed(1)} GiB, compute capability ${capability}`,
  );
}

/** What works here, what does not, and what to do about it, in words. */
export function diagnose(): string {
  const { name } = devices()[0]!;
  const { allowed, quota } = binding.processors();
  const copies = binding.getMemoryMode() === 'copied';
  return [
    `surprisal on ${process.platform}-${process.arch}, Node ${process.versions.node}`,
    `cpu: ${name}; kernels for ${binding.getInstructionSet()} (available: ${binding.instructionSets.join(', ')}); ` +
      `${binding.getNumThreads()} threads, on ${allowed} processors` +
      (Number.isFinite(quota) ? ` with a quota of ${Number(quota.toFixed(2))} of them` : ''),
    `asynchronous calls: in ${copies ? 'copies of the arrays: this runtime has no way to hold their memory' : "the arrays' own memory"}`,
    ...describeCuda(),
  ].join('\n');
}

/** Numbers of devices on the native side: the CPU, and the first GPU. */
export const cpu = 0;
const firstGpu = 1;

/** The name of a device with this number. */
export const deviceName = (number: number): Device => (number === cpu ? 'cpu' : `cuda:${number - firstGpu}`);

/** Numbers of the devices that were found: GPUs are asked for once. */
const numbers = new Map<unknown, number>([['cpu', cpu]]);

/**
 * Checks a device's name and that it is there; its number on the native side. Throws ERR_OPTION or
 * ERR_CUDA_UNAVAILABLE.
 */
export function resolveDevice(device: unknown): number {
  let number = numbers.get(device);
  if (number === undefined) numbers.set(device, (number = findDevice(device)));
  return number;
}

function findDevice(device: unknown): number {
  const index = typeof device === 'string' ? /^cuda(?::(\d+))?$/.exec(device) : null;
  if (index !== null) {
    const { devices, unavailable } = binding.cuda();
    const number = Number(index[1] ?? 0);
    if (number < devices.length) return firstGpu + number;
    throw cudaUnavailable(
      unavailable ?? `there is no device ${number}, but ${devices.length}, counted from 0; see devices()`,
    );
  }
  throw typeError('ERR_OPTION', `expected 'cpu', 'cuda' or 'cuda:N' for device, got ${describe(device)}`);
}

const mostThreads = 1024;

if (binding.ignoredNumThreads !== undefined) {
  process.emitWarning(
    `SURPRISAL_NUM_THREADS: expected an integer in [1, ${mostThreads}], got ${describe(binding.ignoredNumThreads)}; ` +
      `it is ignored, and ${binding.getNumThreads()} threads are used`,
    { code: 'ERR_OPTION' },
  );
}

/**
 * How many threads of this process compute, at most: all asynchronous calls share so many, and a synchronous call uses
 * its own thread and the others.
 *
 * At first that is what the environment variable SURPRISAL_NUM_THREADS says (an integer in [1, 1024]; anything else is
 * ignored with a warning), and without it the number of processors that the process's affinity allows, or that the quota
 * of its control groups pays for, rounded up, where that is less.
 */
export function getNumThreads(): number {
  return binding.getNumThreads();
}

/**
 * Sets the number of threads, for every thread of the process and from the next block of rows on. Results do not depend
 * on it, bit by bit.
 *
 * @throws ERR_OPTION unless it is an integer in [1, 1024]
 */
export function setNumThreads(count: number): void {
  binding.setNumThreads(
    numberOption('setNumThreads', 'count', count, { min: 1, max: mostThreads, integer: true }),
  );
}
