/** Counts the memory that JavaScript asks for by the length of a buffer, a typed array or an array. */

const names = [
  'ArrayBuffer',
  'Array',
  'Float32Array',
  'Float64Array',
  'Int8Array',
  'Uint8Array',
  'Int16Array',
  'Uint16Array',
  'Int32Array',
  'Uint32Array',
  'BigInt64Array',
  'BigUint64Array',
] as const;

type Constructor = new (...args: unknown[]) => object;

const globals = globalThis as unknown as Record<string, Constructor & { BYTES_PER_ELEMENT?: number }>;

export interface Allocations {
  /** In bytes, since the last `reset()`. */
  readonly total: number;
  readonly largest: number;
  reset(): void;
}

/**
 * Runs `work` with the constructors in place of which count; its own code and that of every package see them. A length of
 * 2^60, which fails at once, is counted too.
 */
export async function countAllocations<T>(work: (allocations: Allocations) => Promise<T>): Promise<T> {
  const counted = { total: 0, largest: 0, reset: () => void (counted.total = counted.largest = 0) };
  const originals = names.map((name) => [name, globals[name]!] as const);
  const count = (original: (typeof globals)[string], args: readonly unknown[]): void => {
    if (typeof args[0] !== 'number') return;
    // NaN makes an empty array.
    const bytes = (args[0] || 0) * (original.BYTES_PER_ELEMENT ?? (original === globals['Array'] ? 8 : 1));
    counted.total += bytes;
    counted.largest = Math.max(counted.largest, bytes);
  };
  for (const [name, original] of originals) {
    const proxy: Constructor = new Proxy(original, {
      construct(target, args: unknown[], newTarget) {
        count(original, args);
        return Reflect.construct(target, args, newTarget === proxy ? target : newTarget) as object;
      },
      apply(target, self, args: unknown[]) {
        count(original, args);
        return Reflect.apply(target as unknown as () => unknown, self, args) as unknown;
      },
    });
    globals[name] = proxy;
  }
  try {
    return await work(counted);
  } finally {
    for (const [name, original] of originals) globals[name] = original;
  }
}
