import {
  CrossEntropyLoss,
  KLDivLoss,
  NLLLoss,
  type CrossEntropyLossOptions,
  type KLDivLossOptions,
  type NLLLossOptions,
} from '../loss/cross_entropy.js';
import { LensedCrossEntropy, type LensedCrossEntropyOptions } from '../loss/lensed_cross_entropy.js';
import { checkOptions } from '../options.js';
import type { Tensor, TensorLike } from '../tensor.js';

/**
 * Cross entropy of logits in nats, as `torch.nn.functional.cross_entropy`. Options, defaults and shapes are those of
 * `CrossEntropyLoss`, which also gives the gradient.
 *
 * Input [C], [N, C] or [N, C, d1, ...]; target class indices of that shape without C, or class probabilities of the
 * input's shape. Returns a 0-d tensor, or with reduction 'none' one loss a row.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_TARGET_OUT_OF_RANGE
 */
export function crossEntropy(
  input: TensorLike,
  target: TensorLike,
  options?: CrossEntropyLossOptions,
): Tensor {
  return new CrossEntropyLoss(options).forward(input, target);
}

/**
 * Negative log likelihood of log probabilities in nats, as `torch.nn.functional.nll_loss`. Options, defaults and
 * shapes are those of `NLLLoss`, which also gives the gradient.
 *
 * Input [C], [N, C] or [N, C, d1, ...], log probabilities; target class indices of that shape without C. Returns a
 * 0-d tensor, or with reduction 'none' one loss a row.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_TARGET_OUT_OF_RANGE
 */
export function nllLoss(input: TensorLike, target: TensorLike, options?: NLLLossOptions): Tensor {
  return new NLLLoss(options).forward(input, target);
}

/**
 * Kullback-Leibler divergence of the target from the input in nats, as `torch.nn.functional.kl_div`. Options,
 * defaults and shapes are those of `KLDivLoss`, which also gives the gradient.
 *
 * Input log probabilities of any shape; target probabilities (or with `logTarget` their logarithm) of that shape.
 * Returns a 0-d tensor, or with reduction 'none' one value an element.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION
 */
export function klDiv(input: TensorLike, target: TensorLike, options?: KLDivLossOptions): Tensor {
  return new KLDivLoss(options).forward(input, target);
}

export type LensedCrossEntropyFunctionOptions = Pick<LensedCrossEntropyOptions, 'reduction'>;

/**
 * Cross entropy through a confusion lens, KL(lens[y] ‖ softmax(input)) in nats, as
 * `torch.nn.functional.kl_div(log_softmax(input), confusionLens[target])`. Defaults are those of
 * `LensedCrossEntropy`; where one lens serves many calls, build that class once: it keeps the lens's entropies.
 *
 * Input [N, C]; target class indices [N]; confusionLens [C, C], floating. Returns a 0-d tensor, or with reduction
 * 'none' one loss a row.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_OPTION, ERR_TARGET_OUT_OF_RANGE
 */
export function lensedCrossEntropy(
  input: TensorLike,
  target: TensorLike,
  confusionLens: TensorLike,
  options?: LensedCrossEntropyFunctionOptions,
): Tensor {
  const chosen = checkOptions('lensedCrossEntropy', options, ['reduction']);
  return new LensedCrossEntropy({ ...chosen, confusionLens }).forward(input, target);
}
