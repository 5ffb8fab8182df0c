/**
 * Tensors on a GPU: their memory, streams and events, and calls on them. Run where there is a GPU, and on the emulator by
 * `npm run test:emulated`; the results themselves are the other suites' matter.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Tensor } from 'surprisal';
import { devices, diagnose, Event, Stream, tensor, type FloatDType } from 'surprisal';
import * as F from 'surprisal/functional';
import {
  BinaryCrossEntropy,
  CrossEntropyLoss,
  JsdCrossEntropy,
  LabelSmoothingCrossEntropy,
  LensedCrossEntropy,
} from 'surprisal/loss';
import { floatDTypes, floatTensor } from '../support/float_formats.js';
import {
  codeOf,
  formsOf,
  lossClasses,
  makeTarget,
  nativeBinding,
  rowsPerSample,
  unless,
} from '../support/losses.js';
import { Samples } from '../support/random.js';

const counts = () => nativeBinding().emulatorCounts?.();
const isEmulated = counts() !== undefined;

/** A batch of logits that is large enough for several blocks. */
function logits(rows: number, classes: number, dtype: FloatDType = 'float32', seed = 3): Tensor {
  return floatTensor(new Samples(seed).normals(rows * classes, 3), [rows, classes], dtype);
}

const labels = (rows: number, classes: number, seed = 5): Tensor =>
  tensor(new Samples(seed).labels(rows, classes), { shape: [rows] });

const bytes = (of: Tensor): Buffer => {
  const { data } = of.to('cpu');
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
};

function assertSame(got: Tensor, expected: Tensor, what: string): void {
  assert.deepEqual(got.shape, expected.shape, what);
  assert.equal(got.dtype, expected.dtype, what);
  assert.ok(bytes(got).equals(bytes(expected)), `${what}: differs`);
}

describe('GPUs', () => {
  it('are among the devices, and in the diagnosis', () => {
    const gpu = devices()[1];
    assert.ok(gpu !== undefined, 'this suite needs a GPU, or the emulator');
    assert.equal(gpu.device, 'cuda:0');
    assert.ok(gpu.memory > 0);
    assert.match(gpu.capability, /^\d+\.\d+$/);
    assert.ok(diagnose().includes(`cuda:0: ${gpu.name}`));
    if (isEmulated) assert.equal(gpu.name, 'cuda:0 (emulated)');
  });

  it('that are not there are refused, with the number of those that are', () => {
    const count = devices().length - 1;
    assert.throws(
      () => logits(2, 3).to(`cuda:${count}`),
      (error) =>
        codeOf(error) === 'ERR_CUDA_UNAVAILABLE' && (error as Error).message.includes(`but ${count}`),
    );
  });
});

describe('a tensor on a GPU', () => {
  it('goes there and back in every dtype, bit by bit', async () => {
    const arrays = [
      new Float32Array([1.5, -0, NaN, Infinity]),
      new Float64Array([1e300, 2]),
      new Int8Array([-1, 2, 3]),
      new Uint8Array([255]),
      new Int16Array([-300, 5]),
      new Uint16Array([65535, 1]),
      new Int32Array([1, -2, 3]),
      new Uint32Array([4294967295]),
      new BigInt64Array([-(2n ** 62n), 3n]),
      new BigUint64Array([2n ** 64n - 1n]),
    ];
    for (const array of arrays) {
      const host = tensor(array);
      for (const there of [host.to('cuda'), await host.toAsync('cuda')]) {
        assert.equal(there.device, 'cuda:0');
        assert.deepEqual(there.shape, host.shape);
        assert.equal(there.to('cuda:0'), there);
        assertSame(there.to('cpu'), host, array.constructor.name);
        assertSame(await there.toAsync('cpu'), host, array.constructor.name);
      }
    }
    for (const dtype of floatDTypes) {
      const host = logits(3, 5, dtype);
      assertSame(host.to('cuda').to('cpu'), host, dtype);
    }
  });

  it('goes there and back in pieces where it is large', async () => {
    // Pieces of copies are 4 MiB: one, some, and some with a rest.
    for (const length of [1 << 20, 3 << 20, (5 << 20) / 2 + 7]) {
      const host = tensor(Float32Array.from({ length }, (_, i) => i % 16411));
      assertSame(host.to('cuda').to('cpu'), host, `${length}`);
      assertSame(await (await host.toAsync('cuda')).toAsync('cpu'), host, `${length}, asynchronously`);
    }
  });

  it('keeps its strides, and an empty one its shape', () => {
    const host = tensor(new Float32Array([1, 2, 3, 4, 5, 6]), { shape: [2, 3], strides: [1, 2] });
    const there = host.to('cuda');
    assert.deepEqual(there.strides, [1, 2]);
    assert.deepEqual(there.toArray(), [
      [1, 3, 5],
      [2, 4, 6],
    ]);
    assert.deepEqual(
      tensor(new Float32Array(0), { shape: [0, 4] })
        .to('cuda')
        .to('cpu').shape,
      [0, 4],
    );
  });

  it('is made there by tensor()', () => {
    const made = tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { device: 'cuda' },
    );
    assert.equal(made.device, 'cuda:0');
    assert.deepEqual(made.toArray(), [
      [1, 2],
      [3, 4],
    ]);
    assert.equal(tensor(7, { device: 'cuda' }).item(), 7);
  });

  it('has no data in host memory, and says how to read it', () => {
    assert.throws(
      () => logits(2, 2).to('cuda').data,
      (error) => codeOf(error) === 'ERR_DTYPE' && /cuda:0.*to\('cpu'\)/.test((error as Error).message),
    );
  });

  it('is gone after dispose()', () => {
    const there = logits(4, 4).to('cuda');
    there.dispose();
    there.dispose();
    for (const use of [() => there.to('cpu'), () => there.toArray(), () => F.softmax(there)]) {
      assert.throws(use, (error) => codeOf(error) === 'ERR_DISPOSED');
    }
    {
      using scoped = logits(2, 2).to('cuda');
      assert.equal(scoped.device, 'cuda:0');
    }
  });
});

describe('a call on a GPU', () => {
  for (const Class of lossClasses) {
    it(`${Class.name}: tensors there give what arrays brought there give, bit by bit`, () => {
      const classes = 37;
      const rows = 12 * rowsPerSample(Class);
      for (const dtype of floatDTypes) {
        for (const form of formsOf(Class)) {
          for (const reduction of ['mean', 'none'] as const) {
            const loss = unless(['ERR_OPTION'], () => Class.create(classes, { reduction }));
            if (loss === undefined) continue;
            const input = logits(rows, classes, dtype);
            const target = makeTarget(form, form === 'indices' ? rows : rows, classes, dtype);
            const expected = loss.valueAndGrad(input, target, { device: 'cuda' });
            assert.equal(expected.value.device, 'cpu');
            const integers = form === 'multi-hot' && target.dtype !== dtype;
            const place = (t: Tensor) => (integers ? t : t.to('cuda'));
            const { value, grad } = loss.valueAndGrad(input.to('cuda'), place(target));
            const name = `${dtype} ${form} ${reduction}`;
            assert.equal(value.device, 'cuda:0');
            assert.equal(grad.device, 'cuda:0');
            assertSame(value, expected.value, `${name}: value`);
            assertSame(grad, expected.grad, `${name}: grad`);
            assertSame(loss.forward(input.to('cuda'), target), expected.value, `${name}: forward`);
          }
        }
      }
    });
  }

  it('takes its targets, weights and lens from host memory too', () => {
    const [rows, classes] = [20, 11];
    const input = logits(rows, classes);
    const target = labels(rows, classes);
    const weight = Array.from({ length: classes }, (_, i) => 0.5 + i);
    for (const dtype of ['float32', 'float64', 'bfloat16'] as const) {
      const x = logits(rows, classes, dtype);
      const loss = new CrossEntropyLoss({ weight, labelSmoothing: 0.1 });
      const expected = loss.valueAndGrad(x, target, { device: 'cuda' });
      for (let i = 0; i < 2; i++) {
        const { value, grad } = loss.valueAndGrad(x.to('cuda'), target);
        assertSame(value, expected.value, dtype);
        assertSame(grad, expected.grad, dtype);
      }
    }
    const confusionLens = floatTensor(
      new Samples(9).probabilities(classes, classes),
      [classes, classes],
      'float32',
    );
    const lensed = new LensedCrossEntropy({ confusionLens });
    assertSame(
      lensed.forward(input.to('cuda'), target.to('cuda')),
      lensed.forward(input, target, { device: 'cuda' }),
      'lensed',
    );
  });

  it('takes [N, C, H, W], gradOutput and out as on the CPU', () => {
    const shape = [3, 5, 4, 2];
    const input = floatTensor(new Samples(4).normals(120, 2), shape, 'float32');
    const target = tensor(new Samples(6).labels(24, 5), { shape: [3, 4, 2] });
    const loss = new CrossEntropyLoss({ reduction: 'none' });
    const gradOutput = floatTensor(new Samples(8).normals(24), [3, 4, 2], 'float32');
    const expected = loss.valueAndGrad(input, target, { device: 'cuda', gradOutput });
    const x = input.to('cuda');
    const out = { grad: x, value: tensor(new Float32Array(24), { shape: [3, 4, 2] }).to('cuda') };
    const { value, grad } = loss.valueAndGrad(x, target.to('cuda'), {
      gradOutput: gradOutput.to('cuda'),
      out,
    });
    assert.equal(value, out.value);
    assert.equal(grad, x);
    assertSame(value, expected.value, 'value');
    assertSame(grad, expected.grad, 'grad');
  });

  it('brings large arrays there in pieces, with the results of one piece', async () => {
    // Pieces have 8 MiB of logits: two and a rest.
    const [rows, classes] = [2052, 1024];
    const x = logits(rows, classes, 'float64');
    const y = labels(rows, classes);
    y.data[7] = -100;
    const weight = Array.from({ length: classes }, (_, i) => 0.5 + (i % 7));
    const losses = [
      new CrossEntropyLoss({ weight, labelSmoothing: 0.1 }),
      new CrossEntropyLoss({ reduction: 'none' }),
    ];
    for (const loss of losses) {
      const there = loss.valueAndGrad(x.to('cuda'), y);
      const brought = loss.valueAndGrad(x, y, { device: 'cuda' });
      // Pieces are added up in another order, so the reduced loss may be rounded otherwise.
      if (loss.reduction === 'none') assertSame(brought.value, there.value, 'value');
      else assert.ok(Math.abs(brought.value.item() / there.value.item() - 1) <= 1e-14);
      assertSame(brought.grad, there.grad, 'grad');
    }
    const jsd = new JsdCrossEntropy();
    const there = jsd.valueAndGrad(x.to('cuda'), labels(rows / 3, classes));
    const out = { grad: logits(rows, classes, 'float64') };
    const brought = await jsd.valueAndGradAsync(out.grad, labels(rows / 3, classes), { device: 'cuda', out });
    assert.ok(Math.abs(brought.value.item() / there.value.item() - 1) <= 1e-14);
    assertSame(brought.grad, there.grad, 'jsd in place');
    y.data[2040] = classes;
    const kept = logits(rows, classes, 'float64');
    assert.throws(
      () => losses[0]!.valueAndGrad(x, y, { device: 'cuda', out: { grad: kept } }),
      (error) => codeOf(error) === 'ERR_TARGET_OUT_OF_RANGE' && (error as Error).message.includes('row 2040'),
    );
    assertSame(kept, logits(rows, classes, 'float64'), 'nothing was written');
  });

  it('waits for nothing until a value is read', function () {
    if (!isEmulated) return this.skip();
    const [rows, classes] = [64, 1000];
    const x = logits(rows, classes).to('cuda');
    const y = labels(rows, classes).to('cuda');
    const loss = new LabelSmoothingCrossEntropy();
    const before = counts()!;
    const { value, grad } = loss.valueAndGrad(x, y);
    F.softmax(grad);
    const after = counts()!;
    assert.equal(after.hostWaits, before.hostWaits);
    assert.ok(after.kernels > before.kernels);
    assert.ok(Number.isFinite(value.item()));
    assert.ok(counts()!.hostWaits > after.hostWaits);
  });

  it('says of a bad label where the value is read, with its row', async () => {
    const [rows, classes] = [9, 6];
    const x = logits(rows, classes).to('cuda');
    const wrong = labels(rows, classes);
    wrong.data[4] = classes;
    wrong.data[7] = -3;
    for (const reduction of ['mean', 'none'] as const) {
      for (const target of [wrong, wrong.to('cuda')]) {
        const loss = new CrossEntropyLoss({ reduction });
        const { value, grad } = loss.valueAndGrad(x, target);
        if (target !== wrong) target.dispose(); // its labels are still needed for the message
        const isBad = (error: unknown) =>
          error instanceof RangeError &&
          codeOf(error) === 'ERR_TARGET_OUT_OF_RANGE' &&
          error.message.includes('row 4 is 6');
        assert.throws(() => value.toArray(), isBad);
        assert.throws(() => value.to('cpu'), isBad);
        await assert.rejects(value.toAsync('cpu'), isBad);
        const rowsOfGrad = grad.toArray() as number[][];
        assert.deepEqual(rowsOfGrad[4], new Array<number>(classes).fill(0));
        assert.deepEqual(rowsOfGrad[7], new Array<number>(classes).fill(0));
        assert.ok(rowsOfGrad[5]!.some((g) => g !== 0));
        await assert.rejects(loss.valueAndGradAsync(x, wrong), isBad);
        assert.ok(Number.isFinite(new CrossEntropyLoss().forward(x, labels(rows, classes)).item()));
      }
    }
  });

  it('off the event loop gives the same, in the order of the calls', async () => {
    const [rows, classes] = [40, 300];
    const x = logits(rows, classes).to('cuda');
    const y = labels(rows, classes).to('cuda');
    const loss = new LabelSmoothingCrossEntropy();
    const expected = loss.valueAndGrad(x, y);
    const results = await Promise.all(Array.from({ length: 8 }, () => loss.valueAndGradAsync(x, y)));
    for (const { value, grad } of results) {
      assertSame(value, expected.value, 'value');
      assertSame(grad, expected.grad, 'grad');
    }
    assertSame(await loss.forwardAsync(x, y), expected.value, 'forward');
    const brought = await loss.valueAndGradAsync(logits(rows, classes), labels(rows, classes), {
      device: 'cuda',
    });
    assertSame(brought.grad, expected.grad, 'brought there');
    const controller = new AbortController();
    controller.abort();
    await assert.rejects(
      loss.forwardAsync(x, y, { signal: controller.signal }),
      (error) => codeOf(error) === 'ERR_ABORTED',
    );
  });

  it('refuses tensors that are not where the input is', () => {
    const [rows, classes] = [4, 3];
    const host = logits(rows, classes);
    const there = host.to('cuda');
    const y = labels(rows, classes);
    const loss = new CrossEntropyLoss();
    const refusals: [string, () => unknown, RegExp][] = [
      ['ERR_OPTION', () => loss.forward(host, y.to('cuda')), /target on cpu/],
      ['ERR_OPTION', () => loss.forward(there, y, { device: 'cpu' }), /bring the input there/],
      ['ERR_OPTION', () => loss.valueAndGrad(there, y, { out: { grad: host } }), /out\.grad on cuda:0/],
      ['ERR_OPTION', () => loss.valueAndGrad(host, y, { out: { grad: there } }), /out\.grad on cpu/],
      ['ERR_OPTION', () => loss.forward(host, y, { stream: new Stream() }), /worked on by the CPU/],
      ['ERR_OPTION', () => loss.forward(there, y, { stream: 3 as never }), /expected a Stream/],
      ['ERR_OPTION', () => F.softmaxBackward(there, host), /output on cuda:0/],
      [
        'ERR_DTYPE',
        () =>
          new BinaryCrossEntropy().forward(there, tensor(new Uint8Array(12), { shape: [4, 3] }).to('cuda')),
        /floating target/,
      ],
      [
        'ERR_ALIAS',
        () => {
          const losses = new CrossEntropyLoss({ reduction: 'none' });
          const both = tensor(new Float32Array(rows)).to('cuda');
          losses.valueAndGrad(there, y, { gradOutput: both, out: { value: both } });
        },
        /overlaps another argument/,
      ],
    ];
    for (const [code, call, message] of refusals) {
      assert.throws(
        call,
        (error) => codeOf(error) === code && message.test((error as Error).message),
        String(message),
      );
    }
  });
});

describe('parity of backends', () => {
  // Every driver of rows: lanes of a warp, a block, a cluster, and more than one pass.
  const sizes = [3, 10, 517, 9001, 140_003];
  /** Of the largest gradient: some roundings of the dtype, or of the float32 that it is computed in. */
  const tolerance = { float64: 1e-12, float32: 3e-6, float16: 1e-3, bfloat16: 8e-3 };

  for (const Class of lossClasses) {
    it(`${Class.name}: a GPU gives what the CPU gives`, () => {
      for (const classes of Class.perClassOptions ? sizes.slice(0, 3) : sizes) {
        const rows = 2 * rowsPerSample(Class);
        for (const dtype of classes > 10_000 ? (['float32'] as const) : floatDTypes) {
          for (const form of formsOf(Class)) {
            const loss = Class.create(classes);
            const input = logits(rows, classes, dtype);
            const target = makeTarget(form, rows, classes, dtype);
            const here = loss.valueAndGrad(input, target);
            const there = loss.valueAndGrad(input, target, { device: 'cuda' });
            const name = `${classes} classes, ${dtype}, ${form}`;
            const [a, b] = [here.value.item(), there.value.item()];
            // The loss is float32 but for float64, where both backends sum in double.
            const off = Math.abs(a - b) / Math.max(Math.abs(a), 1e-30);
            assert.ok(off <= (dtype === 'float64' ? 1e-12 : 3e-6) || a === b, `${name}: ${b}, not ${a}`);
            const expected = (here.grad.toArray() as number[][]).flat();
            const got = (there.grad.toArray() as number[][]).flat();
            const largest = expected.reduce((most, g) => Math.max(most, Math.abs(g)), 0);
            expected.forEach((g, i) => {
              const error = Math.abs(got[i]! - g);
              if (error > tolerance[dtype] * largest) assert.fail(`${name}: ${i} is ${got[i]}, not ${g}`);
            });
          }
        }
      }
    });
  }
});

describe('softmax and its like on a GPU', () => {
  for (const dtype of floatDTypes) {
    it(`in ${dtype} give what the CPU gives`, () => {
      const x = logits(6, 50, dtype);
      const g = logits(6, 50, dtype, 17);
      // A rounding of the dtype, and float32's own of a few operations.
      const tolerance = { float64: 1e-13, float32: 2e-6, float16: 2e-3, bfloat16: 2e-2 }[dtype];
      for (const dim of [-1, 0]) {
        const pairs = [
          [F.softmax(x.to('cuda'), { dim }), F.softmax(x, { dim })],
          [F.logSoftmax(x.to('cuda'), { dim }), F.logSoftmax(x, { dim })],
          [
            F.softmaxBackward(g.to('cuda'), F.softmax(x.to('cuda'), { dim }), { dim }),
            F.softmaxBackward(g, F.softmax(x, { dim }), { dim }),
          ],
          [
            F.logSoftmaxBackward(g.to('cuda'), F.logSoftmax(x.to('cuda'), { dim }), { dim }),
            F.logSoftmaxBackward(g, F.logSoftmax(x, { dim }), { dim }),
          ],
        ] as const;
        for (const [there, here] of pairs) {
          assert.equal(there.device, 'cuda:0');
          const got = (there.toArray() as number[][]).flat();
          (here.toArray() as number[][]).flat().forEach((expected, i) => {
            assert.ok(Math.abs(got[i]! - expected) <= tolerance * (1 + Math.abs(expected)), `${i}`);
          });
        }
      }
    });
  }
});

describe('streams and events', () => {
  it('give what the default stream gives, and wait for one another', async () => {
    const [rows, classes] = [30, 500];
    const x = logits(rows, classes).to('cuda');
    const y = labels(rows, classes).to('cuda');
    const loss = new LabelSmoothingCrossEntropy();
    const expected = loss.valueAndGrad(x, y);
    const [first, second] = [new Stream(), new Stream({ device: 'cuda:0' })];
    assert.equal(first.device, 'cuda:0');
    const begin = first.recordEvent();
    const onFirst = loss.valueAndGrad(x, y, { stream: first });
    const probabilities = loss.valueAndGrad(onFirst.grad, y, { stream: second });
    const end = new Event();
    end.record(second);
    second.waitStream(first);
    first.waitEvent(end);
    await end.synchronizeAsync();
    end.synchronize();
    assert.equal(end.query(), true);
    assert.ok(begin.elapsedTime(end) >= 0);
    assertSame(onFirst.grad, expected.grad, 'on a stream');
    assertSame(probabilities.value, loss.forward(expected.grad, y), 'of another stream');
    const moved = logits(rows, classes).to('cuda', { stream: first });
    assertSame(moved.to('cpu', { stream: second }), logits(rows, classes), 'copies');
    await first.synchronizeAsync();
    first.synchronize();
    const brought = loss.valueAndGrad(logits(rows, classes), y.to('cpu'), { device: 'cuda', stream: first });
    assertSame(brought.grad, expected.grad, 'brought there on a stream');
  });

  it('are of a GPU', () => {
    for (const make of [() => new Stream({ device: 'cpu' }), () => new Event({ device: 'cpu' })]) {
      assert.throws(make, (error) => codeOf(error) === 'ERR_OPTION');
    }
  });
});

describe('memory of a GPU', () => {
  it('goes back when tensors are disposed of or collected', async function () {
    if (!isEmulated) return this.skip();
    assert.ok(globalThis.gc !== undefined, 'run with --expose-gc');
    const collect = async () => {
      for (let i = 0; i < 10; i++) {
        globalThis.gc!();
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    await collect();
    const before = counts()!.deviceMemory;
    const there = logits(100, 1000).to('cuda');
    assert.equal(counts()!.deviceMemory - before, 400_000);
    there.dispose();
    assert.equal(counts()!.deviceMemory, before);
    (() => void logits(100, 1000).to('cuda'))();
    assert.ok(counts()!.deviceMemory > before);
    await collect();
    assert.equal(counts()!.deviceMemory, before);
  });

  it('stays flat in a loop that writes to memory of its own', async function () {
    if (!isEmulated) return this.skip();
    const x = logits(16, 100).to('cuda');
    const y = labels(16, 100).to('cuda');
    const loss = new LabelSmoothingCrossEntropy();
    const first = loss.valueAndGrad(x, y);
    const out = { grad: first.grad, value: first.value };
    const before = counts()!.deviceMemory;
    for (let i = 0; i < 500; i++) loss.valueAndGrad(x, y, { out });
    assert.equal(counts()!.deviceMemory, before);
    assert.ok(Number.isFinite(out.value.item()));
    for (let i = 0; i < 200; i++) {
      const { value, grad } = loss.valueAndGrad(x, y);
      value.dispose();
      grad.dispose();
    }
    // What the first value's call left for whoever read it was let go of by the reading.
    assert.ok(counts()!.deviceMemory <= before);
  });

  it('that does not suffice is an error, after which smaller calls work', function () {
    if (!isEmulated) return this.skip();
    const script = `
      const { tensor } = await import(process.env.INDEX);
      const { LabelSmoothingCrossEntropy } = await import(process.env.LOSS);
      const loss = new LabelSmoothingCrossEntropy();
      const call = (rows) => {
        const x = tensor(new Float32Array(rows * 100), { shape: [rows, 100] }).to('cuda');
        return loss.valueAndGrad(x, tensor(new Int32Array(rows))).value.item();
      };
      const codes = [];
      for (const rows of [100, 4000, 100, 2000, 100]) {
        try {
          codes.push(Math.abs(call(rows) - Math.log(100)) < 1e-6);
        } catch (error) {
          codes.push([error instanceof RangeError, error.code, error.message]);
        }
        for (let i = 0; i < 5; i++) {
          gc();
          await new Promise((resolve) => setImmediate(resolve));
        }
      }
      console.log(JSON.stringify(codes));
    `;
    const { stdout, stderr } = spawnSync(
      process.execPath,
      ['--expose-gc', '--input-type=module', '--eval', script],
      {
        encoding: 'utf8',
        env: {
          ...process.env,
          SURPRISAL_EMULATED_MEMORY: String(1 << 20),
          INDEX: import.meta.resolve('surprisal'),
          LOSS: import.meta.resolve('surprisal/loss'),
        },
      },
    );
    assert.notEqual(stdout, '', stderr);
    const [a, b, c, d, e] = JSON.parse(stdout) as [unknown, unknown[], unknown, unknown[], unknown];
    assert.deepEqual([a, c, e], [true, true, true]);
    for (const [isRange, code, message] of [b, d] as unknown as [boolean, string, string][]) {
      assert.equal(isRange, true);
      assert.equal(code, 'ERR_OUT_OF_MEMORY');
      assert.match(message, /no memory left for \d+ bytes; dispose\(\)/);
    }
  });
});

describe('worker threads on a GPU', () => {
  const source = `
    const { parentPort, workerData } = require('node:worker_threads');
    (async () => {
      const { tensor } = await import(workerData.index);
      const { LabelSmoothingCrossEntropy } = await import(workerData.loss);
      const loss = new LabelSmoothingCrossEntropy();
      const x = tensor(workerData.input, { shape: workerData.shape }).to('cuda');
      const y = tensor(workerData.labels).to('cuda');
      const { value, grad } = loss.valueAndGrad(x, y);
      parentPort.postMessage({ value: value.item(), grad: grad.to('cpu').data });
      for (;;) await loss.valueAndGradAsync(x, y);
    })();
  `;

  it('give what the main thread gives, and may end while work is in flight', async () => {
    const [rows, classes] = [32, 257];
    const input = logits(rows, classes);
    const target = labels(rows, classes);
    const expected = new LabelSmoothingCrossEntropy().valueAndGrad(input.to('cuda'), target);
    for (let i = 0; i < 12; i++) {
      const workers = Array.from(
        { length: 3 },
        () =>
          new Worker(source, {
            eval: true,
            execArgv: [],
            workerData: {
              index: import.meta.resolve('surprisal'),
              loss: import.meta.resolve('surprisal/loss'),
              input: input.data,
              labels: target.data,
              shape: [rows, classes],
            },
          }),
      );
      const messages = await Promise.all(workers.map((worker) => once(worker, 'message')));
      for (const [message] of messages) {
        const { value, grad } = message as { value: number; grad: Float32Array };
        assert.equal(value, expected.value.item());
        assertSame(tensor(grad, { shape: [rows, classes] }), expected.grad, 'grad');
      }
      await Promise.all(workers.map((worker) => worker.terminate()));
    }
    assert.ok(Number.isFinite(new LabelSmoothingCrossEntropy().forward(input.to('cuda'), target).item()));
  });
});
