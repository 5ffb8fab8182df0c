/** What a terminal shows. */

import { stripVTControlCharacters, styleText } from 'node:util';
import Table from 'cli-table3';
import type {
  Machine,
  Measurement,
  Noise,
  Pass,
  PeerMeasurement,
  PeerStatus,
  SmallCall,
  Target,
} from './results.js';

type Format = Parameters<typeof styleText>[0];

const coloured = process.stdout.isTTY && process.env['NO_COLOR'] === undefined;
const style = (format: Format, text: string): string => (coloured ? styleText(format, text) : text);

const bold = (text: string): string => style('bold', text);
const faint = (text: string): string => style('gray', text);

/** Three digits, however large the number. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return '–';
  if (value >= 100) return value.toFixed(0);
  return value.toFixed(value >= 10 ? 1 : 2);
}

export const ratioDigits = (value: number): string => (value < 10 ? value.toFixed(2) : digits(value));

/** At the memory's limit, within twice of it, beyond. */
const ratioFormat = (ratio: number): Format => (ratio <= 1.1 ? 'green' : ratio <= 2 ? 'yellow' : 'red');

const eighths = ' ▏▎▍▌▋▊▉█';
const barWidth = 8;
const barEnd = 4;

/** A bar for ratios up to four, in eighths of a character. */
function bar(ratio: number): string {
  const filled = Math.round((Math.min(ratio, barEnd) / barEnd) * barWidth * 8);
  const text = '█'.repeat(Math.floor(filled / 8)) + (filled % 8 ? eighths[filled % 8]! : '');
  const end = ratio > barEnd ? '▸' : '';
  return style(ratioFormat(ratio), `${text.slice(0, barWidth - end.length)}${end}`.padEnd(barWidth));
}

export const threadsOf = (count: number): string => `${count} thread${count === 1 ? '' : 's'}`;

/** '1.23 ms', '4.5 µs', '78 ns'. */
export function duration(ns: number): string {
  if (ns >= 1e6) return `${digits(ns / 1e6)} ms`;
  if (ns >= 1e3) return `${digits(ns / 1e3)} µs`;
  return `${digits(ns)} ns`;
}

/** Columns and nothing else: rules are drawn where they help. */
const columnsOnly = {
  chars: {
    ...{ top: '', 'top-mid': '', 'top-left': '', 'top-right': '' },
    ...{ bottom: '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '' },
    ...{ left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '', middle: ' ' },
  },
  style: { head: [], border: [], 'padding-left': 0, 'padding-right': 1 },
};

const right = (content: string) => ({ content, hAlign: 'right' as const });

type Row = (string | { content: string; hAlign?: 'right' | 'left' | 'center'; colSpan?: number })[];

function table(heads: readonly Row[], rows: readonly Row[]): string {
  const made = new Table(columnsOnly) as unknown as { push(row: Row): void; toString(): string };
  for (const head of heads) made.push(head.map((cell) => asCell(cell, bold)));
  for (const row of rows) made.push(row.map((cell) => asCell(cell, (text) => text)));
  const lines = made
    .toString()
    .split('\n')
    .map((line) => line.trimEnd());
  const width = Math.max(...lines.map((line) => stripVTControlCharacters(line).length));
  const rule = faint('─'.repeat(width));
  return [rule, ...lines.slice(0, heads.length), rule, ...lines.slice(heads.length)].join('\n');
}

const asCell = (cell: Row[number], render: (text: string) => string): Row[number] =>
  typeof cell === 'string' ? render(cell) : { ...cell, content: render(cell.content) };

const secondPass = (passes: readonly Pass[]): Pass =>
  passes.includes('loss and gradient') ? 'loss and gradient' : 'backward';

/** Time, bandwidth, the ratio with its quartiles and a bar. */
function cells(m: Measurement | undefined): Row {
  if (m === undefined) return ['', '', '', '', ''];
  const { median, q1, q3 } = m.ratio;
  return [
    right(duration(m.ns.median)),
    right(digits(m.gigabytesPerSecond)),
    right(style(ratioFormat(median), ratioDigits(median))),
    faint(`${ratioDigits(q1)}–${ratioDigits(q3)}`),
    bar(median),
  ];
}

const passHead = (title: string): Row[number] => ({ content: title, colSpan: 5, hAlign: 'left' });
const columnHead: Row = [right('time'), right('GB/s'), right('× floor'), '', ''];

/** Losses in order of their first measurement. */
const lossesOf = (measurements: readonly Measurement[]): string[] => [
  ...new Set(measurements.map(({ loss }) => loss)),
];

function passTable(title: string, measurements: readonly Measurement[]): string {
  const rows = lossesOf(measurements).map((loss): Row => {
    const own = measurements.filter((m) => m.loss === loss);
    const second = secondPass(own.map(({ pass }) => pass));
    return [
      loss,
      ...cells(own.find(({ pass }) => pass === 'forward')),
      ...cells(own.find(({ pass }) => pass === second)),
    ];
  });
  const heads: Row[] = [
    ['', passHead('forward'), passHead('loss and gradient, or backward')],
    ['', ...columnHead, ...columnHead],
  ];
  return `${bold(title)}\n${table(heads, rows)}`;
}

const otherDTypes = ['float16', 'bfloat16', 'float64'] as const;

/** × floor, and an element's time beside float32's, of the other dtypes. */
function dtypeTable(title: string, measurements: readonly Measurement[]): string {
  const dtypes = otherDTypes.filter((dtype) => measurements.some((m) => m.dtype === dtype));
  const rows = lossesOf(measurements).map((loss): Row => {
    const own = measurements.filter((m) => m.loss === loss);
    const second = secondPass(own.map(({ pass }) => pass));
    return [
      loss,
      ...(['forward', second] as const).flatMap((pass): Row =>
        dtypes.flatMap((dtype): Row => {
          const m = own.find((candidate) => candidate.pass === pass && candidate.dtype === dtype);
          if (m === undefined) return ['', ''];
          const beside = m.toFloat32 ? `${ratioDigits(m.toFloat32.median)} of f32` : '';
          return [right(style(ratioFormat(m.ratio.median), ratioDigits(m.ratio.median))), faint(beside)];
        }),
      ),
    ];
  });
  const span = 2 * dtypes.length;
  const heads: Row[] = [
    [
      '',
      { content: 'forward, × floor', colSpan: span, hAlign: 'left' },
      { content: 'loss and gradient, or backward', colSpan: span, hAlign: 'left' },
    ],
    ['', ...[...dtypes, ...dtypes].map((dtype) => ({ content: dtype, colSpan: 2 }))],
  ];
  return `${bold(title)}\n${table(heads, rows)}`;
}

/** The tables of one shape: float32 for each instruction set and number of threads, then the other dtypes. */
export function shapeTables(shape: string, measurements: readonly Measurement[]): string {
  const name = shape.replaceAll('x', ' × ');
  const tables: string[] = [];
  const distinct = <T>(values: readonly T[]): T[] => [...new Set(values)];
  for (const set of distinct(measurements.map(({ instructionSet }) => instructionSet))) {
    for (const threads of distinct(measurements.map((m) => m.threads))) {
      const own = measurements.filter((m) => m.instructionSet === set && m.threads === threads);
      const plain = own.filter(({ dtype }) => dtype === 'float32');
      const others = own.filter(({ dtype }) => dtype !== 'float32');
      const title = (dtype: string) => `${name} · ${dtype} · ${threadsOf(threads)} · ${set}`;
      if (plain.length > 0) tables.push(passTable(title('float32'), plain));
      if (others.length > 0) tables.push(dtypeTable(title('other dtypes'), others));
    }
  }
  return tables.join('\n\n');
}

export function stridedTable(shape: string, measurements: readonly Measurement[]): string {
  const rows = measurements
    .filter(({ toContiguous }) => toContiguous !== undefined)
    .map((m): Row => {
      const { median, q1, q3 } = m.toContiguous!;
      return [
        m.pass,
        threadsOf(m.threads),
        right(duration(m.ns.median)),
        right(digits(m.gigabytesPerSecond)),
        right(ratioDigits(m.ratio.median)),
        right(style(median <= 1.5 ? 'green' : 'red', ratioDigits(median))),
        faint(`${ratioDigits(q1)}–${ratioDigits(q3)}`),
      ];
    });
  const head: Row = ['', '', right('time'), right('GB/s'), right('× floor'), right('× contiguous'), ''];
  return `${bold(`${shape.replaceAll('x', ' × ')} · classes in dimension 1 · float32`)}\n${table([head], rows)}`;
}

export function smallCallTable(calls: readonly SmallCall[]): string {
  const rows = calls.map(({ call, shape, ns, meanNs, rssGrowth }): Row => {
    const grown = rssGrowth / 2 ** 20;
    return [
      shape.length > 0 ? `${call}, [${shape.join(', ')}]` : call,
      right(duration(ns.median)),
      right(duration(meanNs)),
      right(`${grown < 0 ? '−' : '+'}${digits(Math.abs(grown))} MiB`),
    ];
  });
  const count = calls[0]?.calls ?? 0;
  const head: Row = [
    `${count.toLocaleString('en')} calls each`,
    right('median'),
    right('mean'),
    right('RSS'),
  ];
  return `${bold('Small calls')}\n${table([head], rows)}`;
}

/** Times of the peers over ours; larger is slower than ours. */
export function peerTable(
  shape: string,
  threads: number,
  measurements: readonly PeerMeasurement[],
  peers: readonly PeerStatus[],
): string {
  const names = peers.filter(({ present }) => present).map(({ name }) => name);
  const keys = [...new Set(measurements.map(({ loss, pass }) => `${loss}\n${pass}`))];
  const rows = keys.map((key): Row => {
    const [loss, pass] = key.split('\n') as [string, Pass];
    const own = measurements.filter((m) => m.loss === loss && m.pass === pass);
    return [
      loss,
      pass,
      right(duration(own[0]!.ours.median)),
      ...names.flatMap((name): Row => {
        const m = own.find(({ peer }) => peer === name);
        return m
          ? [right(duration(m.ns.median)), right(`${digits(m.toOurs.median)} ×`)]
          : [right('–'), right('')];
      }),
    ];
  });
  const head: Row = [
    '',
    '',
    right('surprisal'),
    ...names.map((name) => ({ content: name, colSpan: 2, hAlign: 'right' as const })),
  ];
  const title = `Beside peers · ${shape.replaceAll('x', ' × ')} · float32 · ${threadsOf(threads)}`;
  return `${bold(title)}\n${table([head], rows)}`;
}

export function peerLines(peers: readonly PeerStatus[]): string {
  const lines = peers.map(({ name, present, detail }) =>
    present ? `  ${name}: ${detail}` : `  ${name}: ${style('yellow', 'absent')}: ${detail}`,
  );
  return [bold('Peers'), ...lines].join('\n');
}

/** How far the second measurement of one version is from its first. */
export function noiseLine(noise: readonly Noise[]): string {
  if (noise.length === 0) return '';
  const away = noise.map(({ ratio }) => Math.abs(ratio.median - 1)).sort((a, b) => a - b);
  const percent = (value: number) => `${(100 * value).toFixed(1)}%`;
  const middle = away[Math.floor(away.length / 2)]!;
  return (
    `${bold('A/A')}  one version measured twice in the same rounds, ${noise.length} pairs: medians ` +
    `${percent(middle)} apart in the middle, ${percent(away.at(-1)!)} at most`
  );
}

export function scorecardTable(targets: readonly Target[]): string {
  const rows = targets.map(({ group, what, target, unit, measured, where, met }): Row => {
    const shown = (value: number) => `${ratioDigits(value)} ${unit}`;
    return [
      met ? style('green', '✓') : style('red', '✗'),
      group,
      what,
      right(`≤ ${shown(target)}`),
      right(style(met ? 'green' : 'red', shown(measured))),
      faint(where),
    ];
  });
  const met = targets.filter((target) => target.met).length;
  const head: Row = ['', '', '', right('target'), right('measured'), 'worst'];
  return `${bold(`Scorecard · ${met} of ${targets.length} targets met`)}\n${table([head], rows)}`;
}

/** Half a processor was busy before the run began. */
export const isBusy = ({ load }: Machine): boolean => load >= 0.5;

export function machineLines(machine: Machine, node: string, instructionSet: string): string {
  const { cpu, family, model, processors, caches, os, load } = machine;
  const size = (bytes: number) =>
    bytes >= 2 ** 20 ? `${digits(bytes / 2 ** 20)} MiB` : `${digits(bytes / 1024)} KiB`;
  const levels = caches
    .filter(({ type }) => type !== 'Instruction')
    .map(({ level, bytes }) => `L${level} ${size(bytes)}`)
    .join(', ');
  const kind = family > 0 ? ` (family ${family}, model ${model})` : '';
  return [
    `${bold(cpu)}${kind}, ${processors} processors${levels && `; ${levels}`}`,
    faint(`${os}, Node ${node}, kernels for ${instructionSet}`),
    ...(isBusy(machine)
      ? [
          style(
            'yellow',
            `load average ${load.toFixed(1)}: other programs run here, and will show in the figures`,
          ),
        ]
      : []),
  ].join('\n');
}

/** A line that is overwritten, where the terminal can. */
export function showStatus(text: string): void {
  if (!process.stderr.isTTY) return;
  const width = Math.max(20, (process.stderr.columns ?? 80) - 1);
  process.stderr.write(`\r\u001b[2K${text.slice(0, width)}`);
}
