import { booleanOption, checkOptions, choiceOption, numberOption } from '../options.js';
import { numel } from '../shape.js';
import type { TensorLike } from '../tensor.js';
import { factorOption } from './factor.js';
import { Loss, reductions, type Reduction } from './loss.js';

export interface BinaryCrossEntropyOptions {
  /** ε in [0, 1), for class indices alone: the label's target is 1 − ε + ε/C, every other class's ε/C. */
  smoothing?: number | undefined;
  /** Targets above it become 1, the others 0. */
  targetThreshold?: number | null | undefined;
  /** Factor of each element's loss, broadcast against the input. */
  weight?: TensorLike | null | undefined;
  reduction?: Reduction | undefined;
  /** Sum over classes, mean over rows, in place of `reduction`. */
  sumClasses?: boolean | undefined;
  /** Factor of the positive part, broadcast against the input. */
  posWeight?: TensorLike | null | undefined;
}

/**
 * Binary cross entropy of logits with label smoothing, as `timm.loss.BinaryCrossEntropy` (from "ResNet strikes
 * back", arXiv:2110.00476).
 *
 * Input [N, C] and class indices [N]; or input and dense target of one shape [..., C], which is not smoothed.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_TARGET_OUT_OF_RANGE
 */
export class BinaryCrossEntropy extends Loss {
  constructor(options?: BinaryCrossEntropyOptions) {
    const owner = 'BinaryCrossEntropy';
    const {
      smoothing = 0.1,
      targetThreshold,
      weight,
      reduction = 'mean',
      sumClasses = false,
      posWeight,
    } = checkOptions(owner, options, [
      'smoothing',
      'targetThreshold',
      'weight',
      'reduction',
      'sumClasses',
      'posWeight',
    ]);
    const chosen = choiceOption(owner, 'reduction', reduction, reductions);
    const sums = booleanOption(owner, 'sumClasses', sumClasses);
    super({
      owner,
      name: 'binary_cross_entropy',
      parameters: {
        smoothing: numberOption(owner, 'smoothing', smoothing, { min: 0, below: 1 }),
        // NaN: no threshold.
        targetThreshold:
          targetThreshold === undefined || targetThreshold === null
            ? NaN
            : numberOption(owner, 'targetThreshold', targetThreshold),
      },
      reduction: sums ? 'mean' : chosen,
      targets: ['indices', 'dense'],
      weight: factorOption(owner, 'weight', weight),
      posWeight: factorOption(owner, 'posWeight', posWeight),
      ...(sums && { divisor: (shape: readonly number[]) => numel(shape, 0, shape.length - 1) }),
    });
  }
}
