/**
 * The native surface, typed. lib/binding.ts loads it; nothing else of the native side is visible to lib/.
 *
 * A call is described by numbers in one Float64Array, the header. Its slots are named by `fields`, in native
 * order, so neither side states an offset. Slots hold numbers or the index of a name in `dtypes`, `reductions` or
 * `losses`. Strides and sizes count elements.
 */

declare const kind: unique symbol;

/** Memory of a GPU. It goes back to the pool when it is collected, if not before. */
export interface DeviceArray {
  readonly [kind]: 'memory';
}

/** A stream of a GPU, and a point in one. */
export interface NativeStream {
  readonly [kind]: 'stream';
}
export interface NativeEvent {
  readonly [kind]: 'event';
}

export type NativeArray = ArrayBufferView | DeviceArray;

/** Slots of a call's header. */
export type Field =
  /** Index in `losses`, in `dtypes` (of input and grad) and in `reductions`. */
  | 'loss'
  | 'dtype'
  | 'reduction'
  /** What a mean divides by; 0 means the loss's own denominator. */
  | 'divisor'
  /** Rows are `outer` × `inner`; element (o, i, c) stands at o·outer stride + i·inner stride + c·class stride. */
  | 'outer'
  | 'inner'
  | 'classes'
  | 'inputOuterStride'
  | 'inputInnerStride'
  | 'inputClassStride'
  | 'gradOuterStride'
  | 'gradInnerStride'
  | 'gradClassStride'
  /** Class indices, one a row, contiguous. NaN as `ignoreIndex` ignores none. */
  | 'indicesDtype'
  | 'ignoreIndex'
  /** A dense target; with `denseByIndex` its row is the row's class index (a lens). */
  | 'denseDtype'
  | 'denseOuterStride'
  | 'denseInnerStride'
  | 'denseClassStride'
  | 'denseByIndex'
  /** weight and posWeight, in the compute dtype, broadcast by strides of 0. */
  | 'weightRowStride'
  | 'weightClassStride'
  | 'posWeightRowStride'
  | 'posWeightClassStride'
  /** dL/d(output): a number, or a tensor in the compute dtype with one value a row or an element. */
  | 'gradOutput'
  /**
   * Where the call is computed: 0 is the CPU, i + 1 is GPU i. Where the input is the host's memory, so are all arrays:
   * they are brought to the GPU and back. Where it is the GPU's, the results are too; of the others each may be either.
   */
  | 'device'
  /** Of `statistics`: how many ranks are counted, and bins. */
  | 'ranks'
  | 'bins'
  /** The loss's own parameters, in the order of its registry entry. */
  | `parameter${0 | 1 | 2 | 3 | 4 | 5}`;

export interface RegistryEntry {
  /** snake_case name of the loss. */
  readonly name: string;
  /** The driver that runs it: softmax_linear, softmax_coupled, row_group, elementwise, gather or row_map. */
  readonly kind: string;
  /** Names of its parameters, in order. */
  readonly parameters: readonly string[];
}

/**
 * The arrays of a call, those that most calls have first. Absent ones are undefined or, at the end, left out: to look
 * at an argument costs a call more than not to have it.
 */
export type Arrays = [
  header: Float64Array,
  input: NativeArray,
  indices?: NativeArray | undefined,
  grad?: NativeArray | undefined,
  /**
   * For reduction 'none', one loss a row or an element, in the compute dtype: float64 for float64 input, else float32.
   * Of an input in a GPU's memory the loss, whatever the reduction.
   */
  output?: NativeArray | undefined,
  dense?: NativeArray | undefined,
  gradOutput?: NativeArray | undefined,
  weight?: NativeArray | undefined,
  posWeight?: NativeArray | undefined,
  /** A constant of a class index's target, added to its row's loss (float64, one a class). */
  constants?: NativeArray | undefined,
  /**
   * Of cross entropy alone, with a class index a row, reduced and without a gradient: an evaluation's statistics
   * (float64, see StatisticsLayout) and its confusion matrix without the diagonal (float64, wrong rows by label and class found). What the rows give
   * is added to both when the call has succeeded: by evaluate before it returns, by evaluateAsync before its promise
   * settles, on JavaScript's thread. Whoever calls keeps them from being collected until then.
   */
  statistics?: Float64Array | undefined,
  confusion?: Float64Array | undefined,
  /** Of a GPU: where the work goes, its default stream if undefined. */
  stream?: NativeStream | undefined,
];

/** Where each of an evaluation's statistics stands: native/statistics.h. All are whole numbers. */
export interface StatisticsLayout {
  readonly ignored: number;
  readonly undefined: number;
  readonly uncarried: number;
  readonly brier: number;
  readonly entropy: number;
  readonly ranks: number;
  /** bins + 1 groups of `binWords` words: rows, rows that are right, and a sum. */
  readonly bins: number;
  readonly binWords: number;
  /** A group of `labelWords` words a class: rows, right ones, those of infinite and of undefined loss, and a sum. */
  readonly labels: number;
  readonly labelWords: number;
  readonly size: number;
  /** A sum is Σ word[i]·2^(digitBits·i + digitsExponent) over so many words. */
  readonly digits: number;
  readonly digitBits: number;
  readonly digitsExponent: number;
}

export interface AsyncCall {
  /** For `cancel`. */
  readonly id: number;
  /** What evaluate returns. */
  readonly promise: Promise<number | undefined>;
}

export type MemoryMode = 'held' | 'copied';

/** What CUDA finds. */
export interface Cuda {
  readonly devices: readonly {
    readonly name: string;
    /** Bytes. */
    readonly memory: number;
    /** Compute capability. */
    readonly capability: string;
  }[];
  /** Where there are none: why, and what to do. */
  readonly unavailable?: string;
}

export interface Processors {
  /** How many the affinity allows. */
  readonly allowed: number;
  /** How many processors' time the quotas of the control groups leave, Infinity without one. */
  readonly quota: number;
  /** The number of threads that follows. */
  readonly threads: number;
}

export interface Binding {
  readonly fields: readonly Field[];
  readonly dtypes: readonly string[];
  readonly reductions: readonly string[];
  readonly losses: readonly RegistryEntry[];
  /**
   * Runs a call on this thread and the pool. Throws before anything is written. Returns the loss, in float64; undefined
   * where `output` takes it. A call whose input is in a GPU's memory is only put into a stream: that a label was out of
   * range is thrown where the output is copied to the host.
   */
  evaluate(...arrays: Arrays): number | undefined;
  /** The same on the pool's threads alone; rejects with what evaluate throws. */
  evaluateAsync(...arrays: Arrays): AsyncCall;
  /**
   * Stops an asynchronous call: no row is begun any more, and it rejects with ERR_ABORTED when those at work are done.
   * Nothing where it has ended.
   */
  cancel(id: number): void;
  /**
   * What asynchronous calls work in: the arrays' memory, which they share in holding, or copies, which are written back
   * at the end, where the runtime has no way to hold memory. `setMemoryMode` is for tests.
   */
  getMemoryMode(): MemoryMode;
  setMemoryMode(mode: MemoryMode): void;
  /** Whether ArrayBuffer.prototype.transfer(newLength) frees memory that is held. */
  transferFreesHeldMemory(): boolean;
  /** Σ_c q·log q of each row of a contiguous rows × classes matrix, with 0·log 0 = 0. */
  negativeEntropy(matrix: NativeArray, dtype: number, rows: number, classes: number): Float64Array;
  statisticsLayout(classes: number, ranks: number, bins: number): StatisticsLayout;
  /**
   * Adds floating terms to a sum: `words` are its digits, and then how many terms were ∞, −∞ and NaN. The digits are
   * afterwards below 2^digitBits, but for the last.
   */
  addTerms(terms: NativeArray, dtype: number, words: Float64Array): void;
  /** Copies elementwise between floating dtypes, rounding once to nearest even. */
  convert(source: NativeArray, sourceDtype: number, target: NativeArray, targetDtype: number): void;
  /** Instruction sets that were compiled in and that this machine runs, best first. */
  readonly instructionSets: readonly string[];
  /** The one in use. `setInstructionSet` is for tests and benchmarks. */
  getInstructionSet(): string;
  setInstructionSet(name: string): void;
  /** The GPUs; the driver is first asked for here. */
  cuda(): Cuda;
  /**
   * Memory, streams and events of GPUs, which are numbered as in a call's header. Streams wait by themselves for other
   * streams' work on the memory that they use. All throw ERR_CUDA, ERR_OUT_OF_MEMORY or ERR_DISPOSED. A build without
   * CUDA has none of these functions.
   */
  allocateDevice(device: number, bytes: number, stream?: NativeStream): DeviceArray;
  freeDevice(memory: DeviceArray): void;
  /** What other processes open memory by, 64 bytes, once all work on it is done. */
  shareDevice(memory: DeviceArray): Uint8Array;
  /** Memory of another process, as long as that has not freed it. */
  openDevice(device: number, handle: Uint8Array, byteOffset: number, bytes: number): DeviceArray;
  /** Memory of somebody else in this process, who must keep it; and where memory is. */
  borrowDevice(device: number, address: bigint, bytes: number): DeviceArray;
  addressOfDevice(memory: DeviceArray): bigint;
  /** All of `source`, one of both a GPU's. Waits where the target is the host's; of another source it was read then. */
  copyDevice(source: NativeArray, target: NativeArray, stream?: NativeStream): void;
  /** The same on a thread of the pool. A target in host memory must be unknown to others until the promise settles. */
  copyDeviceAsync(source: NativeArray, target: NativeArray, stream?: NativeStream): Promise<undefined>;
  createStream(device: number): NativeStream;
  /** Waits for a stream, or for a device's default one. */
  synchronizeStream(stream: NativeStream | number): void;
  synchronizeStreamAsync(stream: NativeStream | number): Promise<undefined>;
  createEvent(device: number): NativeEvent;
  recordEvent(event: NativeEvent, stream: NativeStream | number): void;
  /** Has a stream wait for an event. */
  waitForEvent(stream: NativeStream | number, event: NativeEvent): void;
  eventHasCome(event: NativeEvent): boolean;
  synchronizeEvent(event: NativeEvent): void;
  synchronizeEventAsync(event: NativeEvent): Promise<undefined>;
  /** Milliseconds between two events that have come. */
  elapsedTime(from: NativeEvent, to: NativeEvent): number;
  /** What the emulator counts, in its build. */
  emulatorCounts?(): { readonly hostWaits: number; readonly deviceMemory: number; readonly kernels: number };
  /** What the system lets this process compute on. `root` is put before each path that is read, for tests. */
  processors(root?: string): Processors;
  /** What SURPRISAL_NUM_THREADS said where that was no number of threads. */
  readonly ignoredNumThreads?: string;
  getNumThreads(): number;
  setNumThreads(count: number): void;
}
