import { CrossEntropyLoss } from '../loss/cross_entropy.js';
import { JsdCrossEntropy } from '../loss/jsd.js';
import { internals } from '../loss/loss.js';
import { tensor } from '../tensor.js';
import { checkOutputs, writeText } from './files.js';
import { lineChart, type Point } from './svg.js';
import { numberArgument, parseArguments, print, suggestion, toJson, UsageError } from './terminal.js';

const help = `surprisal curve jsd [--out FILE.svg] [options]

Draws what the Jensen-Shannon loss adds to cross entropy as one of K equal predictions moves away: of 10 classes, logits
one-hot, the last of the K gives 'change' of its logit for the label to another class, from -1 to 1.

  --out FILE        the chart, as SVG; without it the numbers are printed
  --num-splits K    3 by default
  --alpha A         12 by default
  --json            the points as one JSON object

Example:
  surprisal curve jsd --out curve.svg`;

const classes = 10;
const stepsToEachSide = 10;

/** α·JSD by how far one prediction moved, of a loss over `numSplits` without smoothing. */
function jsdCurve(criterion: JsdCrossEntropy, numSplits: number): Point[] {
  const prediction = Array.from({ length: classes }, (_, c) => Number(c === 0));
  // In float64: the curve is what is left of two losses that nearly agree.
  const rows = (logits: number[][]) => tensor(logits, { dtype: 'float64' });

  return Array.from({ length: 2 * stepsToEachSide + 1 }, (_, i) => {
    const x = (i - stepsToEachSide) / stepsToEachSide;
    const moved = prediction.map((logit, c) => (c === 0 ? logit - x : c === 1 ? logit + x : logit));
    const views = [...Array.from({ length: numSplits - 1 }, () => prediction), moved];
    const base = new CrossEntropyLoss().forward(rows([views[0]!]), [0]).item();
    return { x, y: criterion.forward(rows(views), [0]).item() - base };
  });
}

export const command = {
  help,
  async run(args: readonly string[]): Promise<number> {
    const text = { type: 'string' } as const;
    const { values, positionals } = parseArguments(args, {
      out: text,
      'num-splits': text,
      alpha: text,
      json: { type: 'boolean' },
    });
    const [name, ...more] = positionals;
    if (name !== 'jsd' || more.length > 0) {
      const got = name === undefined ? 'nothing' : `'${(name === 'jsd' ? more : [name])[0]!}'`;
      throw new UsageError(
        `expected the curve of jsd, got ${got}${name === undefined ? '' : suggestion(name, ['jsd'])}`,
      );
    }
    const number = (option: string, bounds?: Parameters<typeof numberArgument>[2]) => {
      const given = values[option] as string | undefined;
      return given === undefined ? undefined : numberArgument(option, given, bounds);
    };
    const criterion = new JsdCrossEntropy({
      numSplits: number('num-splits', { min: 2, integer: true }),
      alpha: number('alpha'),
      smoothing: 0,
    });
    const { numSplits, alpha } = internals.definitionOf(criterion).parameters as Record<
      'numSplits' | 'alpha',
      number
    >;
    const points = jsdCurve(criterion, numSplits);
    const out = values['out'] as string | undefined;
    await checkOutputs({ out }, []);
    if (out !== undefined) {
      await writeText(
        out,
        lineChart({
          title: `Jensen-Shannon loss of ${numSplits} predictions, α = ${alpha}`,
          xLabel: 'change of one prediction’s logits',
          yLabel: 'loss above cross entropy (nats)',
          points,
        }),
      );
    }
    if (values['json']) {
      await print(
        toJson({ numSplits, alpha, points: points.map(({ x, y }) => ({ change: x, divergence: y })) }),
      );
    } else if (out === undefined) {
      await print(
        [
          'change  loss above cross entropy (nats)',
          ...points.map(({ x, y }) => `${x.toFixed(1).padStart(6)}  ${y.toFixed(6)}`),
        ].join('\n'),
      );
    }
    return 0;
  },
};
