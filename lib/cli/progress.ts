/** How far a long command is, on one line of a terminal that is written anew. */
import { showCount } from './terminal.js';

/** What is needed of process.stderr. */
export interface ProgressStream {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

const [shortestBar, longestBar] = [4, 24];
const millisecondsBetween = 100;

/** A span as m:ss, or h:mm:ss. */
export function showTime(seconds: number): string {
  if (!Number.isFinite(seconds)) return '-:--';
  const whole = Math.ceil(seconds);
  const two = (n: number) => String(n).padStart(2, '0');
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** Rows per second, with a unit. */
export function showRate(rowsPerSecond: number): string {
  const [factor, unit] = rowsPerSecond >= 1e6 ? [1e6, 'M'] : rowsPerSecond >= 1e4 ? [1e3, 'k'] : [1, ''];
  const value = rowsPerSecond / factor;
  return `${value.toFixed(value < 10 && unit !== '' ? 1 : 0)}${unit} rows/s`;
}

/** Draws only where the stream is a terminal. */
export class Progress {
  readonly #stream: ProgressStream;
  readonly #total: number;
  readonly #now: () => number;
  readonly #start: number;
  readonly #first: number;
  #drawn = -Infinity;
  #shown = false;

  /**
   * @param first rows that were done before, which took none of this time
   * @param now the time, in milliseconds
   */
  constructor(stream: ProgressStream, total: number, first = 0, now: () => number = () => performance.now()) {
    this.#stream = stream;
    this.#total = total;
    this.#first = first;
    this.#now = now;
    this.#start = now();
  }

  update(done: number): void {
    if (!this.#stream.isTTY) return;
    const now = this.#now();
    if (now - this.#drawn < millisecondsBetween && done < this.#total) return;
    this.#drawn = now;
    const rate = ((done - this.#first) / (now - this.#start)) * 1000;
    const fraction = this.#total === 0 ? 1 : done / this.#total;
    const text =
      `${Math.floor(100 * fraction)} %  ${showCount(done)} of ${showCount(this.#total)} rows  ` +
      `${showRate(rate || 0)}  ${showTime((this.#total - done) / rate)} left`;
    // A line that wraps can't be written anew: the bar gives way, then the end of the text.
    const columns = (this.#stream.columns ?? 80) - 1;
    const width = Math.min(longestBar, columns - text.length - '[] '.length);
    const filled = Math.round(width * fraction);
    const bar = width < shortestBar ? '' : `[${'#'.repeat(filled)}${'-'.repeat(width - filled)}] `;
    this.#stream.write(`\r\x1b[2K${(bar + text).slice(0, columns)}`);
    this.#shown = true;
  }

  /** Takes the line away. */
  clear(): void {
    if (this.#shown) this.#stream.write('\r\x1b[2K');
    this.#shown = false;
    this.#drawn = -Infinity;
  }
}
