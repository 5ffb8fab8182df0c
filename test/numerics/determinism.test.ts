import assert from 'node:assert/strict';
import { getNumThreads, setNumThreads, tensor, type Tensor } from 'surprisal';
import { makeBatch, select, selectRows } from '../support/batches.js';
import { assertSameTensor } from '../support/bits.js';
import { floatDTypes, floatTensor, valuesOf } from '../support/float_formats.js';
import {
  formsOf,
  lossClasses,
  makeTarget,
  remembered,
  rowsPerSample,
  unless,
  type LossClass,
  type Options,
} from '../support/losses.js';
import { Samples } from '../support/random.js';

/** The default reduction, and one value a row where the loss can give it. */
const reductionsOf = (Class: LossClass): readonly Options[] =>
  [{}, { reduction: 'none' }].filter((options) => unless(['ERR_OPTION'], () => Class.create(2, options)));

const threadCounts = [1, 2, 3, 8];

/** Runs `results` on every number of threads and compares with what one thread gives. */
function assertSameOnAllThreads(what: string, results: () => Readonly<Record<string, Tensor>>): void {
  const single: Record<string, Tensor> = {};
  for (const count of threadCounts) {
    setNumThreads(count);
    for (const [part, result] of Object.entries(results())) {
      single[part] ??= result;
      assertSameTensor(result, single[part], `${what}: ${part} on ${count} threads, against one`);
    }
  }
}

/** Far more than one thread's share, whatever the driver: 600,000 elements, in many rows or in few. */
const shapes = [
  { rows: 600, classes: 1003 },
  { rows: 6, classes: 100_003 },
];

/** Classes in dimension 1 of four, as many elements again. */
const spatialShape = [2, 5, 250, 251];

function spatialBatch(): { input: Tensor; target: Tensor } {
  const [n, classes, height, width] = spatialShape as [number, number, number, number];
  const samples = new Samples(3);
  return {
    input: floatTensor(samples.normals(n * classes * height * width, 3), spatialShape, 'float32'),
    target: tensor(samples.labels(n * height * width, classes), { shape: [n, height, width] }),
  };
}

describe('determinism: every number of threads gives the same bits', () => {
  const before = getNumThreads();
  afterEach(() => setNumThreads(before));

  for (const Class of lossClasses) {
    for (const dtype of floatDTypes) {
      it(`${Class.name}, ${dtype}`, () => {
        for (const { rows, classes } of shapes) {
          if (Class.perClassOptions && classes > 10_000) continue;
          const input = remembered('large', [rows, classes], dtype, () =>
            new Samples(2).normals(rows * classes, 3),
          );
          for (const options of reductionsOf(Class)) {
            const loss = Class.create(classes, options);
            for (const form of formsOf(Class, options)) {
              const target = makeTarget(form, rows, classes, dtype);
              const reduction = options['reduction'] === 'none' ? 'none' : 'default reduction';
              assertSameOnAllThreads(`${rows}x${classes}, ${form}, ${reduction}`, () => ({
                forward: loss.forward(input, target),
                ...loss.valueAndGrad(input, target),
              }));
            }
          }
        }
      });
    }
  }

  it('every loss that takes classes in dimension 1', () => {
    const { input, target } = spatialBatch();
    const taken = lossClasses.filter((Class) => {
      const loss = Class.create(spatialShape[1]!);
      const forward = () => loss.forward(input, target);
      if (unless(['ERR_SHAPE', 'ERR_DTYPE'], forward) === undefined) return false;
      assertSameOnAllThreads(Class.name, () => ({ forward: forward(), ...loss.valueAndGrad(input, target) }));
      return true;
    });
    assert.ok(
      taken.length >= 2,
      `expected CrossEntropyLoss and NLLLoss at least, got ${taken.length} losses`,
    );
  });
});

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Fewer than a vector, not a multiple of one, many vectors and a tail. */
const classCounts = [5, 17, 1003];

describe('determinism: a row is the same alone, in a batch of 1000 and at another place in it', () => {
  for (const Class of lossClasses) {
    const perRow = unless(['ERR_OPTION'], () => Class.create(2, { reduction: 'none' })) !== undefined;
    for (const dtype of floatDTypes) {
      it(`${Class.name}, ${dtype}`, () => {
        const group = rowsPerSample(Class);
        const options = perRow ? { reduction: 'none' } : {};
        // Where only a mean can be had, gradOutput takes its denominator back. That is exact, and a difference in
        // the rows' own bits, only for a power of two.
        const samples = perRow ? 1000 : 1024;
        for (const classes of classCounts) {
          const loss = Class.create(classes, options);
          const scale = loss.reduction === 'mean' ? (n: number) => ({ gradOutput: n }) : () => ({});
          for (const form of formsOf(Class, options)) {
            const batch = makeBatch(form, samples, group, classes, dtype);
            const whole = loss.valueAndGrad(batch.input, batch.target, scale(samples));

            for (const i of [0, 1, 2, 357, samples - 1]) {
              const alone = select(batch, [i]);
              const { value, grad } = loss.valueAndGrad(alone.input, alone.target, scale(1));
              const what = `${form}, C = ${classes}, row ${i} alone`;
              assertSameTensor(grad, selectRows(whole.grad, batch, [i]), `${what}: gradient`);
              if (perRow) assertSameTensor(value, selectRows(whole.value, batch, [i]), `${what}: loss`);
            }

            const order = range(samples).map((i) => (i + 13) % samples);
            const moved = select(batch, order);
            const { value, grad } = loss.valueAndGrad(moved.input, moved.target, scale(samples));
            const what = `${form}, C = ${classes}, rows moved by 13`;
            assertSameTensor(grad, selectRows(whole.grad, batch, order), `${what}: gradient`);
            if (perRow) assertSameTensor(value, selectRows(whole.value, batch, order), `${what}: loss`);
          }
        }
      });
    }
  }

  for (const Class of lossClasses) {
    it(`${Class.name}: the mean of 1024 copies of a sample is its loss alone`, () => {
      const [copies, classes] = [1024, 17];
      const loss = Class.create(classes);
      for (const dtype of floatDTypes) {
        for (const form of formsOf(Class)) {
          const one = makeBatch(form, 1, rowsPerSample(Class), classes, dtype);
          const many = select(one, new Array<number>(copies).fill(0));
          const alone = loss.forward(one.input, one.target).item();
          const together =
            loss.forward(many.input, many.target).item() / (loss.reduction === 'sum' ? copies : 1);
          // 1024 equal numbers add up in float64 with a rounding each at most, and divide exactly. What is left of
          // that in float32 is nothing.
          const allowed = dtype === 'float64' ? copies * 2 ** -53 : 0;
          const error = Math.abs(together - alone) / Math.abs(alone);
          assert.ok(error <= allowed, `${form}, ${dtype}: alone ${alone}, among copies ${together}`);
        }
      }
    });
  }
});

describe('determinism: from run to run', () => {
  for (const Class of lossClasses) {
    it(`${Class.name} gives the same bits again, and forward those of valueAndGrad`, () => {
      const classes = 1003;
      for (const options of reductionsOf(Class)) {
        const loss = Class.create(classes, options);
        for (const dtype of floatDTypes) {
          for (const form of formsOf(Class, options)) {
            const { input, target } = makeBatch(form, 100, rowsPerSample(Class), classes, dtype);
            const first = loss.valueAndGrad(input, target);
            const second = loss.valueAndGrad(input, target);
            const what = `${form}, ${dtype}`;
            assertSameTensor(second.value, first.value, `${what}: loss, second run`);
            assertSameTensor(second.grad, first.grad, `${what}: gradient, second run`);
            assertSameTensor(loss.forward(input, target), first.value, `${what}: forward`);
            assert.ok(valuesOf(first.value).every(Number.isFinite), `${what}: the loss is finite`);
          }
        }
      }
    });
  }
});
