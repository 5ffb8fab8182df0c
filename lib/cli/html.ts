/** A report of an evaluation as one HTML file: no scripts, nothing to load, light and dark. */
import { basename } from 'node:path';
import type { ClassificationEvaluator, ClassificationMetrics } from '../metrics/classification_evaluator.js';
import type { Shard } from './inputs.js';
import { metricRows, type Extent } from './report.js';
import type { RowLosses } from './row_losses.js';
import { ends, escapeText, scale, ticks } from './svg.js';
import { showCount, showNumber, showPercent } from './terminal.js';

const style = `
  :root { color-scheme: light dark; --page: #f6f6f3; --surface: #ffffff; --text: #16181d; --muted: #5b5f68;
    --grid: #e7e6e1; --axis: #a3a19a; --bar: #2a78d6; --gap: #d9622b; --edge: rgba(11, 11, 11, 0.09); --shade: 42, 120, 214 }
  @media (prefers-color-scheme: dark) { :root { --page: #101114; --surface: #191b1f; --text: #f1f1ee; --muted: #a9acb3;
    --grid: #2b2d32; --axis: #6c6f76; --bar: #4a94ea; --gap: #f0925f; --edge: rgba(255, 255, 255, 0.09); --shade: 74, 148, 234 } }
  * { box-sizing: border-box }
  body { margin: 0 auto; max-width: 1120px; padding: 32px 24px; background: var(--page); color: var(--text);
    font: 15px/1.5 system-ui, sans-serif }
  h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere } h2 { font-size: 16px; margin: 0 }
  p { color: var(--muted); margin: 2px 0 12px; overflow-wrap: anywhere } footer { color: var(--muted); margin-top: 24px; font-size: 13px }
  section, .tile { background: var(--surface); border: 1px solid var(--edge); border-radius: 10px; padding: 16px 20px; min-width: 0 }
  .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 20px 0 16px }
  .tile { padding: 12px 16px } .tile b { display: block; font-size: 24px; line-height: 1.3; font-weight: 600; font-variant-numeric: tabular-nums }
  .tile span { color: var(--muted); font-size: 13px } .tile small { color: var(--muted); font-size: 13px; font-weight: 400 }
  .grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px; margin-bottom: 16px; align-items: start }
  .charts { align-items: stretch }
  .scroll { overflow-x: auto }
  table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums }
  th, td { white-space: nowrap } td.m, td.f { white-space: normal; overflow-wrap: anywhere; min-width: 72px }
  th { text-align: left; color: var(--muted); font-weight: 500; vertical-align: bottom }
  th, td { padding: 5px 8px; border-bottom: 1px solid var(--grid) } th:first-child, td:first-child { padding-left: 0 }
  th:last-child, td:last-child { padding-right: 0 } tbody tr:last-child td { border-bottom: 0 }
  .n { text-align: right }
  td.share { background: linear-gradient(to right, rgba(var(--shade), 0.22) var(--w), transparent 0) no-repeat }
  .matrix { width: auto } .matrix th, .matrix td { border: 0; padding: 6px 10px }
  .matrix td { text-align: right; border: 2px solid var(--surface); border-radius: 6px; min-width: 36px }
  .matrix thead th { text-align: right }
  .matrix tbody th { text-align: right; font-weight: 500 }
  .key { display: inline-block; width: 12px; height: 12px; border-radius: 2px; vertical-align: -1px; margin-right: 2px }
  .partial { border: 1px solid var(--gap); border-radius: 10px; padding: 10px 16px; margin-top: 16px }
  .stack { display: grid; gap: 16px; min-width: 0 } td.m { color: var(--muted) }
  svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif }
  svg text { fill: var(--muted) } svg .g { stroke: var(--grid) } svg .a { stroke: var(--axis) }
  svg .b { fill: var(--bar) } svg .e { fill: var(--gap); fill-opacity: 0.3; stroke: var(--gap) }
  svg .k { paint-order: stroke; stroke: var(--surface); stroke-width: 4px }
  svg .d { stroke: var(--muted); stroke-dasharray: 4 4; fill: none }
  svg .h:hover .b { opacity: 0.75 } svg .t { fill: none; pointer-events: all }
  @media (max-width: 480px) { body { padding: 20px 12px } section { padding: 14px } .tiles { gap: 8px; grid-template-columns: 1fr 1fr } .tile b { font-size: 20px } }
  @media print { body { max-width: none; background: none } section { break-inside: avoid } }`;

const [width, height] = [480, 320];
const frame = { left: 60, right: width - 8, top: 12, bottom: height - 44 };

interface Bar {
  readonly from: number;
  readonly to: number;
  readonly value: number;
  readonly hint: string;
  /** Where the bar should end. */
  readonly target?: number;
}

interface Mark {
  readonly at: number;
  readonly text: string;
}

interface Axes {
  readonly xTicks: readonly number[];
  readonly yTicks: readonly number[];
  readonly xLabel: string;
  readonly yLabel: string;
  readonly diagonal?: boolean;
  /** Of the values. */
  readonly logarithmic?: boolean;
  /** Vertical lines. */
  readonly marks?: readonly Mark[];
}

const px = (value: number) => value.toFixed(2);

/** Bars over intervals, with a pixel of air to each side; each says on hovering what it is. */
function barChart(
  bars: readonly Bar[],
  { xTicks, yTicks, xLabel, yLabel, diagonal = false, logarithmic = false, marks = [] }: Axes,
): string {
  const { left, right, bottom } = frame;
  // Marks have their words above.
  const top = frame.top + 18 * marks.length;
  const x = scale(ends(xTicks), [left, right]);
  const size = logarithmic ? Math.log10 : (value: number) => value;
  const pixel = scale(ends(yTicks.map(size)), [bottom, top]);
  const y = (value: number) => pixel(size(value));
  const middle = (top + bottom) / 2;
  return [
    `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeText(`${yLabel} by ${xLabel}`)}">`,
    ...yTicks.map(
      (tick) =>
        `<line class="g" x1="${left}" x2="${right}" y1="${y(tick)}" y2="${y(tick)}"/>` +
        `<text x="${left - 8}" y="${y(tick) + 4}" text-anchor="end">${logarithmic && tick < 1 ? '' : showTick(tick)}</text>`,
    ),
    ...bars.map(({ from, to, value, hint, target }) => {
      const [start, span] = [x(from), x(to) - x(from)];
      const place = `x="${px(start + 1)}" width="${px(Math.max(1, span - 2))}"`;
      const gap =
        target === undefined
          ? ''
          : `<rect class="e" x="${px(start + 1.5)}" width="${px(Math.max(1, span - 3))}" ` +
            `y="${px(Math.min(y(value), y(target)))}" height="${px(Math.abs(y(value) - y(target)))}"/>`;
      return (
        `<g class="h"><rect class="t" x="${px(start)}" y="${top}" width="${px(span)}" height="${bottom - top}"/>` +
        `<rect class="b" ${place} y="${y(value)}" height="${px(bottom - y(value))}"/>${gap}` +
        `<title>${escapeText(hint)}</title></g>`
      );
    }),
    ...(diagonal ? [`<line class="d" x1="${left}" y1="${bottom}" x2="${right}" y2="${top}"/>`] : []),
    ...marks.map(
      ({ at }, i) =>
        `<line class="d" x1="${x(at)}" x2="${x(at)}" y1="${frame.top + 18 * i}" y2="${bottom}"/>`,
    ),
    ...marks.map(({ at, text }, i) => {
      const beyond = x(at) > (left + right) / 2;
      return `<text class="k" x="${px(x(at) + (beyond ? -6 : 6))}" y="${frame.top + 10 + 18 * i}"${beyond ? ' text-anchor="end"' : ''}>${escapeText(text)}</text>`;
    }),
    `<line class="a" x1="${left}" x2="${right}" y1="${bottom}" y2="${bottom}"/>`,
    ...xTicks.map(
      (tick) => `<text x="${x(tick)}" y="${bottom + 17}" text-anchor="middle">${showTick(tick)}</text>`,
    ),
    `<text x="${(left + right) / 2}" y="${height - 6}" text-anchor="middle">${escapeText(xLabel)}</text>`,
    `<text transform="translate(12 ${middle}) rotate(-90)" text-anchor="middle">${escapeText(yLabel)}</text>`,
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
    const hint = `confidence ${showPercent(confidence)}: ${showPercent(accuracy)} right of ${showRows(rows)}`;
    bars.push({ from: b / bins, to: (b + 1) / bins, value: accuracy, target: confidence, hint });
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

const showRows = (rows: number): string => `${showCount(rows)} ${rows === 1 ? 'row' : 'rows'}`;

function histogram({ counts, width: step }: RowLosses, marks: readonly Mark[]): string {
  const last = counts.length - 1;
  const bars = counts.flatMap((rows, b): Bar[] => {
    if (rows === 0) return [];
    const range =
      b === last
        ? `${showNumber(b * step)} or more`
        : `${showNumber(b * step)} to ${showNumber((b + 1) * step)}`;
    return [{ from: b * step, to: (b + 1) * step, value: rows, hint: `loss ${range}: ${showRows(rows)}` }];
  });
  // A model that is any good has most rows in one bar; the others are what there is to see.
  const powers = Math.ceil(Math.log10(Math.max(10, ...counts)));
  return barChart(bars, {
    xTicks: ticks(0, (last + 1) * step),
    // One row is a bar too.
    yTicks: [0.5, ...Array.from({ length: powers + 1 }, (_, power) => 10 ** power)],
    xLabel: `loss (nats); the last bar is all from ${showNumber(last * step)} on`,
    yLabel: 'rows, logarithmic',
    logarithmic: true,
    marks: marks.filter(({ at }) => at <= (last + 1) * step),
  });
}

interface Column {
  readonly heading: string;
  readonly numeric?: boolean;
  /** The cell's text as a number of percents, drawn as a bar behind it. */
  readonly share?: boolean;
  /** Whether its text may go over several lines. */
  readonly long?: boolean;
}

function htmlTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const cell = (tag: string, text: string, i: number) => {
    const { numeric = false, share = false, long = false } = columns[i]!;
    const names = [
      ...(numeric ? ['n'] : []),
      ...(long ? ['f'] : []),
      ...(share && tag === 'td' ? ['share'] : []),
    ].join(' ');
    const bar = share && tag === 'td' ? ` style="--w:${parseFloat(text).toFixed(1)}%"` : '';
    return `<${tag}${names && ` class="${names}"`}${bar}>${escapeText(text)}</${tag}>`;
  };
  const head = columns.map(({ heading }, i) => cell('th', heading, i)).join('');
  const body = rows.map((row) => `<tr>${row.map((text, i) => cell('td', text, i)).join('')}</tr>`);
  return `<div class="scroll"><table><thead><tr>${head}</tr></thead><tbody>\n${body.join('\n')}\n</tbody></table></div>`;
}

const mostConfusions = 25;

/** The largest cells of the confusion matrix off its diagonal. */
function confusions(
  { confusionMatrix, perClass }: ClassificationMetrics,
  nameOf: (c: number) => string,
): string[][] {
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
        nameOf(label),
        nameOf(cell % classes),
        showCount(rows),
        showPercent(rows / perClass.rows[label]!),
      ];
    });
}

/** Classes of which the whole matrix is shown. */
const mostInMatrix = 12;

/** Each cell shaded by its share of the label's rows. */
function matrix({ confusionMatrix, perClass }: ClassificationMetrics, nameOf: (c: number) => string): string {
  const counts = (confusionMatrix?.toArray() ?? []) as number[][];
  if (counts.length > mostInMatrix || counts.length === 0) return '';
  const head = counts.map((_, c) => `<th>${escapeText(nameOf(c))}</th>`).join('');
  const body = counts.map((row, label) => {
    const cells = row.map((rows, c) => {
      const share = perClass.rows[label]! > 0 ? rows / perClass.rows[label]! : 0;
      const hint = `${nameOf(label)} taken for ${nameOf(c)}: ${showPercent(share)}`;
      return `<td style="background:rgba(var(--shade),${(0.65 * share).toFixed(3)})" title="${escapeText(hint)}">${showCount(rows)}</td>`;
    });
    return `<tr><th>${escapeText(nameOf(label))}</th>${cells.join('')}</tr>`;
  });
  return `<section id="matrix"><h2>Confusion matrix</h2>
<p>Rows of each label, by what they were taken for; shaded by their share of the label’s rows.</p>
<div class="scroll"><table class="matrix"><thead><tr><th></th>${head}</tr></thead><tbody>
${body.join('\n')}
</tbody></table></div>
</section>
`;
}

/** A metric, and a word on it. */
type Tile = readonly [name: string, value: string, more?: string];

/**
 * @param names of the classes; undefined where they are numbers
 */
export function htmlReport(
  evaluator: ClassificationEvaluator,
  metrics: ClassificationMetrics,
  extent: Extent,
  shards: readonly Shard[],
  rowLosses: RowLosses,
  names: readonly string[] | undefined,
): string {
  const [first] = shards;
  const more = shards.length > 1 ? ` and ${showCount(shards.length - 1)} more` : '';
  const { topK, numClasses } = evaluator.config;
  const nameOf = (c: number): string => names?.[c] ?? String(c);
  const tiles: Tile[] = [
    ['rows', showCount(metrics.rows)],
    ...topK.map((k): Tile => [`top-${k} accuracy`, showPercent(metrics.topK[k]!)]),
    ['cross entropy', showNumber(metrics.loss), 'nats'],
    ...Object.entries(metrics.losses).map(([name, value]): Tile => [name, showNumber(value)]),
    ['calibration error', showPercent(metrics.expectedCalibrationError)],
    ['Brier score', showNumber(metrics.brierScore)],
  ];
  const several = shards.length > 1;
  const worst = rowLosses.worst.map(({ shard, row, label, prediction, loss }) => [
    ...(several ? [shards[shard]!.logits.text] : []),
    showCount(row),
    nameOf(label),
    prediction < 0 ? 'none' : nameOf(prediction),
    showNumber(loss),
    showProbability(Math.exp(-loss)),
  ]);
  const confused = confusions(metrics, nameOf);
  const numeric = names === undefined;
  const confusedTable =
    metrics.confusionMatrix === undefined
      ? `<p>A confusion matrix of ${showCount(numClasses)} classes is too large to be kept.</p>`
      : confused.length === 0
        ? '<p>No row was taken for another class than its own.</p>'
        : htmlTable(
            [
              { heading: 'label', numeric },
              { heading: 'taken for', numeric },
              { heading: 'rows', numeric: true },
              { heading: 'of the label’s rows', numeric: true, share: true },
            ],
            confused,
          );
  const guess = Math.log(numClasses);
  const title = `Evaluation of ${basename(first!.logits.text)}${more}`;
  const counted = metrics.rows + metrics.ignored;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>${escapeText(title)}</title>
<style>${style}
</style>
</head>
<body>
<h1>${escapeText(title)}</h1>
<p>${showRows(metrics.rows)} of ${showCount(numClasses)} classes; labels of ${escapeText(basename(first!.targets.text))}${more}.${
    numeric ? ' Rows and classes count from 0.' : ' Rows count from 0.'
  }</p>
${
  extent.partial
    ? `<div class="partial"><b>Partial:</b> the evaluation was interrupted after ${showCount(counted)} of ${showCount(extent.totalRows)} rows.</div>\n`
    : ''
}<div class="tiles">
${tiles.map(([name, value, unit]) => `<div class="tile"><span>${escapeText(name)}</span><b>${escapeText(value)}${unit === undefined ? '' : ` <small>${unit}</small>`}</b></div>`).join('\n')}
</div>
<div class="grid charts">
<section id="reliability"><h2>Reliability diagram</h2>
<p><span class="key" style="background:var(--bar)"></span> rows that are right, by confidence
&nbsp; <span class="key" style="background:var(--gap)"></span> gap to the confidence</p>
${reliability(metrics)}
</section>
<section id="losses"><h2>Losses of rows</h2>
<p>Cross entropy, −log p of the label.${
    rowLosses.undefined > 0
      ? ` Rows without one, as their logits are undefined: ${showCount(rowLosses.undefined)}.`
      : ''
  }</p>
${histogram(rowLosses, [
  ...(Number.isFinite(metrics.loss) ? [{ at: metrics.loss, text: `mean ${showNumber(metrics.loss)}` }] : []),
  ...(guess > 0 ? [{ at: guess, text: `a guess among all, ${showNumber(guess)}` }] : []),
])}
</section>
</div>
<div class="grid">
<section id="worst"><h2>The worst rows</h2>
${htmlTable(
  [
    ...(several ? [{ heading: 'file', long: true }] : []),
    { heading: 'row', numeric: true },
    { heading: 'label', numeric },
    { heading: 'taken for', numeric },
    { heading: 'loss', numeric: true },
    { heading: 'p of the label', numeric: true },
  ],
  worst,
)}
</section>
<div class="stack">
${matrix(metrics, nameOf)}<section id="confused"><h2>The most confused classes</h2>
${confusedTable}
</section>
<section id="all"><h2>All metrics</h2>
<div class="scroll"><table><tbody>
${metricRows(evaluator, metrics, extent)
  .map(
    ([name, value, more]) =>
      `<tr><td>${escapeText(name!)}</td><td class="n">${escapeText(value!)}</td><td class="m">${escapeText(more!)}</td></tr>`,
  )
  .join('\n')}
</tbody></table></div>
</section>
</div>
</div>
<footer>Written by <code>surprisal eval</code>.</footer>
</body>
</html>
`;
}

const showProbability = (p: number): string =>
  p === 0 || p >= 1e-3
    ? p.toFixed(4)
    : p.toExponential(1).replace(/e-(\d+)/, (_, digits: string) => ` × 10⁻${superscript(digits)}`);

const superscript = (digits: string): string =>
  digits.replace(/\d/g, (digit) => '⁰¹²³⁴⁵⁶⁷⁸⁹'[Number(digit)]!);
