/**
 * What a GPU shows only by size or by number: more than 2^31 elements, 10,000 steps, 100 runs. On the emulator the same
 * with less of everything.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { devices, tensor, type FloatDType, type Tensor } from 'surprisal';
import { CrossEntropyLoss, LabelSmoothingCrossEntropy } from 'surprisal/loss';
import { makeBatch } from '../support/batches.js';
import { assertSameBits, assertSameTensor } from '../support/bits.js';
import { allocate, floatDTypes, type FloatArray } from '../support/float_formats.js';
import { formsOf, lossClasses, nativeBinding, rowsPerSample } from '../support/losses.js';

const counts = () => nativeBinding().emulatorCounts?.();
const isEmulated = counts() !== undefined;

const gigabyte = 2 ** 30;

/** Bytes of the first GPU's memory that are in use, by whomever. */
function memoryInUse(): number {
  const emulated = counts();
  if (emulated !== undefined) return emulated.deviceMemory;
  const { stdout } = spawnSync(
    'nvidia-smi',
    ['--id=0', '--query-gpu=memory.used', '--format=csv,noheader,nounits'],
    { encoding: 'utf8' },
  );
  return Number(stdout) * 2 ** 20;
}

describe('a GPU gives the same bits, run after run', () => {
  const runs = isEmulated ? 3 : 100;
  // Lanes of a warp, a block, a cluster or two passes a row.
  const classCounts = isEmulated ? [10, 1003] : [10, 1003, 9001, 50_257, 300_007];

  for (const Class of lossClasses) {
    for (const dtype of floatDTypes) {
      it(`${Class.name}, ${dtype}: ${runs} runs`, () => {
        for (const classes of classCounts) {
          if (Class.perClassOptions && classes > 1003) continue; // a lens grows with C²
          const loss = Class.create(classes);
          const form = formsOf(Class)[0]!;
          const batch = makeBatch(form, isEmulated ? 2 : 6, rowsPerSample(Class), classes, dtype);
          const [input, target] = [batch.input.to('cuda'), batch.target.to('cuda')];
          const first = loss.valueAndGrad(input, target);
          const [value, grad] = [first.value.to('cpu'), first.grad.to('cpu')];
          for (let run = 1; run < runs; run++) {
            const again = loss.valueAndGrad(input, target);
            assertSameTensor(again.value.to('cpu'), value, `${classes} classes: loss, run ${run}`);
            assertSameTensor(again.grad.to('cpu'), grad, `${classes} classes: gradient, run ${run}`);
            again.value.dispose();
            again.grad.dispose();
          }
          for (const each of [input, target, first.value, first.grad]) each.dispose();
        }
      });
    }
  }
});

describe('a tensor of more than 2^31 elements on a GPU', () => {
  it('gives each row the bits that it has in a small batch', function () {
    const dtype: FloatDType = 'bfloat16';
    const [classes, distinct] = isEmulated ? [33, 7] : [32_771, 64];
    const repeats = isEmulated ? 5 : Math.ceil(2 ** 31 / (classes * distinct)) + 1;
    const rows = distinct * repeats;
    const bytes = 2 * rows * classes;
    const gpu = devices()[1];
    // Logits and gradient there; the same in host memory.
    if (!isEmulated && (gpu?.memory ?? 0) < 2 * bytes + gigabyte) return this.skip();
    const small = makeBatch('indices', distinct, 1, classes, dtype);
    const data = allocate(dtype, rows * classes);
    for (let i = 0; i < repeats; i++) data.set(small.input.data as FloatArray, i * distinct * classes);
    const labels = Int32Array.from({ length: rows }, (_, i) => Number(small.target.data[i % distinct]));
    const loss = new CrossEntropyLoss({ reduction: 'sum' });
    const expected = loss.valueAndGrad(small.input.to('cuda'), small.target);
    const wanted = expected.grad.to('cpu').data;
    const input = tensor(data, { shape: [rows, classes], dtype }).to('cuda');
    const large = loss.valueAndGrad(input, tensor(labels), { out: { grad: input } });
    const grad = large.grad.to('cpu').data as FloatArray;
    for (let i = 0; i < repeats; i++) {
      const part = grad.subarray(i * distinct * classes, (i + 1) * distinct * classes);
      assertSameBits(part, wanted, `rows from ${i * distinct} on`);
    }
    // Sums in float64, rounded once to float32: half an ulp each, and an ulp of float64 a row.
    const sum = repeats * expected.value.item();
    assert.ok(Math.abs(large.value.item() - sum) <= 2 ** -23 * Math.abs(sum), 'the sum of the losses');
    input.dispose();
  });
});

describe('a training loop on a GPU', () => {
  it('stays in the memory that it began with', () => {
    const steps = isEmulated ? 300 : 10_000;
    const batch = makeBatch('indices', isEmulated ? 8 : 256, 1, 1000, 'float32');
    const loss = new LabelSmoothingCrossEntropy();
    const step = (out?: { value: Tensor; grad: Tensor }) => {
      const [input, target] = [batch.input.to('cuda'), batch.target.to('cuda')];
      const result = loss.valueAndGrad(input, target, out === undefined ? {} : { out });
      const value = result.value.item();
      for (const each of out === undefined ? [input, target, result.value, result.grad] : [input, target])
        each.dispose();
      return value;
    };
    const result = loss.valueAndGrad(batch.input.to('cuda'), batch.target.to('cuda'));
    const out = { value: result.value, grad: result.grad };
    for (let i = 0; i < 100; i++) {
      step();
      step(out);
    }
    const before = memoryInUse();
    const first = step();
    for (let i = 0; i < steps; i++) assert.equal(step(i % 2 === 0 ? out : undefined), first);
    // Of the driver's own, whatever the loop does; the steps' gradients, were they kept, would come to 10 GB.
    const slack = isEmulated ? 0 : 64 * 2 ** 20;
    const grown = memoryInUse() - before;
    assert.ok(grown <= slack, `grew by ${grown} bytes in ${steps} steps`);
  });
});
