export { gather, oneHot } from './indexing.js';
export { crossEntropy, klDiv, lensedCrossEntropy, nllLoss } from './losses.js';
export type { LensedCrossEntropyFunctionOptions } from './losses.js';
export { logSoftmax, logSoftmaxBackward, softmax, softmaxBackward } from './softmax.js';
export type { DimOptions } from './softmax.js';
