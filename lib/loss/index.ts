export * from './asymmetric_loss.js';
export * from './binary_cross_entropy.js';
export * from './cross_entropy.js';
export * from './jsd.js';
export * from './lensed_cross_entropy.js';
export { Loss } from './loss.js';
export type { AsyncOptions, CallOptions, GradOptions, GradOutput, Reduction, ValueAndGrad } from './loss.js';
