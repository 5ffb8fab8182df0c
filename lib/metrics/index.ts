export {
  ClassificationEvaluator,
  type ClassificationEvaluatorOptions,
  type ClassificationMetrics,
  type EvaluatorConfig,
  type EvaluatorState,
} from './classification_evaluator.js';
export { ConfusionLens, type ConfusionLensOptions } from './confusion_lens.js';
