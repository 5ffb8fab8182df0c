/** Batches whose rows can be picked, so that a row can be looked at alone, among others and in another place. */
import { tensor, type FloatDType, type Tensor } from 'surprisal';
import { allocate, type FloatArray } from './float_formats.js';
import { makeTarget, remembered, type TargetForm } from './losses.js';
import { Samples } from './random.js';

export interface Batch {
  /** [samples·group, C]; sample i is rows i, i + samples, i + 2·samples, ... */
  readonly input: Tensor;
  /** Class indices [samples], or a dense target of the input's shape. */
  readonly target: Tensor;
  readonly samples: number;
}

export function makeBatch(
  form: TargetForm,
  samples: number,
  group: number,
  classes: number,
  dtype: FloatDType,
  seed = 11,
): Batch {
  const rows = samples * group;
  const input = remembered(`logits ${seed}`, [rows, classes], dtype, () =>
    new Samples(seed).normals(rows * classes, 3),
  );
  const target = makeTarget(form, form === 'indices' ? samples : rows, classes, dtype, seed + 1);
  return { input, target, samples };
}

/** Rows of a contiguous matrix, or elements of a vector, in the given order. */
function pick(from: Tensor, rows: readonly number[]): Tensor {
  const width = from.shape[1] ?? 1;
  const shape = [rows.length, ...from.shape.slice(1)];
  const copy = (to: FloatArray) => {
    rows.forEach((row, i) =>
      to.set((from.data as FloatArray).subarray(row * width, (row + 1) * width), i * width),
    );
    return to;
  };
  if (from.dtype === 'int32') {
    return tensor(
      Int32Array.from(rows, (row) => Number(from.data[row])),
      { shape },
    );
  }
  const dtype = from.dtype as FloatDType;
  return tensor(copy(allocate(dtype, rows.length * width)), { shape, dtype });
}

/** The rows of these samples, split after split. */
export function rowsOf(batch: Batch, samples: readonly number[]): number[] {
  const group = batch.input.shape[0]! / batch.samples;
  return Array.from({ length: group }, (_, k) => samples.map((i) => i + k * batch.samples)).flat();
}

/** A batch of these samples alone, in this order. */
export function select(batch: Batch, samples: readonly number[]): Batch {
  const rows = rowsOf(batch, samples);
  const { input, target } = batch;
  return {
    input: pick(input, rows),
    target: pick(target, target.shape.length === 1 ? samples : rows),
    samples: samples.length,
  };
}

/** The samples' part of a result that has one row, or one value, a row of the input. */
export const selectRows = (result: Tensor, batch: Batch, samples: readonly number[]): Tensor =>
  pick(result, rowsOf(batch, samples));
