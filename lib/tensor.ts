import type { DeviceArray, NativeArray, NativeStream } from '../binding.js';
import { binding, dtypeCode } from './binding.js';
import { cpu, deviceName, resolveDevice, type Device } from './device.js';
import { borrow, checkMemory, isDeviceMemory, type DeviceMemory } from './device_memory.js';
import {
  allocate,
  checkDType,
  elementSize,
  isDType,
  isFloat,
  knownDTypes,
  type DType,
  type FloatDType,
  type TypedArray,
} from './dtype.js';
import { describe, rangeError, typeError } from './errors.js';
import { checkOptions } from './options.js';
import { checkShape, checkStrides, contiguousStrides, extent, isSize, numel, showShape } from './shape.js';
import { streamOption, type Stream } from './stream.js';

export type NestedArray<T = number | bigint> = readonly (T | NestedArray<T>)[];

/** Whatever is taken as a tensor: see `tensor`. */
export type TensorLike =
  | Tensor
  | {
      readonly data: ArrayBufferView | DeviceMemory;
      readonly shape: readonly number[];
      readonly dtype?: string;
      readonly strides?: readonly number[];
    }
  /** As onnxruntime-node and transformers.js have it. */
  | {
      readonly data: unknown;
      readonly dims: readonly number[];
      readonly type: string;
      readonly location?: string;
    }
  | TypedArray
  | NestedArray
  | number
  | bigint;

/** True when the buffer under a view was transferred: its length is then 0, and nothing can be built on it. */
function isDetached(data: NativeArray): boolean {
  if (!ArrayBuffer.isView(data) || data.byteLength > 0) return false;
  try {
    new Uint8Array(data.buffer);
    return false;
  } catch {
    return true;
  }
}

function detachedError(name: string) {
  return typeError(
    'ERR_DISPOSED',
    `${name}: its buffer is detached (it was transferred to another thread or resized away); pass a live one`,
  );
}

export interface TransferOptions {
  /** Where the copy goes, the default stream of the GPU by default. */
  stream?: Stream;
}

/** What another process opens a tensor's memory by. JSON keeps it. */
export interface IpcHandle {
  /** CUDA's 64 bytes (cudaIpcMemHandle_t) in base64. */
  readonly handle: string;
  /** Where the elements begin in the memory of that handle. */
  readonly byteOffset: number;
  readonly shape: readonly number[];
  /** In elements; row-major without them. */
  readonly strides?: readonly number[];
  readonly dtype: DType;
  /** By its number where the handle is opened. */
  readonly device: Device;
}

/** Memory of a tensor that was not disposed of: a typed array, or a GPU's. */
export let memoryOf: (tensor: Tensor) => NativeArray;

/**
 * Numbers with a shape. `data` is the caller's own typed array wherever one was given: nothing is copied.
 * float16 and bfloat16 are held as their bits in a Uint16Array.
 *
 * A tensor on a GPU has its memory there, which goes back when the tensor is disposed of or collected. Nothing waits for
 * the GPU until values are read: by `item()`, `toArray()` and `to('cpu')`.
 */
export class Tensor {
  readonly shape: readonly number[];
  /** Steps between neighbours along each dimension, in elements. */
  readonly strides: readonly number[];
  readonly dtype: DType;
  readonly device: Device;
  #memory: NativeArray | undefined;

  static {
    memoryOf = (tensor) => tensor.#checkAlive();
  }

  /** Use `tensor()`, which checks. */
  constructor(
    data: TypedArray | DeviceArray,
    shape: readonly number[],
    dtype: DType,
    strides?: readonly number[],
    device: Device = 'cpu',
  ) {
    this.#memory = data;
    this.shape = shape;
    this.dtype = dtype;
    this.strides = strides ?? contiguousStrides(shape);
    this.device = device;
  }

  /** The elements. Throws ERR_DISPOSED after `dispose()`, and ERR_DTYPE where they are not in host memory. */
  get data(): TypedArray {
    const memory = this.#checkAlive();
    if (ArrayBuffer.isView(memory)) return memory as TypedArray;
    throw typeError(
      'ERR_DTYPE',
      `expected a tensor in host memory, but this one is on ${this.device}; read it by to('cpu'), item() or toArray()`,
    );
  }

  /** The only value of a tensor with one element. Integers of 64 bits come as a number. */
  item(): number {
    if (numel(this.shape) !== 1) {
      throw rangeError(
        'ERR_SHAPE',
        `item(): expected a tensor of one element, got shape ${showShape(this.shape)}`,
      );
    }
    return Number(this.#numbers()[0]);
  }

  /** Nested arrays of numbers; of a 0-d tensor its number. */
  toArray(): number | NestedArray<number> {
    const data = this.#numbers();
    const build = (axis: number, offset: number): number | NestedArray<number> =>
      axis === this.shape.length
        ? Number(data[offset])
        : Array.from({ length: this.shape[axis]! }, (_, i) =>
            build(axis + 1, offset + i * this.strides[axis]!),
          );
    return build(0, 0);
  }

  /**
   * This tensor on `device`: itself where it is there already, else a copy with the same strides. On the way to a GPU
   * nothing waits but for the elements to be read; on the way to the CPU all that the tensor comes from is waited for.
   *
   * @throws ERR_CUDA_UNAVAILABLE, ERR_OUT_OF_MEMORY, ERR_DISPOSED, ERR_OPTION; ERR_TARGET_OUT_OF_RANGE where this is the
   * loss of a call whose labels were wrong
   */
  to(device: Device, options?: TransferOptions): Tensor {
    const transfer = this.#transfer('Tensor.to', device, options);
    if (transfer === undefined) return this;
    const { source, target, stream, copy } = transfer;
    if (copy) binding.copyDevice(source, target, stream);
    return transfer.result;
  }

  /** `to`, off the event loop. Don't write to the tensor until the promise settles. */
  async toAsync(device: Device, options?: TransferOptions): Promise<Tensor> {
    const transfer = this.#transfer('Tensor.toAsync', device, options);
    if (transfer === undefined) return this;
    const { source, target, stream, copy } = transfer;
    if (copy) await binding.copyDeviceAsync(source, target, stream);
    return transfer.result;
  }

  /** Lets go of the data; a GPU's memory goes back at once. Using the tensor afterwards throws ERR_DISPOSED. */
  dispose(): void {
    const memory = this.#memory;
    this.#memory = undefined;
    if (memory !== undefined && !ArrayBuffer.isView(memory)) binding.freeDevice(memory);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /**
   * What another process opens this tensor's memory by, without a copy: `Tensor.fromIpcHandle` there, or
   * `cudaIpcOpenMemHandle`, as PyTorch and inference servers have it. All work on the tensor that was asked for so far is
   * waited for. The first call moves the elements to memory that has a handle; later ones, and what is written by
   * `{ out }`, find them there.
   *
   * The memory is this process's: it must live, and the tensor must not be disposed of, until the other one has closed it.
   * Whoever writes must say when that is done, after `synchronize()` of an `Event` that was recorded behind it.
   *
   * @throws ERR_CUDA for memory that is itself another's, ERR_OUT_OF_MEMORY, ERR_DISPOSED, ERR_DTYPE for one on the CPU
   */
  ipcHandle(): IpcHandle {
    const memory = this.#checkAlive();
    if (ArrayBuffer.isView(memory)) {
      throw typeError(
        'ERR_DTYPE',
        `ipcHandle(): expected a tensor on a GPU, but this one is in host memory; see to()`,
      );
    }
    const { shape, strides, dtype, device } = this;
    const handle = Buffer.from(binding.shareDevice(memory)).toString('base64');
    return { handle, byteOffset: 0, shape, strides, dtype, device };
  }

  /**
   * A tensor over memory of another process, without a copy. What was written to it before its handle was made is there;
   * for later writes wait until that process says so. Disposing of the tensor closes the memory.
   *
   * @throws ERR_CUDA for a handle that can't be opened, one of this very process too; ERR_DTYPE, ERR_SHAPE, ERR_OPTION,
   * ERR_CUDA_UNAVAILABLE
   */
  static fromIpcHandle(handle: IpcHandle): Tensor {
    const owner = 'Tensor.fromIpcHandle';
    const given = checkOptions(owner, handle, [
      'handle',
      'byteOffset',
      'shape',
      'strides',
      'dtype',
      'device',
    ]);
    const shape = checkShape(owner, given.shape);
    if (!isDType(given.dtype)) {
      throw typeError('ERR_DTYPE', `${owner}: expected a dtype, got ${describe(given.dtype)}`);
    }
    const strides = checkStrides(owner, given.strides, shape);
    const bytes = typeof given.handle === 'string' ? Buffer.from(given.handle, 'base64') : Buffer.alloc(0);
    if (bytes.length !== 64) {
      throw typeError(
        'ERR_DTYPE',
        `${owner}: expected 64 bytes in base64 as handle, got ${describe(given.handle)}`,
      );
    }
    const size = elementSize(given.dtype);
    if (!isSize(given.byteOffset) || given.byteOffset % size !== 0) {
      throw rangeError(
        'ERR_SHAPE',
        `${owner}: expected a byteOffset that ${size} divides, the size of an element, got ${describe(given.byteOffset)}`,
      );
    }
    const number = resolveDevice(given.device);
    if (number === cpu) throw typeError('ERR_OPTION', `${owner}: expected a GPU as device, got 'cpu'`);
    const length = extent(shape, strides ?? contiguousStrides(shape));
    const memory = binding.openDevice(number, bytes, given.byteOffset, Math.max(length, 1) * size);
    return new Tensor(memory, shape, given.dtype, strides, deviceName(number));
  }

  #checkAlive(): NativeArray {
    if (this.#memory === undefined)
      throw typeError('ERR_DISPOSED', 'this tensor was disposed; its data is gone');
    return this.#memory;
  }

  /** The memory that a copy to another device takes; undefined where this is there already. */
  #transfer(owner: string, device: Device, options: TransferOptions | undefined) {
    const source = this.#checkAlive();
    const number = resolveDevice(device);
    const { stream } = checkOptions(owner, options, ['stream']);
    const there = deviceName(number);
    if (there === this.device) return undefined;
    const { shape, dtype, strides } = this;
    const length = ArrayBuffer.isView(source) ? (source as TypedArray).length : extent(shape, strides);
    if (length === 0 && isDetached(source)) throw detachedError('tensor');
    const handle = streamOption(owner, stream, number === cpu ? resolveDevice(this.device) : number);
    const target = memoryOn(number, dtype, length, handle);
    return {
      source,
      target,
      stream: handle,
      copy: length > 0,
      result: new Tensor(target, shape, dtype, strides, there),
    };
  }

  /** The elements as a typed array of plain numbers (or bigints). */
  #numbers(): TypedArray {
    const { dtype } = this;
    const { data } = this.to('cpu');
    if (isDetached(data)) throw detachedError('tensor');
    if (dtype !== 'float16' && dtype !== 'bfloat16') return data;
    const numbers = new Float32Array(data.length);
    if (data.length > 0) binding.convert(data, dtypeCode[dtype]!, numbers, dtypeCode['float32']!);
    return numbers;
  }
}

/** Memory for `length` elements on the device of this number. */
function memoryOn(
  device: number,
  dtype: DType,
  length: number,
  stream?: NativeStream,
): TypedArray | DeviceArray {
  if (device === cpu) return allocate(dtype, length);
  return binding.allocateDevice(device, Math.max(length, 1) * elementSize(dtype), stream);
}

/** A tensor over memory of a GPU that somebody else in this process has. */
function fromDevice(
  name: string,
  data: DeviceMemory,
  shape: unknown,
  dtype: unknown,
  strides: unknown,
): Tensor {
  if (!isDType(dtype)) {
    throw typeError(
      'ERR_DTYPE',
      `${name}: expected a dtype among ${knownDTypes} for memory of a GPU, got ${describe(dtype)}`,
    );
  }
  checkMemory(name, data);
  const size = elementSize(dtype);
  const checkedShape = shape === undefined ? [Math.floor(data.byteLength / size)] : checkShape(name, shape);
  const checkedStrides = checkStrides(name, strides, checkedShape);
  const needed = extent(checkedShape, checkedStrides ?? contiguousStrides(checkedShape));
  if (needed * size > data.byteLength) {
    throw rangeError(
      'ERR_SHAPE',
      `${name}: shape ${showShape(checkedShape)} of ${dtype} reaches ${needed * size} bytes, but data has ${data.byteLength}`,
    );
  }
  const { memory, device } = borrow(name, data, size);
  return new Tensor(memory, checkedShape, dtype, checkedStrides, device);
}

function fromData(name: string, data: unknown, shape: unknown, dtype: unknown, strides: unknown): Tensor {
  if (isDeviceMemory(data)) return fromDevice(name, data, shape, dtype, strides);
  if (!ArrayBuffer.isView(data) || data instanceof DataView) {
    throw typeError('ERR_DTYPE', `${name}: expected a typed array as data, got ${describe(data)}`);
  }
  if (isDetached(data)) throw detachedError(name);
  const checkedDType = checkDType(name, data, dtype);
  const { length } = data as TypedArray;
  const checkedShape = shape === undefined ? [length] : checkShape(name, shape);
  const checkedStrides = checkStrides(name, strides, checkedShape);
  if (checkedStrides === undefined) {
    if (numel(checkedShape) !== length) {
      throw rangeError(
        'ERR_SHAPE',
        `${name}: shape ${showShape(checkedShape)} has ${numel(checkedShape)} elements, but data has ${length}`,
      );
    }
    return new Tensor(data as TypedArray, checkedShape, checkedDType);
  }
  const needed = extent(checkedShape, checkedStrides);
  if (needed > length) {
    throw rangeError(
      'ERR_SHAPE',
      `${name}: shape ${showShape(checkedShape)} with strides ${showShape(checkedStrides)} reaches ${needed} elements, ` +
        `but data has ${length}`,
    );
  }
  return new Tensor(data as TypedArray, checkedShape, checkedDType, checkedStrides);
}

/** Numbers of nested arrays in order, with their shape; refuses ragged ones. */
function flatten(name: string, value: unknown): { numbers: (number | bigint)[]; shape: number[] } {
  const shape: number[] = [];
  for (let level = value; Array.isArray(level); level = level[0]) shape.push(level.length);
  const numbers: (number | bigint)[] = [];
  const visit = (part: unknown, axis: number): void => {
    if (axis === shape.length) {
      if (typeof part !== 'number' && typeof part !== 'bigint') {
        const error = Array.isArray(part) ? rangeError : typeError;
        const code = Array.isArray(part) ? 'ERR_SHAPE' : 'ERR_DTYPE';
        throw error(code, `${name}: expected numbers in nested arrays of one shape, got ${describe(part)}`);
      }
      numbers.push(part);
      return;
    }
    if (!Array.isArray(part) || part.length !== shape[axis]) {
      throw rangeError(
        'ERR_SHAPE',
        `${name}: nested arrays are ragged: expected length ${shape[axis]} at depth ${axis}, got ${describe(part)}`,
      );
    }
    for (const child of part) visit(child, axis + 1);
  };
  visit(value, 0);
  return { numbers, shape };
}

function fromNumbers(
  name: string,
  numbers: readonly (number | bigint)[],
  shape: readonly number[],
  dtype: DType,
): Tensor {
  if (isFloat(dtype)) {
    const half = dtype === 'float16' || dtype === 'bfloat16';
    const values = allocate(half ? 'float64' : dtype, numbers.length);
    for (let i = 0; i < numbers.length; i++) values[i] = Number(numbers[i]);
    if (!half) return new Tensor(values, shape, dtype);
    const data = allocate(dtype, numbers.length);
    if (data.length > 0) binding.convert(values, dtypeCode['float64']!, data, dtypeCode[dtype]!);
    return new Tensor(data, shape, dtype);
  }
  const data = allocate(dtype, numbers.length);
  const wide = data instanceof BigInt64Array || data instanceof BigUint64Array;
  numbers.forEach((x, i) => {
    if (typeof x === 'number' && !Number.isInteger(x)) {
      throw typeError('ERR_DTYPE', `${name}: expected integers, but element ${i} is ${x}`);
    }
    if (wide) data[i] = BigInt(x);
    else data[i] = Number(x);
    if (Number(data[i]) !== Number(x)) {
      throw rangeError('ERR_DTYPE', `${name}: element ${i} is ${x}, which ${dtype} does not hold`);
    }
  });
  return new Tensor(data, shape, dtype);
}

/**
 * What plain numbers become: values take float32, indices the smaller of int32 and int64 that holds them. Where both
 * can be meant, the shape of the numbers tells.
 */
export type Role = 'values' | 'indices' | ((shape: readonly number[]) => 'values' | 'indices');

function plainDType(numbers: readonly (number | bigint)[], shape: readonly number[], role: Role): DType {
  if ((typeof role === 'function' ? role(shape) : role) === 'values') return 'float32';
  for (const x of numbers) {
    if (typeof x === 'bigint' || (Number.isInteger(x) && x !== (x | 0))) return 'int64';
  }
  return 'int32';
}

/**
 * `value` as a Tensor, without a copy where it already holds a typed array. `name` is how messages call it.
 */
export function asTensor(value: unknown, name: string, role: Role = 'values'): Tensor {
  if (value instanceof Tensor) {
    const data = memoryOf(value);
    if (!ArrayBuffer.isView(data)) return value;
    const { shape, strides } = value;
    const { length } = data as TypedArray;
    if (length < extent(shape, strides) || (length === 0 && isDetached(data))) throw detachedError(name);
    return value;
  }
  if (typeof value === 'number' || typeof value === 'bigint') {
    return fromNumbers(name, [value], [], plainDType([value], [], role));
  }
  if (Array.isArray(value)) {
    const { numbers, shape } = flatten(name, value);
    return fromNumbers(name, numbers, shape, plainDType(numbers, shape, role));
  }
  if (ArrayBuffer.isView(value)) return fromData(name, value, undefined, undefined, undefined);
  if (typeof value === 'object' && value !== null && 'data' in value) {
    if ('shape' in value) {
      const { data, shape, dtype, strides } = value as {
        data: unknown;
        shape: unknown;
        dtype?: unknown;
        strides?: unknown;
      };
      return fromData(name, data, shape, dtype, strides);
    }
    if ('dims' in value) {
      const { data, dims, type, location } = value as {
        data: unknown;
        dims: unknown;
        type?: unknown;
        location?: unknown;
      };
      if (location !== undefined && location !== 'cpu' && location !== 'cpu-pinned') {
        throw typeError(
          'ERR_DTYPE',
          `${name}: expected a tensor in host memory, got location ${describe(location)}`,
        );
      }
      return fromData(name, data, dims, type, undefined);
    }
  }
  throw typeError(
    'ERR_DTYPE',
    `${name}: expected a Tensor, { data, shape, dtype? }, { data, dims, type }, a typed array or nested arrays of ` +
      `numbers, got ${describe(value)}`,
  );
}

export interface TensorOptions {
  shape?: readonly number[];
  dtype?: DType;
  strides?: readonly number[];
  device?: Device;
}

/**
 * A tensor of `data`: a typed array, whose memory is used as it is, or nested arrays of numbers (or one number),
 * which take float32 unless `dtype` says otherwise.
 *
 * @throws ERR_DTYPE when the data does not fit the dtype, ERR_SHAPE when it does not fit shape and strides.
 */
export function tensor(data: TensorLike | DeviceMemory, options: TensorOptions = {}): Tensor {
  const {
    shape,
    dtype,
    strides,
    device = 'cpu',
  } = checkOptions('tensor', options, ['shape', 'dtype', 'strides', 'device']);
  const number = resolveDevice(device);
  if (number !== cpu) return tensor(data, { ...options, device: 'cpu' }).to(device);
  if (ArrayBuffer.isView(data) || isDeviceMemory(data))
    return fromData('tensor', data, shape, dtype, strides);
  if (typeof data === 'number' || typeof data === 'bigint' || Array.isArray(data)) {
    const nested = flatten('tensor', data);
    if (dtype !== undefined && !isDType(dtype)) checkDType('tensor', new Float32Array(1), dtype);
    const flat = fromNumbers('tensor', nested.numbers, nested.shape, dtype ?? 'float32');
    return shape === undefined && strides === undefined
      ? flat
      : fromData('tensor', flat.data, shape ?? nested.shape, flat.dtype, strides);
  }
  const taken = asTensor(data, 'tensor');
  if (shape === undefined && dtype === undefined && strides === undefined) return taken;
  return fromData('tensor', taken.data, shape ?? taken.shape, dtype ?? taken.dtype, strides);
}

/** A tensor of what the caller will write; zeros, on the CPU. */
export function emptyTensor(
  shape: readonly number[],
  dtype: DType,
  device: number = cpu,
  stream?: NativeStream,
): Tensor {
  const memory = memoryOn(device, dtype, numel(shape), stream);
  return new Tensor(memory, shape, dtype, undefined, deviceName(device));
}

/** Throws ERR_OPTION where one tensor is not on the device of another. */
export function requireSameDevice(
  owner: string,
  name: string,
  tensor: Tensor,
  otherName: string,
  other: Tensor,
): void {
  if (tensor.device === other.device) return;
  throw typeError(
    'ERR_OPTION',
    `${owner}: expected ${name} on ${other.device}, where ${otherName} is, got one on ${tensor.device}; ` +
      `bring it there by to('${other.device}')`,
  );
}

/** True when the elements stand in row-major order without gaps. */
export function isContiguous({ shape, strides }: Tensor): boolean {
  for (let i = shape.length - 1, expected = 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false;
    expected *= shape[i]!;
  }
  return true;
}

/** The tensor in row-major order without gaps: itself, or a copy. Throws ERR_SHAPE for one that is strided on a GPU. */
export function contiguous(source: Tensor): Tensor {
  if (isContiguous(source)) return source;
  if (source.device !== 'cpu') {
    throw rangeError(
      'ERR_SHAPE',
      `expected a contiguous tensor on ${source.device}, got shape ${showShape(source.shape)} with strides ` +
        `${showShape(source.strides)}; arrange its elements before to('cuda')`,
    );
  }
  const { shape, strides, dtype, data } = source;
  // Half precision is copied as bits, also out of a Float16Array.
  const half = dtype === 'float16' || dtype === 'bfloat16';
  const from = (half ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data) as Float64Array;
  const copy = allocate(dtype, numel(shape)) as Float64Array;
  const index = new Array<number>(shape.length).fill(0);
  for (let to = 0, offset = 0; to < copy.length; to++) {
    copy[to] = from[offset]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      offset += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      offset -= index[axis]! * strides[axis]!;
      index[axis] = 0;
    }
  }
  return new Tensor(copy, shape, dtype);
}

/**
 * The values of a tensor in `dtype`, contiguous: its own memory, or a converted copy. Throws ERR_DTYPE where they would
 * have to be converted on a GPU.
 */
export function valuesAs(source: Tensor, dtype: FloatDType, name = 'tensor'): NativeArray {
  const given = contiguous(source);
  const { dtype: from } = given;
  if (from === dtype) return memoryOf(given);
  if (source.device !== 'cpu') {
    throw typeError('ERR_DTYPE', `${name}: expected dtype ${dtype} on ${source.device}, got ${from}`);
  }
  return hostValuesAs(given, dtype);
}

/** The same of a tensor in host memory. */
export function hostValuesAs(source: Tensor, dtype: FloatDType): TypedArray {
  const { data, dtype: from } = contiguous(source);
  if (from === dtype) return data;
  const target = allocate(dtype, data.length);
  if (isFloat(from)) {
    binding.convert(data, dtypeCode[from]!, target, dtypeCode[dtype]!);
  } else {
    const numbers = Float64Array.from(data as ArrayLike<number | bigint>, Number);
    binding.convert(numbers, dtypeCode['float64']!, target, dtypeCode[dtype]!);
  }
  return target;
}
