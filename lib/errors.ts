/** What went wrong, for programs; the message says it for people. */
export type ErrorCode =
  | 'ERR_DTYPE'
  | 'ERR_SHAPE'
  | 'ERR_TARGET_OUT_OF_RANGE'
  | 'ERR_OPTION'
  | 'ERR_ALIAS'
  | 'ERR_DISPOSED'
  | 'ERR_CUDA_UNAVAILABLE'
  | 'ERR_CUDA'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_ABORTED'
  | 'ERR_FILE'
  | 'ERR_FILE_UNSUPPORTED'
  | 'ERR_PACKAGE_MISSING';

/** An error thrown by surprisal: a TypeError, RangeError or Error with a `code`. */
export interface SurprisalError extends Error {
  readonly code: ErrorCode;
}

function withCode<E extends Error>(error: E, code: ErrorCode): E & SurprisalError {
  return Object.assign(error, { code });
}

export const typeError = (code: ErrorCode, message: string) => withCode(new TypeError(message), code);

export const rangeError = (code: ErrorCode, message: string) => withCode(new RangeError(message), code);

export const cudaUnavailable = (reason: string) =>
  withCode(new Error(`device 'cuda' is not available: ${reason}`), 'ERR_CUDA_UNAVAILABLE');

/** A file that is damaged, cut off, or contradicts itself. */
export const fileError = (message: string, cause?: unknown) =>
  withCode(new Error(message, cause === undefined ? undefined : { cause }), 'ERR_FILE');

/** A file that may be sound, but holds what is not read or written here. */
export const unsupportedFile = (message: string, cause?: unknown) =>
  withCode(new Error(message, cause === undefined ? undefined : { cause }), 'ERR_FILE_UNSUPPORTED');

export const packageMissing = (message: string, cause: unknown) =>
  withCode(new Error(message, { cause }), 'ERR_PACKAGE_MISSING');

/** The error of an aborted call: an AbortError, as the signal's own reason is its cause. */
export function abortError(
  reason: unknown,
  message = 'the operation was aborted; each row of `out` is either done or as it was',
) {
  const error = new Error(message, { cause: reason });
  error.name = 'AbortError';
  return withCode(error, 'ERR_ABORTED');
}

/** A value as an error message shows it: its type, and the value where that is short. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'string') return `'${value.length > 40 ? value.slice(0, 40) + '…' : value}'`;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return `an array of length ${value.length}`;
  const { name } = (value.constructor as { name: string } | undefined) ?? Object;
  return name === 'Object' ? 'an object' : `a value of type ${name}`;
}
