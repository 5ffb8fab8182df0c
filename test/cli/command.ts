/** Runs the command line as a person does: in a process of its own. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { tensor } from 'surprisal';
import { writeNpy } from 'surprisal/io';
import { Samples } from '../support/random.js';
import type { Moment } from './signal_at.js';

const program = join('dist', 'cli', 'main.js');

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function surprisal(...args: string[]): Outcome {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' });
  assert.doesNotMatch(stderr, /^\s+at /m, 'a stack trace');
  return { code: status, stdout, stderr };
}

/** What it prints, of a run that must succeed without a word on stderr. */
export function output(...args: string[]): string {
  const { code, stdout, stderr } = surprisal(...args);
  assert.equal(stderr, '');
  assert.equal(code, 0);
  return stdout;
}

export const json = (...args: string[]): unknown => JSON.parse(output(...args, '--json'));

/** The same, with a signal to the process the n-th time that it comes to a moment of writing a file. */
export function signalled(
  signal: 'SIGKILL' | 'SIGINT' | 'SIGTERM',
  moment: Moment,
  n: number,
  ...args: string[]
): Outcome & { readonly signal: string | null } {
  const hook = pathToFileURL(resolve('dist-dev', 'test', 'cli', 'signal_at.js')).href;
  const {
    status,
    stdout,
    stderr,
    signal: killedBy,
  } = spawnSync(process.execPath, ['--import', hook, program, ...args], {
    encoding: 'utf8',
    env: { ...process.env, SURPRISAL_SIGNAL_AT: `${signal} ${moment} ${n}` },
  });
  return { code: status, stdout, stderr, signal: killedBy };
}

/** Logits of which the label's is the larger, the more so in some rows, and the labels. */
export function batch(rows: number, classes: number, seed: number) {
  const samples = new Samples(seed);
  const labels = samples.labels(rows, classes);
  const logits = Float32Array.from({ length: rows * classes }, () => 4 * samples.uniform() - 2);
  labels.forEach((y, row) => (logits[row * classes + y]! += 3 * samples.uniform()));
  return { logits: tensor(logits, { shape: [rows, classes] }), labels };
}

export async function writeBatch(
  path: string,
  labelsPath: string,
  rows: number,
  classes: number,
  seed: number,
) {
  const made = batch(rows, classes, seed);
  await writeNpy(path, made.logits);
  await writeNpy(labelsPath, made.labels);
  return made;
}
