import type { NativeEvent, NativeStream } from '../binding.js';
import { binding } from './binding.js';
import { cpu, deviceName, resolveDevice, type Device } from './device.js';
import { describe, typeError } from './errors.js';
import { checkOptions } from './options.js';

export interface StreamOptions {
  /** A GPU, 'cuda' by default. */
  device?: Device;
}

/** The number of a GPU. Throws ERR_OPTION for the CPU. */
function resolveGpu(owner: string, device: unknown): number {
  const number = resolveDevice(device);
  if (number === cpu) throw typeError('ERR_OPTION', `${owner}: expected a CUDA device, got 'cpu'`);
  return number;
}

/** A stream on the native side. */
export let streamHandle: (stream: Stream) => NativeStream;

/**
 * Work of a GPU that is done in order, as `torch.cuda.Stream`. Calls go to their device's default stream unless
 * `{ stream }` says otherwise. A stream waits by itself for what other streams do to the tensors that it is given.
 *
 * @throws ERR_CUDA_UNAVAILABLE, ERR_OPTION, ERR_CUDA
 */
export class Stream {
  readonly device: Device;
  readonly #handle: NativeStream;

  static {
    streamHandle = (stream) => stream.#handle;
  }

  constructor(options?: StreamOptions) {
    const { device = 'cuda' } = checkOptions('Stream', options, ['device']);
    const number = resolveGpu('Stream', device);
    this.#handle = binding.createStream(number);
    this.device = deviceName(number);
  }

  /** Waits until all that the stream was given is done. */
  synchronize(): void {
    binding.synchronizeStream(this.#handle);
  }

  /** The same, off the event loop. */
  async synchronizeAsync(): Promise<void> {
    await binding.synchronizeStreamAsync(this.#handle);
  }

  /** Records an event, a new one by default, after all that the stream was given so far. */
  recordEvent(event: Event = new Event({ device: this.device })): Event {
    event.record(this);
    return event;
  }

  /** What the stream is given from now on waits for the event. */
  waitEvent(event: Event): void {
    binding.waitForEvent(this.#handle, eventHandle(checkEvent('Stream.waitEvent', event)));
  }

  /** What the stream is given from now on waits for all that another one was given so far. */
  waitStream(stream: Stream): void {
    this.waitEvent(checkStream('Stream.waitStream', stream).recordEvent());
  }
}

let eventHandle: (event: Event) => NativeEvent;

/** A point in a stream, as `torch.cuda.Event` with timing. */
export class Event {
  readonly device: Device;
  readonly #number: number;
  readonly #handle: NativeEvent;

  static {
    eventHandle = (event) => event.#handle;
  }

  constructor(options?: StreamOptions) {
    const { device = 'cuda' } = checkOptions('Event', options, ['device']);
    this.#number = resolveGpu('Event', device);
    this.#handle = binding.createEvent(this.#number);
    this.device = deviceName(this.#number);
  }

  /** Moves the event to the end of what a stream was given so far; of the device's default stream without one. */
  record(stream?: Stream): void {
    const target = stream === undefined ? this.#number : streamHandle(checkStream('Event.record', stream));
    binding.recordEvent(this.#handle, target);
  }

  /** Whether the stream has come to it. */
  query(): boolean {
    return binding.eventHasCome(this.#handle);
  }

  /** Waits until the stream has come to it. */
  synchronize(): void {
    binding.synchronizeEvent(this.#handle);
  }

  /** The same, off the event loop. */
  async synchronizeAsync(): Promise<void> {
    await binding.synchronizeEventAsync(this.#handle);
  }

  /** Milliseconds from this event to `end`. Both must have come. */
  elapsedTime(end: Event): number {
    return binding.elapsedTime(this.#handle, eventHandle(checkEvent('Event.elapsedTime', end)));
  }
}

/** Checks the `stream` option of `owner`, for work on the device of this number. Throws ERR_OPTION. */
export function streamOption(owner: string, stream: unknown, device: number): NativeStream | undefined {
  if (stream === undefined) return undefined;
  const checked = checkStream(owner, stream);
  if (checked.device !== deviceName(device)) {
    throw typeError(
      'ERR_OPTION',
      `${owner}: stream is one of ${checked.device}, but the work is on ${deviceName(device)}`,
    );
  }
  return streamHandle(checked);
}

function checkStream(owner: string, stream: unknown): Stream {
  if (stream instanceof Stream) return stream;
  throw typeError('ERR_OPTION', `${owner}: expected a Stream, got ${describe(stream)}`);
}

function checkEvent(owner: string, event: unknown): Event {
  if (event instanceof Event) return event;
  throw typeError('ERR_OPTION', `${owner}: expected an Event, got ${describe(event)}`);
}
