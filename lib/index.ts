export { devices, diagnose, getNumThreads, setNumThreads } from './device.js';
export type { Device, DeviceInfo } from './device.js';
export type { DType, FloatDType, IntegerDType, TypedArray } from './dtype.js';
export type { ErrorCode, SurprisalError } from './errors.js';
export type { DeviceMemory } from './device_memory.js';
export { Event, Stream } from './stream.js';
export type { StreamOptions } from './stream.js';
export { Tensor, tensor } from './tensor.js';
export type { IpcHandle, NestedArray, TensorLike, TensorOptions, TransferOptions } from './tensor.js';
