import { getRandomValues } from 'node:crypto';
import { describe, rangeError, typeError } from '../errors.js';
import { numberOption } from '../options.js';

/** The draws that augmentation needs. `Random` is one; a source of your own may take its place. */
export interface RandomSource {
  /** A number in [0, 1). */
  uniform(): number;
  /** An integer in [0, n). */
  integer(n: number): number;
  /** A draw of the beta distribution, in [0, 1]. */
  beta(a: number, b: number): number;
}

/** The four words that a generator stands at. */
export type RandomState = readonly [number, number, number, number];

/** With a shape below this a beta draw is 0 or 1 all the same, and the logarithms would no longer be finite. */
const smallestShape = 1e-300;

function checkShape(method: string, name: string, shape: number): number {
  if (!(shape > 0 && shape < Infinity)) {
    throw rangeError(
      'ERR_OPTION',
      `Random.${method}: expected a finite number above 0 for ${name}, got ${describe(shape)}`,
    );
  }
  return shape;
}

const rotateLeft = (x: number, k: number): number => (x << k) | (x >>> (32 - k));

const bits = new DataView(new ArrayBuffer(8));

// ECMAScript leaves the last digits of Math.log and Math.exp to the engine, and one digit can turn a rejection into
// an acceptance: a seed would then mean another sequence on another machine. These two use only operations that
// IEEE 754 fixes.

const LN2_HIGH = 0.69314718036912381649;
const LN2_LOW = 1.90821492927058770002e-10;

/** ln x of a normal x > 0, to 1e-15: with x = m·2^e and s = (m − 1)/(m + 1), ln m = 2·(s + s³/3 + s⁵/5 + ...). */
function ln(x: number): number {
  bits.setFloat64(0, x);
  const high = bits.getUint32(0);
  let exponent = (high >>> 20) - 1023;
  bits.setUint32(0, (high & 0xfffff) | (1023 << 20));
  let mantissa = bits.getFloat64(0);
  if (mantissa > Math.SQRT2) {
    mantissa /= 2;
    exponent++;
  }
  const s = (mantissa - 1) / (mantissa + 1);
  const square = s * s;
  let series = 0;
  // |s| ≤ 0.1716, so the first term left out is below 1e-17.
  for (let k = 21; k >= 1; k -= 2) series = series * square + 1 / k;
  return exponent * LN2_HIGH + (2 * s * series + exponent * LN2_LOW);
}

/** e^x to 1e-15, of any x but NaN: with x = n·ln 2 + r, e^x = 2^n·(1 + r + r²/2! + ...). */
function exp(x: number): number {
  if (x > 709) return Infinity;
  if (x < -708) return 0;
  const n = Math.round(x / Math.LN2);
  const r = x - n * LN2_HIGH - n * LN2_LOW;
  let series = 1;
  // |r| ≤ 0.3466, so the first term left out is below 1e-17.
  for (let k = 14; k >= 1; k--) series = 1 + (r / k) * series;
  bits.setUint32(0, (n + 1023) << 20);
  bits.setUint32(4, 0);
  return series * bits.getFloat64(0);
}

/** Four words of splitmix64, which spreads neighbouring seeds over the whole state. */
function expandSeed(seed: number): RandomState {
  let x = BigInt(seed);
  const next = (): bigint => {
    x = BigInt.asUintN(64, x + 0x9e3779b97f4a7c15n);
    let z = x;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  };
  const [a, b] = [next(), next()];
  const word = (value: bigint): number => Number(value & 0xffffffffn);
  return [word(a), word(a >> 32n), word(b), word(b >> 32n)];
}

function unpredictableSeed(): number {
  const [high, low] = getRandomValues(new Uint32Array(2));
  return (high! & 0x1fffff) * 2 ** 32 + low!;
}

/**
 * A seedable generator: xoshiro128** (Blackman and Vigna, arXiv:1805.01407), seeded by splitmix64. A seed gives the
 * same draws on every machine and every version of Node. Not for secrets.
 */
export class Random implements RandomSource {
  #a = 0;
  #b = 0;
  #c = 0;
  #d = 0;

  /**
   * @param seed An integer in [0, 2^53). Without one the sequence is another one each time.
   * @throws ERR_OPTION for any other seed.
   */
  constructor(seed?: number) {
    this.state = expandSeed(
      seed === undefined
        ? unpredictableSeed()
        : numberOption('Random', 'seed', seed, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true }),
    );
  }

  /** Where the sequence stands. Kept in a training checkpoint and assigned again, it resumes the same draws. */
  get state(): RandomState {
    return [this.#a >>> 0, this.#b >>> 0, this.#c >>> 0, this.#d >>> 0];
  }

  set state(state: RandomState) {
    const words: readonly unknown[] = Array.isArray(state) ? state : [];
    const areWords = words.every((word) => typeof word === 'number' && word === word >>> 0);
    if (words.length !== 4 || !areWords || words.every((word) => word === 0)) {
      throw typeError(
        'ERR_OPTION',
        `Random.state: expected four integers in [0, 2^32), not all of them 0, as read from 'state', ` +
          `got ${Array.isArray(state) ? `[${words.map(describe).join(', ')}]` : describe(state)}`,
      );
    }
    [this.#a, this.#b, this.#c, this.#d] = state;
  }

  #word(): number {
    const result = Math.imul(rotateLeft(Math.imul(this.#b, 5), 7), 9);
    const t = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= t;
    this.#d = rotateLeft(this.#d, 11);
    return result;
  }

  /** An integer in [0, 2^53). */
  #bits53(): number {
    const high = this.#word() >>> 5;
    const low = this.#word() >>> 6;
    return high * 2 ** 26 + low;
  }

  /** A multiple of 2^-53 in [0, 1). */
  uniform(): number {
    return this.#bits53() * 2 ** -53;
  }

  /** In (0, 1], whose logarithm is finite. */
  #positive(): number {
    return (this.#bits53() + 1) * 2 ** -53;
  }

  /**
   * An integer in [0, n), each as likely as the others.
   *
   * @throws ERR_OPTION unless n is an integer in [1, 2^53).
   */
  integer(n: number): number {
    numberOption('Random.integer', 'n', n, { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true });
    // Draws of the incomplete last run of n would make the small remainders likelier.
    const limit = 2 ** 53 - (2 ** 53 % n);
    let draw = this.#bits53();
    while (draw >= limit) draw = this.#bits53();
    return draw % n;
  }

  /** A draw of the normal distribution with mean 0 and variance 1, by Marsaglia's polar method. */
  normal(): number {
    for (;;) {
      const x = 2 * this.uniform() - 1;
      const y = 2 * this.uniform() - 1;
      const s = x * x + y * y;
      // The second draw, y times the same factor, is not kept: `state` alone says where the sequence stands.
      if (s > 0 && s < 1) return x * Math.sqrt((-2 * ln(s)) / s);
    }
  }

  /** ln of a gamma draw. For shape < 1 the draw itself may be below the smallest number, its logarithm is not. */
  #lnGamma(shape: number): number {
    // G(a) = G(a + 1)·U^(1/a)
    if (shape < 1) return this.#lnGamma(shape + 1) + ln(this.#positive()) / Math.max(shape, smallestShape);
    const d = shape - 1 / 3;
    const c = 1 / Math.sqrt(9 * d);
    for (;;) {
      const x = this.normal();
      const root = 1 + c * x;
      if (root <= 0) continue;
      const lnV = 3 * ln(root);
      if (ln(this.#positive()) < 0.5 * x * x + d * (1 - root * root * root + lnV)) return ln(d) + lnV;
    }
  }

  /**
   * A draw of the gamma distribution with this shape and scale 1 (mean and variance: shape), as Marsaglia and Tsang
   * ("A simple method for generating gamma variables", 2000) draw it.
   *
   * @throws ERR_OPTION unless shape is finite and above 0.
   */
  gamma(shape: number): number {
    return exp(this.#lnGamma(checkShape('gamma', 'shape', shape)));
  }

  /**
   * A draw of the beta distribution, G(a)/(G(a) + G(b)): mean a/(a + b), variance ab/((a + b)²(a + b + 1)).
   *
   * @throws ERR_OPTION unless a and b are finite and above 0.
   */
  beta(a: number, b: number): number {
    const lnA = this.#lnGamma(checkShape('beta', 'a', a));
    const lnB = this.#lnGamma(checkShape('beta', 'b', b));
    return 1 / (1 + exp(lnB - lnA));
  }

  /**
   * The integers in [0, n) in random order, by Fisher and Yates.
   *
   * @throws ERR_OPTION unless n is an integer in [0, 2^32).
   */
  permutation(n: number): Uint32Array {
    numberOption('Random.permutation', 'n', n, { min: 0, below: 2 ** 32, integer: true });
    const order = new Uint32Array(n);
    for (let i = 1; i < n; i++) order[i] = i;
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const taken = order[j]!;
      order[j] = order[i]!;
      order[i] = taken;
    }
    return order;
  }
}

let shared: Random | undefined;

/** The generator of whoever names none: one for the process, unpredictable. */
export function sharedRandom(): Random {
  shared ??= new Random();
  return shared;
}

/** Checks that `value` can stand in for a `Random`. */
export function randomOption(owner: string, value: unknown): RandomSource {
  for (const method of ['uniform', 'integer', 'beta'] as const) {
    if (typeof (value as RandomSource | null | undefined)?.[method] !== 'function') {
      throw typeError(
        'ERR_OPTION',
        `${owner}: expected a generator for random, with uniform(), integer(n) and beta(a, b), such as ` +
          `new Random(seed), got ${describe(value)}`,
      );
    }
  }
  return value as RandomSource;
}
