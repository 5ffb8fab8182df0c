/** What every loss has in common: lib/loss/loss.ts. */
import assert from 'node:assert/strict';
import { tensor, type TypedArray } from 'surprisal';
import { CrossEntropyLoss } from 'surprisal/loss';
import { makeBatch } from '../support/batches.js';
import { assertSameBits, assertSameTensor } from '../support/bits.js';
import { assertNear } from '../support/close.js';
import { floatDTypes, floatTensor, valuesOf } from '../support/float_formats.js';
import { formsOf, lossClasses, rowsPerSample, unless } from '../support/losses.js';
import { Samples } from '../support/random.js';

const [samples, classes] = [20, 23];

describe('every loss: one call within another', () => {
  it('a getter of an argument may call the same criterion', () => {
    const criterion = new CrossEntropyLoss({ reduction: 'none' });
    const outer = makeBatch('indices', samples, 1, classes, 'float32');
    const inner = makeBatch('indices', 3, 1, 5, 'float64', 3);
    const expected = {
      outer: criterion.valueAndGrad(outer.input, outer.target),
      inner: criterion.valueAndGrad(inner.input, inner.target),
    };
    const found: ReturnType<typeof criterion.valueAndGrad>[] = [];
    /** A tensor whose data is read only after another call. */
    const late = ({ data, shape }: { readonly data: TypedArray; readonly shape: readonly number[] }) => ({
      get data() {
        found.push(criterion.valueAndGrad(inner.input, inner.target));
        return data;
      },
      shape,
    });
    const grad = new Float32Array(samples * classes);
    const ones = { data: new Float32Array(samples).fill(1), shape: [samples] };
    const result = criterion.valueAndGrad(late(outer.input), late(outer.target), {
      gradOutput: late(ones),
      out: { grad: late({ data: grad, shape: outer.input.shape }) },
    });
    assertSameTensor(result.value, expected.outer.value, 'loss');
    assertSameTensor(result.grad, expected.outer.grad, 'gradient');
    assert.ok(found.length >= 4, 'every argument was read');
    for (const { value, grad: innerGrad } of found) {
      assertSameTensor(value, expected.inner.value, 'inner loss');
      assertSameTensor(innerGrad, expected.inner.grad, 'inner gradient');
    }
  });
});

describe('every loss: class indices', () => {
  const integerArrays: Readonly<Record<string, (labels: readonly number[]) => TypedArray>> = {
    int8: (labels) => Int8Array.from(labels),
    uint8: (labels) => Uint8Array.from(labels),
    'uint8 (clamped)': (labels) => Uint8ClampedArray.from(labels),
    int16: (labels) => Int16Array.from(labels),
    uint16: (labels) => Uint16Array.from(labels),
    int32: (labels) => Int32Array.from(labels),
    uint32: (labels) => Uint32Array.from(labels),
    int64: (labels) => BigInt64Array.from(labels, BigInt),
    uint64: (labels) => BigUint64Array.from(labels, BigInt),
  };

  for (const Class of lossClasses.filter((Class) => formsOf(Class).includes('indices'))) {
    it(`${Class.name} gives the same bits for labels of every integer dtype, plain numbers and bigints`, () => {
      const loss = Class.create(classes);
      const { input, target } = makeBatch('indices', samples, rowsPerSample(Class), classes, 'float32');
      const labels = [...(target.data as Int32Array)];
      const expected = loss.valueAndGrad(input, target);
      const forms = {
        ...Object.fromEntries(Object.entries(integerArrays).map(([name, make]) => [name, make(labels)])),
        numbers: labels,
        bigints: labels.map(BigInt),
        'as onnxruntime has them': {
          data: BigInt64Array.from(labels, BigInt),
          dims: [samples],
          type: 'int64',
          location: 'cpu',
        },
      };
      for (const [name, form] of Object.entries(forms)) {
        const { value, grad } = loss.valueAndGrad(input, form);
        assertSameTensor(value, expected.value, `${name}: loss`);
        assertSameTensor(grad, expected.grad, `${name}: gradient`);
      }
    });
  }

  it('an ignored label of any signed dtype', () => {
    const loss = new CrossEntropyLoss({ ignoreIndex: -1 });
    const logits = floatTensor(new Samples(60).normals(3 * classes), [3, classes], 'float32');
    const expected = loss.valueAndGrad(logits, [4, -1, 7]);
    for (const labels of [
      Int8Array.of(4, -1, 7),
      Int16Array.of(4, -1, 7),
      Int32Array.of(4, -1, 7),
      BigInt64Array.of(4n, -1n, 7n),
    ]) {
      const { value, grad } = loss.valueAndGrad(logits, labels);
      assertSameTensor(value, expected.value, labels.constructor.name);
      assertSameTensor(grad, expected.grad, labels.constructor.name);
    }
    assert.deepEqual([...grad1(expected.grad.data)], new Array(classes).fill(0));
  });

  const grad1 = (data: TypedArray) => (data as Float32Array).subarray(classes, 2 * classes);
});

describe('every loss: dtypes', () => {
  for (const Class of lossClasses) {
    it(`${Class.name} returns float32 losses (float64 of float64) and gradients of the input's dtype`, () => {
      const loss = Class.create(classes);
      for (const dtype of floatDTypes) {
        for (const form of formsOf(Class)) {
          const { input, target } = makeBatch(form, samples, rowsPerSample(Class), classes, dtype);
          const { value, grad } = loss.valueAndGrad(input, target);
          assert.equal(value.dtype, dtype === 'float64' ? 'float64' : 'float32');
          assert.equal(grad.dtype, dtype);
          assert.deepEqual(grad.shape, input.shape);
        }
      }
    });

    it(`${Class.name} takes a dense target of another dtype than the input's`, function () {
      const forms = formsOf(Class).filter((form) => form !== 'indices');
      const loss = Class.create(classes);
      for (const form of forms) {
        for (const dtype of floatDTypes) {
          for (const targetDType of floatDTypes) {
            const { input, target } = makeBatch(form, samples, rowsPerSample(Class), classes, targetDType);
            const x = floatTensor(valuesOf(input), input.shape, dtype);
            const { value, grad } = loss.valueAndGrad(x, target);
            // The same numbers in float64 are a target that loses nothing.
            const exact = loss.valueAndGrad(x, floatTensor(valuesOf(target), target.shape, 'float64'));
            const what = `${form}, ${targetDType} target of ${dtype} input`;
            const [got, expected] = [value.item(), exact.value.item()];
            // A float64 target of another input is rounded to the float32 that the loss is computed in: 3e-7 as for
            // every float32 loss.
            assertNear(got, expected, 3e-7 * Math.abs(expected), () => `${what}: the loss`);
            assertSameBits(grad.data, exact.grad.data, `${what}: gradient`);
          }
        }
      }
      if (forms.length === 0) {
        const { input } = makeBatch('indices', samples, rowsPerSample(Class), classes, 'float32');
        assert.throws(() => loss.forward(input, input), { name: /TypeError|RangeError/ });
      }
    });
  }
});

describe('every loss: gradOutput', () => {
  for (const Class of lossClasses) {
    it(`${Class.name}: a number, or a tensor of the output's shape, scales the gradient and not the loss`, () => {
      for (const options of [{}, { reduction: 'none' }]) {
        const loss = unless(['ERR_OPTION'], () => Class.create(classes, options));
        if (loss === undefined) continue;
        for (const dtype of ['float32', 'float64'] as const) {
          for (const form of formsOf(Class, options)) {
            const { input, target } = makeBatch(form, samples, rowsPerSample(Class), classes, dtype);
            const { value, grad } = loss.valueAndGrad(input, target);
            // A power of two changes no digit, whatever it is multiplied with and when.
            const expected = (grad.data as Float32Array).map((x) => 4 * x);
            const ones = new Array<number>(value.data.length).fill(4);
            for (const [name, gradOutput] of Object.entries({
              number: 4,
              tensor: floatTensor(ones, value.shape, dtype),
              'tensor of another dtype': floatTensor(ones, value.shape, 'bfloat16'),
            })) {
              const scaled = loss.valueAndGrad(input, target, { gradOutput });
              assertSameTensor(scaled.value, value, `${form}, ${dtype}, ${name}: loss`);
              assertSameBits(scaled.grad.data, expected, `${form}, ${dtype}, ${name}: gradient`);
            }
            const zero = loss.valueAndGrad(input, target, { gradOutput: 0 });
            assert.ok(
              valuesOf(zero.grad).every((x) => x === 0),
              `${form}, ${dtype}: a gradOutput of 0 gives no gradient`,
            );
          }
        }
      }
    });

    it(`${Class.name}: with reduction none each output has its own, where it is taken`, () => {
      const loss = unless(['ERR_OPTION'], () => Class.create(classes, { reduction: 'none' }));
      if (loss === undefined) {
        assert.notEqual(Class.create(classes).reduction, 'none');
        return;
      }
      for (const form of formsOf(Class)) {
        const { input, target } = makeBatch(form, samples, 1, classes, 'float32');
        const { value, grad } = loss.valueAndGrad(input, target);
        const width = classes / (value.data.length / samples);
        const powers = Array.from(
          value.data as Float32Array,
          (_, i) => 2 ** (i % 5) * (i % 2 === 0 ? 1 : -1),
        );
        const scaled = loss.valueAndGrad(input, target, {
          gradOutput: floatTensor(powers, value.shape, 'float32'),
        });
        const gradients = valuesOf(grad);
        // By ===, for which a 0 that changed its sign is the same.
        for (const [i, got] of valuesOf(scaled.grad).entries()) {
          assertNear(got, gradients[i]! * powers[Math.floor(i / width)]!, 0, () => `${form}: gradient ${i}`);
        }
      }
    });
  }
});

describe('every loss: off the event loop', () => {
  for (const Class of lossClasses) {
    it(`${Class.name}: forwardAsync and valueAndGradAsync give the bits of the synchronous calls`, async () => {
      for (const options of [{}, { reduction: 'none' }]) {
        const loss = unless(['ERR_OPTION'], () => Class.create(classes, options));
        if (loss === undefined) continue;
        for (const dtype of floatDTypes) {
          for (const form of formsOf(Class, options)) {
            const { input, target } = makeBatch(form, samples, rowsPerSample(Class), classes, dtype);
            const expected = loss.valueAndGrad(input, target);
            const other = makeBatch(form, samples, rowsPerSample(Class), classes, dtype, 88);
            // Two at once: neither may see the other's arguments.
            const [first, second, value] = await Promise.all([
              loss.valueAndGradAsync(input, target, { signal: new AbortController().signal }),
              loss.valueAndGradAsync(other.input, other.target),
              loss.forwardAsync(input, target),
            ]);
            const what = `${form}, ${dtype}`;
            assertSameTensor(first.value, expected.value, `${what}: loss`);
            assertSameTensor(first.grad, expected.grad, `${what}: gradient`);
            assertSameTensor(value, expected.value, `${what}: forwardAsync`);
            const expectedOther = loss.valueAndGrad(other.input, other.target);
            assertSameTensor(second.value, expectedOther.value, `${what}: second loss`);
            assertSameTensor(second.grad, expectedOther.grad, `${what}: second gradient`);

            const out = floatTensor(new Float64Array(input.data.length), input.shape, dtype);
            const written = await loss.valueAndGradAsync(input, target, {
              out: { grad: out },
              gradOutput: 1,
            });
            assert.equal(written.grad.data, out.data);
            assertSameTensor(out, expected.grad, `${what}: out.grad`);
          }
        }
      }
    });

    it(`${Class.name}: an AbortSignal rejects with an AbortError`, async () => {
      const loss = Class.create(classes);
      const { input, target } = makeBatch(
        formsOf(Class)[0]!,
        samples,
        rowsPerSample(Class),
        classes,
        'float32',
      );
      const reason = new Error('the request was closed');
      const aborted = { name: 'AbortError', code: 'ERR_ABORTED', cause: reason };
      const signal = AbortSignal.abort(reason);
      await assert.rejects(loss.forwardAsync(input, target, { signal }), aborted);
      const out = floatTensor(new Float64Array(input.data.length).fill(3), input.shape, 'float32');
      await assert.rejects(loss.valueAndGradAsync(input, target, { signal, out: { grad: out } }), aborted);
      assert.ok(
        valuesOf(out).every((x) => x === 3),
        'nothing is written for a signal that was aborted before',
      );
    });
  }

  it('an AbortSignal stops work that has begun', async () => {
    // 256 MB, far more work than the way from this call to the abort.
    const [rows, columns] = [2000, 32_000];
    const input = tensor(new Float32Array(rows * columns), { shape: [rows, columns] });
    const controller = new AbortController();
    const promise = new CrossEntropyLoss().valueAndGradAsync(input, new Int32Array(rows), {
      signal: controller.signal,
      out: { grad: input },
    });
    controller.abort();
    await assert.rejects(promise, { name: 'AbortError', code: 'ERR_ABORTED' });
  });

  it('a rejected argument rejects, and does not throw', async () => {
    const loss = new CrossEntropyLoss();
    const promise = loss.forwardAsync(tensor([[1, 2, 3]]), [3]);
    await assert.rejects(promise, { name: 'RangeError', code: 'ERR_TARGET_OUT_OF_RANGE' });
  });
});
