/** A chart of one line, as SVG that follows the viewer's light or dark theme. */

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Chart {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly points: readonly Point[];
}

const [width, height] = [640, 400];
const margin = { top: 48, right: 24, bottom: 56, left: 72 };

/** Colours by theme, as classes of the elements. */
export const chartStyle = `
  .surface { fill: #fcfcfb }
  .text { fill: #0b0b0b; font: 13px system-ui, sans-serif }
  .title { font-size: 16px; font-weight: 600 }
  .muted { fill: #52514e }
  .grid { stroke: #e1e0d9 }
  .axis { stroke: #898781 }
  .line { stroke: #2a78d6; fill: none; stroke-width: 2 }
  .mark { fill: #2a78d6 }
  @media (prefers-color-scheme: dark) {
    .surface { fill: #1a1a19 }
    .text { fill: #ffffff }
    .muted { fill: #c3c2b7 }
    .grid { stroke: #2c2c2a }
    .line { stroke: #3987e5 }
    .mark { fill: #3987e5 }
  }
`;

/** Text of XML, and of HTML. */
export const escapeText = (text: string): string => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

/** Round numbers that span [low, high], at most about `most` of them: multiples of 1, 2 or 5 times a power of ten. */
export function ticks(low: number, high: number, most = 7): number[] {
  if (!(high > low)) return [low];
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * (1 - 1e-9))!;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(digits)));
}

const coordinate = (value: number) => Number(value.toFixed(2));

/** A scale from numbers to pixels. */
export const scale =
  (from: readonly [number, number], to: readonly [number, number]) =>
  (value: number): number =>
    coordinate(to[0] + ((value - from[0]) / (from[1] - from[0] || 1)) * (to[1] - to[0]));

/** The ends of an axis with these ticks. */
export const ends = (values: readonly number[]): readonly [number, number] => [values[0]!, values.at(-1)!];

export function lineChart({ title, xLabel, yLabel, points }: Chart): string {
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  const xTicks = ticks(Math.min(...xs), Math.max(...xs));
  const yTicks = ticks(Math.min(...ys), Math.max(...ys));
  const x = scale(ends(xTicks), [margin.left, width - margin.right]);
  const y = scale(ends(yTicks), [height - margin.bottom, margin.top]);
  const bottom = height - margin.bottom;
  const middle = (margin.top + bottom) / 2;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<title>${escapeText(title)}</title>`,
    `<style>${chartStyle}</style>`,
    `<rect class="surface" width="${width}" height="${height}"/>`,
    `<text class="text title" x="${margin.left}" y="28">${escapeText(title)}</text>`,
    ...yTicks.map(
      (tick) =>
        `<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${y(tick)}" y2="${y(tick)}"/>` +
        `<text class="text muted" x="${margin.left - 8}" y="${y(tick) + 4}" text-anchor="end">${tick}</text>`,
    ),
    `<line class="axis" x1="${margin.left}" x2="${width - margin.right}" y1="${bottom}" y2="${bottom}"/>`,
    ...xTicks.map(
      (tick) =>
        `<line class="axis" x1="${x(tick)}" x2="${x(tick)}" y1="${bottom}" y2="${bottom + 5}"/>` +
        `<text class="text muted" x="${x(tick)}" y="${bottom + 20}" text-anchor="middle">${tick}</text>`,
    ),
    `<text class="text" x="${(margin.left + width - margin.right) / 2}" y="${height - 14}" text-anchor="middle">${escapeText(xLabel)}</text>`,
    `<text class="text" transform="translate(20 ${middle}) rotate(-90)" text-anchor="middle">${escapeText(yLabel)}</text>`,
    `<polyline class="line" points="${points.map((point) => `${x(point.x)},${y(point.y)}`).join(' ')}"/>`,
    ...points.map(
      (point) =>
        `<circle class="mark" cx="${x(point.x)}" cy="${y(point.y)}" r="3"><title>${point.x}: ${Number(point.y.toPrecision(5))}</title></circle>`,
    ),
    '</svg>\n',
  ].join('\n');
}
