import { describe, rangeError, typeError } from './errors.js';

/** Refuses what is not an options object, and names that `owner` does not know. */
export function checkOptions<T extends object>(
  owner: string,
  options: T | undefined,
  known: readonly (keyof T & string)[],
): T {
  if (options === undefined) return {} as T;
  if (
    typeof options !== 'object' ||
    options === null ||
    Array.isArray(options) ||
    ArrayBuffer.isView(options)
  ) {
    throw typeError('ERR_OPTION', `${owner}: expected options as an object, got ${describe(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (!(known as readonly string[]).includes(name)) {
      const list = known.length > 0 ? known.join(', ') : 'none';
      throw typeError('ERR_OPTION', `${owner}: unknown option '${name}'; it takes: ${list}`);
    }
  }
  return options;
}

export interface NumberRange {
  readonly min?: number;
  readonly max?: number;
  /** Excluded upper bound. */
  readonly below?: number;
  readonly integer?: boolean;
}

function expectation({ min, max, below, integer }: NumberRange): string {
  const noun = integer ? 'an integer' : 'a finite number';
  if (min !== undefined && below !== undefined) return `${noun} in [${min}, ${below})`;
  if (min !== undefined && max !== undefined) return `${noun} in [${min}, ${max}]`;
  if (min !== undefined) return `${noun} of at least ${min}`;
  return noun;
}

export function numberOption(owner: string, name: string, value: unknown, range: NumberRange = {}): number {
  const message = () => `${owner}: expected ${expectation(range)} for ${name}, got ${describe(value)}`;
  if (typeof value !== 'number') throw typeError('ERR_OPTION', message());
  const { min = -Infinity, max = Infinity, below = Infinity, integer = false } = range;
  if (
    !Number.isFinite(value) ||
    value < min ||
    value > max ||
    value >= below ||
    (integer && !Number.isInteger(value))
  ) {
    throw rangeError('ERR_OPTION', message());
  }
  return value;
}

export function booleanOption(owner: string, name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') {
    throw typeError('ERR_OPTION', `${owner}: expected true or false for ${name}, got ${describe(value)}`);
  }
  return value;
}

export function choiceOption<T extends string>(
  owner: string,
  name: string,
  value: unknown,
  choices: readonly T[],
): T {
  if (!(choices as readonly unknown[]).includes(value)) {
    const error = typeof value === 'string' ? rangeError : typeError;
    const list = choices.map((choice) => `'${choice}'`).join(', ');
    throw error('ERR_OPTION', `${owner}: expected one of ${list} for ${name}, got ${describe(value)}`);
  }
  return value as T;
}
