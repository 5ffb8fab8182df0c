/** The README's section on speed, written from a run's JSON and from nothing else. */

import type { Measurement, PeerMeasurement, Results } from './results.js';
import { duration, ratioDigits, threadsOf } from './report.js';
import { busySentence, cpuName, markdownTable, withSection } from './section.js';
import { emptyCall } from './small_calls.js';

/** The section's name. */
export const speed = 'speed';

const [outOfCache, inCache] = ['512x32000', '4096x1000'];
const spaced = (shape: string): string => shape.replace('x', ' × ');

/** Ratios to the floor in float32 on all threads. */
function ratioTable({ measurements, threads, instructionSet }: Results): string {
  const most = Math.max(...threads);
  const counted = measurements.filter(
    (m) => m.dtype === 'float32' && m.threads === most && m.instructionSet === instructionSet,
  );
  const cell = (loss: string, shape: string, isForward: boolean): string => {
    const m = counted.find(
      (candidate: Measurement) =>
        candidate.loss === loss && candidate.shape === shape && (candidate.pass === 'forward') === isForward,
    );
    return m
      ? `${ratioDigits(m.ratio.median)} (${m.gigabytesPerSecond.toFixed(m.gigabytesPerSecond < 10 ? 1 : 0)} GB/s)`
      : '–';
  };
  const shown = counted.filter(({ shape }) => shape === outOfCache || shape === inCache);
  const losses = [...new Set(shown.map(({ loss }) => loss))];
  const head = [
    '',
    ...['forward', 'with gradient'].flatMap((pass) =>
      [outOfCache, inCache].map((shape) => `${pass}, ${spaced(shape)}`),
    ),
  ];
  return markdownTable(
    head,
    losses.map((loss) => [
      `\`${loss.split(',')[0]!}\`${loss.includes(',') ? `, ${loss.split(', ')[1]!}` : ''}`,
      ...[true, false].flatMap((isForward) =>
        [outOfCache, inCache].map((shape) => cell(loss, shape, isForward)),
      ),
    ]),
  );
}

/** Times with gradient beside the peers', on as many threads as each can use. */
function peerTable({ peerMeasurements, peers }: Results, shape: string): string {
  const own = peerMeasurements.filter((m) => m.shape === shape && m.pass !== 'forward');
  const most = Math.max(...own.map(({ threads }) => threads));
  const names = peers.filter(({ present }) => present).map(({ name }) => name);
  const find = (loss: string, peer: string): PeerMeasurement | undefined =>
    own.find((m) => m.loss === loss && m.peer === peer && m.threads === most);
  const losses = [...new Set(own.map(({ loss }) => loss))];
  return markdownTable(
    [`${spaced(shape)}, with gradient`, 'surprisal', ...names],
    losses.map((loss) => [
      `\`${loss.split(',')[0]!}\``,
      duration(find(loss, names[0]!)!.ours.median),
      ...names.map((name) => {
        const m = find(loss, name);
        return m ? `${duration(m.ns.median)} (${ratioDigits(m.toOurs.median)} ×)` : '–';
      }),
    ]),
  );
}

function smallCallSentence({ smallCalls }: Results): string {
  const forward = smallCalls
    .filter(({ call }) => call === 'forward')
    .map(({ shape, meanNs }) => `${(meanNs / 1000).toFixed(2)} µs on [${shape.join(', ')}]`);
  const empty = smallCalls.find(({ call }) => call === emptyCall);
  if (forward.length === 0 || empty === undefined) return '';
  return (
    `Of small calls, \`forward\` takes ${forward.join(' and ')}, all checks included (mean of ` +
    `${smallCalls[0]!.calls.toLocaleString('en')} calls), where ${emptyCall} takes ${(empty.meanNs / 1000).toFixed(2)} µs.`
  );
}

function noiseSentence({ noise }: Results): string {
  const away = noise.map(({ ratio }) => Math.abs(ratio.median - 1)).sort((a, b) => a - b);
  if (away.length === 0) return '';
  const percent = (value: number) => `${(100 * value).toFixed(1)}%`;
  return (
    `One version measured twice in the same rounds came out ${percent(away[Math.floor(away.length / 2)]!)} apart ` +
    `(median of ${away.length} pairs; ${percent(away.at(-1)!)} at most).`
  );
}

/** A README with its section on speed written anew. */
export async function withSpeedSection(readme: string, results: Results, json: string): Promise<string> {
  const { machine, node, instructionSet, threads, date, scorecard, peers } = results;
  const last = machine.caches.filter(({ type }) => type !== 'Instruction').at(-1);
  const cache = last ? `, ${(last.bytes / 2 ** 20).toFixed(0)} MiB of L${last.level}` : '';
  const met = scorecard.filter((target) => target.met).length;
  const absent = peers.filter(({ present }) => !present).map(({ name }) => name);
  const svg = json.replace(/\.json$/, '.svg');
  const shape = [outOfCache, inCache].find((name) => results.peerMeasurements.some((m) => m.shape === name));
  const paragraphs = [
    `A forward pass can't be faster than a read of its logits, nor a loss with its gradient than a copy. So each loss is ` +
      `measured beside a plain read or copy of the same bytes, in the same rounds, on the same threads: 1 is the ` +
      `memory's limit. On ${cpuName(machine)}, ${threadsOf(Math.max(...threads))}${cache}, ${instructionSet}, Node ${node}, ` +
      `float32, ${date.slice(0, 10)}:`,
    `![Each loss against the memory's limit](${svg})`,
    ratioTable(results),
    ...(shape === undefined
      ? []
      : [
          `Beside its peers in the same rounds, each checked against the same values before it was timed; in brackets ` +
            `their time over ours:`,
          peerTable(results, shape),
          `The peers are ${peers
            .filter(({ present }) => present)
            .map(({ name, detail }) => `${name}: ${detail}`)
            .join('; ')}.${absent.length > 0 ? ` Not there: ${absent.join(', ')}.` : ''}`,
        ]),
    [smallCallSentence(results), noiseSentence(results), busySentence(machine)].filter(Boolean).join(' '),
    `Targets of the scorecard met in this run: ${met} of ${scorecard.length}; [its JSON](${json}) has all figures with ` +
      `their quartiles, and [bench/README.md](bench/README.md) the method. \`npm run bench\` repeats it.`,
  ];
  return withSection(readme, speed, json, paragraphs);
}
