import { availableParallelism, cpus, totalmem } from 'node:os';
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

const noCuda = 'this build of surprisal has no CUDA backend; CPU tensors work on the CPU';

/** The devices that losses can run on. */
export function devices(): DeviceInfo[] {
  const name = cpus()[0]?.model.trim() || process.arch;
  return [{ device: 'cpu', name, memory: totalmem(), capability: binding.getInstructionSet() }];
}

/** What works here, what does not, and what to do about it, in words. */
export function diagnose(): string {
  const { name } = devices()[0]!;
  return [
    `surprisal on ${process.platform}-${process.arch}, Node ${process.versions.node}`,
    `cpu: ${name}; kernels for ${binding.getInstructionSet()} (available: ${binding.instructionSets.join(', ')}); ` +
      `${binding.getNumThreads()} of ${availableParallelism()} threads`,
    `cuda: not available: ${noCuda}`,
  ].join('\n');
}

/** Checks a device's name and that it is there. Throws ERR_OPTION or ERR_CUDA_UNAVAILABLE. */
export function resolveDevice(device: unknown): 'cpu' {
  if (device === 'cpu') return device;
  if (typeof device === 'string' && /^cuda(:\d+)?$/.test(device)) throw cudaUnavailable(noCuda);
  throw typeError('ERR_OPTION', `expected 'cpu', 'cuda' or 'cuda:N' for device, got ${describe(device)}`);
}

/** Threads that a call may use, this one included. */
export function getNumThreads(): number {
  return binding.getNumThreads();
}

/** Sets the number of threads for the whole process. Results do not depend on it, bit by bit. */
export function setNumThreads(count: number): void {
  binding.setNumThreads(numberOption('setNumThreads', 'count', count, { min: 1, max: 1024, integer: true }));
}
