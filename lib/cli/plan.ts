/** What the arguments of 'surprisal eval' ask for. */
import { resolveDevice } from '../device.js';
import { ClassificationEvaluator, mostUnasked } from '../metrics/classification_evaluator.js';
import { chooseLoss, lossNames, lossOptions } from './losses.js';
import { CommandError, numberArgument, parseArguments, UsageError, type Parsed } from './terminal.js';

export const help = `surprisal eval LOGITS TARGETS [LOGITS TARGETS]... [options]
surprisal eval --logits FILE... --targets FILE... [options]

Reads logits [N, C] and class indices [N] of .npy, .npz, safetensors, Arrow or Parquet files, and prints loss, accuracy and
calibration. Several files are one evaluation. FILE:NAME is an array of a file that has several.

  --loss NAME               a loss beside cross entropy: ${lossNames.join(', ')}
  --smoothing E             label smoothing of that loss
  --num-splits K            of jsd: the rows of each file are K splits of a batch, one after another; 3 by default.
                            Targets are of all rows, or of the first split alone, if they are the same in each
  --alpha A                 of jsd: the factor of the divergence, 12 by default
  --gamma-pos G, --gamma-neg G, --eps E     of asymmetric-single-label
  --target-threshold T      of binary-cross-entropy
  --top-k K,...             accuracies of the label among the K largest logits; 1,5 by default,
                            or 1 alone of 5 classes and fewer
  --bins N                  of the calibration errors; 15 by default
  --ignore-index I          rows of this label count nowhere; -100 by default
  --threads N               threads that read and count; by default one a processor
  --rows-per-block N        rows read at once, of each split; by default as many as 1 or 4 MiB hold
  --device auto|cpu         where to count; auto by default
  --json                    one JSON object, for programs
  --html FILE               a report that stands alone: calibration, losses, the worst rows, what is confused
  --class-names FILE        names of the classes in that report, a line each
  --state FILE              the state, for 'surprisal merge'
  --checkpoint FILE         keep the progress in this file, and go on from there if it exists; removed when done
  --checkpoint-every S      seconds between two writes of it; 5 by default

Ctrl-C prints the metrics of the rows so far, and exits with 130.

Example:
  surprisal eval logits.npy labels.npy --loss jsd --num-splits 3 --top-k 1,5 --checkpoint progress.json`;

const text = { type: 'string' } as const;
const files = { type: 'string', multiple: true } as const;
const options = {
  logits: files,
  targets: files,
  loss: text,
  ...Object.fromEntries(Object.keys(lossOptions).map((name) => [name, text])),
  'top-k': text,
  bins: text,
  'ignore-index': text,
  threads: text,
  'rows-per-block': text,
  device: text,
  json: { type: 'boolean' },
  html: text,
  'class-names': text,
  state: text,
  checkpoint: text,
  'checkpoint-every': text,
} as const;

/** Values of options that start with a minus, as --ignore-index -1 has one, which parseArgs takes for an option. */
const joinNegative = (args: readonly string[]): string[] =>
  args.reduce<string[]>((joined, arg) => {
    const last = joined.at(-1);
    if (/^-\d/.test(arg) && last?.startsWith('--') && !last.includes('='))
      joined[joined.length - 1] = `${last}=${arg}`;
    else joined.push(arg);
    return joined;
  }, []);

function checkDevice(device: string): void {
  if (device === 'auto' || device === 'cpu') return;
  if (!/^cuda(:\d+)?$/.test(device)) {
    throw new UsageError(`--device: expected auto or cpu, got '${device}'`);
  }
  resolveDevice(device);
  throw new CommandError(`--device ${device}: evaluations are counted on the CPU so far; use --device auto`);
}

/** What is undefined was not given: the evaluator's and the losses' own defaults hold. */
export interface Plan {
  readonly parsed: Parsed;
  readonly topK: readonly number[] | undefined;
  readonly bins: number | undefined;
  readonly ignoreIndex: number | undefined;
  readonly splits: number;
  readonly loss: ReturnType<typeof chooseLoss>;
  readonly threads: number | undefined;
  readonly rowsPerBlock: number | undefined;
  readonly every: number;
  readonly paths: Readonly<Record<'html' | 'state' | 'checkpoint', string | undefined>>;
}

export function planOf(args: readonly string[]): Plan {
  const parsed = parseArguments(joinNegative(args), options);
  const { values } = parsed;
  const given = (name: string, otherwise: string) => (values[name] as string | undefined) ?? otherwise;
  const whole = (name: string, bounds: { min?: number; below?: number }) => {
    const text = values[name] as string | undefined;
    return text === undefined ? undefined : numberArgument(name, text, { ...bounds, integer: true });
  };
  const topK = (values['top-k'] as string | undefined)
    ?.split(',')
    .map((k) => numberArgument('top-k', k, { min: 1, below: 2 ** 24, integer: true }));
  const ignoreIndex = whole('ignore-index', {});
  const loss = chooseLoss(parsed, ignoreIndex);
  checkDevice(given('device', 'auto'));
  if (values['class-names'] !== undefined && values['html'] === undefined) {
    throw new UsageError('--class-names goes with --html FILE');
  }
  if (values['checkpoint-every'] !== undefined && values['checkpoint'] === undefined) {
    throw new UsageError('--checkpoint-every goes with --checkpoint FILE');
  }
  return {
    parsed,
    topK,
    bins: whole('bins', { min: 1, below: 2 ** 20 }),
    ignoreIndex,
    splits: loss?.splits ?? 1,
    loss,
    threads: whole('threads', { min: 1, below: 1025 }),
    rowsPerBlock: whole('rows-per-block', { min: 1 }),
    every: 1000 * numberArgument('checkpoint-every', given('checkpoint-every', '5'), { min: 0 }),
    paths: {
      html: values['html'] as string | undefined,
      state: values['state'] as string | undefined,
      checkpoint: values['checkpoint'] as string | undefined,
    },
  };
}

export function makeEvaluator(
  { topK, bins, ignoreIndex, loss }: Plan,
  classes: number,
): ClassificationEvaluator {
  return new ClassificationEvaluator({
    numClasses: classes,
    // Of so few classes the label is always among the five largest.
    topK: topK ?? (classes > 5 ? undefined : [1]),
    bins,
    ignoreIndex,
    confusion: classes <= mostUnasked,
    losses: loss === undefined ? undefined : { [loss.name]: loss.loss },
  });
}
