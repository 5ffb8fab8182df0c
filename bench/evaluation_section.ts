/** The README's section on the speed of evaluation, written from a run's JSON and from nothing else. */

import type { EvaluationResults } from './results.js';
import { duration, ratioDigits, threadsOf } from './report.js';
import { busySentence, cpuName, markdownTable, withSection } from './section.js';
import { gigabytesPerSecond } from './statistics.js';

/** The section's name. */
export const evaluation = 'evaluation';

/** An evaluator beside its loss, a line a shape. */
function updateTable({ updates }: EvaluationResults): string {
  const shapes = [...new Set(updates.map(({ shape }) => shape.join(' × ')))];
  const threads = [...new Set(updates.map((update) => update.threads))];
  return markdownTable(
    ['rows × classes', ...threads.flatMap((count) => [`loss, ${threadsOf(count)}`, 'evaluator'])],
    shapes.map((shape) => [
      shape,
      ...threads.flatMap((count) => {
        const found = updates.find((u) => u.threads === count && u.shape.join(' × ') === shape);
        return found ? [duration(found.loss.median), `${ratioDigits(found.ratio.median)} ×`] : ['–', '–'];
      }),
    ]),
  );
}

/** Files beside plain reads of them. */
function fileTable({ files }: EvaluationResults): string {
  const speed = (bytes: number, ns: number) => `${gigabytesPerSecond(bytes, ns).toFixed(1)} GB/s`;
  return markdownTable(
    ['classes', 'plain read', 'evaluated', 'share', 'rows a second'],
    files.map(({ classes, dtype, bytes, rows, read, evaluated, share }) => [
      `${classes}, ${dtype}`,
      speed(bytes, read.median),
      speed(bytes, evaluated.median),
      `${(100 * share.median).toFixed(0)} %`,
      ((1e9 * rows) / evaluated.median).toLocaleString('en', { maximumSignificantDigits: 2 }),
    ]),
  );
}

/** A README with its section on the speed of evaluation written anew. */
export async function withEvaluationSection(
  readme: string,
  results: EvaluationResults,
  json: string,
): Promise<string> {
  const { machine, files, cold, instructionSet, node, date } = results;
  const gigabytes = Math.max(...files.map(({ bytes }) => bytes)) / 1e9;
  return withSection(readme, evaluation, json, [
    `\`ClassificationEvaluator.update\`, confusion matrix included up to 1000 classes, beside \`CrossEntropyLoss.forward\` ` +
      `of the same arrays, in turn, on ${cpuName(machine)}, ${instructionSet}, Node ${node}, float32, ${date.slice(0, 10)}:`,
    updateTable(results),
    `\`surprisal eval\` as a process, its start and end included, beside plain reads of the same files, ` +
      `${gigabytes.toFixed(0)} GB out of the ${cold ? 'disk' : 'page cache'}; a plain read is one thread's:`,
    fileTable(results),
    [
      busySentence(machine),
      `[The JSON](${json}) has the quartiles. \`node dist-dev/bench/evaluation.js\` repeats it.`,
    ]
      .filter(Boolean)
      .join(' '),
  ]);
}
