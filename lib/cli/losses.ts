/** The losses that eval counts beside cross entropy: by name and options, and out of a state's description. */
import { AsymmetricLossSingleLabel } from '../loss/asymmetric_loss.js';
import { BinaryCrossEntropy } from '../loss/binary_cross_entropy.js';
import { CrossEntropyLoss, LabelSmoothingCrossEntropy } from '../loss/cross_entropy.js';
import { JsdCrossEntropy } from '../loss/jsd.js';
import { internals, type Loss } from '../loss/loss.js';
import { CommandError, numberArgument, suggestion, UsageError, type Parsed } from './terminal.js';

/** An option of a loss on the command line, and what it may be. */
interface LossOption {
  readonly min?: number;
  readonly below?: number;
  readonly integer?: boolean;
}

type Options = Readonly<Record<string, number | undefined>>;

interface LossEntry {
  /** Its class, as the state of an evaluator calls it. */
  readonly owner: string;
  readonly options: readonly string[];
  make(options: Options, ignoreIndex: number | undefined): Loss;
}

/** By option of the command line; the losses' own options are the same in camelCase. */
export const lossOptions: Readonly<Record<string, LossOption>> = {
  'num-splits': { min: 1, integer: true },
  alpha: {},
  smoothing: { min: 0, below: 1 },
  'gamma-pos': { min: 0 },
  'gamma-neg': { min: 0 },
  eps: { min: 0, below: 1 },
  'target-threshold': {},
};

const losses: Readonly<Record<string, LossEntry>> = {
  'cross-entropy': {
    owner: 'CrossEntropyLoss',
    options: ['smoothing'],
    make: ({ smoothing }, ignoreIndex) => new CrossEntropyLoss({ labelSmoothing: smoothing, ignoreIndex }),
  },
  'label-smoothing': {
    owner: 'LabelSmoothingCrossEntropy',
    options: ['smoothing'],
    make: ({ smoothing }) => new LabelSmoothingCrossEntropy({ smoothing }),
  },
  jsd: {
    owner: 'JsdCrossEntropy',
    options: ['num-splits', 'alpha', 'smoothing'],
    make: ({ numSplits, alpha, smoothing }) => new JsdCrossEntropy({ numSplits, alpha, smoothing }),
  },
  'binary-cross-entropy': {
    owner: 'BinaryCrossEntropy',
    options: ['smoothing', 'target-threshold'],
    make: ({ smoothing, targetThreshold }) => new BinaryCrossEntropy({ smoothing, targetThreshold }),
  },
  'asymmetric-single-label': {
    owner: 'AsymmetricLossSingleLabel',
    options: ['gamma-pos', 'gamma-neg', 'eps'],
    make: ({ gammaPos, gammaNeg, eps }) => new AsymmetricLossSingleLabel({ gammaPos, gammaNeg, eps }),
  },
};

export const lossNames = Object.keys(losses);

const camel = (name: string) => name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

export interface ChosenLoss {
  readonly name: string;
  readonly loss: Loss;
  /** K of a loss over K splits; 1 of others. */
  readonly splits: number;
}

/** The loss that --loss and its options name; undefined for plain cross entropy, which is counted in any case. */
export function chooseLoss({ values }: Parsed, ignoreIndex: number | undefined): ChosenLoss | undefined {
  const name = (values['loss'] ?? 'cross-entropy') as string;
  const entry = Object.hasOwn(losses, name.replaceAll('_', '-'))
    ? losses[name.replaceAll('_', '-')]
    : undefined;
  if (entry === undefined) {
    throw new UsageError(
      `--loss: expected one of ${lossNames.join(', ')}, got '${name}'${suggestion(name, lossNames)}`,
    );
  }
  const given = Object.keys(lossOptions).filter((option) => values[option] !== undefined);
  const foreign = given.find((option) => !entry.options.includes(option));
  if (foreign !== undefined) {
    const takers = lossNames.filter((other) => losses[other]!.options.includes(foreign)).join(', ');
    throw new UsageError(`--${foreign} is an option of --loss ${takers}, not of ${name}`);
  }
  const options = Object.fromEntries(
    given.map((option) => [
      camel(option),
      numberArgument(option, values[option] as string, lossOptions[option]),
    ]),
  );
  if (name === 'cross-entropy' && given.length === 0) return undefined;
  const loss = entry.make(options, ignoreIndex);
  return { name: name.replaceAll('_', '-'), loss, splits: internals.definitionOf(loss).numSplits ?? 1 };
}

/** What an evaluator's configuration says of a loss; the evaluator itself checks that it is what was made of it. */
interface LossDescription {
  readonly loss?: unknown;
  readonly parameters?: Readonly<Record<string, number | null>>;
  readonly ignoreIndex?: number | null;
}

/** The losses of a state that eval wrote, made again of its configuration. */
export function lossesOf(file: string, state: unknown): Record<string, Loss> {
  const { losses: described = {} } = ((state as { config?: unknown } | null)?.config ?? {}) as {
    losses?: Readonly<Record<string, LossDescription>>;
  };
  return Object.fromEntries(
    Object.entries(described).map(([name, { loss, parameters = {}, ignoreIndex }]) => {
      const entry = Object.values(losses).find(({ owner }) => owner === loss);
      if (entry === undefined) {
        throw new CommandError(
          `${file}: its loss '${name}' is one that the command line can't make again; merge it in a program, with ` +
            `ClassificationEvaluator.fromJSON and its losses`,
        );
      }
      const { smoothing, ...rest } = Object.fromEntries(
        Object.entries(parameters).map(([key, value]) => [key, value ?? undefined]),
      );
      return [name, entry.make({ ...rest, smoothing, eps: smoothing }, ignoreIndex ?? undefined)];
    }),
  );
}
