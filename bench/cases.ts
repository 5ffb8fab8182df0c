/** What is measured: every loss and function of the library, what it has to move at the least, and how it is called. */

import { freemem } from 'node:os';
import { tensor, type FloatDType, type Tensor } from 'surprisal';
import * as losses from 'surprisal/loss';
import type { Loss } from 'surprisal/loss';
import { binding } from './binding.js';
import { firstRows, generator, valuesOf, type Batch } from './data.js';
import type { Traffic } from './floor.js';
import type { Pass } from './results.js';

/** A pass, ready to run on the arrays of a batch. */
export interface PreparedPass {
  readonly pass: Pass;
  /** Of the input, as run. */
  readonly dims: readonly number[];
  readonly floor: Traffic;
  readonly run: () => unknown;
}

export interface Case {
  readonly name: string;
  readonly passes: readonly Pass[];
  /** Why it can't be run on such a batch, if it can't. */
  refuses?(rows: number, classes: number, dtype: FloatDType): string | undefined;
  prepare(batch: Batch): readonly PreparedPass[];
}

const lossPasses: readonly Pass[] = ['forward', 'loss and gradient'];

export const bytesPerElement: Readonly<Record<FloatDType, number>> = {
  float16: 2,
  bfloat16: 2,
  float32: 4,
  float64: 8,
};

/** A loss of class indices: it reads the input, and writes the gradient. */
function ofLabels(name: string, make: () => Loss): Case {
  return {
    name,
    passes: lossPasses,
    prepare: ({ input, grad, labels, shape }) => {
      const loss = make();
      const options = { out: { grad } };
      const [from, to] = [valuesOf(input), valuesOf(grad)];
      return [
        {
          pass: 'forward',
          dims: shape,
          floor: { kind: 'read', reads: [from] },
          run: () => loss.forward(input, labels),
        },
        {
          pass: 'loss and gradient',
          dims: shape,
          floor: { kind: 'copy', copies: [{ from, to }] },
          run: () => loss.valueAndGrad(input, labels, options),
        },
      ];
    },
  };
}

/** A loss of a target of the input's shape: it reads both. */
function ofDense(name: string, make: () => Loss, target: (batch: Batch) => Tensor): Case {
  return {
    name,
    passes: lossPasses,
    prepare: (batch) => {
      const loss = make();
      const { input, grad, shape } = batch;
      const dense = target(batch);
      const options = { out: { grad } };
      const [from, other, to] = [valuesOf(input), valuesOf(dense), valuesOf(grad)];
      return [
        {
          pass: 'forward',
          dims: shape,
          floor: { kind: 'read of both', reads: [from, other] },
          run: () => loss.forward(input, dense),
        },
        {
          pass: 'loss and gradient',
          dims: shape,
          floor: { kind: 'copy and read', reads: [other], copies: [{ from, to }] },
          run: () => loss.valueAndGrad(input, dense, options),
        },
      ];
    },
  };
}

/** Rows come in groups of K: the nearest multiple of K below the batch's rows. */
function jsd(splits: number): Case {
  return {
    name: `JsdCrossEntropy`,
    passes: lossPasses,
    prepare: (batch) => {
      const rows = batch.rows - (batch.rows % splits);
      const loss = new losses.JsdCrossEntropy({ numSplits: splits });
      const [input, grad] = [firstRows(batch.input, rows), firstRows(batch.grad, rows)];
      const options = { out: { grad } };
      const [from, to] = [valuesOf(input), valuesOf(grad)];
      return [
        {
          pass: 'forward',
          dims: input.shape,
          floor: { kind: 'read', reads: [from] },
          run: () => loss.forward(input, batch.labels),
        },
        {
          pass: 'loss and gradient',
          dims: input.shape,
          floor: { kind: 'copy', copies: [{ from, to }] },
          run: () => loss.valueAndGrad(input, batch.labels, options),
        },
      ];
    },
  };
}

/** Of a row only the label's element is read; the gradient is zero elsewhere. */
const nll: Case = {
  name: 'NLLLoss',
  passes: lossPasses,
  prepare: ({ input, grad, labels, shape, classes, dtype }) => {
    const loss = new losses.NLLLoss();
    const options = { out: { grad } };
    const size = bytesPerElement[dtype];
    const gather = {
      from: valuesOf(input),
      indices: labels,
      rowStep: classes * size,
      indexStep: size,
      bytes: size,
    };
    return [
      {
        pass: 'forward',
        dims: shape,
        floor: { kind: "read of the labels' elements", gathers: [gather] },
        run: () => loss.forward(input, labels),
      },
      {
        pass: 'loss and gradient',
        dims: shape,
        floor: {
          kind: "fill, read of the labels' elements",
          gathers: [gather],
          fills: [valuesOf(grad)],
        },
        run: () => loss.valueAndGrad(input, labels, options),
      },
    ];
  },
};

/** Labels that name every row of the lens as often as any other, in no order. */
function evenLabels(rows: number, classes: number): Int32Array {
  const labels = Int32Array.from({ length: rows }, (_, i) => i % classes);
  const random = generator(6);
  for (let i = rows - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [labels[i], labels[j]] = [labels[j]!, labels[i]!];
  }
  return labels;
}

/** A loss over a [C, C] lens, of whose rows it reads the label's. */
const lensed: Case = {
  name: 'LensedCrossEntropy',
  passes: lossPasses,
  refuses: (_rows, classes, dtype) => {
    const bytes = classes ** 2 * bytesPerElement[dtype];
    const gigabytes = (bytes / 1e9).toFixed(1);
    return bytes > freemem() / 3
      ? `a ${classes} × ${classes} lens has ${gigabytes} GB, more than a third of the free memory`
      : undefined;
  },
  prepare: ({ input, grad, soft, rows, classes, dtype, shape }) => {
    const labels = evenLabels(rows, classes);
    const options = { out: { grad } };
    const rowBytes = classes * bytesPerElement[dtype];
    // As many rows as the labels name; the others stay zeros, which take no memory until they are written.
    const values = valuesOf(soft) as Float32Array;
    const lens = new (values.constructor as Float32ArrayConstructor)(classes * classes);
    lens.set(values.subarray(0, lens.length));
    const loss = new losses.LensedCrossEntropy({
      confusionLens: tensor(lens, { shape: [classes, classes], dtype }),
    });
    const gather = { from: lens, indices: labels, rowStep: 0, indexStep: rowBytes, bytes: rowBytes };
    const [from, to] = [valuesOf(input), valuesOf(grad)];
    return [
      {
        pass: 'forward',
        dims: shape,
        floor: {
          kind: "read of the input and the labels' rows of the lens",
          reads: [from],
          gathers: [gather],
        },
        run: () => loss.forward(input, labels),
      },
      {
        pass: 'loss and gradient',
        dims: shape,
        floor: {
          kind: "copy, read of the labels' rows of the lens",
          gathers: [gather],
          copies: [{ from, to }],
        },
        run: () => loss.valueAndGrad(input, labels, options),
      },
    ];
  },
};

type RowMap = 'log_softmax' | 'softmax' | 'log_softmax_backward' | 'softmax_backward';

/**
 * A function from rows to rows, writing to memory that is there: the public functions allocate their result, whose
 * first touch costs the system more than the function.
 */
function rowMap(
  name: RowMap,
  { dtype, rows, classes }: Batch,
  input: Tensor,
  output: Tensor | undefined,
  result: Tensor,
) {
  const header = new Float64Array(binding.fields.length);
  const set = (field: (typeof binding.fields)[number], value: number) =>
    (header[binding.fields.indexOf(field)] = value);
  set(
    'loss',
    binding.losses.findIndex((entry) => entry.name === name),
  );
  set('dtype', binding.dtypes.indexOf(dtype));
  set('reduction', binding.reductions.indexOf('none'));
  set('outer', rows);
  set('inner', 1);
  set('classes', classes);
  for (const array of ['input', 'grad', ...(output ? (['dense'] as const) : [])] as const) {
    set(`${array}OuterStride`, classes);
    set(`${array}InnerStride`, 1);
    set(`${array}ClassStride`, 1);
  }
  if (output) set('denseDtype', binding.dtypes.indexOf(dtype));
  set('ignoreIndex', NaN);
  set('gradOutput', 1);
  const none = undefined;
  const [from, dense, to] = [valuesOf(input), output && valuesOf(output), valuesOf(result)];
  return () => binding.evaluate(header, from, none, to, none, dense);
}

/** softmax or its logarithm: one read and one write; backwards two reads and one write. */
function softmax(name: string, forward: RowMap, backward: RowMap): Case {
  return {
    name,
    passes: ['forward', 'backward'],
    prepare: (batch) => {
      const { input, grad, soft, shape } = batch;
      const [from, other, to] = [valuesOf(input), valuesOf(soft), valuesOf(grad)];
      return [
        {
          pass: 'forward',
          dims: shape,
          floor: { kind: 'copy', copies: [{ from, to }] },
          run: rowMap(forward, batch, input, undefined, grad),
        },
        {
          pass: 'backward',
          dims: shape,
          floor: { kind: 'copy and read', reads: [other], copies: [{ from, to }] },
          run: rowMap(backward, batch, soft, input, grad),
        },
      ];
    },
  };
}

const multiHot = (batch: Batch) => batch.multiHot;
const soft = (batch: Batch) => batch.soft;

export const cases: readonly Case[] = [
  ofLabels('CrossEntropyLoss', () => new losses.CrossEntropyLoss()),
  ofLabels('LabelSmoothingCrossEntropy', () => new losses.LabelSmoothingCrossEntropy()),
  ofDense('SoftTargetCrossEntropy', () => new losses.SoftTargetCrossEntropy(), soft),
  lensed,
  jsd(3),
  ofLabels('BinaryCrossEntropy', () => new losses.BinaryCrossEntropy()),
  ofDense('BinaryCrossEntropy, dense target', () => new losses.BinaryCrossEntropy(), multiHot),
  ofDense('AsymmetricLossMultiLabel', () => new losses.AsymmetricLossMultiLabel(), multiHot),
  ofLabels('AsymmetricLossSingleLabel', () => new losses.AsymmetricLossSingleLabel()),
  nll,
  ofDense('KLDivLoss', () => new losses.KLDivLoss(), soft),
  softmax('logSoftmax', 'log_softmax', 'log_softmax_backward'),
  softmax('softmax', 'softmax', 'softmax_backward'),
];
