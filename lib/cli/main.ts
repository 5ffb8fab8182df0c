#!/usr/bin/env node
import { createRequire } from 'node:module';
import { exitCodes, messageOf, note, print, suggestion, UsageError } from './terminal.js';

interface Command {
  readonly help: string;
  /** Gives the exit code. */
  run(args: readonly string[]): Promise<number>;
}

// Loaded when it is run: help needs no native binary.
const commands: Readonly<Record<string, () => Promise<{ readonly command: Command }>>> = {
  eval: () => import('./eval.js'),
  merge: () => import('./merge.js'),
  curve: () => import('./curve.js'),
  devices: () => import('./devices.js'),
};

const help = `surprisal: losses and metrics of classifiers, out of files of logits

  surprisal eval LOGITS TARGETS   loss, accuracy and calibration of any number of rows
  surprisal merge STATE...        the metrics of several evaluations together
  surprisal curve jsd --out FILE  the Jensen-Shannon loss as one prediction moves away, as SVG
  surprisal devices               what losses can be computed on here

'surprisal COMMAND --help' says more, with an example. Options for all: --help, --version.
Exit codes: 0 done; 1 a failure of the data or the system; 2 wrong usage; 130 interrupted, with a partial result.
With SURPRISAL_DEBUG=1 in the environment errors come with their stack.`;

async function run(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) throw new UsageError('expected a command: eval, merge, curve or devices');
  if (name === 'help' && rest.length > 0) return run([rest[0]!, '--help']);
  if (name === '--help' || name === '-h' || name === 'help') {
    await print(help);
    return 0;
  }
  if (name === '--version' || name === '-v') {
    const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };
    await print(version);
    return 0;
  }
  const load = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (load === undefined) {
    const what = name.startsWith('-') ? 'option' : 'command';
    throw new UsageError(`unknown ${what} '${name}'${suggestion(name, Object.keys(commands))}`);
  }
  const { command } = await load();
  const end = rest.indexOf('--');
  if ((end < 0 ? rest : rest.slice(0, end)).some((arg) => arg === '--help' || arg === '-h')) {
    await print(command.help);
    return 0;
  }
  return command.run(rest);
}

// A reader that has seen enough, such as head, is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  note(`the result could not be written: ${messageOf(error) ?? error.message}`);
  process.exit(exitCodes.failure);
});

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  const message = messageOf(error);
  if (process.env['SURPRISAL_DEBUG'] === '1' || message === undefined) {
    note(error instanceof Error ? (error.stack ?? error.message) : String(error));
  } else {
    note(message);
  }
  if (error instanceof UsageError) {
    const command = process.argv[2];
    const known = command !== undefined && Object.hasOwn(commands, command);
    note(`try 'surprisal ${known ? `${command} ` : ''}--help'`);
  }
  process.exitCode = error instanceof UsageError ? exitCodes.usage : exitCodes.failure;
}
