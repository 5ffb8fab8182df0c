/** What an evaluation found, as text and as JSON. */
import type { ClassificationEvaluator, ClassificationMetrics } from '../metrics/classification_evaluator.js';
import { showCount, showNumber, showPercent, table } from './terminal.js';

/** What a report says beside the metrics. */
export interface Extent {
  /** Whether the evaluation was interrupted, and these are the metrics of the rows before. */
  readonly partial: boolean;
  /** Rows of the files, read ones and others. */
  readonly totalRows: number;
  /** K of a loss over splits. */
  readonly splits: number;
}

/** A parameter as options name it: the state says what the native side is given. */
const showParameters = (parameters: Readonly<Record<string, unknown>>) =>
  Object.entries(parameters)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name} ${String(value)}`)
    .join(', ');

const showNats = (value: number): string =>
  Number.isNaN(value) ? showNumber(value) : `${showNumber(value)} nats`;

/** Each metric with its name, and a word on it. */
export function metricRows(
  { config }: ClassificationEvaluator,
  metrics: ClassificationMetrics,
  extent?: Extent,
): string[][] {
  const rows: string[][] = [];
  const left = [
    ...(metrics.ignored > 0 ? [`${showCount(metrics.ignored)} ignored`] : []),
    ...(metrics.undefined > 0 ? [`${showCount(metrics.undefined)} with NaN or infinite logits`] : []),
    ...(extent !== undefined && extent.splits > 1 ? [`in ${extent.splits} splits`] : []),
  ];
  rows.push(['rows', showCount(metrics.rows), left.join(', ')]);
  rows.push(['loss', showNats(metrics.loss), `perplexity ${showNumber(metrics.perplexity)}`]);
  for (const [name, value] of Object.entries(metrics.losses)) {
    const { parameters } = config.losses[name] as { parameters: Record<string, unknown> };
    rows.push([name, showNumber(value), showParameters(parameters)]);
  }
  for (const k of config.topK) rows.push([`top-${k} accuracy`, showPercent(metrics.topK[k]!), '']);
  rows.push([
    'calibration error',
    showPercent(metrics.expectedCalibrationError),
    `expected, of ${config.bins} bins; at most ${showPercent(metrics.maximumCalibrationError)}`,
  ]);
  rows.push(['Brier score', showNumber(metrics.brierScore), 'of 0 to 2']);
  rows.push(['entropy', showNats(metrics.entropy), 'of the predictions']);
  return rows;
}

export function textReport(
  evaluator: ClassificationEvaluator,
  metrics: ClassificationMetrics,
  extent?: Extent,
): string {
  const lines = table(metricRows(evaluator, metrics, extent));
  if (!extent?.partial) return lines;
  const seen = metrics.rows + metrics.ignored;
  return `PARTIAL: interrupted after ${showCount(seen)} of ${showCount(extent.totalRows)} rows\n${lines}`;
}

/** The same for programs. What is undefined or infinite is null, as JSON has no such numbers. */
export function jsonReport(
  { config, hash }: ClassificationEvaluator,
  metrics: ClassificationMetrics,
  extent: Partial<Extent> = {},
): object {
  // C² numbers: the state has them, where they are not 0.
  return { partial: false, ...extent, ...metrics, confusionMatrix: undefined, config, hash };
}
