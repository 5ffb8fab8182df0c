/** The arrays of a shape: one input and one gradient for every loss, so that all of them work in the same memory. */

import { tensor, type FloatDType, type Tensor } from 'surprisal';

export type Values = Float32Array | Float64Array | Uint16Array;

/** Numbers in [0, 1), the same in every run. */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
}

/** Values are drawn from a table of this many, so that every dtype gets the same ones, rounded, without converting all. */
const tableSize = 4096;

/** A tensor of values drawn from `table`. */
function drawn(shape: readonly number[], dtype: FloatDType, table: readonly number[], seed: number): Tensor {
  const choices = tensor([...table], { dtype }).data as Float64Array;
  const count = shape.reduce((product, size) => product * size, 1);
  const data = new (choices.constructor as Float64ArrayConstructor)(count);
  let state = seed >>> 0;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = choices[state >>> 20]!;
  }
  return tensor(data, { shape, dtype });
}

/** Normal, with standard deviation 3: a trained classifier's spread. */
const logitTable = (() => {
  const random = generator(1);
  return Array.from(
    { length: tableSize },
    () => 3 * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
})();

/** Uniform around 1/C. */
const softTable = (classes: number) =>
  Array.from({ length: tableSize }, (_, i) => (2 * (i + 0.5)) / (tableSize * classes));

/** One class in fifty. */
const multiHotTable = Array.from({ length: tableSize }, (_, i) => (i % 50 === 0 ? 1 : 0));

export class Batch {
  readonly rows: number;
  readonly classes: number;
  readonly dtype: FloatDType;
  readonly input: Tensor;
  /** Memory for gradients, already touched. */
  readonly grad: Tensor;
  readonly labels: Int32Array;
  #soft: Tensor | undefined;
  #multiHot: Tensor | undefined;

  constructor(rows: number, classes: number, dtype: FloatDType) {
    this.rows = rows;
    this.classes = classes;
    this.dtype = dtype;
    this.input = drawn(this.shape, dtype, logitTable, 2);
    this.grad = drawn(this.shape, dtype, [...logitTable].reverse(), 2);
    const random = generator(3);
    this.labels = Int32Array.from({ length: rows }, () => Math.floor(random() * classes));
  }

  get shape(): readonly number[] {
    return [this.rows, this.classes];
  }

  /** A distribution a row. */
  get soft(): Tensor {
    return (this.#soft ??= drawn(this.shape, this.dtype, softTable(this.classes), 4));
  }

  get multiHot(): Tensor {
    return (this.#multiHot ??= drawn(this.shape, this.dtype, multiHotTable, 5));
  }
}

export const valuesOf = ({ data }: Tensor): Values => data as Values;

/** The first `rows` rows, in the same memory. */
export function firstRows({ data, shape, dtype }: Tensor, rows: number): Tensor {
  const classes = shape[1]!;
  return tensor((data as Float32Array).subarray(0, rows * classes), { shape: [rows, classes], dtype });
}
