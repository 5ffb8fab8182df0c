import type { NativeArray } from '../../binding.js';
import { binding } from '../binding.js';
import { cpu } from '../device.js';
import type { TypedArray } from '../dtype.js';

/** Copies of a loss's own arrays on GPUs, made when a call first works there. */
export class Copies {
  readonly #copies = new WeakMap<NativeArray, Map<number, NativeArray>>();

  /** `array` in the memory of this device. */
  of(array: TypedArray | undefined, device: number): NativeArray | undefined {
    if (array === undefined || device === cpu) return array;
    let copies = this.#copies.get(array);
    if (copies === undefined) this.#copies.set(array, (copies = new Map<number, NativeArray>()));
    let copy = copies.get(device);
    if (copy === undefined) {
      copies.set(device, (copy = binding.allocateDevice(device, array.byteLength)));
      binding.copyDevice(array, copy);
    }
    return copy;
  }
}
