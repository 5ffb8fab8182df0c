import type { DeviceArray } from '../binding.js';
import { binding } from './binding.js';
import { deviceName, resolveDevice, type Device } from './device.js';
import { describe, rangeError, typeError } from './errors.js';

/** Memory of a GPU that somebody else in this process has, as `@rapidsai/cuda` describes it. */
export interface DeviceMemory {
  /** Its address. */
  readonly ptr: number | bigint;
  readonly byteLength: number;
  /** The GPU: its number, a name as 'cuda:0', or an object with an `id`. */
  readonly device: number | Device | { readonly id: number };
}

export function isDeviceMemory(value: unknown): value is DeviceMemory {
  return (
    typeof value === 'object' &&
    value !== null &&
    !ArrayBuffer.isView(value) &&
    'ptr' in value &&
    'byteLength' in value &&
    'device' in value
  );
}

/** What borrowed memory must not outlive. */
const owners = new WeakMap<DeviceArray, object>();

function gpuOf(name: string, device: unknown): number {
  const id = typeof device === 'object' && device !== null && 'id' in device ? device.id : device;
  const number = resolveDevice(typeof id === 'number' ? `cuda:${id}` : id);
  if (deviceName(number) !== 'cpu') return number;
  throw typeError(
    'ERR_OPTION',
    `${name}: expected a GPU as the device of { ptr, byteLength, device }, got 'cpu'`,
  );
}

/** Checks an address and a size. Throws ERR_DTYPE. */
export function checkMemory(name: string, { ptr, byteLength }: DeviceMemory): void {
  if (!(typeof ptr === 'bigint' ? ptr > 0n : Number.isSafeInteger(ptr) && ptr > 0)) {
    throw typeError('ERR_DTYPE', `${name}: expected an address as ptr, got ${describe(ptr)}`);
  }
  if (!Number.isSafeInteger(byteLength) || byteLength < 0) {
    throw typeError(
      'ERR_DTYPE',
      `${name}: expected a number of bytes as byteLength, got ${describe(byteLength)}`,
    );
  }
}

/** Borrows memory that was checked, and keeps its object. Throws ERR_SHAPE, ERR_OPTION, ERR_CUDA_UNAVAILABLE. */
export function borrow(
  name: string,
  memory: DeviceMemory,
  elementSize: number,
): { readonly memory: DeviceArray; readonly device: Device } {
  const address = BigInt(memory.ptr);
  if (address % BigInt(elementSize) !== 0n) {
    throw rangeError(
      'ERR_SHAPE',
      `${name}: expected a ptr that ${elementSize} divides, the size of an element, got ${memory.ptr}`,
    );
  }
  const number = gpuOf(name, memory.device);
  const borrowed = binding.borrowDevice(number, address, memory.byteLength);
  owners.set(borrowed, memory);
  return { memory: borrowed, device: deviceName(number) };
}
