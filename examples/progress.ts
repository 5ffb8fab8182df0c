import { Presets, SingleBar } from 'cli-progress';

export interface Progress {
  step(message: string): void;
  stop(): void;
}

/** A bar on a terminal; elsewhere one line when the work is done. */
export function startProgress(name: string, total: number): Progress {
  if (process.stdout.isTTY) {
    const bar = new SingleBar(
      {
        stream: process.stdout,
        format: `  ${name} {bar} {percentage}%  {message}`,
        barsize: 22,
        autopadding: true,
        // Training does not yield to the event loop, where a handler for Ctrl-C would wait.
        gracefulExit: false,
      },
      Presets.shades_classic,
    );
    bar.start(total, 0, { message: '' });
    return { step: (message) => bar.increment({ message }), stop: () => bar.stop() };
  }
  let last = '';
  return {
    step: (message) => (last = message),
    stop: () => console.log(`  ${name} ${last}`),
  };
}
