/** Memory of a GPU that processes share, and that others in this process have. */
import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { devices, Event, tensor, Tensor, type IpcHandle } from 'surprisal';
import { LabelSmoothingCrossEntropy } from 'surprisal/loss';
import { floatDTypes, floatTensor } from '../support/float_formats.js';
import { codeOf, nativeBinding } from '../support/losses.js';
import { Samples } from '../support/random.js';

const gpu = devices()[1];

function logits(rows: number, classes: number): Tensor {
  return floatTensor(new Samples(3).normals(rows * classes, 3), [rows, classes], 'float32');
}

/** Another process, which does what it is told. */
class Peer {
  readonly #child: ChildProcess;

  constructor(script: string) {
    this.#child = fork(script, [], {
      execArgv: [],
      env: {
        ...process.env,
        INDEX: import.meta.resolve('surprisal'),
        LOSS: import.meta.resolve('surprisal/loss'),
      },
    });
  }

  async ask(message: object): Promise<Record<string, unknown>> {
    this.#child.send(message);
    const [answer] = (await Promise.race([
      once(this.#child, 'message'),
      once(this.#child, 'exit').then(([code]) => [{ error: `exit code ${code}` }]),
    ])) as [Record<string, unknown>];
    return answer;
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.disconnect();
    await ended;
  }
}

const peerSource = `
  const { tensor, Tensor } = await import(process.env.INDEX);
  const { LabelSmoothingCrossEntropy } = await import(process.env.LOSS);
  const kept = new Map();
  const tasks = {
    make: ({ name, values, shape }) => {
      kept.set(name, tensor(values, { shape }).to('cuda'));
      return { handle: kept.get(name).ipcHandle() };
    },
    open: ({ name, handle }) => {
      kept.set(name, Tensor.fromIpcHandle(handle));
      return { values: kept.get(name).toArray() };
    },
    read: ({ name }) => ({ values: kept.get(name).toArray() }),
    // The gradient of the peer's logits, into the peer's memory.
    grad: ({ logits, out, labels }) => {
      const loss = new LabelSmoothingCrossEntropy();
      const { value } = loss.valueAndGrad(kept.get(logits), labels, { out: { grad: kept.get(out) } });
      return { value: value.item() };
    },
    dispose: ({ name }) => {
      kept.get(name).dispose();
      kept.delete(name);
      return {};
    },
  };
  process.on('message', (message) => {
    try {
      process.send(tasks[message.task](message));
    } catch (error) {
      process.send({ error: error.message, code: error.code });
    }
  });
`;

describe('memory of a GPU that processes share', () => {
  let folder: string;
  let script: string;
  const peers: Peer[] = [];
  const peer = () => {
    const made = new Peer(script);
    peers.push(made);
    return made;
  };

  before(() => {
    assert.ok(gpu !== undefined, 'this suite needs a GPU, or the emulator');
    folder = mkdtempSync(join(tmpdir(), 'surprisal-'));
    script = join(folder, 'peer.mjs');
    writeFileSync(script, peerSource);
  });
  afterEach(() => Promise.all(peers.splice(0).map((each) => each.end())));
  after(() => rmSync(folder, { recursive: true }));

  it('is opened by another process by a handle that JSON keeps', async () => {
    const there = logits(5, 7).to('cuda');
    const handle = JSON.parse(JSON.stringify(there.ipcHandle())) as IpcHandle;
    assert.equal(Buffer.from(handle.handle, 'base64').length, 64);
    assert.deepEqual(
      { ...handle, handle: '' },
      { handle: '', byteOffset: 0, shape: [5, 7], strides: [7, 1], dtype: 'float32', device: 'cuda:0' },
    );
    assert.equal(there.ipcHandle().handle, handle.handle);
    const { values } = await peer().ask({ task: 'open', name: 'x', handle });
    assert.deepEqual(values, there.toArray());
  });

  it('takes logits from there and gives the gradient back, without a copy', async () => {
    const producer = peer();
    const [rows, classes] = [6, 40];
    const x = logits(rows, classes);
    const labels = Int32Array.from({ length: rows }, (_, i) => (7 * i) % classes);
    const made = (name: string) =>
      producer.ask({ task: 'make', name, values: x.toArray(), shape: [rows, classes] });
    const input = Tensor.fromIpcHandle((await made('logits'))['handle'] as IpcHandle);
    const grad = Tensor.fromIpcHandle((await made('grad'))['handle'] as IpcHandle);
    const loss = new LabelSmoothingCrossEntropy();
    const { value } = loss.valueAndGrad(input, labels, { out: { grad } });
    const done = new Event();
    done.record();
    await done.synchronizeAsync();
    const expected = loss.valueAndGrad(x.to('cuda'), labels);
    assert.equal(value.item(), expected.value.item());
    assert.deepEqual((await producer.ask({ task: 'read', name: 'grad' }))['values'], expected.grad.toArray());
  });

  it('is written to by another process, through the handle of what it computes into', async () => {
    const consumer = peer();
    const [rows, classes] = [4, 9];
    const x = logits(rows, classes).to('cuda');
    const grad = tensor(new Float32Array(rows * classes), { shape: [rows, classes] }).to('cuda');
    for (const [name, of] of [
      ['logits', x],
      ['grad', grad],
    ] as const) {
      await consumer.ask({ task: 'open', name, handle: of.ipcHandle() });
    }
    const labels = [1, 2, 3, 4];
    const { value } = await consumer.ask({ task: 'grad', logits: 'logits', out: 'grad', labels });
    const expected = new LabelSmoothingCrossEntropy().valueAndGrad(x, labels);
    assert.equal(value, expected.value.item());
    assert.deepEqual(grad.toArray(), expected.grad.toArray());
  });

  it('is closed by whoever opened it, and stays with whoever made it, whichever ends first', async () => {
    const importer = peer();
    const there = logits(3, 3).to('cuda');
    const before = there.toArray();
    await importer.ask({ task: 'open', name: 'x', handle: there.ipcHandle() });
    await importer.ask({ task: 'dispose', name: 'x' });
    await importer.end();
    assert.deepEqual(there.toArray(), before);

    const exporter = peer();
    const made = await exporter.ask({ task: 'make', name: 'y', values: [[1, 2]], shape: [1, 2] });
    const opened = Tensor.fromIpcHandle(made['handle'] as IpcHandle);
    assert.deepEqual(opened.toArray(), [[1, 2]]);
    await exporter.end();
    opened.dispose();
    assert.throws(
      () => Tensor.fromIpcHandle(made['handle'] as IpcHandle),
      (error) => codeOf(error) === 'ERR_CUDA',
    );
    assert.deepEqual(there.toArray(), before, 'the device works on');
  });

  it('refuses what is no handle, and to share what is not its own', async () => {
    const there = logits(2, 2).to('cuda');
    const handle = there.ipcHandle();
    const made = await peer().ask({ task: 'make', name: 'x', values: [[1]], shape: [1, 1] });
    const opened = Tensor.fromIpcHandle(made['handle'] as IpcHandle);
    const refusals: [string, () => unknown][] = [
      ['ERR_CUDA', () => opened.ipcHandle()],
      ['ERR_DTYPE', () => logits(1, 1).ipcHandle()],
      ['ERR_DTYPE', () => Tensor.fromIpcHandle({ ...handle, handle: 'AAAA' })],
      ['ERR_DTYPE', () => Tensor.fromIpcHandle({ ...handle, dtype: 'float8' as never })],
      ['ERR_SHAPE', () => Tensor.fromIpcHandle({ ...handle, shape: [-1] })],
      ['ERR_SHAPE', () => Tensor.fromIpcHandle({ ...handle, byteOffset: 2 })],
      ['ERR_SHAPE', () => Tensor.fromIpcHandle({ ...handle, strides: [1] })],
      ['ERR_OPTION', () => Tensor.fromIpcHandle({ ...handle, device: 'cpu' })],
      ['ERR_OPTION', () => Tensor.fromIpcHandle({ ...handle, extra: 1 } as never)],
      ['ERR_CUDA_UNAVAILABLE', () => Tensor.fromIpcHandle({ ...handle, device: 'cuda:99' })],
      ['ERR_CUDA', () => Tensor.fromIpcHandle({ ...handle, handle: Buffer.alloc(64, 1).toString('base64') })],
    ];
    for (const [code, call] of refusals) assert.throws(call, (error) => codeOf(error) === code, String(call));
  });
});

describe('memory of a GPU that somebody else in this process has', () => {
  it('is taken as data where it lies', () => {
    for (const dtype of floatDTypes) {
      const owner = floatTensor(new Samples(5).normals(24), [4, 6], dtype).to('cuda');
      const size = { float32: 4, float64: 8, float16: 2, bfloat16: 2 }[dtype];
      // As its owner gives it away, its address is what is known of it.
      const memory = nativeBinding().allocateDevice(1, 24 * size);
      const ptr = nativeBinding().addressOfDevice(memory);
      for (const device of [0, 'cuda:0', { id: 0 }] as const) {
        const data = { ptr: Number(ptr), byteLength: 24 * size, device, memory };
        const borrowed = tensor(data, { shape: [4, 6], dtype });
        assert.equal(borrowed.device, 'cuda:0');
        const labels = [0, 1, 2, 3];
        const loss = new LabelSmoothingCrossEntropy();
        const grad = loss.valueAndGrad(owner, labels, { out: { grad: borrowed } }).grad;
        assert.equal(grad, borrowed);
        assert.deepEqual(grad.toArray(), loss.valueAndGrad(owner, labels).grad.toArray());
        const value = loss.forward({ data, shape: [4, 6], dtype }, labels);
        assert.equal(value.item(), loss.forward(borrowed, labels).item());
      }
    }
  });

  it('is refused where its address or its size can not be right', () => {
    const good = { ptr: 4096, byteLength: 16, device: 0 };
    const refusals: [string, () => unknown][] = [
      ['ERR_DTYPE', () => tensor(good, { shape: [4] })],
      ['ERR_DTYPE', () => tensor({ ...good, ptr: 0 }, { shape: [4], dtype: 'float32' })],
      ['ERR_DTYPE', () => tensor({ ...good, byteLength: -1 }, { shape: [0], dtype: 'float32' })],
      ['ERR_SHAPE', () => tensor({ ...good, ptr: 4098 }, { shape: [4], dtype: 'float32' })],
      ['ERR_SHAPE', () => tensor(good, { shape: [5], dtype: 'float32' })],
      ['ERR_SHAPE', () => tensor(good, { shape: [2], strides: [4], dtype: 'float32' })],
      ['ERR_OPTION', () => tensor({ ...good, device: 'cpu' }, { shape: [4], dtype: 'float32' })],
      ['ERR_CUDA_UNAVAILABLE', () => tensor({ ...good, device: 99 }, { shape: [4], dtype: 'float32' })],
    ];
    for (const [code, call] of refusals) assert.throws(call, (error) => codeOf(error) === code, String(call));
  });
});
