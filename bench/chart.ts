/** Draws a run: each loss against the memory's limit, and beside its peers. */

import { renderSvg } from '../examples/vega.js';
import { threadsOf } from './report.js';
import type { Machine, Measurement, Results } from './results.js';

const ink = '#1b2a3a';
const faint = '#5f6b76';
const grid = '#e3e8ec';
const limitColour = '#c2410c';
const colours = ['#0b67a3', '#7fb2d6'];
const peerColours = ['#0b67a3', '#d97706', '#8b5cf6', '#64748b'];

/** Where the axis of ratios ends; longer bars are cut there and say so. */
const longest = 4;

const config = {
  font: 'Helvetica, Arial, sans-serif',
  view: { stroke: null },
  concat: { spacing: 24 },
  // The page that shows a chart says what it is; labels of each mark would be four fifths of the file.
  aria: false,
  title: {
    anchor: 'start',
    color: ink,
    fontSize: 17,
    subtitleColor: faint,
    subtitleFontSize: 12,
    subtitleLineHeight: 17,
    subtitlePadding: 6,
    offset: 18,
  },
  axis: {
    gridColor: grid,
    domain: false,
    ticks: false,
    labelColor: ink,
    labelFontSize: 12,
    labelPadding: 8,
    labelLimit: 0,
    titleColor: ink,
    titleFontSize: 12.5,
    titleFontWeight: 'normal',
    titlePadding: 12,
  },
  legend: {
    orient: 'bottom',
    direction: 'horizontal',
    labelColor: ink,
    labelFontSize: 12,
    labelLimit: 0,
    title: null,
    symbolType: 'square',
    offset: 18,
    columnPadding: 28,
  },
};

const schemaUrl = 'https://vega.github.io/schema/vega-lite/v6.json';

const cpuOf = ({ cpu, family, model }: Machine): string =>
  family > 0 ? `${cpu} (family ${family}, model ${model})` : cpu;

/** The shapes that the chart shows, those out of the caches first. */
const charted = [
  { shape: '512x32000', label: '512 × 32000, out of cache' },
  { shape: '4096x1000', label: '4096 × 1000, about the size of a cache' },
];

interface Bar {
  readonly loss: string;
  readonly group: string;
  readonly end: number;
  readonly low: number;
  readonly high: number;
  readonly text: string;
}

function bars(measurements: readonly Measurement[], isForward: boolean): Bar[] {
  return charted.flatMap(({ shape, label }) =>
    measurements
      .filter((m) => m.shape === shape && (m.pass === 'forward') === isForward)
      .map(({ loss, ratio: { median, q1, q3 } }) => ({
        loss,
        group: label,
        end: Math.min(median, longest),
        low: Math.min(q1, longest),
        high: Math.min(q3, longest),
        text: `${median.toFixed(2)}${median > longest ? ' →' : ''}`,
      })),
  );
}

/** Ratios to the floor as bars from 0, with the quartiles, a line at 1, and the figures at the right. */
function panel(title: string, subject: string, values: readonly Bar[], losses: string[], first: boolean) {
  const groups = charted.map(({ label }) => label);
  const y = {
    field: 'loss',
    type: 'nominal',
    sort: losses,
    title: null,
    axis: first ? { grid: false } : null,
    scale: { paddingInner: 0.28 },
  };
  const yOffset = { field: 'group', sort: groups };
  const x = {
    type: 'quantitative',
    scale: { domain: [0, longest] },
    title: `time over ${subject}`,
    axis: { values: [0, 1, 2, 3, 4], format: '~f' },
  };
  return {
    title: { text: title, fontSize: 14, offset: 10, anchor: 'start', frame: 'group', color: ink },
    width: 300,
    height: { step: 13 },
    data: { values },
    layer: [
      {
        mark: { type: 'bar', cornerRadiusEnd: 2 },
        encoding: {
          y,
          yOffset,
          x: { ...x, field: 'end' },
          color: {
            field: 'group',
            type: 'nominal',
            sort: groups,
            scale: { domain: groups, range: colours },
          },
        },
      },
      {
        mark: { type: 'rule', color: ink, strokeWidth: 1.2 },
        encoding: {
          y,
          yOffset: { ...yOffset, bandPosition: 0.5 },
          x: { ...x, field: 'low' },
          x2: { field: 'high' },
        },
      },
      {
        data: { values: [{}] },
        mark: { type: 'rule', color: limitColour, strokeWidth: 2 },
        encoding: { x: { datum: 1, type: 'quantitative' } },
      },
      {
        mark: { type: 'text', align: 'left', dx: 6, fontSize: 10.5, color: ink },
        encoding: { y, yOffset, x: { ...x, field: 'high' }, text: { field: 'text' } },
      },
    ],
  };
}

function limitSpec(results: Results): object | undefined {
  const most = Math.max(...results.threads);
  const shown = results.measurements.filter(
    (m) =>
      m.dtype === 'float32' &&
      m.threads === most &&
      m.instructionSet === results.instructionSet &&
      charted.some(({ shape }) => shape === m.shape),
  );
  if (shown.length === 0) return undefined;
  const losses = [...new Set(shown.map(({ loss }) => loss))];
  const panels = [
    panel('Forward', 'a plain read', bars(shown, true), losses, true),
    panel('Loss and gradient, or backward', 'a plain copy', bars(shown, false), losses, false),
  ];
  return {
    $schema: schemaUrl,
    background: 'white',
    padding: 24,
    title: {
      text: 'Each loss against the memory’s limit',
      subtitle: [
        `${cpuOf(results.machine)}, ${threadsOf(most)}, ${results.instructionSet}, float32. The line at 1 is a plain read or copy of the same`,
        'bytes in the same rounds, as fast as native code gets. Bars: median; thin lines: quartiles.',
      ],
    },
    hconcat: panels,
    config,
  };
}

function peerSpec(results: Results): object | undefined {
  const { peerMeasurements, machine } = results;
  const shape = charted.find((candidate) => peerMeasurements.some((m) => m.shape === candidate.shape));
  if (shape === undefined) return undefined;
  const most = Math.max(
    ...peerMeasurements.filter((m) => m.shape === shape.shape).map(({ threads }) => threads),
  );
  const shown = peerMeasurements.filter(
    (m) => m.shape === shape.shape && m.threads === most && m.pass !== 'forward',
  );
  if (shown.length === 0) return undefined;
  const names = ['surprisal', ...new Set(shown.map(({ peer }) => peer))];
  const losses = [...new Set(shown.map(({ loss }) => loss))];
  const values = losses.flatMap((loss) => {
    const own = shown.filter((m) => m.loss === loss);
    return [
      { loss, who: 'surprisal', ms: own[0]!.ours.median / 1e6 },
      ...own.map(({ peer, ns }) => ({ loss, who: peer, ms: ns.median / 1e6 })),
    ];
  });
  const y = { field: 'loss', type: 'nominal', sort: losses, title: null, axis: { grid: true } };
  const x = {
    field: 'ms',
    type: 'quantitative',
    scale: { type: 'log', nice: true },
    title: 'loss and gradient, ms (logarithmic)',
    axis: { format: '~f', tickCount: 5 },
  };
  return {
    $schema: schemaUrl,
    background: 'white',
    padding: 24,
    title: {
      text: 'Beside its peers',
      subtitle: [
        `${cpuOf(machine)}, ${threadsOf(most)}, ${shape.shape.replace('x', ' × ')}, float32; medians of interleaved rounds.`,
        'Plain JavaScript and tfjs have one thread.',
      ],
    },
    width: 620,
    height: { step: 30 },
    data: { values },
    mark: { type: 'circle', size: 110, opacity: 1 },
    encoding: {
      y,
      x,
      color: {
        field: 'who',
        type: 'nominal',
        sort: names,
        scale: { domain: names, range: peerColours },
      },
    },
    config: { ...config, legend: { ...config.legend, symbolType: 'circle' } },
  };
}

/** The charts that there are figures for, as SVG documents by file name, beside the JSON that they are drawn from. */
export async function charts(results: Results, json: string): Promise<ReadonlyMap<string, string>> {
  const base = json.replace(/\.json$/, '');
  const specs: readonly (readonly [string, object | undefined])[] = [
    [`${base}.svg`, limitSpec(results)],
    [`${base}_peers.svg`, peerSpec(results)],
  ];
  const drawn = new Map<string, string>();
  for (const [file, spec] of specs) {
    if (spec !== undefined) drawn.set(file, `${await renderSvg(spec)}\n`);
  }
  return drawn;
}
