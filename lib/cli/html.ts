/** A report of an evaluation as one HTML file: no scripts, nothing to load, light and dark. */
import type { ClassificationEvaluator, ClassificationMetrics } from '../metrics/classification_evaluator.js';
import type { Shard } from './inputs.js';
import { textReport, type Extent } from './report.js';
import type { RowLosses } from './row_losses.js';
import { ends, escapeText, scale, ticks } from './svg.js';
import { showCount, showNumber, showPercent } from './terminal.js';

const style = `
  :root { color-scheme: light dark; --page: #f9f9f7; --surface: #fcfcfb; --text: #0b0b0b; --muted: #52514e;
    --grid: #e1e0d9; --axis: #898781; --bar: #2a78d6; --edge: rgba(11, 11, 11, 0.1) }
  @media (prefers-color-scheme: dark) { :root { --page: #0d0d0d; --surface: #1a1a19; --text: #ffffff; --muted: #c3c2b7;
    --grid: #2c2c2a; --bar: #3987e5; --edge: rgba(255, 255, 255, 0.1) } }
  body { margin: 0 auto; max-width: 1080px; padding: 24px; background: var(--page); color: var(--text);
    font: 15px/1.45 system-ui, sans-serif }
  h1 { font-size: 22px; margin: 0 } h2 { font-size: 16px; margin: 0 0 8px } p { color: var(--muted); margin: 4px 0 12px }
  section, .tile { background: var(--surface); border: 1px solid var(--edge); border-radius: 8px; padding: 16px }
  section { overflow-x: auto }
  .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 16px 0 }
  .tile b { display: block; font-size: 24px; font-weight: 600 } .tile span { color: var(--muted) }
  .grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px; margin-bottom: 16px }
  table { border-collapse: collapse; width: 100%; font-size: 14px }
  th { text-align: left; color: var(--muted); font-weight: 500 }
  th, td { padding: 4px 8px; border-bottom: 1px solid var(--grid) }
  .n { text-align: right; font-variant-numeric: tabular-nums }
  .partial { border: 2px solid var(--axis); border-radius: 8px; padding: 8px 16px; margin-top: 16px }
  pre { overflow-x: auto; margin: 0 }
  svg { width: 100%; height: auto; font: 12px system-ui, sans-serif }
  svg text { fill: var(--muted) } svg .g { stroke: var(--grid) } svg .a { stroke: var(--axis) }
  svg .b { fill: var(--bar) } svg .d { stroke: var(--text); stroke-dasharray: 4 4; fill: none }
  svg .h:hover .b { opacity: 0.75 } svg .t { fill: none; pointer-events: all }`;

const [width, height] = [480, 320];
const frame = { left: 56, right: width - 12, top: 12, bottom: height - 48 };

interface Bar {
  readonly from: number;
  readonly to: number;
  readonly value: number;
  readonly hint: string;
}

interface Axes {
  readonly xTicks: readonly number[];
  readonly yTicks: readonly number[];
  readonly xLabel: string;
  readonly yLabel: string;
  readonly diagonal?: boolean;
}

/** Bars over intervals, with a pixel of air to each side; each says on hovering what it is. */
function barChart(bars: readonly Bar[], { xTicks, yTicks, xLabel, yLabel, diagonal = false }: Axes): string {
  const { left, right, top, bottom } = frame;
  const x = scale(ends(xTicks), [left, right]);
  const y = scale(ends(yTicks), [bottom, top]);
  const middle = (top + bottom) / 2;
  return [
    `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeText(`${yLabel} by ${xLabel}`)}">`,
    ...yTicks.map(
      (tick) =>
        `<line class="g" x1="${left}" x2="${right}" y1="${y(tick)}" y2="${y(tick)}"/>` +
        `<text x="${left - 6}" y="${y(tick) + 4}" text-anchor="end">${showTick(tick)}</text>`,
    ),
    ...bars.map(({ from, to, value, hint }) => {
      const [start, span] = [x(from), x(to) - x(from)];
      return (
        `<g class="h"><rect class="t" x="${start}" y="${top}" width="${span.toFixed(2)}" height="${bottom - top}"/>` +
        `<rect class="b" x="${(start + 1).toFixed(2)}" y="${y(value)}" width="${Math.max(1, span - 2).toFixed(2)}" ` +
        `height="${(bottom - y(value)).toFixed(2)}"/><title>${escapeText(hint)}</title></g>`
      );
    }),
    ...(diagonal ? [`<line class="d" x1="${left}" y1="${bottom}" x2="${right}" y2="${top}"/>`] : []),
    `<line class="a" x1="${left}" x2="${right}" y1="${bottom}" y2="${bottom}"/>`,
    ...xTicks.map(
      (tick) => `<text x="${x(tick)}" y="${bottom + 18}" text-anchor="middle">${showTick(tick)}</text>`,
    ),
    `<text x="${(left + right) / 2}" y="${height - 8}" text-anchor="middle">${escapeText(xLabel)}</text>`,
    `<text transform="translate(14 ${middle}) rotate(-90)" text-anchor="middle">${escapeText(yLabel)}</text>`,
    '</svg>',
  ].join('\n');
}

const showTick = (tick: number): string =>
  Math.abs(tick) >= 1e4 ? `${Number((tick / 1000).toPrecision(4)).toLocaleString('en-US')}k` : String(tick);

function reliability({ calibration }: ClassificationMetrics): string {
  const bins = calibration.rows.length - 1;
  const bars: Bar[] = [];
  for (let b = 0; b < bins; b++) {
    // Confidences of exactly 1 have a bin of their own, which is drawn with the one below.
    const parts = b === bins - 1 ? [b, bins] : [b];
    const rows = parts.reduce((sum, i) => sum + calibration.rows[i]!, 0);
    if (rows === 0) continue;
    const mean = (values: Float64Array) =>
      parts.reduce((sum, i) => sum + (calibration.rows[i]! > 0 ? values[i]! * calibration.rows[i]! : 0), 0) /
      rows;
    const [accuracy, confidence] = [mean(calibration.accuracy), mean(calibration.confidence)];
    const hint = `confidence ${showPercent(confidence)}: ${showPercent(accuracy)} right of ${showCount(rows)} rows`;
    bars.push({ from: b / bins, to: (b + 1) / bins, value: accuracy, hint });
  }
  const unit = [0, 0.2, 0.4, 0.6, 0.8, 1];
  return barChart(bars, {
    xTicks: unit,
    yTicks: unit,
    xLabel: 'confidence, the largest probability',
    yLabel: 'accuracy',
    diagonal: true,
  });
}

function histogram({ counts, width: step }: RowLosses): string {
  const last = counts.length - 1;
  const bars = counts.flatMap((rows, b): Bar[] => {
    if (rows === 0) return [];
    const range =
      b === last
        ? `${showNumber(b * step)} or more`
        : `${showNumber(b * step)} to ${showNumber((b + 1) * step)}`;
    return [
      { from: b * step, to: (b + 1) * step, value: rows, hint: `loss ${range}: ${showCount(rows)} rows` },
    ];
  });
  return barChart(bars, {
    xTicks: ticks(0, (last + 1) * step),
    yTicks: ticks(0, Math.max(1, ...counts), 5),
    xLabel: `loss (nats); the last bar is all from ${showNumber(last * step)} on`,
    yLabel: 'rows',
  });
}

type Column = readonly [heading: string, numeric: boolean];

function htmlTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const cell = (tag: string, text: string, i: number) =>
    `<${tag}${columns[i]![1] ? ' class="n"' : ''}>${escapeText(text)}</${tag}>`;
  const head = columns.map(([heading], i) => cell('th', heading, i)).join('');
  const body = rows.map((row) => `<tr>${row.map((text, i) => cell('td', text, i)).join('')}</tr>`);
  return `<table><thead><tr>${head}</tr></thead><tbody>\n${body.join('\n')}\n</tbody></table>`;
}

const mostConfusions = 25;

/** The largest cells of the confusion matrix off its diagonal. */
function confusions({ confusionMatrix, perClass }: ClassificationMetrics): string[][] {
  if (confusionMatrix === undefined) return [];
  const classes = confusionMatrix.shape[0]!;
  const counts = confusionMatrix.data as Float64Array;
  let cells: number[] = [];
  const largestFirst = (a: number, b: number) => counts[b]! - counts[a]! || a - b;
  counts.forEach((rows, cell) => {
    if (rows === 0 || cell % (classes + 1) === 0) return;
    cells.push(cell);
    if (cells.length >= 1000) cells = cells.sort(largestFirst).slice(0, mostConfusions);
  });
  return cells
    .sort(largestFirst)
    .slice(0, mostConfusions)
    .map((cell) => {
      const label = Math.floor(cell / classes);
      const rows = counts[cell]!;
      return [
        String(label),
        String(cell % classes),
        showCount(rows),
        showPercent(rows / perClass.rows[label]!),
      ];
    });
}

export function htmlReport(
  evaluator: ClassificationEvaluator,
  metrics: ClassificationMetrics,
  extent: Extent,
  shards: readonly Shard[],
  rowLosses: RowLosses,
): string {
  const [first] = shards;
  const more = shards.length > 1 ? ` and ${showCount(shards.length - 1)} more` : '';
  const { topK } = evaluator.config;
  const tiles = [
    ['rows', showCount(metrics.rows)],
    ['loss (nats)', showNumber(metrics.loss)],
    ...Object.entries(metrics.losses).map(([name, value]) => [name, showNumber(value)]),
    ...topK.map((k) => [`top-${k} accuracy`, showPercent(metrics.topK[k]!)]),
    ['expected calibration error', showPercent(metrics.expectedCalibrationError)],
  ] as const;
  const worst = rowLosses.worst.map(({ shard, row, label, prediction, loss }) => [
    shards[shard]!.logits.text,
    showCount(row),
    String(label),
    prediction < 0 ? 'none' : String(prediction),
    showNumber(loss),
    Math.exp(-loss).toExponential(2),
  ]);
  const confused = confusions(metrics);
  const confusedTable =
    metrics.confusionMatrix === undefined
      ? `<p>A confusion matrix of ${showCount(evaluator.config.numClasses)} classes is too large to be kept.</p>`
      : htmlTable(
          [
            ['label', true],
            ['taken for', true],
            ['rows', true],
            ['of the label’s rows', true],
          ],
          confused,
        );
  const title = `Evaluation of ${first!.logits.text}${more}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeText(title)}</title>
<style>${style}
</style>
</head>
<body>
<h1>${escapeText(title)}</h1>
<p>${showCount(evaluator.config.numClasses)} classes; labels of ${escapeText(first!.targets.text)}${more}. Rows and classes count from 0.</p>
${
  extent.partial
    ? `<div class="partial">Partial: the evaluation was interrupted after ${showCount(metrics.rows + metrics.ignored)} of ${showCount(extent.totalRows)} rows.</div>\n`
    : ''
}<div class="tiles">
${tiles.map(([name, value]) => `<div class="tile"><span>${escapeText(name)}</span><b>${escapeText(value)}</b></div>`).join('\n')}
</div>
<div class="grid">
<section id="reliability"><h2>Reliability diagram</h2>
<p>Bars on the dashed line are calibrated: of rows with confidence p the fraction p is right.</p>
${reliability(metrics)}
</section>
<section id="losses"><h2>Losses of rows</h2>
<p>Cross entropy. A guess among all classes has ${showNumber(Math.log(evaluator.config.numClasses))}.${
    rowLosses.undefined > 0
      ? ` Rows without one, as their logits are undefined: ${showCount(rowLosses.undefined)}.`
      : ''
  }</p>
${histogram(rowLosses)}
</section>
<section id="worst"><h2>The worst rows</h2>
${htmlTable(
  [
    ['file', false],
    ['row', true],
    ['label', true],
    ['prediction', true],
    ['loss', true],
    ['p of label', true],
  ],
  worst,
)}
</section>
<section id="confused"><h2>The most confused classes</h2>
${confusedTable}
</section>
</div>
<section><h2>All metrics</h2>
<pre>${escapeText(textReport(evaluator, metrics, extent))}</pre>
</section>
</body>
</html>
`;
}
