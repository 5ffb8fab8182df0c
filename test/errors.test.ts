import assert from 'node:assert/strict';
import {
  setNumThreads,
  tensor,
  type DType,
  type ErrorCode,
  type SurprisalError,
  type Tensor,
  type TensorLike,
} from 'surprisal';
import * as F from 'surprisal/functional';
import {
  AsymmetricLossMultiLabel,
  AsymmetricLossSingleLabel,
  BinaryCrossEntropy,
  CrossEntropyLoss,
  JsdCrossEntropy,
  KLDivLoss,
  LabelSmoothingCrossEntropy,
  LensedCrossEntropy,
  NLLLoss,
  SoftTargetCrossEntropy,
  type Loss,
} from 'surprisal/loss';

/** Options that no type allows, as untyped JavaScript passes them. */
const untyped = (value: unknown) => value as never;

/** Makes the arguments of a row and watches their memory: none of it may change. */
class Arena {
  readonly #watched: { readonly array: ArrayBufferView; readonly before: Buffer }[] = [];
  lastInput: { shape: readonly number[]; dtype: DType } | undefined;

  static #bytes(array: ArrayBufferView): Buffer {
    return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  }

  watch<T extends ArrayBufferView>(array: T): T {
    this.#watched.push({ array, before: Buffer.from(Arena.#bytes(array)) });
    return array;
  }

  array(dtype: DType, length: number): Float32Array | Float64Array | Uint16Array | Int32Array | Uint8Array {
    switch (dtype) {
      case 'float64':
        return new Float64Array(length);
      case 'float16':
      case 'bfloat16':
      case 'uint16':
        return new Uint16Array(length);
      case 'int32':
        return new Int32Array(length);
      case 'uint8':
      case 'bool':
        return new Uint8Array(length);
      default:
        return new Float32Array(length);
    }
  }

  /** Values that are fine in every role: logits, probabilities, class indices. */
  input(shape: readonly number[] = [4, 3], dtype: DType = 'float32'): Tensor {
    this.lastInput = { shape, dtype };
    const data = this.array(
      dtype,
      shape.reduce((n, size) => n * size, 1),
    );
    for (let i = 0; i < data.length; i++) data[i] = i % 2;
    return tensor(this.watch(data), { shape, dtype });
  }

  labels(...labels: number[]): Int32Array {
    return this.watch(Int32Array.from(labels));
  }

  /** Memory full of a pattern that no result has. */
  out(shape: readonly number[] = [4, 3], dtype: DType = 'float32'): Tensor {
    const data = this.array(
      dtype,
      shape.reduce((n, size) => n * size, 1),
    );
    Arena.#bytes(data).fill(0xa5);
    return tensor(this.watch(data), { shape, dtype });
  }

  /** A typed array whose buffer was transferred. */
  detached<T extends Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>>(array: T): T {
    structuredClone(array.buffer, { transfer: [array.buffer] });
    return array;
  }

  disposed(shape: readonly number[] = [4, 3]): Tensor {
    const gone = tensor(new Float32Array(shape.reduce((n, size) => n * size, 1)), { shape });
    gone.dispose();
    return gone;
  }

  assertUnchanged(): void {
    for (const { array, before } of this.#watched) {
      assert.ok(Arena.#bytes(array).equals(before), 'an argument was written to, though the call threw');
    }
  }
}

/** How an error looks: its class, its code and what the message must say. */
type Expected = readonly [kind: ErrorConstructor, code: ErrorCode, message: RegExp];

interface LossArguments {
  readonly input: unknown;
  readonly target: unknown;
  /** With options, only the calls that have a gradient are made, unless `forward` says that they are its too. */
  readonly options?: unknown;
  readonly forward?: boolean;
}

interface Row {
  readonly name: string;
  readonly expected: Expected;
  readonly call?: (arena: Arena) => unknown;
  readonly loss?: () => Loss;
  readonly args?: (arena: Arena) => LossArguments;
}

function assertError(error: unknown, [kind, code, message]: Expected): true {
  assert.ok(error instanceof Error, `expected an error, got ${String(error)}`);
  assert.equal(error.constructor, kind, error.stack);
  assert.equal((error as SurprisalError).code, code, error.message);
  assert.match(error.message, message);
  assert.doesNotMatch(error.message, /\[object /, 'the message shows an object in place of what came');
  return true;
}

const rows: Row[] = [];

/** A row of a function that throws when called. */
function rejects(name: string, expected: Expected, call: (arena: Arena) => unknown): void {
  rows.push({ name, expected, call });
}

/** A row of a loss that is fine, called with something that is not. */
function refuses(
  name: string,
  expected: Expected,
  loss: () => Loss,
  args: (arena: Arena) => LossArguments,
): void {
  rows.push({ name, expected, loss, args });
}

const crossEntropy = () => new CrossEntropyLoss();
const labelSmoothing = () => new LabelSmoothingCrossEntropy();
const softTarget = () => new SoftTargetCrossEntropy();
const jsd = () => new JsdCrossEntropy();
const bce = () => new BinaryCrossEntropy();
const multiLabel = () => new AsymmetricLossMultiLabel();
const singleLabel = () => new AsymmetricLossSingleLabel();
const nll = () => new NLLLoss();
const klDiv = () => new KLDivLoss();
const identity = [
  [1, 0, 0],
  [0, 1, 0],
  [0, 0, 1],
];
const lensed = () => new LensedCrossEntropy({ confusionLens: identity });

const everyLoss: readonly (readonly [string, (options?: never) => Loss])[] = [
  ['AsymmetricLossMultiLabel', (options) => new AsymmetricLossMultiLabel(options)],
  ['AsymmetricLossSingleLabel', (options) => new AsymmetricLossSingleLabel(options)],
  ['BinaryCrossEntropy', (options) => new BinaryCrossEntropy(options)],
  ['CrossEntropyLoss', (options) => new CrossEntropyLoss(options)],
  ['JsdCrossEntropy', (options) => new JsdCrossEntropy(options)],
  ['KLDivLoss', (options) => new KLDivLoss(options)],
  ['LabelSmoothingCrossEntropy', (options) => new LabelSmoothingCrossEntropy(options)],
  ['LensedCrossEntropy', (options) => new LensedCrossEntropy(options ?? { confusionLens: identity })],
  ['NLLLoss', (options) => new NLLLoss(options)],
  ['SoftTargetCrossEntropy', (options) => new SoftTargetCrossEntropy(options)],
];

// ---- input: dtype, rank, size

for (const dtype of ['int32', 'uint8', 'bool'] as const) {
  refuses(
    `input of dtype ${dtype}`,
    [TypeError, 'ERR_DTYPE', new RegExp(`float32, float64.*got ${dtype}`)],
    crossEntropy,
    (a) => ({
      input: a.input([4, 3], dtype),
      target: a.labels(0, 1, 2, 0),
    }),
  );
}
refuses(
  'float16 bits without their dtype',
  [TypeError, 'ERR_DTYPE', /got uint16; give dtype 'float16'/],
  crossEntropy,
  (a) => ({
    input: a.input([4, 3], 'uint16'),
    target: a.labels(0, 1, 2, 0),
  }),
);
refuses(
  'a number as input',
  [RangeError, 'ERR_SHAPE', /non-empty input, got shape \[\]/],
  crossEntropy,
  (a) => ({
    input: 3,
    target: a.labels(0),
  }),
);
refuses('no rows', [RangeError, 'ERR_SHAPE', /non-empty input, got shape \[0, 3\]/], labelSmoothing, (a) => ({
  input: a.input([0, 3]),
  target: a.labels(),
}));
refuses('no classes', [RangeError, 'ERR_SHAPE', /non-empty input, got shape \[4, 0\]/], softTarget, (a) => ({
  input: a.input([4, 0]),
  target: a.input([4, 0]),
}));
refuses(
  'an empty array as input',
  [RangeError, 'ERR_SHAPE', /non-empty input, got shape \[0\]/],
  crossEntropy,
  (a) => ({
    input: [],
    target: a.labels(),
  }),
);
refuses(
  'input of rank 3 for [N, C]',
  [RangeError, 'ERR_SHAPE', /shape \[N, C\], got \[2, 2, 3\]/],
  labelSmoothing,
  (a) => ({
    input: a.input([2, 2, 3]),
    target: a.labels(0, 1),
  }),
);
refuses('input of rank 1 for [N, C]', [RangeError, 'ERR_SHAPE', /shape \[N, C\], got \[3\]/], jsd, (a) => ({
  input: a.input([3]),
  target: a.labels(0),
}));
refuses(
  'input of rank 1 for a lens',
  [RangeError, 'ERR_SHAPE', /shape \[N, C\], got \[3\]/],
  lensed,
  (a) => ({
    input: a.input([3]),
    target: a.labels(0),
  }),
);
refuses(
  'input of rank 3 for a single label',
  [RangeError, 'ERR_SHAPE', /shape \[N, C\], got \[2, 2, 3\]/],
  singleLabel,
  (a) => ({
    input: a.input([2, 2, 3]),
    target: a.labels(0, 1),
  }),
);
refuses(
  'undefined as input',
  [TypeError, 'ERR_DTYPE', /input: expected a Tensor.*got undefined/],
  crossEntropy,
  (a) => ({
    input: undefined,
    target: a.labels(0),
  }),
);
refuses(
  'a string as input',
  [TypeError, 'ERR_DTYPE', /input: expected a Tensor.*got 'logits'/],
  crossEntropy,
  (a) => ({
    input: 'logits',
    target: a.labels(0),
  }),
);

// ---- class indices

const outOfRange = (row: number, label: number | bigint, classes = 3): Expected => [
  RangeError,
  'ERR_TARGET_OUT_OF_RANGE',
  new RegExp(`expected class indices in \\[0, ${classes}\\).*\\brow ${row} (is|has) ${label}\\b`),
];

refuses('a label too large in the first row', outOfRange(0, 3), labelSmoothing, (a) => ({
  input: a.input(),
  target: a.labels(3, 0, 1, 2),
}));
refuses('a label too large in a middle row', outOfRange(2, 7), crossEntropy, (a) => ({
  input: a.input(),
  target: a.labels(0, 1, 7, 2),
}));
refuses('a label too large in the last row', outOfRange(3, 3), crossEntropy, (a) => ({
  input: a.input(),
  target: a.labels(0, 1, 2, 3),
}));
refuses('a negative label', outOfRange(1, -1), labelSmoothing, (a) => ({
  input: a.input(),
  target: a.labels(0, -1, 2, 1),
}));
refuses('a negative label that is not ignoreIndex', outOfRange(2, -101), crossEntropy, (a) => ({
  input: a.input(),
  target: a.labels(-100, 1, -101, 2),
}));
refuses('a label too large in a BigInt64Array', outOfRange(1, 12n), nll, (a) => ({
  input: a.input(),
  target: a.watch(BigInt64Array.of(0n, 12n, 1n, 2n)),
}));
refuses('a negative BigInt label', outOfRange(3, -2n), lensed, (a) => ({
  input: a.input(),
  target: a.watch(BigInt64Array.of(0n, 1n, 2n, -2n)),
}));
refuses('a label past 2^32 whose low bits are a class', outOfRange(1, 2n ** 32n + 1n), crossEntropy, (a) => ({
  input: a.input(),
  target: a.watch(BigInt64Array.of(0n, 2n ** 32n + 1n, 1n, 2n)),
}));
refuses('an unsigned label past 2^63', outOfRange(0, 2n ** 64n - 1n), crossEntropy, (a) => ({
  input: a.input(),
  target: a.watch(BigUint64Array.of(2n ** 64n - 1n, 0n, 1n, 2n)),
}));
refuses('a uint8 label', outOfRange(2, 255), singleLabel, (a) => ({
  input: a.input(),
  target: a.watch(Uint8Array.of(0, 1, 255, 2)),
}));
refuses('an int8 label', outOfRange(2, -1), bce, (a) => ({
  input: a.input(),
  target: a.watch(Int8Array.of(0, 1, -1, 2)),
}));
refuses('a plain number as a label', outOfRange(1, 5), labelSmoothing, (a) => ({
  input: a.input(),
  target: [0, 5, 1, 2],
}));
refuses('several bad labels: the first is named', outOfRange(300, 9), crossEntropy, (a) => ({
  input: a.input([1000, 3]),
  target: a.watch(Int32Array.from({ length: 1000 }, (_, i) => (i === 700 ? 8 : i === 300 ? 9 : i % 3))),
}));
refuses('a bad label in the last of many rows', outOfRange(19999, -7, 50), labelSmoothing, (a) => ({
  input: a.input([20000, 50]),
  target: a.watch(Int32Array.from({ length: 20000 }, (_, i) => (i === 19999 ? -7 : i % 50))),
}));
refuses('a bad label of a pixel', outOfRange(5, 3), crossEntropy, (a) => ({
  input: a.input([2, 3, 4]),
  target: tensor(a.labels(0, 1, 2, 0, 1, 3, 2, 0), { shape: [2, 4] }),
}));
refuses('a bad label of the first split', outOfRange(1, 3), jsd, (a) => ({
  input: a.input([6, 3]),
  target: a.labels(0, 3),
}));
refuses('a bad label where the gradient replaces the input', outOfRange(3, 3), crossEntropy, (a) => {
  const input = a.input();
  return { input, target: a.labels(0, 1, 2, 3), options: { out: { grad: input } } };
});
refuses('labels past 64 bits', [RangeError, 'ERR_DTYPE', /18446744073709551617/], crossEntropy, (a) => ({
  input: a.input(),
  target: [0, 2n ** 64n + 1n, 1, 2],
}));

// ---- targets: dtype and shape

const labelShape = (expected: string, got: string): Expected => [
  RangeError,
  'ERR_SHAPE',
  new RegExp(
    `class indices of shape ${expected.replace(/[[\]]/g, '\\$&')}.*got ${got.replace(/[[\]]/g, '\\$&')}$`,
  ),
];

refuses('too few labels', labelShape('[4]', '[3]'), labelSmoothing, (a) => ({
  input: a.input(),
  target: a.labels(0, 1, 2),
}));
refuses('too many labels', labelShape('[4]', '[5]'), singleLabel, (a) => ({
  input: a.input(),
  target: a.labels(0, 1, 2, 0, 1),
}));
refuses('labels as a column', labelShape('[4]', '[4, 1]'), crossEntropy, (a) => ({
  input: a.input(),
  target: tensor(a.labels(0, 1, 2, 0), { shape: [4, 1] }),
}));
refuses('labels of another image size', labelShape('[2, 4]', '[2, 3]'), crossEntropy, (a) => ({
  input: a.input([2, 3, 4]),
  target: tensor(a.labels(0, 1, 2, 0, 1, 2), { shape: [2, 3] }),
}));
refuses('one label for a batch', labelShape('[4]', '[]'), nll, (a) => ({ input: a.input(), target: 1 }));
refuses(
  'too few labels for a split',
  [RangeError, 'ERR_SHAPE', /\[2\] \(input rows \/ numSplits = 6 \/ 3.*got \[1\]/],
  jsd,
  (a) => ({
    input: a.input([6, 3]),
    target: a.labels(0),
  }),
);
refuses(
  'a batch that numSplits does not divide',
  [RangeError, 'ERR_SHAPE', /numSplits = 3 divides, got 4 rows \(input \[4, 3\]\)/],
  jsd,
  (a) => ({
    input: a.input(),
    target: a.labels(0),
  }),
);
refuses(
  'a soft target with fewer rows',
  [RangeError, 'ERR_SHAPE', /input's shape \[4, 3\], got \[3, 3\]/],
  softTarget,
  (a) => ({
    input: a.input(),
    target: a.input([3, 3]),
  }),
);
refuses(
  'a soft target transposed',
  [RangeError, 'ERR_SHAPE', /input's shape \[4, 3\], got \[3, 4\]/],
  softTarget,
  (a) => ({
    input: a.input(),
    target: a.input([3, 4]),
  }),
);
refuses(
  'class indices for a soft target',
  [RangeError, 'ERR_SHAPE', /input's shape \[4, 3\], got \[4\]/],
  softTarget,
  (a) => ({
    input: a.input(),
    target: a.labels(0, 1, 2, 0),
  }),
);
refuses(
  'a multi-label target of another shape',
  [RangeError, 'ERR_SHAPE', /input's shape \[4, 3\], got \[4, 2\]/],
  multiLabel,
  (a) => ({
    input: a.input(),
    target: a.input([4, 2]),
  }),
);
refuses(
  'a divergence from another shape',
  [RangeError, 'ERR_SHAPE', /input's shape \[4, 3\], got \[12\]/],
  klDiv,
  (a) => ({
    input: a.input(),
    target: a.input([12]),
  }),
);
refuses(
  'class probabilities of another shape',
  [TypeError, 'ERR_DTYPE', /shape \[4\], or class probabilities.*\[4, 3\], got float32 of shape \[4, 2\]/],
  crossEntropy,
  (a) => ({
    input: a.input(),
    target: a.input([4, 2]),
  }),
);
refuses(
  'class probabilities of integers',
  [TypeError, 'ERR_DTYPE', /must be floating, got int32; class indices have the shape \[4\]/],
  crossEntropy,
  (a) => ({
    input: a.input(),
    target: a.input([4, 3], 'int32'),
  }),
);
refuses(
  'float labels',
  [TypeError, 'ERR_DTYPE', /integer dtype and shape \[4\], got float32 of shape \[4\]/],
  labelSmoothing,
  (a) => ({
    input: a.input(),
    target: a.watch(Float32Array.of(0, 1, 2, 0)),
  }),
);
refuses(
  'boolean labels',
  [TypeError, 'ERR_DTYPE', /integer dtype and shape \[4\], got bool of shape \[4\]/],
  lensed,
  (a) => ({
    input: a.input(),
    target: a.input([4], 'bool'),
  }),
);
refuses(
  'a plain label between two classes',
  [TypeError, 'ERR_DTYPE', /target: expected integers, but element 1 is 1\.5/],
  labelSmoothing,
  (a) => ({
    input: a.input(),
    target: [0, 1.5, 2, 0],
  }),
);
refuses(
  'NaN as a plain label',
  [TypeError, 'ERR_DTYPE', /target: expected integers, but element 3 is NaN/],
  crossEntropy,
  (a) => ({
    input: a.input(),
    target: [0, 1, 2, NaN],
  }),
);
refuses(
  'strings as labels',
  [TypeError, 'ERR_DTYPE', /target: expected numbers in nested arrays.*got '1'/],
  crossEntropy,
  (a) => ({
    input: a.input(),
    target: [0, '1', 2, 0],
  }),
);
refuses('null as target', [TypeError, 'ERR_DTYPE', /target: expected a Tensor.*got null/], bce, (a) => ({
  input: a.input(),
  target: null,
}));

// ---- lens, weights

rejects(
  'a lens that is not square',
  [RangeError, 'ERR_SHAPE', /square confusionLens \[C, C\], got \[3, 2\]/],
  (a) => new LensedCrossEntropy({ confusionLens: a.input([3, 2]) }),
);
rejects(
  'a lens of rank 1',
  [RangeError, 'ERR_SHAPE', /square confusionLens \[C, C\], got \[9\]/],
  (a) => new LensedCrossEntropy({ confusionLens: a.input([9]) }),
);
rejects(
  'an empty lens',
  [RangeError, 'ERR_SHAPE', /square confusionLens \[C, C\], got \[0, 0\]/],
  (a) => new LensedCrossEntropy({ confusionLens: a.input([0, 0]) }),
);
rejects(
  'a lens of integers',
  [TypeError, 'ERR_DTYPE', /confusionLens of a floating dtype, got int32/],
  (a) => new LensedCrossEntropy({ confusionLens: a.input([3, 3], 'int32') }),
);
rejects(
  'no lens',
  [TypeError, 'ERR_OPTION', /expected the option confusionLens, a \[C, C\] tensor/],
  () => new LensedCrossEntropy(untyped({})),
);
rejects(
  'a detached lens',
  [TypeError, 'ERR_DISPOSED', /confusionLens: its buffer is detached/],
  (a) => new LensedCrossEntropy({ confusionLens: { data: a.detached(new Float32Array(9)), shape: [3, 3] } }),
);
refuses(
  'a lens for another number of classes',
  [RangeError, 'ERR_SHAPE', /confusionLens is \[3, 3\], but the input \[4, 5\] has 5 classes/],
  lensed,
  (a) => ({
    input: a.input([4, 5]),
    target: a.labels(0, 1, 2, 0),
  }),
);
rejects(
  'a class weight of rank 2',
  [RangeError, 'ERR_SHAPE', /weight of shape \[C\], got \[1, 3\]/],
  (a) => new CrossEntropyLoss({ weight: a.input([1, 3]) }),
);
rejects(
  'a class weight of integers',
  [TypeError, 'ERR_DTYPE', /weight of a floating dtype, got int32/],
  (a) => new NLLLoss({ weight: a.input([3], 'int32') }),
);
rejects(
  'a disposed class weight',
  [TypeError, 'ERR_DISPOSED', /disposed/],
  (a) => new CrossEntropyLoss({ weight: a.disposed([3]) }),
);
refuses(
  'a class weight for another number of classes',
  [RangeError, 'ERR_SHAPE', /weight of shape \[3\].*input \[4, 3\], got \[2\]/],
  () => new CrossEntropyLoss({ weight: [1, 2] }),
  (a) => ({
    input: a.input(),
    target: a.labels(0, 1, 2, 0),
  }),
);
refuses(
  'one weight for three classes',
  [RangeError, 'ERR_SHAPE', /weight of shape \[3\].*input \[4, 3\], got \[1\]/],
  () => new NLLLoss({ weight: [1] }),
  (a) => ({
    input: a.input(),
    target: a.labels(0, 1, 2, 0),
  }),
);
refuses(
  'a weight that does not broadcast',
  [RangeError, 'ERR_SHAPE', /weight of shape \[4\] does not broadcast.*\[4, 3\]/],
  () => new BinaryCrossEntropy({ weight: [1, 2, 3, 4] }),
  (a) => ({
    input: a.input(),
    target: a.labels(0, 1, 2, 0),
  }),
);
refuses(
  'a posWeight that does not broadcast',
  [RangeError, 'ERR_SHAPE', /posWeight of shape \[2\] does not broadcast.*\[4, 3\]/],
  () => new BinaryCrossEntropy({ posWeight: [1, 2] }),
  (a) => ({
    input: a.input(),
    target: a.labels(0, 1, 2, 0),
  }),
);
rejects(
  'a posWeight of integers',
  [TypeError, 'ERR_DTYPE', /posWeight of a floating dtype, got int32/],
  (a) => new BinaryCrossEntropy({ posWeight: a.input([3], 'int32') }),
);

// ---- options: values

const interval = (name: string, got: string, kind: ErrorConstructor = RangeError): Expected => [
  kind,
  'ERR_OPTION',
  new RegExp(`expected a finite number in \\[0, 1\\) for ${name}, got ${got}$`),
];

for (const [name, make] of [
  ['LabelSmoothingCrossEntropy', (smoothing: never) => new LabelSmoothingCrossEntropy({ smoothing })],
  ['JsdCrossEntropy', (smoothing: never) => new JsdCrossEntropy({ smoothing })],
  ['BinaryCrossEntropy', (smoothing: never) => new BinaryCrossEntropy({ smoothing })],
] as const) {
  for (const smoothing of [1, 1.5, -0.1, NaN, Infinity]) {
    rejects(`${name}: smoothing ${smoothing}`, interval('smoothing', String(smoothing)), () =>
      make(untyped(smoothing)),
    );
  }
  rejects(`${name}: smoothing as a string`, interval('smoothing', "'0\\.1'", TypeError), () =>
    make(untyped('0.1')),
  );
  rejects(`${name}: smoothing null`, interval('smoothing', 'null', TypeError), () => make(untyped(null)));
}
rejects(
  'labelSmoothing 1',
  interval('labelSmoothing', '1'),
  () => new CrossEntropyLoss({ labelSmoothing: 1 }),
);
rejects(
  'labelSmoothing -0.1',
  interval('labelSmoothing', '-0\\.1'),
  () => new CrossEntropyLoss({ labelSmoothing: -0.1 }),
);
rejects(
  'labelSmoothing NaN',
  interval('labelSmoothing', 'NaN'),
  () => new CrossEntropyLoss({ labelSmoothing: NaN }),
);
rejects('eps 1 as label smoothing', interval('eps', '1'), () => new AsymmetricLossSingleLabel({ eps: 1 }));
rejects(
  'numSplits 0',
  [RangeError, 'ERR_OPTION', /integer of at least 1 for numSplits, got 0/],
  () => new JsdCrossEntropy({ numSplits: 0 }),
);
rejects(
  'numSplits 1.5',
  [RangeError, 'ERR_OPTION', /integer of at least 1 for numSplits, got 1\.5/],
  () => new JsdCrossEntropy({ numSplits: 1.5 }),
);
rejects(
  'numSplits as a string',
  [TypeError, 'ERR_OPTION', /integer of at least 1 for numSplits, got '3'/],
  () => new JsdCrossEntropy({ numSplits: untyped('3') }),
);
rejects(
  'alpha NaN',
  [RangeError, 'ERR_OPTION', /finite number for alpha, got NaN/],
  () => new JsdCrossEntropy({ alpha: NaN }),
);
rejects(
  'gammaNeg below 0',
  [RangeError, 'ERR_OPTION', /at least 0 for gammaNeg, got -1/],
  () => new AsymmetricLossMultiLabel({ gammaNeg: -1 }),
);
rejects(
  'gammaPos below 0',
  [RangeError, 'ERR_OPTION', /at least 0 for gammaPos, got -0\.5/],
  () => new AsymmetricLossSingleLabel({ gammaPos: -0.5 }),
);
rejects(
  'clip above 1',
  [RangeError, 'ERR_OPTION', /\[0, 1\] for clip, got 2/],
  () => new AsymmetricLossMultiLabel({ clip: 2 }),
);
rejects(
  'disableTorchGradFocalLoss as a string',
  [TypeError, 'ERR_OPTION', /true or false for disableTorchGradFocalLoss, got 'yes'/],
  () => new AsymmetricLossMultiLabel({ disableTorchGradFocalLoss: untyped('yes') }),
);
rejects(
  'targetThreshold as a string',
  [TypeError, 'ERR_OPTION', /finite number for targetThreshold, got '0\.5'/],
  () => new BinaryCrossEntropy({ targetThreshold: untyped('0.5') }),
);
rejects(
  'sumClasses as a number',
  [TypeError, 'ERR_OPTION', /true or false for sumClasses, got 1/],
  () => new BinaryCrossEntropy({ sumClasses: untyped(1) }),
);
rejects(
  'ignoreIndex 1.5',
  [RangeError, 'ERR_OPTION', /an integer for ignoreIndex, got 1\.5/],
  () => new CrossEntropyLoss({ ignoreIndex: 1.5 }),
);
rejects(
  'ignoreIndex as a bigint',
  [TypeError, 'ERR_OPTION', /an integer for ignoreIndex, got -100n/],
  () => new NLLLoss({ ignoreIndex: untyped(-100n) }),
);
rejects(
  'logTarget as a number',
  [TypeError, 'ERR_OPTION', /true or false for logTarget, got 0/],
  () => new KLDivLoss({ logTarget: untyped(0) }),
);
for (const [name, make] of [
  ['CrossEntropyLoss', (reduction: never) => new CrossEntropyLoss({ reduction })],
  ['NLLLoss', (reduction: never) => new NLLLoss({ reduction })],
  ['BinaryCrossEntropy', (reduction: never) => new BinaryCrossEntropy({ reduction })],
  ['AsymmetricLossSingleLabel', (reduction: never) => new AsymmetricLossSingleLabel({ reduction })],
  [
    'LensedCrossEntropy',
    (reduction: never) => new LensedCrossEntropy({ confusionLens: identity, reduction }),
  ],
] as const) {
  rejects(
    `${name}: reduction 'batchmean'`,
    [RangeError, 'ERR_OPTION', /'none', 'mean', 'sum' for reduction, got 'batchmean'/],
    () => make(untyped('batchmean')),
  );
  rejects(
    `${name}: reduction null`,
    [TypeError, 'ERR_OPTION', /'none', 'mean', 'sum' for reduction, got null/],
    () => make(untyped(null)),
  );
}
rejects(
  "KLDivLoss: reduction 'avg'",
  [RangeError, 'ERR_OPTION', /'none', 'mean', 'sum', 'batchmean' for reduction, got 'avg'/],
  () => new KLDivLoss({ reduction: untyped('avg') }),
);

// ---- options: names

const dense = ['AsymmetricLossMultiLabel', 'KLDivLoss', 'SoftTargetCrossEntropy'];
for (const [name, make] of everyLoss) {
  const unknown: Expected = [
    TypeError,
    'ERR_OPTION',
    new RegExp(`^${name}.*unknown option 'smothing'; it takes: `),
  ];
  rejects(`${name}: an unknown option`, unknown, () => make(untyped({ smothing: 0.1 })));
  rejects(`${name}: a number as options`, [TypeError, 'ERR_OPTION', /options as an object, got 0\.1/], () =>
    make(untyped(0.1)),
  );
  refuses(
    `${name}: an unknown option of a call`,
    unknown,
    () => make(),
    (a) => ({
      input: a.input([6, 3]),
      target: dense.includes(name) ? a.input([6, 3]) : a.labels(0, 1, 2, 0, 1, 2),
      options: { smothing: 0.1, out: { grad: a.out([6, 3]) } },
    }),
  );
  rejects(
    `${name}: an option of another call`,
    [TypeError, 'ERR_OPTION', /forward: unknown option 'gradOutput'; it takes: out, device, stream$/],
    (a) => make().forward(a.input([6, 3]), a.labels(0, 1, 2, 0, 1, 2), untyped({ gradOutput: 2 })),
  );
}
rejects(
  'options null',
  [TypeError, 'ERR_OPTION', /options as an object, got null/],
  () => new CrossEntropyLoss(untyped(null)),
);
rejects(
  'options as an array',
  [TypeError, 'ERR_OPTION', /options as an object, got an array of length 0/],
  () => new BinaryCrossEntropy(untyped([])),
);
refuses(
  'a tensor in the place of options',
  [TypeError, 'ERR_OPTION', /options as an object, got a value of type Float32Array/],
  crossEntropy,
  (a) => ({
    input: a.input(),
    target: a.labels(0, 1, 2, 0),
    options: a.watch(new Float32Array(12)),
  }),
);

// ---- gradOutput

const none = () => new CrossEntropyLoss({ reduction: 'none' });
const withOptions = (options: (a: Arena) => unknown) => (a: Arena) => ({
  input: a.input(),
  target: a.labels(0, 1, 2, 0),
  options: options(a),
});

refuses(
  'gradOutput with fewer rows',
  [RangeError, 'ERR_SHAPE', /output's shape \[4\], got \[3\]/],
  none,
  withOptions((a) => ({ gradOutput: a.input([3]), out: { grad: a.out() } })),
);
refuses(
  "gradOutput of the input's shape",
  [RangeError, 'ERR_SHAPE', /output's shape \[4\], got \[4, 3\]/],
  none,
  withOptions((a) => ({ gradOutput: a.input([4, 3]), out: { grad: a.out() } })),
);
refuses(
  'gradOutput a row for a mean',
  [RangeError, 'ERR_SHAPE', /output's shape \[\], got \[4\]/],
  crossEntropy,
  withOptions((a) => ({ gradOutput: a.input([4]), out: { grad: a.out() } })),
);
refuses(
  'gradOutput of integers',
  [TypeError, 'ERR_DTYPE', /number or a floating tensor, got int32/],
  none,
  withOptions((a) => ({ gradOutput: a.input([4], 'int32'), out: { grad: a.out() } })),
);
refuses(
  'gradOutput as a string',
  [TypeError, 'ERR_DTYPE', /gradOutput: expected a Tensor.*got '1'/],
  crossEntropy,
  withOptions((a) => ({ gradOutput: '1', out: { grad: a.out() } })),
);
refuses(
  'detached gradOutput',
  [TypeError, 'ERR_DISPOSED', /gradOutput: its buffer is detached/],
  none,
  withOptions((a) => ({ gradOutput: a.detached(new Float32Array(4)), out: { grad: a.out() } })),
);

// ---- out

refuses(
  'out of another dtype',
  [TypeError, 'ERR_DTYPE', /input's dtype float32, got float64/],
  crossEntropy,
  withOptions((a) => ({ out: { grad: a.out([4, 3], 'float64') } })),
);
refuses(
  'out of integers',
  [TypeError, 'ERR_DTYPE', /input's dtype float32, got int32/],
  crossEntropy,
  withOptions((a) => ({ out: { grad: a.out([4, 3], 'int32') } })),
);
refuses(
  'out with fewer rows',
  [RangeError, 'ERR_SHAPE', /input's shape \[4, 3\], got \[3, 3\]/],
  crossEntropy,
  withOptions((a) => ({ out: { grad: a.out([3, 3]) } })),
);
refuses(
  'flat out',
  [RangeError, 'ERR_SHAPE', /input's shape \[4, 3\], got \[12\]/],
  crossEntropy,
  withOptions((a) => ({ out: { grad: a.out([12]).data } })),
);
refuses(
  'out as a number',
  [RangeError, 'ERR_SHAPE', /input's shape \[4, 3\], got \[\]/],
  crossEntropy,
  withOptions(() => ({ out: { grad: 0 } })),
);
refuses(
  'out as a tensor',
  [TypeError, 'ERR_OPTION', /out.*expected options as an object, got a value of type Float32Array/],
  crossEntropy,
  withOptions((a) => ({ out: a.out().data })),
);
refuses(
  'an unknown name in out',
  [TypeError, 'ERR_OPTION', /out.*unknown option 'gradient'; it takes: grad/],
  crossEntropy,
  withOptions((a) => ({ out: { gradient: a.out() } })),
);
refuses(
  'detached out',
  [TypeError, 'ERR_DISPOSED', /out\.grad: its buffer is detached/],
  crossEntropy,
  withOptions((a) => ({ out: { grad: { data: a.detached(new Float32Array(12)), shape: [4, 3] } } })),
);
refuses(
  'disposed out',
  [TypeError, 'ERR_DISPOSED', /disposed/],
  crossEntropy,
  withOptions((a) => ({ out: { grad: a.disposed() } })),
);
for (const [name, offset] of [
  ['one element', 1],
  ['one row', 3],
  ['all but one element', 11],
] as const) {
  refuses(
    `out that overlaps the input, shifted by ${name}`,
    [RangeError, 'ERR_ALIAS', /overlaps the input in part; give the input itself/],
    crossEntropy,
    (a) => {
      const memory = a.watch(new Float32Array(24).fill(0.5));
      return {
        input: tensor(memory.subarray(0, 12), { shape: [4, 3] }),
        target: a.labels(0, 1, 2, 0),
        options: { out: { grad: tensor(memory.subarray(offset, offset + 12), { shape: [4, 3] }) } },
      };
    },
  );
}
refuses(
  'out that is the input transposed',
  [RangeError, 'ERR_ALIAS', /overlaps the input in part/],
  crossEntropy,
  (a) => {
    const memory = a.watch(new Float32Array(9).fill(0.5));
    return {
      input: tensor(memory, { shape: [3, 3] }),
      target: a.labels(0, 1, 2),
      options: { out: { grad: tensor(memory, { shape: [3, 3], strides: [1, 3] }) } },
    };
  },
);
refuses(
  'out that is the soft target',
  [RangeError, 'ERR_ALIAS', /overlaps another argument/],
  softTarget,
  (a) => {
    const target = a.input();
    return { input: a.input(), target, options: { out: { grad: target } } };
  },
);
refuses(
  'out in the memory of the labels',
  [RangeError, 'ERR_ALIAS', /overlaps another argument/],
  crossEntropy,
  (a) => {
    const memory = a.watch(new Uint8Array(64));
    return {
      input: a.input(),
      target: new Int32Array(memory.buffer, 32, 4),
      options: { out: { grad: { data: new Float32Array(memory.buffer, 0, 12), shape: [4, 3] } } },
    };
  },
);
refuses(
  'out in the memory of gradOutput',
  [RangeError, 'ERR_ALIAS', /overlaps another argument/],
  none,
  (a) => {
    const memory = a.watch(new Float32Array(12).fill(0.5));
    return {
      input: a.input(),
      target: a.labels(0, 1, 2, 0),
      options: { gradOutput: memory.subarray(4, 8), out: { grad: { data: memory, shape: [4, 3] } } },
    };
  },
);
refuses(
  'out whose rows are one row',
  [RangeError, 'ERR_ALIAS', /out\.grad share memory \(strides \[0, 1\]\)/],
  crossEntropy,
  withOptions((a) => ({ out: { grad: { data: a.out().data, shape: [4, 3], strides: [0, 1] } } })),
);
refuses(
  'out whose rows overlap',
  [RangeError, 'ERR_ALIAS', /out\.grad share memory \(strides \[2, 1\]\)/],
  crossEntropy,
  withOptions((a) => ({ out: { grad: { data: a.out().data, shape: [4, 3], strides: [2, 1] } } })),
);
refuses(
  'out that has no row',
  [RangeError, 'ERR_SHAPE', /strides \[30, 10, 3\] can't be written to row by row/],
  softTarget,
  (a) => ({
    input: a.input([2, 2, 3]),
    target: a.input([2, 2, 3]),
    options: { out: { grad: { data: a.out([60]).data, shape: [2, 2, 3], strides: [30, 10, 3] } } },
  }),
);

refuses(
  'out of nested arrays',
  [TypeError, 'ERR_DTYPE', /expected out\.grad as a tensor or a typed array, .*got an array of length 4$/],
  crossEntropy,
  withOptions(() => ({ out: { grad: new Array(4).fill([0, 0, 0]) } })),
);

// ---- out.value

/** `value` as the memory for the loss, in all four calls. */
const withValue = (value: (a: Arena) => unknown) => (a: Arena) => ({
  ...withOptions((arena) => ({ out: { value: value(arena) } }))(a),
  forward: true,
});
refuses(
  'out.value of another dtype',
  [TypeError, 'ERR_DTYPE', /expected out\.value of the output's dtype float32, got float64/],
  crossEntropy,
  withValue((a) => a.out([], 'float64')),
);
refuses(
  'out.value of the dtype of a half precision input',
  [TypeError, 'ERR_DTYPE', /expected out\.value of the output's dtype float32, got float16/],
  crossEntropy,
  (a) => ({ ...withValue((arena) => arena.out([], 'float16'))(a), input: a.input([4, 3], 'float16') }),
);
refuses(
  'out.value in float32 of a float64 input',
  [TypeError, 'ERR_DTYPE', /expected out\.value of the output's dtype float64, got float32/],
  crossEntropy,
  (a) => ({ ...withValue((arena) => arena.out([]))(a), input: a.input([4, 3], 'float64') }),
);
refuses(
  'out.value of one dimension for a mean',
  [RangeError, 'ERR_SHAPE', /out\.value of the output's shape \[\], got \[1\]/],
  crossEntropy,
  withValue((a) => a.out([1])),
);
refuses(
  'out.value of another length',
  [RangeError, 'ERR_SHAPE', /out\.value of the output's shape \[4\], got \[3\]/],
  none,
  withValue((a) => a.out([3])),
);
refuses(
  "out.value of the input's shape",
  [RangeError, 'ERR_SHAPE', /out\.value of the output's shape \[4\], got \[4, 3\]/],
  none,
  withValue((a) => a.out()),
);
refuses(
  'out.value of a row each for a loss of elements',
  [RangeError, 'ERR_SHAPE', /out\.value of the output's shape \[4, 3\], got \[4\]/],
  () => new BinaryCrossEntropy({ reduction: 'none' }),
  withValue((a) => a.out([4])),
);
refuses(
  'out.value with gaps',
  [RangeError, 'ERR_SHAPE', /expected contiguous memory as out\.value, got strides \[2\]/],
  none,
  withValue((a) => ({ data: a.out([8]).data, shape: [4], strides: [2] })),
);
refuses(
  'out.value whose elements are one',
  [RangeError, 'ERR_SHAPE', /expected contiguous memory as out\.value, got strides \[0\]/],
  none,
  withValue((a) => ({ data: a.out([8]).data, shape: [4], strides: [0] })),
);
refuses(
  'out.value as a number',
  [TypeError, 'ERR_DTYPE', /expected out\.value as a tensor or a typed array, .*got 0$/],
  crossEntropy,
  withValue(() => 0),
);
refuses(
  'out.value of plain numbers',
  [TypeError, 'ERR_DTYPE', /expected out\.value as a tensor or a typed array, .*got an array of length 4$/],
  none,
  withValue(() => [0, 0, 0, 0]),
);
refuses(
  'detached out.value',
  [TypeError, 'ERR_DISPOSED', /out\.value: its buffer is detached/],
  crossEntropy,
  withValue((a) => ({ data: a.detached(new Float32Array(1)), shape: [] })),
);
refuses(
  'disposed out.value',
  [TypeError, 'ERR_DISPOSED', /disposed/],
  crossEntropy,
  withValue((a) => a.disposed([])),
);
for (const [name, make] of [
  ['the input', (memory: Float32Array) => ({ input: tensor(memory.subarray(3, 15), { shape: [4, 3] }) })],
  ['the labels', (memory: Float32Array) => ({ target: new Int32Array(memory.buffer, 12, 4).fill(0) })],
] as const) {
  refuses(
    `out.value in the memory of ${name}`,
    [RangeError, 'ERR_ALIAS', /out\.value overlaps another argument/],
    none,
    (a) => {
      const memory = new Float32Array(16);
      const args = {
        ...withValue(() => tensor(memory.subarray(0, 4), { shape: [4] }))(a),
        ...make(memory),
      };
      a.watch(memory);
      return args;
    },
  );
}
refuses(
  'the loss in the memory of one logit',
  [RangeError, 'ERR_ALIAS', /out\.value overlaps another argument/],
  crossEntropy,
  (a) => {
    const input = a.input();
    const value = { data: (input.data as Float32Array).subarray(11), shape: [] };
    return { ...withValue(() => value)(a), input };
  },
);
refuses(
  'out.value in the memory of the soft target',
  [RangeError, 'ERR_ALIAS', /out\.value overlaps another argument/],
  () => new KLDivLoss({ reduction: 'none' }),
  (a) => {
    const target = a.input();
    return { ...withValue(() => target)(a), target };
  },
);
refuses(
  'out.value in the memory of gradOutput',
  [RangeError, 'ERR_ALIAS', /out\.value overlaps another argument/],
  none,
  withOptions((a) => {
    const gradOutput = a.out([4]);
    return { gradOutput, out: { value: gradOutput } };
  }),
);
refuses(
  'out.value in the memory of out.grad',
  [RangeError, 'ERR_ALIAS', /out\.value overlaps another argument/],
  none,
  withOptions((a) => {
    const grad = a.out();
    return { out: { grad, value: (grad.data as Float32Array).subarray(8) } };
  }),
);
rejects(
  'out.grad of forward',
  [TypeError, 'ERR_OPTION', /out: unknown option 'grad'; it takes: value$/],
  (a) => crossEntropy().forward(a.input(), a.labels(0, 1, 2, 0), untyped({ out: { grad: a.out() } })),
);

// ---- devices and threads

for (const device of ['cuda', 'cuda:1']) {
  refuses(
    `device '${device}'`,
    [Error, 'ERR_CUDA_UNAVAILABLE', /^device 'cuda' is not available: /],
    crossEntropy,
    withOptions((a) => ({ device, out: { grad: a.out() } })),
  );
}
for (const [device, shown] of [
  ['tpu', "'tpu'"],
  ['cuda:x', "'cuda:x'"],
  ['CPU', "'CPU'"],
  [0, '0'],
  [null, 'null'],
] as const) {
  refuses(
    `device ${shown}`,
    [TypeError, 'ERR_OPTION', new RegExp(`'cpu', 'cuda' or 'cuda:N' for device, got ${shown}$`)],
    crossEntropy,
    withOptions((a) => ({ device, out: { grad: a.out() } })),
  );
}
rejects("tensor on 'cuda'", [Error, 'ERR_CUDA_UNAVAILABLE', /^device 'cuda' is not available: /], () =>
  tensor([1], { device: 'cuda' }),
);
rejects("to('cuda:0')", [Error, 'ERR_CUDA_UNAVAILABLE', /^device 'cuda' is not available: /], (a) =>
  a.input().to('cuda:0'),
);
rejects("to('gpu')", [TypeError, 'ERR_OPTION', /'cpu', 'cuda' or 'cuda:N' for device, got 'gpu'/], (a) =>
  a.input().to(untyped('gpu')),
);
for (const count of [0, -1, 1.5, NaN, 1e9]) {
  rejects(
    `setNumThreads(${count})`,
    [RangeError, 'ERR_OPTION', new RegExp(`integer in \\[1, 1024\\] for count, got ${count}$`)],
    () => setNumThreads(count),
  );
}
rejects(
  'setNumThreads of a string',
  [TypeError, 'ERR_OPTION', /integer in \[1, 1024\] for count, got '2'/],
  () => setNumThreads(untyped('2')),
);

// ---- memory that is gone

refuses(
  'a detached input',
  [TypeError, 'ERR_DISPOSED', /input: its buffer is detached/],
  crossEntropy,
  (a) => ({
    input: { data: a.detached(new Float32Array(12)), shape: [4, 3] },
    target: a.labels(0, 1, 2, 0),
  }),
);
refuses(
  'a tensor that was detached since',
  [TypeError, 'ERR_DISPOSED', /input: its buffer is detached/],
  crossEntropy,
  (a) => {
    const data = new Float32Array(12);
    const input = tensor(data, { shape: [4, 3] });
    structuredClone(data.buffer, { transfer: [data.buffer] });
    return { input, target: a.labels(0, 1, 2, 0) };
  },
);
refuses(
  'a detached target',
  [TypeError, 'ERR_DISPOSED', /target: its buffer is detached/],
  softTarget,
  (a) => ({
    input: a.input(),
    target: { data: a.detached(new Float32Array(12)), shape: [4, 3] },
  }),
);
refuses(
  'detached labels',
  [TypeError, 'ERR_DISPOSED', /target: its buffer is detached/],
  crossEntropy,
  (a) => ({
    input: a.input(),
    target: { data: a.detached(new Int32Array(4)), dims: [4], type: 'int32' },
  }),
);
refuses('a disposed input', [TypeError, 'ERR_DISPOSED', /disposed/], crossEntropy, (a) => ({
  input: a.disposed(),
  target: a.labels(0, 1, 2, 0),
}));
refuses('a disposed target', [TypeError, 'ERR_DISPOSED', /disposed/], softTarget, (a) => ({
  input: a.input(),
  target: a.disposed(),
}));
refuses(
  'a tensor whose buffer shrank since',
  [TypeError, 'ERR_DISPOSED', /input: its buffer is detached.*or resized/],
  crossEntropy,
  (a) => {
    const buffer = resizable(48, 96);
    const input = tensor(new Float32Array(buffer), { shape: [4, 3] });
    buffer.resize(16);
    return { input, target: a.labels(0, 1, 2, 0) };
  },
);
rejects('data of a disposed tensor', [TypeError, 'ERR_DISPOSED', /disposed/], (a) => a.disposed().data);
rejects('toArray() of a disposed tensor', [TypeError, 'ERR_DISPOSED', /disposed/], (a) =>
  a.disposed().toArray(),
);
rejects('item() of a disposed tensor', [TypeError, 'ERR_DISPOSED', /disposed/], (a) =>
  a.disposed([1]).item(),
);
rejects('to() of a disposed tensor', [TypeError, 'ERR_DISPOSED', /disposed/], (a) => a.disposed().to('cpu'));
rejects('toArray() of a detached tensor', [TypeError, 'ERR_DISPOSED', /detached/], () => {
  const data = new Float32Array(3);
  const gone = tensor(data);
  structuredClone(data.buffer, { transfer: [data.buffer] });
  return gone.toArray();
});

// ---- tensors

rejects(
  'rows of different length',
  [RangeError, 'ERR_SHAPE', /ragged: expected length 2 at depth 1, got an array of length 3/],
  () =>
    tensor([
      [1, 2],
      [1, 2, 3],
    ]),
);
rejects('a number among rows', [RangeError, 'ERR_SHAPE', /ragged: expected length 2 at depth 1, got 3/], () =>
  tensor([[1, 2], 3]),
);
rejects('a row among numbers', [RangeError, 'ERR_SHAPE', /one shape, got an array of length 2/], () =>
  tensor([3, [1, 2]]),
);
rejects(
  'strings in nested arrays',
  [TypeError, 'ERR_DTYPE', /expected numbers in nested arrays.*got '2'/],
  () => tensor(untyped([[1, '2']])),
);
rejects(
  'null in nested arrays',
  [TypeError, 'ERR_DTYPE', /expected numbers in nested arrays.*got null/],
  () => tensor(untyped([1, null])),
);
rejects('an unknown dtype', [TypeError, 'ERR_DTYPE', /dtype among float32, .*got 'float8'/], () =>
  tensor([1], { dtype: untyped('float8') }),
);
rejects(
  'an unknown dtype of a typed array',
  [TypeError, 'ERR_DTYPE', /dtype among float32, .*got 'toString'/],
  (a) => tensor(a.input().data, { dtype: untyped('toString') }),
);
rejects(
  'a dtype that the array does not hold',
  [TypeError, 'ERR_DTYPE', /bfloat16 is held by Uint16Array, got a value of type Float32Array/],
  (a) => tensor(a.input().data, { dtype: 'bfloat16' }),
);
rejects(
  'a fraction as an integer',
  [TypeError, 'ERR_DTYPE', /expected integers, but element 1 is 0\.5/],
  () => tensor([1, 0.5], { dtype: 'int32' }),
);
rejects(
  'a number that int8 does not hold',
  [RangeError, 'ERR_DTYPE', /element 1 is 300, which int8 does not hold/],
  () => tensor([1, 300], { dtype: 'int8' }),
);
rejects(
  'a negative number that uint32 does not hold',
  [RangeError, 'ERR_DTYPE', /element 0 is -1, which uint32 does not hold/],
  () => tensor([-1], { dtype: 'uint32' }),
);
rejects(
  'a number that int64 does not hold',
  [RangeError, 'ERR_DTYPE', /element 0 is 9223372036854776000, which int64 does not hold/],
  () => tensor([2 ** 63], { dtype: 'int64' }),
);
rejects(
  'fewer elements than the shape has',
  [RangeError, 'ERR_SHAPE', /shape \[4, 4\] has 16 elements, but data has 12/],
  (a) => tensor(a.input().data, { shape: [4, 4] }),
);
rejects(
  'more elements than the shape has',
  [RangeError, 'ERR_SHAPE', /shape \[2, 3\] has 6 elements, but data has 12/],
  (a) => tensor(a.input().data, { shape: [2, 3] }),
);
rejects('a negative size', [TypeError, 'ERR_SHAPE', /shape of non-negative integers, got \[-4, -3\]/], (a) =>
  tensor(a.input().data, { shape: [-4, -3] }),
);
rejects(
  'a fractional size',
  [TypeError, 'ERR_SHAPE', /shape of non-negative integers, got \[1\.5, 8\]/],
  (a) => tensor(a.input().data, { shape: [1.5, 8] }),
);
rejects('a number as shape', [TypeError, 'ERR_SHAPE', /shape of non-negative integers, got 12/], (a) =>
  tensor(a.input().data, { shape: untyped(12) }),
);
rejects(
  'strides of another rank',
  [RangeError, 'ERR_SHAPE', /stride for each dimension of \[4, 3\], got \[1\]/],
  (a) => tensor(a.input().data, { shape: [4, 3], strides: [1] }),
);
rejects(
  'strides that reach too far',
  [RangeError, 'ERR_SHAPE', /shape \[4, 3\] with strides \[4, 1\] reaches 15 elements, but data has 12/],
  (a) => tensor(a.input().data, { shape: [4, 3], strides: [4, 1] }),
);
rejects('negative strides', [TypeError, 'ERR_SHAPE', /strides.*non-negative integers, got \[-3, 1\]/], (a) =>
  tensor(a.input().data, { shape: [4, 3], strides: [-3, 1] }),
);
rejects(
  'a DataView',
  [TypeError, 'ERR_DTYPE', /expected a typed array as data, got a value of type DataView/],
  (a) => tensor(untyped(new DataView(a.input().data.buffer))),
);
rejects(
  'an ArrayBuffer',
  [TypeError, 'ERR_DTYPE', /expected a Tensor.*got a value of type ArrayBuffer/],
  () => tensor(untyped(new ArrayBuffer(8))),
);
rejects('an object without data', [TypeError, 'ERR_DTYPE', /expected a Tensor.*got an object/], () =>
  tensor(untyped({ shape: [1] })),
);
rejects('data without shape or dims', [TypeError, 'ERR_DTYPE', /expected a Tensor.*got an object/], (a) =>
  tensor(untyped({ data: a.input().data })),
);
rejects('a function', [TypeError, 'ERR_DTYPE', /expected a Tensor.*got a function/], () =>
  tensor(untyped(() => 1)),
);
rejects(
  'a tensor of strings',
  [TypeError, 'ERR_DTYPE', /expected a typed array as data, got an array of length 1/],
  () => tensor({ data: ['a'], dims: [1], type: 'string' }),
);
rejects('an unknown type', [TypeError, 'ERR_DTYPE', /dtype among float32, .*got 'complex64'/], (a) =>
  tensor({ data: a.input().data, dims: [4, 3], type: 'complex64' }),
);
rejects(
  'a type that the array does not hold',
  [TypeError, 'ERR_DTYPE', /int64 is held by BigInt64Array, got a value of type Int32Array/],
  (a) => tensor({ data: a.labels(1, 2), dims: [2], type: 'int64' }),
);
rejects(
  'dims for another number of elements',
  [RangeError, 'ERR_SHAPE', /shape \[5, 3\] has 15 elements, but data has 12/],
  (a) => tensor({ data: a.input().data, dims: [5, 3], type: 'float32' }),
);
rejects('a tensor in device memory', [TypeError, 'ERR_DTYPE', /host memory, got location 'gpu-buffer'/], () =>
  tensor({ data: undefined, dims: [1], type: 'float32', location: 'gpu-buffer' }),
);
rejects(
  'an unknown option of tensor()',
  [TypeError, 'ERR_OPTION', /tensor: unknown option 'dims'; it takes: shape, dtype, strides, device/],
  () => tensor([1], untyped({ dims: [1] })),
);
rejects('item() of many elements', [RangeError, 'ERR_SHAPE', /one element, got shape \[4, 3\]/], (a) =>
  a.input().item(),
);

// ---- functional

rejects(
  'softmax along a dimension that is not there',
  [RangeError, 'ERR_OPTION', /integer in \[-2, 2\) for dim, got 2/],
  (a) => F.softmax(a.input(), { dim: 2 }),
);
rejects(
  'logSoftmax along a negative dimension that is not there',
  [RangeError, 'ERR_OPTION', /integer in \[-2, 2\) for dim, got -3/],
  (a) => F.logSoftmax(a.input(), { dim: -3 }),
);
rejects(
  'softmax along half a dimension',
  [RangeError, 'ERR_OPTION', /integer in \[-2, 2\) for dim, got 0\.5/],
  (a) => F.softmax(a.input(), { dim: 0.5 }),
);
rejects(
  'softmax along a name',
  [TypeError, 'ERR_OPTION', /integer in \[-2, 2\) for dim, got 'classes'/],
  (a) => F.softmax(a.input(), { dim: untyped('classes') }),
);
rejects(
  'softmax of a number along dimension 1',
  [RangeError, 'ERR_OPTION', /integer in \[-1, 1\) for dim, got 1/],
  () => F.softmax(1, { dim: 1 }),
);
rejects(
  'softmax: a number as options',
  [TypeError, 'ERR_OPTION', /softmax: expected options as an object, got 1/],
  (a) => F.softmax(a.input(), untyped(1)),
);
rejects(
  'softmax of integers',
  [TypeError, 'ERR_DTYPE', /softmax: expected input of dtype float32.*got int32/],
  (a) => F.softmax(a.labels(1, 2)),
);
rejects(
  'softmax of nothing',
  [RangeError, 'ERR_SHAPE', /softmax: expected a non-empty input, got shape \[0, 3\]/],
  (a) => F.softmax(a.input([0, 3])),
);
rejects('logSoftmax of detached memory', [TypeError, 'ERR_DISPOSED', /input: its buffer is detached/], (a) =>
  F.logSoftmax(a.detached(new Float32Array(12))),
);
rejects(
  'logSoftmaxBackward of two shapes',
  [RangeError, 'ERR_SHAPE', /output's shape \[4, 3\], got \[3, 4\]/],
  (a) => F.logSoftmaxBackward(a.input([3, 4]), a.input([4, 3])),
);
rejects(
  'softmaxBackward of two shapes',
  [RangeError, 'ERR_SHAPE', /output's shape \[4, 3\], got \[4\]/],
  (a) => F.softmaxBackward(a.input([4]), a.input([4, 3])),
);
rejects(
  'softmaxBackward of an integer output',
  [TypeError, 'ERR_DTYPE', /expected output of dtype float32.*got int32/],
  (a) => F.softmaxBackward(a.input([3]), a.labels(0, 0, 1)),
);
rejects(
  'softmaxBackward along a dimension that is not there',
  [RangeError, 'ERR_OPTION', /integer in \[-1, 1\) for dim, got 1/],
  (a) => F.softmaxBackward(a.input([3]), a.input([3]), { dim: 1 }),
);
for (const name of ['softmax', 'logSoftmax', 'gather', 'softmaxBackward', 'logSoftmaxBackward'] as const) {
  const unknown: Expected = [
    TypeError,
    'ERR_OPTION',
    new RegExp(`^${name}: unknown option 'axis'; it takes: dim$`),
  ];
  rejects(`${name}: an unknown option`, unknown, (a) =>
    name === 'softmax' || name === 'logSoftmax'
      ? F[name](a.input(), untyped({ axis: 1 }))
      : F[name](a.input(), a.input(), untyped({ axis: 1 })),
  );
}
rejects('F.crossEntropy: a label out of range', outOfRange(3, 4), (a) =>
  F.crossEntropy(a.input(), a.labels(0, 1, 2, 4)),
);
rejects(
  'F.crossEntropy: an unknown option',
  [TypeError, 'ERR_OPTION', /unknown option 'smoothing'; it takes: .*labelSmoothing/],
  (a) => F.crossEntropy(a.input(), a.labels(0, 1, 2, 0), untyped({ smoothing: 0.1 })),
);
rejects('F.nllLoss: too few labels', labelShape('[4]', '[2]'), (a) => F.nllLoss(a.input(), a.labels(0, 1)));
rejects(
  'F.klDiv: a target of another shape',
  [RangeError, 'ERR_SHAPE', /input's shape \[4, 3\], got \[4, 4\]/],
  (a) => F.klDiv(a.input(), a.input([4, 4])),
);
rejects(
  'F.lensedCrossEntropy: a lens that is not square',
  [RangeError, 'ERR_SHAPE', /square confusionLens \[C, C\], got \[3, 4\]/],
  (a) => F.lensedCrossEntropy(a.input(), a.labels(0, 1, 2, 0), a.input([3, 4])),
);
rejects(
  'F.lensedCrossEntropy: no lens',
  [TypeError, 'ERR_OPTION', /expected the option confusionLens/],
  (a) => F.lensedCrossEntropy(a.input(), a.labels(0, 1, 2, 0), untyped(undefined)),
);
rejects(
  'F.lensedCrossEntropy: an unknown option',
  [TypeError, 'ERR_OPTION', /lensedCrossEntropy: unknown option 'confusionLens'; it takes: reduction$/],
  (a) =>
    F.lensedCrossEntropy(a.input(), a.labels(0, 1, 2, 0), identity, untyped({ confusionLens: identity })),
);
rejects('oneHot: a label out of range', outOfRange(2, 5), (a) => F.oneHot(a.labels(0, 1, 5), 3));
rejects('oneHot: a negative label', outOfRange(1, -1), (a) => F.oneHot(a.labels(2, -1)));
rejects('oneHot: a negative BigInt label', outOfRange(1, -1n), (a) =>
  F.oneHot(a.watch(BigInt64Array.of(2n, -1n)), 3),
);
rejects('oneHot: numClasses 0', [RangeError, 'ERR_OPTION', /at least 1 for numClasses, or -1.*got 0/], (a) =>
  F.oneHot(a.labels(0), 0),
);
rejects(
  'oneHot: numClasses 2.5',
  [RangeError, 'ERR_OPTION', /at least 1 for numClasses, or -1.*got 2\.5/],
  (a) => F.oneHot(a.labels(0), 2.5),
);
rejects(
  'oneHot: numClasses as a string',
  [TypeError, 'ERR_OPTION', /at least 1 for numClasses, or -1.*got '3'/],
  (a) => F.oneHot(a.labels(0), untyped('3')),
);
rejects(
  'oneHot: float labels',
  [TypeError, 'ERR_DTYPE', /oneHot: expected target of an integer dtype, got float32/],
  (a) => F.oneHot(a.input([3])),
);
rejects('oneHot: a result that no memory holds', [RangeError, 'ERR_OUT_OF_MEMORY', /1099511627777/], () =>
  F.oneHot([2 ** 40]),
);
rejects(
  'oneHot: no label to take numClasses from',
  [RangeError, 'ERR_SHAPE', /empty target of shape \[0\]; give numClasses/],
  (a) => F.oneHot(a.labels()),
);
rejects(
  'gather: an index of another rank',
  [RangeError, 'ERR_SHAPE', /input's rank.*\[4, 3\], got \[4\]/],
  (a) => F.gather(a.input(), a.labels(0, 1, 2, 0)),
);
rejects(
  'gather: an index with more rows',
  [RangeError, 'ERR_SHAPE', /dimension 1, of at most its sizes \[4, 3\], got \[5, 1\]/],
  (a) => F.gather(a.input(), { data: a.labels(0, 1, 2, 0, 1), shape: [5, 1] }),
);
rejects(
  'gather: an index out of range',
  [
    RangeError,
    'ERR_TARGET_OUT_OF_RANGE',
    /indices in \[0, 3\) for input of shape \[4, 3\], but index \[2, 0\] has 3/,
  ],
  (a) => F.gather(a.input(), { data: a.labels(0, 1, 3, 0), shape: [4, 1] }),
);
rejects(
  'gather: a negative BigInt index',
  [
    RangeError,
    'ERR_TARGET_OUT_OF_RANGE',
    /indices in \[0, 4\) for input of shape \[4, 3\], but index \[0, 1\] has -1/,
  ],
  (a) => F.gather(a.input(), { data: a.watch(BigInt64Array.of(0n, -1n)), shape: [1, 2] }, { dim: 0 }),
);
rejects(
  'gather: a float index',
  [TypeError, 'ERR_DTYPE', /gather: expected index of an integer dtype, got float32/],
  (a) => F.gather(a.input(), a.input()),
);
rejects(
  'gather: a dimension that is not there',
  [RangeError, 'ERR_OPTION', /integer in \[-2, 2\) for dim, got 5/],
  (a) => F.gather(a.input(), a.input([4, 3], 'int32'), { dim: 5 }),
);

/** What ES2024 calls `new ArrayBuffer(length, { maxByteLength })`. */
function resizable(length: number, maxByteLength: number): ArrayBuffer & { resize(length: number): void } {
  const Resizable = ArrayBuffer as unknown as new (
    length: number,
    options: { maxByteLength: number },
  ) => ArrayBuffer & { resize(length: number): void };
  return new Resizable(length, { maxByteLength });
}

describe('bad input', () => {
  it('has a name for every row, and one row a name', () => {
    assert.equal(new Set(rows.map(({ name }) => name)).size, rows.length);
  });

  for (const { name, expected, call, loss, args } of rows) {
    it(name, async () => {
      if (call !== undefined) {
        const arena = new Arena();
        assert.throws(
          () => call(arena),
          (error) => assertError(error, expected),
        );
        arena.assertUnchanged();
        return;
      }
      const criterion = loss!();
      const attempt = async (method: 'forward' | 'valueAndGrad', off: '' | 'Async') => {
        const arena = new Arena();
        const { input, target, options } = args!(arena);
        let given = options;
        if (method === 'valueAndGrad' && options === undefined && arena.lastInput !== undefined) {
          given = { out: { grad: arena.out(arena.lastInput.shape, arena.lastInput.dtype) } };
        }
        const run = () =>
          criterion[`${method}${off}`](input as TensorLike, target as TensorLike, untyped(given));
        const check = (error: unknown) => assertError(error, expected);
        if (off === '') assert.throws(run, check);
        else await assert.rejects(run() as Promise<unknown>, check);
        arena.assertUnchanged();
      };
      await attempt('valueAndGrad', '');
      await attempt('valueAndGrad', 'Async');
      const { options, forward = options === undefined } = args!(new Arena());
      if (!forward) return;
      await attempt('forward', '');
      await attempt('forward', 'Async');
    });
  }
});

describe('bad input of asynchronous calls', () => {
  const call = (arena: Arena, options: unknown) =>
    crossEntropy().valueAndGradAsync(arena.input(), arena.labels(0, 1, 2, 0), untyped(options));

  for (const [shown, signal] of [
    ['an object', {}],
    ['true', true],
    ['null', null],
    ['a value of type AbortController', new AbortController()],
  ] as const) {
    it(`signal: ${shown}`, async () => {
      const arena = new Arena();
      const expected: Expected = [
        TypeError,
        'ERR_OPTION',
        new RegExp(`expected an AbortSignal for signal, got ${shown}$`),
      ];
      await assert.rejects(call(arena, { signal, out: { grad: arena.out() } }), (error) =>
        assertError(error, expected),
      );
      arena.assertUnchanged();
    });
  }

  for (const part of ['input', 'target', 'gradOutput', 'out'] as const) {
    it(`a resizable buffer as ${part}`, async () => {
      const arena = new Arena();
      const criterion = new SoftTargetCrossEntropy();
      const perRow = new KLDivLoss({ reduction: 'none' });
      const shrinkable = { data: arena.watch(new Float32Array(resizable(48, 96))), shape: [4, 3] };
      const given = (name: string) => (name === part ? shrinkable : arena.input());
      const run =
        part === 'gradOutput'
          ? perRow.valueAndGradAsync(arena.input(), arena.input(), {
              gradOutput: shrinkable,
              out: { grad: arena.out() },
            })
          : criterion.valueAndGradAsync(given('input'), given('target'), {
              out: { grad: part === 'out' ? shrinkable : arena.out() },
            });
      const expected: Expected = [
        TypeError,
        'ERR_DTYPE',
        /can't work in a resizable ArrayBuffer.*pass a copy/,
      ];
      await assert.rejects(run, (error) => assertError(error, expected));
      arena.assertUnchanged();
    });
  }

  it('throws nothing before it returns its promise', async () => {
    const arena = new Arena();
    const promise = call(arena, { unknown: 1 });
    assert.ok(promise instanceof Promise);
    await assert.rejects(promise, { code: 'ERR_OPTION' });
  });
});
