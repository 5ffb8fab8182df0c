export { devices, diagnose, getNumThreads, setNumThreads } from './device.js';
export type { Device, DeviceInfo } from './device.js';
export type { ErrorCode, SurprisalError } from './errors.js';
export { Tensor, tensor } from './tensor.js';
export type {
  DType,
  FloatDType,
  IntegerDType,
  NestedArray,
  TensorLike,
  TensorOptions,
  TypedArray,
} from './tensor.js';
