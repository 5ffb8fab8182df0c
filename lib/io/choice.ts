import { describe, rangeError, typeError } from '../errors.js';
import type { ByteSource } from './source.js';

/** Names as a message lists them. */
export function listNames(names: Iterable<string>): string {
  const all = [...names];
  const shown = all.slice(0, 20).map((name) => describe(name));
  return shown.join(', ') + (all.length > 20 ? ` and ${all.length - 20} more` : '');
}

/**
 * The array that was asked for; without a name the only one.
 *
 * @throws ERR_OPTION, with the names that are there
 */
export function chooseArray<T>(
  source: ByteSource,
  what: 'array' | 'tensor' | 'column',
  arrays: ReadonlyMap<string, T>,
  name: string | undefined,
): T {
  const has = arrays.size === 0 ? `it has no ${what}s` : `it has ${listNames(arrays.keys())}`;
  if (name === undefined) {
    const [only] = arrays.values();
    if (arrays.size === 1) return only!;
    throw typeError('ERR_OPTION', `${source.name}: expected the name of one ${what} as { name }; ${has}`);
  }
  if (!arrays.has(name)) {
    throw rangeError(
      'ERR_OPTION',
      `${source.name}: expected the name of one of its ${what}s, got ${describe(name)}; ${has}`,
    );
  }
  return arrays.get(name)!;
}
