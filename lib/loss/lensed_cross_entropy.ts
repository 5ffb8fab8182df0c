import { binding, dtypeCode } from '../binding.js';
import { isFloat } from '../dtype.js';
import { rangeError, typeError } from '../errors.js';
import { checkOptions, choiceOption } from '../options.js';
import { showShape } from '../shape.js';
import { asTensor, contiguous, Tensor, type TensorLike } from '../tensor.js';
import { Loss, reductions, type Reduction } from './loss.js';

export interface LensedCrossEntropyOptions {
  /** [C, C], floating: row y is the target distribution of the label y. Copied. */
  confusionLens: TensorLike;
  reduction?: Reduction | undefined;
}

/** A lens as the definition of a loss takes it, with Σ q·log q of each of its rows. */
function makeLens(owner: string, confusionLens: TensorLike) {
  const given = asTensor(confusionLens, 'confusionLens');
  if (!isFloat(given.dtype)) {
    throw typeError('ERR_DTYPE', `${owner}: expected confusionLens of a floating dtype, got ${given.dtype}`);
  }
  const [rows, columns] = given.shape;
  if (given.shape.length !== 2 || rows !== columns || rows === 0) {
    throw rangeError(
      'ERR_SHAPE',
      `${owner}: expected a square confusionLens [C, C], got ${showShape(given.shape)}`,
    );
  }
  const matrix = new Tensor(contiguous(given).data.slice(), given.shape, given.dtype);
  const constants = binding.negativeEntropy(matrix.data, dtypeCode[given.dtype]!, rows!, columns!);
  return { matrix, constants };
}

/**
 * Cross entropy through a confusion lens: KL(lens[y] ‖ softmax(input)), which forgives the confusions that the lens
 * says are interchangeable. The identity lens gives cross entropy.
 *
 * Input [N, C]; target class indices [N]. `mean` divides by N.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_TARGET_OUT_OF_RANGE
 */
export class LensedCrossEntropy extends Loss {
  constructor(options: LensedCrossEntropyOptions) {
    const owner = 'LensedCrossEntropy';
    const { confusionLens, reduction = 'mean' } = checkOptions(owner, options, [
      'confusionLens',
      'reduction',
    ]);
    if (confusionLens === undefined) {
      throw typeError('ERR_OPTION', `${owner}: expected the option confusionLens, a [C, C] tensor`);
    }
    super({
      owner,
      name: 'cross_entropy',
      parameters: { smoothing: 0 },
      reduction: choiceOption(owner, 'reduction', reduction, reductions),
      targets: ['indices'],
      rank: 2,
      lens: makeLens(owner, confusionLens),
    });
  }
}
