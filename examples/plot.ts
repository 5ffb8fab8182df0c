import { plot } from 'asciichart';
import { alpha, type CurvePoint } from './curve.js';
import { renderSvg } from './vega.js';

const ink = '#1b2a3a';
const faint = '#5f6b76';
const grid = '#dfe4e8';
const line = '#0b67a3';

/** Upper end of both charts' ordinates; the curve ends a little below. */
const top = 0.4;

/** The curve as an SVG document. */
export function curveSvg(points: readonly CurvePoint[]): Promise<string> {
  const once = { values: [{}] };
  return renderSvg({
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    description: 'The divergence part of JsdCrossEntropy against the change of one of three predictions.',
    width: 600,
    height: 320,
    // Fixed margins: without a canvas Vega only guesses how wide a text is, and would leave half the picture empty.
    autosize: 'none',
    padding: { left: 80, right: 40, top: 124, bottom: 70 },
    background: 'white',
    title: {
      text: 'What it costs when one prediction of three disagrees',
      subtitle: [
        `JsdCrossEntropy (numSplits 3, alpha ${alpha}, smoothing 0) less the cross entropy of its first split.`,
        'Logits of all three: 1 for class 0 of ten, else 0. The third then moves δ from class 0 to class 1.',
      ],
    },
    layer: [
      {
        data: once,
        mark: { type: 'rule', color: faint, strokeDash: [4, 3] },
        encoding: { x: { datum: 0 } },
      },
      {
        data: once,
        mark: {
          type: 'text',
          color: faint,
          align: 'left',
          dx: 8,
          fontSize: 12,
          text: 'δ = 0: all three agree',
        },
        encoding: { x: { datum: 0 }, y: { datum: 0.38 } },
      },
      {
        data: { values: points },
        mark: { type: 'line', color: line, strokeWidth: 2.5, point: { color: line, size: 36 } },
        encoding: {
          x: {
            field: 'change',
            type: 'quantitative',
            title: 'Change δ of the third prediction (logits)',
            axis: { values: [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1], format: '.2~f' },
          },
          y: {
            field: 'divergence',
            type: 'quantitative',
            title: `${alpha} × Jensen–Shannon divergence (nats)`,
            scale: { domain: [0, top] },
            axis: { values: [0, 0.1, 0.2, 0.3, 0.4], format: '~f' },
          },
        },
      },
    ],
    config: {
      font: 'Helvetica, Arial, sans-serif',
      view: { stroke: null },
      title: {
        anchor: 'start',
        color: ink,
        fontSize: 17,
        subtitleColor: faint,
        subtitleFontSize: 12,
        subtitleLineHeight: 17,
        subtitlePadding: 6,
        offset: 16,
      },
      axis: {
        grid: true,
        gridColor: grid,
        domain: false,
        ticks: false,
        labelFlush: false,
        labelColor: ink,
        labelFontSize: 12,
        labelPadding: 8,
        titleColor: ink,
        titleFontSize: 13,
        titleFontWeight: 'normal',
        titlePadding: 14,
      },
      // The zero line.
      axisX: { domain: true, domainColor: faint, domainWidth: 1.5 },
    },
  });
}

const columnsPerStep = 3;
const labelWidth = 6;

/** The curve in box-drawing characters, under 80 columns. */
export function curveInTerminal(points: readonly CurvePoint[]): string {
  const heights = points.flatMap(({ divergence }, i) => {
    const next = points[i + 1]?.divergence ?? divergence;
    const steps = i < points.length - 1 ? columnsPerStep : 1;
    return Array.from({ length: steps }, (_, k) => divergence + (k / columnsPerStep) * (next - divergence));
  });
  const isRound = (value: number): boolean => Math.abs(10 * value - Math.round(10 * value)) < 1e-9;
  const chart = plot(heights, {
    height: 12,
    offset: 2,
    min: 0,
    max: top,
    format: (value) => (isRound(value) ? Math.abs(value).toFixed(1) : '').padStart(labelWidth - 1) + ' ',
  });

  const tickEvery = 5;
  const axis = points
    .map((_, i) => (i === 0 ? '└' : i % tickEvery === 0 ? '┬' : '─'))
    .join('─'.repeat(columnsPerStep - 1));
  const labels = Array<string>(80).fill(' ');
  for (let i = 0; i < points.length; i += tickEvery) {
    const text = String(points[i]!.change);
    // The digits stand centred under the tick, a minus sign before them.
    const digits = text.replace('-', '').length;
    const start = labelWidth + i * columnsPerStep - Math.floor(digits / 2) - (text.length - digits);
    labels.splice(start, text.length, ...text.split(''));
  }
  return [
    `  ${alpha} × Jensen-Shannon divergence (nats)`,
    ...chart.split('\n').map((row) => row.trimEnd()),
    ' '.repeat(labelWidth) + axis,
    labels.join('').trimEnd(),
    '  change of the third prediction (logits, from class 0 to class 1)',
  ].join('\n');
}
