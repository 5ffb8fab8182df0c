/**
 * The public types. Most of this file is checked by the compiler alone: a signature that changes, an option that
 * is misspelt or a type that widens is an error of `tsc`. What the types say about option names is then compared
 * with what the classes say when they run.
 */
import assert from 'node:assert/strict';
import * as surprisal from 'surprisal';
import type {
  Device,
  DeviceMemory,
  DeviceInfo,
  DType,
  ErrorCode,
  FloatDType,
  IntegerDType,
  NestedArray,
  SurprisalError,
  Tensor,
  TensorLike,
  TensorOptions,
  TypedArray,
} from 'surprisal';
import * as F from 'surprisal/functional';
import type { DimOptions } from 'surprisal/functional';
import {
  AsymmetricLossMultiLabel,
  AsymmetricLossSingleLabel,
  BinaryCrossEntropy,
  CrossEntropyLoss,
  JsdCrossEntropy,
  KLDivLoss,
  LabelSmoothingCrossEntropy,
  LensedCrossEntropy,
  Loss,
  NLLLoss,
  SoftTargetCrossEntropy,
} from 'surprisal/loss';
import type {
  AsyncOptions,
  CallOptions,
  GradOptions,
  GradOutput,
  Reduction,
  ValueAndGrad,
} from 'surprisal/loss';

// Two generic functions are assignable to each other only where their conditions are identical.
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type Expect<T extends true> = T;
type Extends<A, B> = [A] extends [B] ? true : false;
type Names<T> = T extends unknown ? keyof T : never;
type OptionsOf<C extends abstract new (options: never) => unknown> = NonNullable<ConstructorParameters<C>[0]>;

/** Names of the options of each class, as its messages list them. */
const optionNames = {
  AsymmetricLossMultiLabel: ['gammaNeg', 'gammaPos', 'clip', 'eps', 'disableTorchGradFocalLoss'],
  AsymmetricLossSingleLabel: ['gammaPos', 'gammaNeg', 'eps', 'reduction'],
  BinaryCrossEntropy: ['smoothing', 'targetThreshold', 'weight', 'reduction', 'sumClasses', 'posWeight'],
  CrossEntropyLoss: ['weight', 'ignoreIndex', 'reduction', 'labelSmoothing'],
  JsdCrossEntropy: ['numSplits', 'alpha', 'smoothing'],
  KLDivLoss: ['reduction', 'logTarget'],
  LabelSmoothingCrossEntropy: ['smoothing'],
  LensedCrossEntropy: ['confusionLens', 'reduction'],
  NLLLoss: ['weight', 'ignoreIndex', 'reduction'],
} as const;

/** Names of the options of each call of a loss. */
const callOptionNames = {
  forward: ['out', 'device', 'stream'],
  valueAndGrad: ['gradOutput', 'out', 'device', 'stream'],
  forwardAsync: ['out', 'device', 'stream', 'signal'],
  valueAndGradAsync: ['gradOutput', 'out', 'device', 'stream', 'signal'],
} as const;

type OptionNames = typeof optionNames;
type CallOptionNames = typeof callOptionNames;
type CallOptionsOf<M extends keyof CallOptionNames> = NonNullable<Parameters<Loss[M]>[2]>;

export type ClassTypes = [
  Expect<
    Equal<Names<OptionsOf<typeof AsymmetricLossMultiLabel>>, OptionNames['AsymmetricLossMultiLabel'][number]>
  >,
  Expect<
    Equal<
      Names<OptionsOf<typeof AsymmetricLossSingleLabel>>,
      OptionNames['AsymmetricLossSingleLabel'][number]
    >
  >,
  Expect<Equal<Names<OptionsOf<typeof BinaryCrossEntropy>>, OptionNames['BinaryCrossEntropy'][number]>>,
  Expect<Equal<Names<OptionsOf<typeof CrossEntropyLoss>>, OptionNames['CrossEntropyLoss'][number]>>,
  Expect<Equal<Names<OptionsOf<typeof JsdCrossEntropy>>, OptionNames['JsdCrossEntropy'][number]>>,
  Expect<Equal<Names<OptionsOf<typeof KLDivLoss>>, OptionNames['KLDivLoss'][number]>>,
  Expect<
    Equal<
      Names<OptionsOf<typeof LabelSmoothingCrossEntropy>>,
      OptionNames['LabelSmoothingCrossEntropy'][number]
    >
  >,
  Expect<Equal<Names<OptionsOf<typeof LensedCrossEntropy>>, OptionNames['LensedCrossEntropy'][number]>>,
  Expect<Equal<Names<OptionsOf<typeof NLLLoss>>, OptionNames['NLLLoss'][number]>>,
  Expect<Equal<OptionsOf<typeof CrossEntropyLoss>['labelSmoothing'], number | undefined>>,
  Expect<Equal<OptionsOf<typeof CrossEntropyLoss>['ignoreIndex'], number | undefined>>,
  Expect<Equal<OptionsOf<typeof CrossEntropyLoss>['weight'], TensorLike | undefined>>,
  Expect<Equal<OptionsOf<typeof CrossEntropyLoss>['reduction'], Reduction | undefined>>,
  Expect<Equal<OptionsOf<typeof KLDivLoss>['reduction'], Reduction | 'batchmean' | undefined>>,
  Expect<Equal<OptionsOf<typeof KLDivLoss>['logTarget'], boolean | undefined>>,
  Expect<Equal<OptionsOf<typeof BinaryCrossEntropy>['targetThreshold'], number | null | undefined>>,
  Expect<Equal<OptionsOf<typeof BinaryCrossEntropy>['posWeight'], TensorLike | null | undefined>>,
  Expect<Equal<OptionsOf<typeof AsymmetricLossMultiLabel>['clip'], number | null | undefined>>,
  Expect<Equal<OptionsOf<typeof LensedCrossEntropy>['confusionLens'], TensorLike>>,
  Expect<Equal<Reduction, 'none' | 'mean' | 'sum'>>,
  Expect<Extends<CrossEntropyLoss, Loss>>,
  Expect<Extends<LensedCrossEntropy, Loss>>,
];

export type CallTypes = [
  Expect<Equal<Names<CallOptionsOf<'forward'>>, CallOptionNames['forward'][number]>>,
  Expect<Equal<Names<CallOptionsOf<'valueAndGrad'>>, CallOptionNames['valueAndGrad'][number]>>,
  Expect<Equal<Names<CallOptionsOf<'forwardAsync'>>, CallOptionNames['forwardAsync'][number]>>,
  Expect<Equal<Names<CallOptionsOf<'valueAndGradAsync'>>, CallOptionNames['valueAndGradAsync'][number]>>,
  Expect<Equal<Loss['forward'], (input: TensorLike, target: TensorLike, options?: CallOptions) => Tensor>>,
  Expect<
    Equal<
      Loss['valueAndGrad'],
      (input: TensorLike, target: TensorLike, options?: GradOptions) => ValueAndGrad
    >
  >,
  Expect<
    Equal<
      Loss['forwardAsync'],
      (input: TensorLike, target: TensorLike, options?: CallOptions & AsyncOptions) => Promise<Tensor>
    >
  >,
  Expect<
    Equal<
      Loss['valueAndGradAsync'],
      (input: TensorLike, target: TensorLike, options?: GradOptions & AsyncOptions) => Promise<ValueAndGrad>
    >
  >,
  Expect<Equal<CallOptions['out'], { value?: TensorLike } | undefined>>,
  Expect<Equal<GradOptions['out'], { value?: TensorLike; grad?: TensorLike } | undefined>>,
  Expect<Equal<ValueAndGrad, { readonly value: Tensor; readonly grad: Tensor }>>,
  Expect<Equal<GradOutput, number | TensorLike>>,
  Expect<Equal<AsyncOptions['signal'], AbortSignal | undefined>>,
  Expect<Equal<Loss['reduction'], Reduction>>,
  Expect<Equal<Loss['name'], string>>,
];

export type TensorTypes = [
  Expect<Equal<FloatDType, 'float32' | 'float64' | 'float16' | 'bfloat16'>>,
  Expect<Equal<DType, FloatDType | IntegerDType>>,
  Expect<Equal<Tensor['data'], TypedArray>>,
  Expect<Equal<Tensor['shape'], readonly number[]>>,
  Expect<Equal<Tensor['strides'], readonly number[]>>,
  Expect<Equal<Tensor['dtype'], DType>>,
  Expect<Equal<Tensor['device'], Device>>,
  Expect<Equal<ReturnType<Tensor['item']>, number>>,
  Expect<Equal<ReturnType<Tensor['toArray']>, number | NestedArray<number>>>,
  Expect<Equal<ReturnType<Tensor['to']>, Tensor>>,
  Expect<Equal<ReturnType<Tensor['toAsync']>, Promise<Tensor>>>,
  Expect<Equal<ReturnType<Tensor['dispose']>, void>>,
  Expect<Extends<Tensor, Disposable>>,
  Expect<Equal<Device, 'cpu' | 'cuda' | `cuda:${number}`>>,
  Expect<Equal<keyof TensorOptions, 'shape' | 'dtype' | 'strides' | 'device'>>,
  Expect<
    Equal<typeof surprisal.tensor, (data: TensorLike | DeviceMemory, options?: TensorOptions) => Tensor>
  >,
  Expect<Equal<typeof surprisal.devices, () => DeviceInfo[]>>,
  Expect<Equal<typeof surprisal.diagnose, () => string>>,
  Expect<Equal<typeof surprisal.setNumThreads, (count: number) => void>>,
  Expect<Equal<typeof surprisal.getNumThreads, () => number>>,
  Expect<Equal<SurprisalError['code'], ErrorCode>>,
  Expect<Extends<'ERR_TARGET_OUT_OF_RANGE' | 'ERR_ABORTED' | 'ERR_OUT_OF_MEMORY', ErrorCode>>,
  // What callers have at hand is taken as a tensor.
  Expect<Extends<Float32Array | BigInt64Array | Uint16Array | number[] | number[][][], TensorLike>>,
  Expect<Extends<Float32Array<SharedArrayBuffer>, TensorLike>>,
  Expect<Extends<{ data: Float32Array; shape: number[] }, TensorLike>>,
  Expect<Extends<{ data: Uint16Array; shape: readonly [2, 3]; dtype: 'bfloat16' }, TensorLike>>,
  Expect<
    Extends<
      { data: Float32Array | string[]; dims: readonly number[]; type: string; location: 'cpu' },
      TensorLike
    >
  >,
  Expect<Equal<Extends<string, TensorLike>, false>>,
  Expect<Equal<Extends<string[], TensorLike>, false>>,
  Expect<Equal<Extends<{ data: Float32Array }, TensorLike>, false>>,
];

export type FunctionalTypes = [
  Expect<Equal<typeof F.softmax, (input: TensorLike, options?: DimOptions) => Tensor>>,
  Expect<Equal<typeof F.logSoftmax, (input: TensorLike, options?: DimOptions) => Tensor>>,
  Expect<
    Equal<
      typeof F.softmaxBackward,
      (gradOutput: TensorLike, output: TensorLike, options?: DimOptions) => Tensor
    >
  >,
  Expect<
    Equal<
      typeof F.logSoftmaxBackward,
      (gradOutput: TensorLike, output: TensorLike, options?: DimOptions) => Tensor
    >
  >,
  Expect<Equal<typeof F.oneHot, (target: TensorLike, numClasses?: number) => Tensor>>,
  Expect<Equal<typeof F.gather, (input: TensorLike, index: TensorLike, options?: DimOptions) => Tensor>>,
  Expect<Equal<DimOptions, { dim?: number | undefined }>>,
  Expect<Equal<Parameters<typeof F.crossEntropy>[2], ConstructorParameters<typeof CrossEntropyLoss>[0]>>,
  Expect<Equal<Parameters<typeof F.nllLoss>[2], ConstructorParameters<typeof NLLLoss>[0]>>,
  Expect<Equal<Parameters<typeof F.klDiv>[2], ConstructorParameters<typeof KLDivLoss>[0]>>,
  Expect<Equal<Parameters<typeof F.lensedCrossEntropy>[2], TensorLike>>,
  Expect<Equal<keyof NonNullable<Parameters<typeof F.lensedCrossEntropy>[3]>, 'reduction'>>,
  Expect<Equal<ReturnType<typeof F.crossEntropy>, Tensor>>,
  Expect<Equal<ReturnType<typeof F.lensedCrossEntropy>, Tensor>>,
];

/** Never called: each line below must not compile, and the compiler says so when one does. */
export function wrongUses(criterion: Loss, logits: Tensor, labels: Int32Array): void {
  // @ts-expect-error -- timm's keyword is smoothing, not labelSmoothing
  new LabelSmoothingCrossEntropy({ labelSmoothing: 0.1 });
  // @ts-expect-error -- torch's keyword in camelCase, not snake_case
  new CrossEntropyLoss({ label_smoothing: 0.1 });
  // @ts-expect-error -- a number, not its text
  new LabelSmoothingCrossEntropy({ smoothing: '0.1' });
  // @ts-expect-error -- options are one object
  new LabelSmoothingCrossEntropy(0.1);
  // @ts-expect-error -- it has no options
  new SoftTargetCrossEntropy({ smoothing: 0.1 });
  // @ts-expect-error -- 'batchmean' belongs to KLDivLoss
  new CrossEntropyLoss({ reduction: 'batchmean' });
  // @ts-expect-error -- timm's JSD has no reduction
  new JsdCrossEntropy({ reduction: 'sum' });
  // @ts-expect-error -- the lens is not optional
  new LensedCrossEntropy({});
  // @ts-expect-error -- nor are its options
  new LensedCrossEntropy();
  // @ts-expect-error -- a boolean
  new AsymmetricLossMultiLabel({ disableTorchGradFocalLoss: 1 });
  // @ts-expect-error -- abstract
  new Loss({});
  // @ts-expect-error -- gradOutput belongs to valueAndGrad
  criterion.forward(logits, labels, { gradOutput: 2 });
  // @ts-expect-error -- only asynchronous calls can be aborted
  criterion.valueAndGrad(logits, labels, { signal: new AbortController().signal });
  // @ts-expect-error -- the signal, not its controller
  void criterion.forwardAsync(logits, labels, { signal: new AbortController() });
  // @ts-expect-error -- out is an object that names what is written
  criterion.valueAndGrad(logits, labels, { out: logits });
  // @ts-expect-error -- forward has no gradient to write
  criterion.forward(logits, labels, { out: { grad: logits } });
  // @ts-expect-error -- a target is needed
  criterion.forward(logits);
  // @ts-expect-error -- no such device
  logits.to('tpu');
  // @ts-expect-error -- read only
  logits.shape = [1];
  // @ts-expect-error -- read only
  logits.shape[0] = 1;
  // @ts-expect-error -- no such dtype
  surprisal.tensor([1], { dtype: 'float8' });
  // @ts-expect-error -- torch's keyword is dim
  F.softmax(logits, { axis: -1 });
  // @ts-expect-error -- dim is an option
  F.softmax(logits, -1);
  // @ts-expect-error -- values other than 0 and 1 are those of surprisal/data
  F.oneHot(labels, 3, { onValue: 0.9 });
  // @ts-expect-error -- the lens has its own place
  F.lensedCrossEntropy(logits, labels, { confusionLens: logits });
}

const constructors: Record<keyof OptionNames, (options: never) => Loss> = {
  AsymmetricLossMultiLabel: (options) => new AsymmetricLossMultiLabel(options),
  AsymmetricLossSingleLabel: (options) => new AsymmetricLossSingleLabel(options),
  BinaryCrossEntropy: (options) => new BinaryCrossEntropy(options),
  CrossEntropyLoss: (options) => new CrossEntropyLoss(options),
  JsdCrossEntropy: (options) => new JsdCrossEntropy(options),
  KLDivLoss: (options) => new KLDivLoss(options),
  LabelSmoothingCrossEntropy: (options) => new LabelSmoothingCrossEntropy(options),
  LensedCrossEntropy: (options) => new LensedCrossEntropy(options),
  NLLLoss: (options) => new NLLLoss(options),
};

/** The names that a message about an unknown option lists. */
function listed(message: string): string[] {
  const list = /unknown option 'unknown'; it takes: (.*)$/.exec(message)?.[1];
  assert.ok(list !== undefined, message);
  return list.split(', ').sort();
}

describe('types', () => {
  for (const [name, names] of Object.entries(optionNames) as [keyof OptionNames, readonly string[]][]) {
    it(`${name} takes the options that its type names`, () => {
      assert.throws(
        () => constructors[name]({ unknown: 1 } as never),
        ({ message }: Error) => {
          assert.deepEqual(listed(message), [...names].sort());
          return true;
        },
      );
    });
  }

  for (const [name, names] of Object.entries(callOptionNames) as [
    keyof CallOptionNames,
    readonly string[],
  ][]) {
    it(`${name} takes the options that its type names`, async () => {
      const criterion: Loss = new CrossEntropyLoss();
      await assert.rejects(
        async () => criterion[name]([1, 2], 0, { unknown: 1 } as never),
        ({ message }: Error) => {
          assert.deepEqual(listed(message), [...names].sort());
          return true;
        },
      );
    });
  }
});
