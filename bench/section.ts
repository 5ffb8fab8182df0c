/** Sections of the README that are written from a run's JSON: between '<!-- name: json -->' and '<!-- end of name -->'. */

import { format, resolveConfig } from 'prettier';
import { isBusy } from './report.js';
import type { Machine } from './results.js';

const begin = (name: string): RegExp => new RegExp(`^<!-- ${name}: (\\S+) -->$`, 'm');
const end = (name: string): string => `<!-- end of ${name} -->`;

/** The JSON file that a section was written from, relative to the README. */
export function sourceOf(readme: string, name: string): string {
  const match = begin(name).exec(readme);
  if (match === null) throw new RangeError(`the README has no line '<!-- ${name}: <json> -->'`);
  return match[1]!;
}

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;

/** A table whose first column is text, the others figures. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const rule = head.map((_, i) => (i === 0 ? '---' : '---:'));
  return [head, rule, ...rows].map(row).join('\n');
}

/** A CPU's name; of one that hides it, what it is. */
export function cpuName({ cpu, family, model }: Machine): string {
  return family > 0 ? `${cpu} (family ${family}, model ${model})` : cpu;
}

/** What is to be said of a machine that had other work; else nothing. */
export const busySentence = (machine: Machine): string =>
  isBusy(machine)
    ? `Other programs kept the machine busy during this run (load average ${machine.load.toFixed(1)}), so its figures are rough.`
    : '';

/** A README with a section written anew, formatted. Empty paragraphs are left out. */
export async function withSection(
  readme: string,
  name: string,
  json: string,
  paragraphs: readonly string[],
): Promise<string> {
  const from = begin(name).exec(readme)?.index ?? -1;
  const to = readme.indexOf(end(name));
  if (from < 0 || to < from) {
    throw new RangeError(`the README has no section between '<!-- ${name}: ... -->' and '${end(name)}'`);
  }
  const text = `<!-- ${name}: ${json} -->\n\n${paragraphs.filter(Boolean).join('\n\n')}\n\n${end(name)}\n`;
  const options = await resolveConfig('README.md');
  const section = await format(text, {
    ...options,
    parser: 'markdown',
    proseWrap: 'always',
    printWidth: 120,
  });
  return readme.slice(0, from) + section.trimEnd() + readme.slice(to + end(name).length);
}
