import assert from 'node:assert/strict';
import type { RandomSource } from 'surprisal/data';

/** A generator whose draws are given. */
export class Script implements RandomSource {
  /** What `integer` was asked for. */
  readonly bounds: number[] = [];
  /** What `beta` was asked for. */
  readonly shapes: number[] = [];
  readonly #draws: { uniforms: number[]; integers: number[]; betas: number[] };

  constructor({
    uniforms = [],
    integers = [],
    betas = [],
  }: {
    uniforms?: number[];
    integers?: number[];
    betas?: number[];
  }) {
    this.#draws = { uniforms: [...uniforms], integers: [...integers], betas: [...betas] };
  }

  #next(kind: 'uniforms' | 'integers' | 'betas'): number {
    const value = this.#draws[kind].shift();
    assert(value !== undefined, `more ${kind} drawn than given`);
    return value;
  }

  uniform(): number {
    return this.#next('uniforms');
  }

  integer(n: number): number {
    this.bounds.push(n);
    const value = this.#next('integers');
    assert(value < n, `${value} drawn from [0, ${n})`);
    return value;
  }

  beta(a: number, b: number): number {
    this.shapes.push(a, b);
    return this.#next('betas');
  }

  /** All draws that were given were taken. */
  done(): void {
    assert.deepEqual(this.#draws, { uniforms: [], integers: [], betas: [] });
  }
}
