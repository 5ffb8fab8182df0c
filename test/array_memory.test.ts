/**
 * What JavaScript can do to the memory of an asynchronous call that is at work. Each case runs in a process of its own,
 * which a fault would end.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { diagnose, getNumThreads, setNumThreads, tensor } from 'surprisal';
import { AsymmetricLossMultiLabel, CrossEntropyLoss } from 'surprisal/loss';
import type { MemoryMode } from '../binding.js';
import { assertSameTensor } from './support/bits.js';
import { floatTensor } from './support/float_formats.js';
import { nativeBinding } from './support/losses.js';
import { Samples } from './support/random.js';

const modes: readonly MemoryMode[] = ['held', 'copied'];

/** Node 20 has ArrayBuffer.prototype.transfer behind a flag. */
const flags = 'transfer' in ArrayBuffer.prototype ? [] : ['--harmony-rab-gsab-transfer'];

/** What stands before each case: a batch of 2 MB, memory that the system takes back as soon as it is freed. */
const preamble = `
  import { MessageChannel, Worker } from 'node:worker_threads';
  import { setNumThreads } from 'surprisal';
  import { AsymmetricLossMultiLabel, CrossEntropyLoss } from 'surprisal/loss';
  const { nativeBinding } = await import(process.argv[2]);
  nativeBinding().setMemoryMode(process.argv[1]);
  setNumThreads(1);

  const [rows, classes] = [256, 2048];
  const shape = [rows, classes];
  const count = rows * classes;
  const values = new Float32Array(count).map((_, i) => ((Math.imul(i, 1664525) >>> 8) / 2 ** 24) * 8 - 4);
  /** The batch in new memory, or at the beginning of this buffer. */
  const logits = (buffer = new ArrayBuffer(4 * count)) => {
    const data = new Float32Array(buffer, 0, count);
    data.set(values);
    return data;
  };
  const labels = () => Int32Array.from({ length: rows }, (_, i) => (7 * i) % classes);
  const criterion = new CrossEntropyLoss();
  const expected = criterion.valueAndGrad({ data: values, shape }, labels());

  // Three blocks that take long: between them the only thread works at a block of the call.
  const long = { data: new Float64Array(2 ** 21).fill(0.5), shape: [3, 2 ** 21], strides: [0, 1] };
  const slow = new AsymmetricLossMultiLabel({ gammaNeg: 3.7, gammaPos: 1.3 });

  /** Begins a call that is at work yet, or waits, when the script goes on. Gives how it ends. */
  const begin = (data, target = labels(), options = {}) => {
    slow.forwardAsync(long, long);
    const ended = criterion.valueAndGradAsync({ data, shape }, target, options).then(
      ({ value, grad }) =>
        value.item() === expected.value.item() && same(grad.data.subarray(0, count), expected.grad.data)
          ? 'right'
          : 'wrong',
      (error) => error.code + ' ' + error.message,
    );
    return { ended };
  };
  const out = (data) => ({ out: { grad: { data, shape } } });
  const same = (a, b) => a.length === b.length && a.every((x, i) => Object.is(x, b[i]));

  const shortLived = 'require("node:worker_threads").parentPort.once("message", () => process.exit())';

  /** Says how a call ends. Meanwhile memory of the sizes that may have been freed is taken and written to. */
  const end = async ({ ended }) => {
    for (let i = 0; i < 12; i++) new Float32Array(count / (1 + (i % 3))).fill(NaN);
    console.log(await ended);
  };
`;

function outcome(mode: MemoryMode, script: string): string {
  const args = [...flags, '--input-type=module', '-e', preamble + script, mode];
  const { stdout, stderr, status, signal } = spawnSync(
    process.execPath,
    [...args, import.meta.resolve('./support/losses.js')],
    { encoding: 'utf8' },
  );
  assert.deepEqual({ status, signal }, { status: 0, signal: null }, stderr);
  return stdout.trim();
}

const lost = /^ERR_DISPOSED CrossEntropyLoss: the buffer of out\.(grad|value) was transferred/;

/** What happens while a call is at work, and how it ends: with the right loss and gradient unless it says otherwise. */
const cases: Readonly<Record<string, readonly [script: string, expected?: RegExp]>> = {
  nothing: ['await end(begin(logits()))'],

  'the input moves to a clone': [
    `const data = logits();
     const call = begin(data);
     const clone = structuredClone(data, { transfer: [data.buffer] });
     await end(call);
     if (!same(clone, values)) console.log('the clone differs');`,
  ],
  'the input is posted to nobody': [
    `const data = logits();
     const call = begin(data);
     const { port1, port2 } = new MessageChannel();
     port1.postMessage(data, [data.buffer]);
     port1.close();
     await end(call);`,
  ],
  'the input is posted to a worker, which ends': [
    `const worker = new Worker(shortLived, { eval: true, execArgv: [] });
     const gone = new Promise((resolve) => worker.once('exit', resolve));
     const data = logits();
     const call = begin(data);
     worker.postMessage(data, [data.buffer]);
     await gone;
     await end(call);`,
  ],
  'the input is transferred': [
    `const data = logits();
     const call = begin(data);
     data.buffer.transfer();
     await end(call);`,
  ],
  'the input is transferred to a greater length': [
    `const data = logits();
     const call = begin(data);
     const moved = data.buffer.transfer(8 * count);
     await end(call);
     const floats = new Float32Array(moved);
     if (data.length !== 0 || floats.length !== 2 * count) console.log('the length is wrong');
     if (!same(floats.subarray(0, count), values) || floats[count] !== 0) console.log('the content is wrong');`,
  ],
  'the input is transferred to a smaller length, of fixed size': [
    `const data = logits();
     const call = begin(data);
     const moved = data.buffer.transferToFixedLength(2 * count);
     await end(call);
     if (!same(new Float32Array(moved), values.subarray(0, count / 2))) console.log('the content is wrong');`,
  ],
  'the input is transferred to nothing': [
    `const data = logits();
     const call = begin(data);
     data.buffer.transfer(0);
     await end(call);`,
  ],
  'the input of two calls is transferred between their ends': [
    `const data = logits();
     const first = criterion.forwardAsync({ data: data.subarray(0, classes), shape: [1, classes] }, [0]);
     const call = begin(data);
     await first;
     data.buffer.transfer(8 * count);
     await end(call);`,
  ],
  'the input is transferred to an impossible length': [
    `const data = logits();
     const call = begin(data);
     for (const length of [-1, 2 ** 60]) {
       try {
         data.buffer.transfer(length);
         console.log('transferred');
       } catch (error) {
         if (error.name !== 'RangeError') console.log(error.name);
       }
     }
     if (data.length !== count) console.log('the buffer is gone');
     await end(call);`,
  ],
  'the input is frozen, and transferred': [
    `const data = logits();
     Object.freeze(data.buffer);
     const call = begin(data);
     data.buffer.transfer(8 * count);
     await end(call);`,
    // Refused where the transfer would free memory that is held.
    /^right$|^ERR_DTYPE CrossEntropyLoss: an asynchronous call can't work in a frozen ArrayBuffer/,
  ],
  'the target is transferred': [
    `const target = labels();
     const call = begin(logits(), target);
     target.buffer.transfer(8 * rows);
     await end(call);`,
  ],
  'labels are overwritten with what they can not be': [
    `const target = labels();
     const call = begin(logits(), target);
     for (let i = 0; i < 1000; i++) {
       target.fill(i % 2 === 0 ? 2 ** 31 - 1 : -(2 ** 31));
       await new Promise((resolve) => setImmediate(resolve));
     }
     await end(call);`,
    // Right where the call had read them before.
    /^right$|^ERR_TARGET_OUT_OF_RANGE /,
  ],
  'a dense target is transferred': [
    `const data = logits();
     const target = new Float32Array(count).fill(1 / classes);
     Object.assign(expected, criterion.valueAndGrad({ data, shape }, { data: target, shape }));
     const call = begin(data, { data: target, shape });
     target.buffer.transfer(8 * count);
     await end(call);`,
  ],

  'out is transferred to a clone': [
    `const data = new Float32Array(count);
     const call = begin(logits(), labels(), out(data));
     structuredClone(data, { transfer: [data.buffer] });
     await end(call);`,
    lost,
  ],
  'out is transferred to a greater length': [
    `const data = new Float32Array(count);
     const call = begin(logits(), labels(), out(data));
     data.buffer.transfer(8 * count);
     await end(call);`,
    lost,
  ],
  'out is transferred to a smaller length': [
    `const data = new Float32Array(count);
     const call = begin(logits(), labels(), out(data));
     data.buffer.transfer(8);
     await end(call);`,
    lost,
  ],
  'the value in out is transferred': [
    `const value = new Float32Array(1);
     const call = begin(logits(), labels(), { out: { value: { data: value, shape: [] } } });
     value.buffer.transfer(4);
     await end(call);`,
    lost,
  ],
  'losses in out are transferred': [
    `const value = new Float32Array(rows);
     const each = new CrossEntropyLoss({ reduction: 'none' });
     slow.forwardAsync(long, long);
     const promise = each.forwardAsync({ data: logits(), shape }, labels(), { out: { value } });
     value.buffer.transfer(8 * rows);
     await end({ ended: promise.then(() => 'right', (error) => error.code + ' ' + error.message) });`,
    lost,
  ],
  'the input, which is out, is posted to a worker': [
    `const worker = new Worker(shortLived, { eval: true, execArgv: [] });
     const data = logits();
     const call = begin(data, labels(), out(data));
     worker.postMessage(data, [data.buffer]);
     await end(call);`,
    lost,
  ],
  'a call that was aborted has its out transferred': [
    `const data = new Float32Array(count);
     const controller = new AbortController();
     const call = begin(logits(), labels(), { ...out(data), signal: controller.signal });
     structuredClone(data, { transfer: [data.buffer] });
     controller.abort();
     await end(call);`,
    /^ERR_ABORTED /,
  ],

  'the memory of a WebAssembly module grows under the input': [
    `const memory = new WebAssembly.Memory({ initial: Math.ceil((4 * count) / 65536), maximum: 4096 });
     const call = begin(logits(memory.buffer));
     memory.grow(1024);
     await end(call);`,
  ],
  'the memory of a WebAssembly module grows under out': [
    `const memory = new WebAssembly.Memory({ initial: Math.ceil((4 * count) / 65536), maximum: 4096 });
     const call = begin(logits(), labels(), out(new Float32Array(memory.buffer, 0, count)));
     memory.grow(1024);
     await end(call);`,
    lost,
  ],
  'the shared memory of a WebAssembly module grows': [
    `const initial = Math.ceil((8 * count) / 65536);
     const memory = new WebAssembly.Memory({ initial, maximum: 4096, shared: true });
     const call = begin(logits(memory.buffer), labels(), out(new Float32Array(memory.buffer, 4 * count, count)));
     memory.grow(1024);
     await end(call);`,
  ],
  'a growable SharedArrayBuffer grows': [
    `const buffer = new SharedArrayBuffer(4 * count, { maxByteLength: 64 * count });
     logits(buffer);
     const data = new Float32Array(buffer);
     const call = begin(data, labels(), out(data));
     buffer.grow(64 * count);
     await end(call);`,
  ],
  'a resizable ArrayBuffer is refused': [
    `const buffer = new ArrayBuffer(4 * count, { maxByteLength: 8 * count });
     const call = begin(logits(buffer));
     buffer.resize(0);
     await end(call);`,
    /^ERR_DTYPE CrossEntropyLoss: an asynchronous call can't work in a resizable ArrayBuffer/,
  ],
  'a resizable ArrayBuffer is refused as out': [
    `const buffer = new ArrayBuffer(4 * count, { maxByteLength: 8 * count });
     const call = begin(logits(), labels(), out(new Float32Array(buffer)));
     buffer.resize(8 * count);
     await end(call);`,
    /^ERR_DTYPE CrossEntropyLoss: an asynchronous call can't work in a resizable ArrayBuffer/,
  ],
};

for (const mode of modes) {
  describe(`memory that is ${mode} for asynchronous calls at work`, () => {
    for (const [name, [script, expected = /^right$/]] of Object.entries(cases)) {
      it(name, () => assert.match(outcome(mode, script), expected));
    }
  });
}

describe('calls on copies of their arrays', () => {
  before(() => nativeBinding().setMemoryMode('copied'));
  after(() => nativeBinding().setMemoryMode('held'));

  const classes = 40;
  const rows = 600;
  const input = floatTensor(new Samples(1).normals(rows * classes, 3), [rows, classes], 'float32');
  const labels = new Samples(2).labels(rows, classes);

  it('say so', () => {
    assert.equal(nativeBinding().getMemoryMode(), 'copied');
    assert.match(diagnose(), /^asynchronous calls: in copies of the arrays/m);
  });

  it('may have their arguments written to', async () => {
    const criterion = new CrossEntropyLoss({ reduction: 'none' });
    const expected = criterion.valueAndGrad(input, labels);
    const own = tensor((input.data as Float32Array).slice(), { shape: input.shape });
    const target = labels.slice();
    const promise = criterion.valueAndGradAsync(own, target);
    (own.data as Float32Array).fill(NaN);
    target.fill(-1);
    const { value, grad } = await promise;
    assertSameTensor(value, expected.value, 'value');
    assertSameTensor(grad, expected.grad, 'gradient');
  });

  it('write their own elements of out alone: others may be written meanwhile', async () => {
    const criterion = new CrossEntropyLoss();
    const pixels = [2, classes, rows / 2];
    const target = tensor(labels, { shape: [2, rows / 2] });
    const x = tensor(input.data, { shape: pixels });
    const expected = criterion.valueAndGrad(x, target).grad.data as Float32Array;
    // Two gradients, element by element in turn.
    const both = new Float32Array(2 * rows * classes);
    const strides = [rows * classes, rows, 2];
    const parts = [both.subarray(0, both.length - 1), both.subarray(1)];
    await Promise.all(
      parts.map((data) =>
        criterion.valueAndGradAsync(x, target, { out: { grad: { data, shape: pixels, strides } } }),
      ),
    );
    const right = both.every((value, i) => Object.is(value, expected[i >> 1]));
    assert.ok(right);
  });

  it('leave out as it was when they are aborted', async () => {
    const before = getNumThreads();
    setNumThreads(1);
    try {
      const shape = [4096, 512];
      const x = tensor(new Float32Array(4096 * 512).fill(0.5), { shape });
      const out = new Float32Array(4096 * 512).fill(12345);
      const controller = new AbortController();
      const promise = new AsymmetricLossMultiLabel({ gammaNeg: 3.7 }).valueAndGradAsync(x, x, {
        out: { grad: { data: out, shape } },
        signal: controller.signal,
      });
      setImmediate(() => controller.abort());
      await assert.rejects(promise, { code: 'ERR_ABORTED' });
      assert.ok(out.every((value) => value === 12345));
    } finally {
      setNumThreads(before);
    }
  });
});
