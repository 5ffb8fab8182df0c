import { booleanOption, checkOptions, choiceOption, numberOption } from '../options.js';
import type { TensorLike } from '../tensor.js';
import { factorOption } from './factor.js';
import { Loss, reductions, type Reduction } from './loss.js';

export interface CrossEntropyLossOptions {
  /** A factor a class, shape [C]; the mean then divides by the sum of the rows' weights. */
  weight?: TensorLike | undefined;
  /** Rows of this class index give loss 0 and gradient 0, and are out of the mean. */
  ignoreIndex?: number | undefined;
  reduction?: Reduction | undefined;
  /** ε in [0, 1): the target becomes (1 − ε)·target + ε/C. */
  labelSmoothing?: number | undefined;
}

/**
 * Cross entropy of logits, as `torch.nn.CrossEntropyLoss`.
 *
 * Input [C], [N, C] or [N, C, d1, ...]; target either class indices of that shape without C, or class probabilities
 * of the input's shape. The mean divides by the weights of the rows that count; for probabilities by their number.
 * When every row is ignored the mean is NaN, as in torch.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_TARGET_OUT_OF_RANGE
 */
export class CrossEntropyLoss extends Loss {
  constructor(options?: CrossEntropyLossOptions) {
    const owner = 'CrossEntropyLoss';
    const {
      weight,
      ignoreIndex = -100,
      reduction = 'mean',
      labelSmoothing = 0,
    } = checkOptions(owner, options, ['weight', 'ignoreIndex', 'reduction', 'labelSmoothing']);
    super({
      owner,
      name: 'cross_entropy',
      parameters: { smoothing: numberOption(owner, 'labelSmoothing', labelSmoothing, { min: 0, below: 1 }) },
      reduction: choiceOption(owner, 'reduction', reduction, reductions),
      targets: ['indices', 'dense'],
      classAxis: 1,
      ignoreIndex: numberOption(owner, 'ignoreIndex', ignoreIndex, { integer: true }),
      weight: factorOption(owner, 'weight', weight),
      weightPerClass: true,
    });
  }
}

export interface LabelSmoothingCrossEntropyOptions {
  /** ε in [0, 1): the label's target is 1 − ε + ε/C, every other class's ε/C. */
  smoothing?: number | undefined;
}

/**
 * Negative log likelihood with label smoothing, mean over rows, as `timm.loss.LabelSmoothingCrossEntropy`
 * (Szegedy et al. 2016, arXiv:1512.00567).
 *
 * Input [N, C]; target class indices [N].
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_TARGET_OUT_OF_RANGE
 */
export class LabelSmoothingCrossEntropy extends Loss {
  constructor(options?: LabelSmoothingCrossEntropyOptions) {
    const owner = 'LabelSmoothingCrossEntropy';
    const { smoothing = 0.1 } = checkOptions(owner, options, ['smoothing']);
    super({
      owner,
      name: 'cross_entropy',
      parameters: { smoothing: numberOption(owner, 'smoothing', smoothing, { min: 0, below: 1 }) },
      reduction: 'mean',
      targets: ['indices'],
      rank: 2,
    });
  }
}

/**
 * Cross entropy with a target distribution a row, mean over rows, as `timm.loss.SoftTargetCrossEntropy`: the loss of
 * mixup and of distillation.
 *
 * Input [..., C]; target of the same shape, any floating dtype. Rows of the target need not sum to 1.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION
 */
export class SoftTargetCrossEntropy extends Loss {
  constructor(options?: Record<string, never>) {
    const owner = 'SoftTargetCrossEntropy';
    checkOptions(owner, options, []);
    super({
      owner,
      name: 'cross_entropy',
      parameters: { smoothing: 0 },
      reduction: 'mean',
      targets: ['dense'],
    });
  }
}

export interface NLLLossOptions {
  /** A factor a class, shape [C]; the mean then divides by the sum of the rows' weights. */
  weight?: TensorLike | undefined;
  /** Rows of this class index give loss 0 and gradient 0, and are out of the mean. */
  ignoreIndex?: number | undefined;
  reduction?: Reduction | undefined;
}

/**
 * Negative log likelihood of log probabilities, as `torch.nn.NLLLoss`: −weight[y]·input[y].
 *
 * Input [C], [N, C] or [N, C, d1, ...], log probabilities; target class indices of that shape without C.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_TARGET_OUT_OF_RANGE
 */
export class NLLLoss extends Loss {
  constructor(options?: NLLLossOptions) {
    const owner = 'NLLLoss';
    const {
      weight,
      ignoreIndex = -100,
      reduction = 'mean',
    } = checkOptions(owner, options, ['weight', 'ignoreIndex', 'reduction']);
    super({
      owner,
      name: 'nll',
      reduction: choiceOption(owner, 'reduction', reduction, reductions),
      targets: ['indices'],
      classAxis: 1,
      ignoreIndex: numberOption(owner, 'ignoreIndex', ignoreIndex, { integer: true }),
      weight: factorOption(owner, 'weight', weight),
      weightPerClass: true,
    });
  }
}

export interface KLDivLossOptions {
  /** 'batchmean' divides the sum by the first dimension; 'mean' by the number of elements, as torch does. */
  reduction?: Reduction | 'batchmean' | undefined;
  /** The target is given as its logarithm. */
  logTarget?: boolean | undefined;
}

/**
 * Kullback-Leibler divergence of the target from the input, elementwise target·(log target − input), as
 * `torch.nn.KLDivLoss`. A target of 0 adds nothing.
 *
 * Input log probabilities of any shape; target probabilities (or their logarithm) of the same shape.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION
 */
export class KLDivLoss extends Loss {
  constructor(options?: KLDivLossOptions) {
    const owner = 'KLDivLoss';
    const { reduction = 'mean', logTarget = false } = checkOptions(owner, options, [
      'reduction',
      'logTarget',
    ]);
    const chosen = choiceOption(owner, 'reduction', reduction, [...reductions, 'batchmean'] as const);
    super({
      owner,
      name: 'kl_div',
      parameters: { logTarget: booleanOption(owner, 'logTarget', logTarget) ? 1 : 0 },
      reduction: chosen === 'batchmean' ? 'mean' : chosen,
      targets: ['dense'],
      ...(chosen === 'batchmean' && { divisor: (shape: readonly number[]) => shape[0]! }),
    });
  }
}
