/** Files as a person names them: what is written and read whole, with errors that say the given path. */
import { access, constants, readFile, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { Replacement } from '../io/replacement.js';
import { CommandError, fileErrors, UsageError } from './terminal.js';

/** Errors say `path`, not the name that the file has until it is whole. */
export async function writeText(path: string, text: string): Promise<void> {
  try {
    const file = await Replacement.open(path);
    try {
      await file.write(Buffer.from(text), 0);
    } catch (error) {
      await file.discard();
      throw error;
    }
    await file.commit();
  } catch (error) {
    throw fileFault(path, error);
  }
}

/**
 * Looks whether files can be written there, before the work whose result they are to take. Throws CommandError.
 *
 * @param paths by option
 * @param inputs files that none of them may replace
 */
export async function checkOutputs(
  paths: Readonly<Record<string, string | undefined>>,
  inputs: readonly string[],
): Promise<void> {
  const taken = new Map(inputs.map((path) => [resolve(path), 'a file that is read']));
  for (const [option, path] of Object.entries(paths)) {
    if (path === undefined) continue;
    const other = taken.get(resolve(path));
    if (other !== undefined) {
      throw new UsageError(`--${option}: expected a file of its own, but ${path} is ${other}`);
    }
    taken.set(resolve(path), `that of --${option}`);
    try {
      await access(dirname(resolve(path)), constants.W_OK);
    } catch (error) {
      throw fileFault(`--${option} ${path}`, error);
    }
    if (await isDirectory(path)) throw new CommandError(`--${option} ${path}: is a directory`);
  }
}

export const isDirectory = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );

/** A file system's error in words that name `path`; others as they are. */
function fileFault(path: string, error: unknown): unknown {
  const known = fileErrors[(error as NodeJS.ErrnoException).code ?? ''];
  return known === undefined ? error : new CommandError(`${path}: ${known}`);
}

/** Throws CommandError where the file can't be read. */
export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw fileFault(path, error);
  }
}
