import { checkOptions, numberOption } from '../options.js';
import { Loss } from './loss.js';

export interface JsdCrossEntropyOptions {
  /** K: the input's rows are K views of the batch, stacked. */
  numSplits?: number | undefined;
  /** Factor of the divergence. */
  alpha?: number | undefined;
  /** Label smoothing of the cross entropy part, in [0, 1). */
  smoothing?: number | undefined;
}

/**
 * Cross entropy of the first split plus α times the Jensen-Shannon divergence of all splits, as
 * `timm.loss.JsdCrossEntropy`: the loss of AugMix (Hendrycks et al. 2020, arXiv:1912.02781).
 *
 * Input [K·B, C], where sample i is rows i, i + B, i + 2B, ...; target class indices [B] (of a longer one the first B
 * are used). The gradient is finite where timm's is NaN: at probabilities that underflow its limit is taken.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_TARGET_OUT_OF_RANGE
 */
export class JsdCrossEntropy extends Loss {
  constructor(options?: JsdCrossEntropyOptions) {
    const owner = 'JsdCrossEntropy';
    const {
      numSplits = 3,
      alpha = 12,
      smoothing = 0.1,
    } = checkOptions(owner, options, ['numSplits', 'alpha', 'smoothing']);
    const splits = numberOption(owner, 'numSplits', numSplits, { min: 1, integer: true });
    super({
      owner,
      name: 'jsd',
      parameters: {
        numSplits: splits,
        alpha: numberOption(owner, 'alpha', alpha),
        smoothing: numberOption(owner, 'smoothing', smoothing, { min: 0, below: 1 }),
      },
      reduction: 'mean',
      targets: ['indices'],
      rank: 2,
      numSplits: splits,
    });
  }
}
