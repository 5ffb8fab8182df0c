import type { Arrays, NativeArray } from '../binding.js';
import { binding } from './binding.js';
import { abortError, typeError } from './errors.js';

type Transfer = (this: TransferableBuffer, newLength?: number) => TransferableBuffer;
type TransferableBuffer = ArrayBufferLike & {
  readonly resizable?: boolean;
  readonly transfer?: Transfer;
  readonly transferToFixedLength?: Transfer;
};

/** Memory that can be given back to the system while a thread works in it can't be used off the event loop. */
function refuseResizable(owner: string, buffers: ReadonlySet<TransferableBuffer>): void {
  for (const { resizable } of buffers) {
    if (resizable) {
      throw typeError(
        'ERR_DTYPE',
        `${owner}: an asynchronous call can't work in a resizable ArrayBuffer, which may shrink meanwhile; ` +
          `pass a copy (array.slice()) or make the call synchronous`,
      );
    }
  }
}

/** How many calls are at work in each buffer whose `transfer` copies. */
const copying = new Map<TransferableBuffer, number>();

const transfers = ['transfer', 'transferToFixedLength'] as const;

/** The same as `transfer`, but a new length takes a copy. */
const transferByCopy = (transfer: Transfer): Transfer =>
  function (newLength) {
    if (newLength === undefined) return transfer.call(this);
    const result = new ArrayBuffer(newLength);
    const moved = new Uint8Array(transfer.call(this));
    new Uint8Array(result).set(moved.subarray(0, result.byteLength));
    return result;
  };

/**
 * V8 of Node 22 reallocates for `transfer(newLength)`, and so frees memory that is held. There the buffers copy instead,
 * until the returned function is called; whoever transfers one sees no difference.
 */
function copyOnTransfer(owner: string, buffers: ReadonlySet<TransferableBuffer>): () => void {
  if (binding.getMemoryMode() !== 'held' || !binding.transferFreesHeldMemory()) return () => undefined;
  const own = [...buffers].filter(({ transfer }) => transfer !== undefined); // shared ones have none
  if (!own.every((buffer) => copying.has(buffer) || Object.isExtensible(buffer))) {
    throw typeError(
      'ERR_DTYPE',
      `${owner}: an asynchronous call can't work in a frozen ArrayBuffer in this version of Node.js; ` +
        `pass a copy (array.slice()) or make the call synchronous`,
    );
  }
  for (const buffer of own) {
    const calls = copying.get(buffer) ?? 0;
    copying.set(buffer, calls + 1);
    if (calls > 0) continue;
    for (const name of transfers) {
      Object.defineProperty(buffer, name, { value: transferByCopy(buffer[name]!), configurable: true });
    }
  }
  return () => {
    for (const buffer of own) {
      const calls = copying.get(buffer)! - 1;
      if (calls > 0) {
        copying.set(buffer, calls);
      } else {
        copying.delete(buffer);
        for (const name of transfers) Reflect.deleteProperty(buffer, name);
      }
    }
  };
}

/** What each signal stops, by one listener: Node.js takes more than ten for a leak. */
const stopping = new WeakMap<AbortSignal, Set<() => void>>();

/** Has `signal` call `stop`, until the returned function is called. */
function stopOnAbort(signal: AbortSignal, stop: () => void): () => void {
  const others = stopping.get(signal);
  const stops = others ?? new Set();
  stops.add(stop);
  if (others === undefined) {
    stopping.set(signal, stops);
    signal.addEventListener('abort', stopAll);
  }
  return () => {
    stops.delete(stop);
    if (stops.size > 0) return;
    stopping.delete(signal);
    signal.removeEventListener('abort', stopAll);
  };
}

function stopAll(this: AbortSignal): void {
  for (const stop of stopping.get(this) ?? []) stop();
}

/**
 * Runs a call that passed every check on the pool's threads, while JavaScript goes on; gives what binding.evaluate
 * returns. It works in the arrays' own memory, which lives until it has ended, whatever becomes of the arrays.
 *
 * @param results the memory of `out` by name, which must be there in the end
 */
export async function evaluateAsync(
  owner: string,
  arrays: Arrays,
  results: Readonly<Record<string, NativeArray | undefined>>,
  signal: AbortSignal | undefined,
): Promise<number | undefined> {
  // Of a call on a GPU's memory nothing of the host's is used once it was given to the GPU.
  const [, input] = arrays;
  const worksInHost = ArrayBuffer.isView(input) ? arrays : [];
  const buffers = new Set(worksInHost.flatMap((array) => (ArrayBuffer.isView(array) ? [array.buffer] : [])));
  refuseResizable(owner, buffers);
  if (signal?.aborted) throw abortError(signal.reason);
  const releaseBuffers = copyOnTransfer(owner, buffers);
  let releaseSignal: (() => void) | undefined;
  let loss: number | undefined;
  try {
    const { id, promise } = binding.evaluateAsync(...arrays);
    if (signal !== undefined) releaseSignal = stopOnAbort(signal, () => binding.cancel(id));
    loss = await promise;
  } catch (error) {
    throw (error as { code?: unknown }).code === 'ERR_ABORTED' ? abortError(signal?.reason) : error;
  } finally {
    releaseSignal?.();
    releaseBuffers();
  }
  for (const [name, memory] of Object.entries(results)) {
    if (ArrayBuffer.isView(memory) && memory.byteLength === 0) {
      throw typeError(
        'ERR_DISPOSED',
        `${owner}: the buffer of ${name} was transferred while the call was at work, so the result is not there; ` +
          `await the call first`,
      );
    }
  }
  return loss;
}
