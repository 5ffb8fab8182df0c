import { binding, dtypeCode } from '../binding.js';
import { allocate, isFloat } from '../dtype.js';
import { describe, rangeError } from '../errors.js';
import { checkOptions, choiceOption, numberOption } from '../options.js';
import { numel, showShape } from '../shape.js';
import { asTensor, contiguous, tensor, Tensor, type NestedArray, type TensorLike } from '../tensor.js';

export interface ConfusionLensOptions {
  /** T > 0: above 1 confusions weigh more beside the label, below 1 less. */
  temperature?: number | undefined;
  /** The least that any class gets, in [0, 1/C]. */
  floor?: number | undefined;
  /** Of the lens. */
  dtype?: 'float32' | 'float64' | undefined;
}

/** Counts as numbers, row by row. */
function countsOf(matrix: TensorLike): { counts: ArrayLike<number>; classes: number } {
  const owner = 'ConfusionLens.from';
  // Plain numbers keep all their digits.
  const given = contiguous(
    Array.isArray(matrix) ? tensor(matrix as NestedArray, { dtype: 'float64' }) : asTensor(matrix, 'matrix'),
  );
  const [rows, columns] = given.shape;
  if (given.shape.length !== 2 || rows !== columns || rows === 0) {
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected a square confusion matrix [C, C], rows by label, got ${showShape(given.shape)}`,
    );
  }
  const counts = new Float64Array(numel(given.shape));
  if (isFloat(given.dtype)) {
    binding.convert(given.data, dtypeCode[given.dtype]!, counts, dtypeCode['float64']!);
  } else {
    for (let i = 0; i < counts.length; i++) counts[i] = Number(given.data[i]);
  }
  const bad = counts.findIndex((count) => !(count >= 0 && count < Infinity));
  if (bad >= 0) {
    throw rangeError(
      'ERR_OPTION',
      `${owner}: expected finite counts of at least 0, but [${Math.floor(bad / rows!)}, ${bad % rows!}] is ${counts[bad]}`,
    );
  }
  return { counts, classes: rows! };
}

/** Makes lenses for `LensedCrossEntropy`. */
export const ConfusionLens = {
  /**
   * The lens of a confusion matrix: row y is the distribution of what rows labelled y were taken for, at a temperature,
   * above a floor. With n the counts,
   *
   *     p_yc = n_yc / Σ_c n_yc            [c = y] where class y has no row
   *     t_yc = p_yc^(1/T) / Σ_c p_yc^(1/T)       softmax(log p / T)
   *     lens_yc = floor + (1 − C·floor)·t_yc
   *
   * so every row sums to 1, and counts of 0 stay at the floor.
   *
   * @param matrix [C, C] counts or frequencies, rows by label: `compute().confusionMatrix`
   * @returns [C, C] in `dtype`
   * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION
   */
  from(matrix: TensorLike, options?: ConfusionLensOptions): Tensor {
    const owner = 'ConfusionLens.from';
    const {
      temperature = 1,
      floor = 0,
      dtype = 'float32',
    } = checkOptions(owner, options, ['temperature', 'floor', 'dtype']);
    const { counts, classes } = countsOf(matrix);
    if (!(numberOption(owner, 'temperature', temperature) > 0)) {
      throw rangeError(
        'ERR_OPTION',
        `${owner}: expected a temperature above 0, got ${describe(temperature)}`,
      );
    }
    numberOption(owner, 'floor', floor, { min: 0, max: 1 / classes });
    choiceOption(owner, 'dtype', dtype, ['float32', 'float64'] as const);
    const lens = allocate(dtype, counts.length) as Float64Array;
    const row = new Float64Array(classes);
    for (let y = 0; y < classes; y++) {
      let largest = 0;
      for (let c = 0; c < classes; c++) largest = Math.max(largest, counts[y * classes + c]!);
      let sum = 0;
      for (let c = 0; c < classes; c++) {
        // Relative to the largest, so that no power overflows and the sum is at least 1.
        row[c] = largest > 0 ? (counts[y * classes + c]! / largest) ** (1 / temperature) : Number(c === y);
        sum += row[c]!;
      }
      const mass = Math.max(0, 1 - classes * floor);
      for (let c = 0; c < classes; c++) lens[y * classes + c] = floor + (mass * row[c]!) / sum;
    }
    return new Tensor(lens, [classes, classes], dtype);
  },
} as const;
