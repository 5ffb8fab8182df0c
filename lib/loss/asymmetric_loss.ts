import { booleanOption, checkOptions, choiceOption, numberOption } from '../options.js';
import { Loss, reductions, type Reduction } from './loss.js';

export interface AsymmetricLossMultiLabelOptions {
  /** Focusing exponent of negatives. */
  gammaNeg?: number | undefined;
  /** Focusing exponent of positives. */
  gammaPos?: number | undefined;
  /** Margin by which a negative's probability is shifted down; 0 or null for none. */
  clip?: number | null | undefined;
  /** Floor of the probabilities inside the logarithm. */
  eps?: number | undefined;
  /** Treat the focal weight as a constant in the gradient. */
  disableTorchGradFocalLoss?: boolean | undefined;
}

/**
 * Asymmetric loss of multi-label targets, summed over everything, as `timm.loss.AsymmetricLossMultiLabel`
 * (Ridnik et al. 2021, arXiv:2009.14119).
 *
 * Input logits [..., C]; target of the same shape, 0 or 1 (or between).
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION
 */
export class AsymmetricLossMultiLabel extends Loss {
  constructor(options?: AsymmetricLossMultiLabelOptions) {
    const owner = 'AsymmetricLossMultiLabel';
    const {
      gammaNeg = 4,
      gammaPos = 1,
      clip = 0.05,
      eps = 1e-8,
      disableTorchGradFocalLoss = false,
    } = checkOptions(owner, options, ['gammaNeg', 'gammaPos', 'clip', 'eps', 'disableTorchGradFocalLoss']);
    super({
      owner,
      name: 'asymmetric_loss_multi_label',
      parameters: {
        gammaNeg: numberOption(owner, 'gammaNeg', gammaNeg, { min: 0 }),
        gammaPos: numberOption(owner, 'gammaPos', gammaPos, { min: 0 }),
        clip: clip === null ? 0 : numberOption(owner, 'clip', clip, { min: 0, max: 1 }),
        eps: numberOption(owner, 'eps', eps, { min: 0, below: 1 }),
        constantWeight: booleanOption(owner, 'disableTorchGradFocalLoss', disableTorchGradFocalLoss) ? 1 : 0,
      },
      reduction: 'sum',
      targets: ['dense'],
    });
  }
}

export interface AsymmetricLossSingleLabelOptions {
  /** Focusing exponent of the label's class. */
  gammaPos?: number | undefined;
  /** Focusing exponent of the other classes. */
  gammaNeg?: number | undefined;
  /** Label smoothing ε in [0, 1): the label's target is 1 − ε + ε/C, every other class's ε/C. */
  eps?: number | undefined;
  reduction?: Reduction | undefined;
}

/**
 * Asymmetric loss of single-label targets over a softmax, as `timm.loss.AsymmetricLossSingleLabel`
 * (Ridnik et al. 2021, arXiv:2009.14119).
 *
 * Input logits [N, C]; target class indices [N].
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_TARGET_OUT_OF_RANGE
 */
export class AsymmetricLossSingleLabel extends Loss {
  constructor(options?: AsymmetricLossSingleLabelOptions) {
    const owner = 'AsymmetricLossSingleLabel';
    const {
      gammaPos = 1,
      gammaNeg = 4,
      eps = 0.1,
      reduction = 'mean',
    } = checkOptions(owner, options, ['gammaPos', 'gammaNeg', 'eps', 'reduction']);
    super({
      owner,
      name: 'asymmetric_loss_single_label',
      parameters: {
        gammaPos: numberOption(owner, 'gammaPos', gammaPos, { min: 0 }),
        gammaNeg: numberOption(owner, 'gammaNeg', gammaNeg, { min: 0 }),
        smoothing: numberOption(owner, 'eps', eps, { min: 0, below: 1 }),
      },
      reduction: choiceOption(owner, 'reduction', reduction, reductions),
      targets: ['indices'],
      rank: 2,
    });
  }
}
