/** Whether a run meets what is promised: each target with the worst figure that counts for it. */

import { emptyCall } from './small_calls.js';
import type { Measurement, SmallCall, Target } from './results.js';

const linear = [
  'CrossEntropyLoss',
  'LabelSmoothingCrossEntropy',
  'SoftTargetCrossEntropy',
  'LensedCrossEntropy',
];
const elementwise = [
  'BinaryCrossEntropy',
  'BinaryCrossEntropy, dense target',
  'AsymmetricLossMultiLabel',
  'AsymmetricLossSingleLabel',
];
const jsd = ['JsdCrossEntropy'];
const softmaxes = ['softmax', 'logSoftmax'];

const [outOfCache, inCache] = ['512x32000', '4096x1000'];
const shortRows = ['65536x10', '32768x32', '16384x100'];
const longRows = '64x128256';

interface Promised {
  readonly group: string;
  readonly what: string;
  readonly target: number;
  readonly counts: (measurement: Measurement) => boolean;
  /** The ratio to the floor by a plain copy, unless it is another. */
  readonly value?: (measurement: Measurement) => number | undefined;
}

/** Targets stand for AVX-512; with narrower vectors this much more is allowed. */
const allowance = (instructionSet: string): number => (instructionSet === 'x86_64_v4' ? 1 : 1.6);

function promised(threads: readonly number[], instructionSet: string): Promised[] {
  const all = Math.max(...threads);
  const one = Math.min(...threads);
  const factor = allowance(instructionSet);
  const threadsOf = (count: number) => (count === 1 ? '1 thread' : `${count} threads`);
  /** A ratio to the floor, in float32. */
  const ratio = (
    group: string,
    losses: readonly string[],
    passes: readonly string[],
    shapes: readonly string[],
    target: number,
    count?: number,
  ): Promised => ({
    group,
    what: `${passes.join(', ')}, ${shapes.join(', ')}` + (count === undefined ? '' : `, ${threadsOf(count)}`),
    target: target * factor,
    counts: (m) =>
      losses.includes(m.loss) &&
      passes.includes(m.pass) &&
      shapes.includes(m.shape) &&
      m.dtype === 'float32' &&
      m.instructionSet === instructionSet &&
      (count === undefined || m.threads === count),
  });
  const forward = ['forward'];
  const gradient = ['loss and gradient'];
  const both = ['forward', 'backward'];
  const dtypes = (names: readonly string[], target: number): Promised => ({
    group: 'dtypes',
    what: `${names.join(', ')}: an element's time over float32's, ${outOfCache}, ${inCache}`,
    target,
    counts: (m) => names.includes(m.dtype) && [outOfCache, inCache].includes(m.shape),
    value: (m) => m.toFloat32?.median,
  });
  return [
    ratio('linear losses', linear, forward, [outOfCache], 1.05, all),
    ratio('linear losses', linear, forward, [inCache], 2, all),
    ratio('linear losses', linear, gradient, [outOfCache], 1.05, all),
    ratio('linear losses', linear, gradient, [inCache], 1.4, one),
    ratio('softmax, logSoftmax', softmaxes, both, [outOfCache], 1.05, all),
    ratio('softmax, logSoftmax', softmaxes, both, [inCache], 1.4, one),
    ratio('JSD, K = 3', jsd, gradient, [outOfCache], 1.4),
    ratio('JSD, K = 3', jsd, gradient, [inCache], 2.5),
    ratio('BCE, asymmetric', elementwise, gradient, [outOfCache, inCache], 2.5),
    ratio('short rows', linear, gradient, shortRows, 3),
    ratio('short rows, other losses', [...jsd, ...elementwise], gradient, shortRows, 3),
    // The forward pass of a row that is read twice takes two reads.
    {
      ...ratio('long rows', linear, forward, [longRows], 2, all),
      what: `forward, ${longRows}, ${threadsOf(all)}: no second trip to memory`,
    },
    dtypes(['float16', 'bfloat16'], 1),
    dtypes(['float64'], 2.2),
    {
      group: 'strided classes',
      what: 'N×C×H×W over N×C',
      target: 1.5,
      counts: (m) => m.toContiguous !== undefined,
      value: (m) => m.toContiguous?.median,
    },
  ];
}

const where = ({ loss, pass, dtype, shape, threads }: Measurement): string =>
  `${loss}, ${pass}, ${dtype}, ${shape}, ${threads} thread${threads === 1 ? '' : 's'}`;

/** Every target that something was measured for. */
export function scorecard(
  measurements: readonly Measurement[],
  smallCalls: readonly SmallCall[],
  threads: readonly number[],
  instructionSets: readonly string[],
): Target[] {
  const targets = instructionSets.flatMap((instructionSet) =>
    promised(threads, instructionSet).flatMap(({ group, what, target, counts, value }): Target[] => {
      const counted = measurements
        .filter((m) => m.instructionSet === instructionSet && counts(m))
        .map((m) => ({ measured: value ? value(m) : (m.toMemcpy ?? m.ratio).median, m }))
        .filter((entry): entry is { measured: number; m: Measurement } => entry.measured !== undefined)
        .sort((a, b) => b.measured - a.measured);
      const [worst] = counted;
      if (worst === undefined) return [];
      const { measured, m } = worst;
      const best = instructionSet === instructionSets[0];
      return [
        {
          group: best ? group : `${group} (${instructionSet})`,
          what,
          target,
          unit: '×',
          measured,
          where: where(m),
          met: measured <= target,
        },
      ];
    }),
  );
  const limits = new Map([
    [1, 1.5],
    [32, 3],
  ]);
  const empty = smallCalls.find(({ call }) => call === emptyCall);
  for (const { call, shape, calls, meanNs } of smallCalls) {
    const target = limits.get(shape[0] ?? 0);
    if (call !== 'forward' || target === undefined) continue;
    const measured = meanNs / 1000;
    const beside = empty ? `; ${emptyCall}: ${(empty.meanNs / 1000).toFixed(2)} µs` : '';
    targets.push({
      group: 'small calls',
      what: `forward on [${shape.join(', ')}]`,
      target,
      unit: 'µs',
      measured,
      where: `mean of ${calls} calls${beside}`,
      met: measured <= target,
    });
  }
  return targets;
}
