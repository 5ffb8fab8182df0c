import { realpath } from 'node:fs/promises';
import { ClassificationEvaluator } from '../metrics/classification_evaluator.js';
import { checkOutputs, readText, writeText } from './files.js';
import { lossesOf } from './losses.js';
import { jsonReport, textReport } from './report.js';
import { CommandError, isErrorWithCode, parseArguments, print, toJson, UsageError } from './terminal.js';

const help = `surprisal merge STATE... [options]

Prints the metrics of several evaluations together: bit for bit those of one evaluation of all rows. A STATE is a file that
'surprisal eval --state FILE' wrote, or the JSON of a ClassificationEvaluator.

  --json         one JSON object, for programs
  --state FILE   the merged state

Example:
  surprisal merge shard-*.state.json`;

async function readState(path: string): Promise<ClassificationEvaluator> {
  const text = await readText(path);
  let state: unknown;
  try {
    state = JSON.parse(text);
  } catch {
    throw new CommandError(`${path}: expected the state of an evaluation, which is JSON, but it is none`);
  }
  if ((state as { schema?: unknown } | null)?.schema === 'surprisal.checkpoint') {
    throw new CommandError(
      `${path}: is a checkpoint, of an evaluation that has not ended; finish it, with --state FILE`,
    );
  }
  try {
    return ClassificationEvaluator.fromJSON(state, { losses: lossesOf(path, state) });
  } catch (error) {
    throw inFile(path, error);
  }
}

const inFile = (path: string, error: unknown): unknown =>
  isErrorWithCode(error, 'ERR_OPTION')
    ? new CommandError(`${path}: ${error.message.replace(/^ClassificationEvaluator\.\w+: /, '')}`)
    : error;

export const command = {
  help,
  async run(args: readonly string[]): Promise<number> {
    const { values, positionals } = parseArguments(args, {
      json: { type: 'boolean' },
      state: { type: 'string' },
    });
    if (positionals.length === 0) throw new UsageError('expected files of states to merge');
    await checkOutputs({ state: values['state'] as string | undefined }, []);
    const seen = new Map<string, string>();
    let merged: ClassificationEvaluator | undefined;
    for (const path of positionals) {
      const evaluator = await readState(path);
      const real = await realpath(path);
      if (seen.has(real)) {
        throw new UsageError(
          `'${path}' is the same file as '${seen.get(real)!}': its rows would count twice`,
        );
      }
      seen.set(real, path);
      try {
        merged = merged?.merge(evaluator) ?? evaluator;
      } catch (error) {
        throw inFile(path, error);
      }
    }
    const metrics = merged!.compute();
    if (typeof values['state'] === 'string') await writeText(values['state'], JSON.stringify(merged));
    await print(values['json'] ? toJson(jsonReport(merged!, metrics)) : textReport(merged!, metrics));
    return 0;
  },
};
