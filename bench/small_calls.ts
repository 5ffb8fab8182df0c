/** What a call costs where the work is next to nothing: a million calls of each kind, interleaved in batches. */

import { tensor } from 'surprisal';
import { CrossEntropyLoss } from 'surprisal/loss';
import { Batch } from './data.js';
import { floorAddon } from './floor.js';
import type { SmallCall } from './results.js';
import { summarise } from './statistics.js';

/** With as many arguments as a forward pass of class indices has, and as many as there can be. */
export const emptyCall = 'an empty N-API call with 3 arguments';
const longestEmptyCall = 'an empty N-API call with 10 arguments';

interface Kind {
  readonly call: string;
  readonly shape: readonly number[];
  run(count: number): void;
}

function kinds(): Kind[] {
  const { empty } = floorAddon();
  const list: Kind[] = [];
  for (const rows of [1, 32]) {
    const { input, labels } = new Batch(rows, 10, 'float32');
    const { shape } = input;
    const loss = new CrossEntropyLoss();
    const value = tensor(new Float32Array(1), { shape: [] });
    const grad = tensor(new Float32Array(rows * 10), { shape });
    const [out, outs] = [{ out: { value } }, { out: { value, grad } }];
    // Each kind has a loop of its own, so that the compiler knows what it calls.
    list.push(
      {
        call: 'forward',
        shape,
        run: (count) => {
          for (let i = 0; i < count; i++) loss.forward(input, labels);
        },
      },
      {
        call: 'forward with out',
        shape,
        run: (count) => {
          for (let i = 0; i < count; i++) loss.forward(input, labels, out);
        },
      },
      {
        call: 'valueAndGrad',
        shape,
        run: (count) => {
          for (let i = 0; i < count; i++) loss.valueAndGrad(input, labels);
        },
      },
      {
        call: 'valueAndGrad with out',
        shape,
        run: (count) => {
          for (let i = 0; i < count; i++) loss.valueAndGrad(input, labels, outs);
        },
      },
    );
    if (rows === 1) {
      const header = new Float64Array(32);
      const data = input.data;
      const none = undefined;
      list.push(
        {
          call: emptyCall,
          shape: [],
          run: (count) => {
            for (let i = 0; i < count; i++) empty(header, data, labels);
          },
        },
        {
          call: longestEmptyCall,
          shape: [],
          run: (count) => {
            for (let i = 0; i < count; i++) {
              empty(header, data, labels, none, none, none, none, none, data, data);
            }
          },
        },
      );
    }
  }
  return list;
}

const perRound = 10_000;

/** `calls` of each kind, in rounds of ten thousand. */
export function measureSmallCalls(calls: number, random: () => number): SmallCall[] {
  const measured = kinds().map((kind) => ({ ...kind, samples: [] as number[], rssGrowth: 0 }));
  for (const kind of measured) kind.run(perRound);
  const rounds = Math.max(1, Math.round(calls / perRound));
  for (let round = 0; round < rounds; round++) {
    const start = Math.floor(random() * measured.length);
    for (let i = 0; i < measured.length; i++) {
      const kind = measured[(start + i) % measured.length]!;
      const memory = process.memoryUsage.rss();
      const begin = process.hrtime.bigint();
      kind.run(perRound);
      kind.samples.push(Number(process.hrtime.bigint() - begin) / perRound);
      kind.rssGrowth += process.memoryUsage.rss() - memory;
    }
  }
  return measured.map(({ call, shape, samples, rssGrowth }) => ({
    call,
    shape,
    calls: rounds * perRound,
    rounds,
    ns: summarise(samples),
    meanNs: samples.reduce((sum, ns) => sum + ns, 0) / samples.length,
    rssGrowth,
  }));
}
