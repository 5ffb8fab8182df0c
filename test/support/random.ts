/** Numbers that are the same in every run, for tests. */
export class Samples {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 1): mulberry32. */
  uniform(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** Uniform in 0, ..., n − 1. */
  integer(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Near to normal with mean 0: the sum of four uniform draws, scaled. Bounded by 2√3·deviation. */
  normal(deviation = 1): number {
    const sum = this.uniform() + this.uniform() + this.uniform() + this.uniform();
    return (sum - 2) * Math.sqrt(3) * deviation;
  }

  normals(count: number, deviation = 1): Float64Array {
    return Float64Array.from({ length: count }, () => this.normal(deviation));
  }

  /** Class indices. */
  labels(count: number, classes: number): Int32Array {
    return Int32Array.from({ length: count }, () => this.integer(classes));
  }

  /** Rows of positive numbers that sum to 1. */
  probabilities(rows: number, classes: number): Float64Array {
    const values = Float64Array.from({ length: rows * classes }, () => 0.01 + this.uniform());
    for (let row = 0; row < rows; row++) {
      const part = values.subarray(row * classes, (row + 1) * classes);
      const sum = part.reduce((a, b) => a + b, 0);
      part.forEach((x, i) => (part[i] = x / sum));
    }
    return values;
  }

  /** Rows of zeros and ones, one in `every` a one. */
  multiHot(rows: number, classes: number, every = 3): Float64Array {
    return Float64Array.from({ length: rows * classes }, () => (this.integer(every) === 0 ? 1 : 0));
  }
}
