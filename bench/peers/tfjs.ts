import { createRequire } from 'node:module';
import { dirname, sep } from 'node:path';
import type { Pass } from '../results.js';
import type { AbsentPeer, Peer, PeerBatch, PeerLoss, PeerResult } from './peer.js';

const name = 'tfjs (wasm)';

interface TfTensor {
  dataSync(): Float32Array;
  dispose(): void;
}

/** What is used of tfjs: its own declarations want the DOM's and WebGPU's types. */
interface Tf {
  readonly version_core: string;
  setBackend(name: string): Promise<boolean>;
  getBackend(): string;
  ready(): Promise<void>;
  tidy<T>(f: () => T): T;
  tensor2d(values: Float32Array, shape: readonly number[]): TfTensor;
  logSoftmax(x: TfTensor, axis: number): TfTensor;
  add(a: TfTensor | number, b: TfTensor | number): TfTensor;
  sub(a: TfTensor | number, b: TfTensor | number): TfTensor;
  mul(a: TfTensor | number, b: TfTensor | number): TfTensor;
  div(a: TfTensor, b: TfTensor | number): TfTensor;
  square(a: TfTensor): TfTensor;
  neg(a: TfTensor): TfTensor;
  exp(a: TfTensor): TfTensor;
  log(a: TfTensor): TfTensor;
  abs(a: TfTensor): TfTensor;
  relu(a: TfTensor): TfTensor;
  sigmoid(a: TfTensor): TfTensor;
  minimum(a: TfTensor, b: TfTensor | number): TfTensor;
  maximum(a: TfTensor, b: TfTensor | number): TfTensor;
  less(a: TfTensor, b: number): TfTensor;
  cast(a: TfTensor, dtype: 'float32'): TfTensor;
  sum(a: TfTensor, axis?: number, keepDims?: boolean): TfTensor;
  slice(a: TfTensor, begin: readonly number[], size: readonly number[]): TfTensor;
  concat(tensors: readonly TfTensor[], axis: number): TfTensor;
}

interface Wasm {
  readonly version_wasm: string;
  setWasmPaths(folder: string): void;
}

/** A batch in the heap of the backend, with the targets that tfjs's operations want. */
interface Loaded {
  readonly batch: PeerBatch;
  readonly logits: TfTensor;
  readonly soft: TfTensor;
  /** [rows, 1] */
  readonly softSums: TfTensor;
  readonly multiHot: TfTensor;
  /** One-hot labels; smoothed ones; those of the first split. */
  readonly oneHot: TfTensor;
  readonly smoothed: TfTensor;
  readonly firstSmoothed: TfTensor;
}

const smoothing = 0.1;
const splits = 3;

interface Outcome {
  readonly value: TfTensor;
  readonly grad?: TfTensor;
}

type Formula = (x: TfTensor, data: Loaded, wantsGrad: boolean) => Outcome;

/**
 * The losses and the closed forms of their gradients, in as few operations of tfjs as it takes: less than tf.grad
 * would make of the losses alone.
 */
function formulas(tf: Tf): Readonly<Record<PeerLoss, Formula>> {
  /** Σ of all, row by row: in float32 one long sum loses digits that two short ones keep. */
  const total = (x: TfTensor) => tf.sum(tf.sum(x, -1));
  /** Cross entropy; `sums` are the targets' sums, [rows, 1], or 1. */
  const dense = (
    x: TfTensor,
    target: TfTensor,
    rows: number,
    wantsGrad: boolean,
    sums: TfTensor | number = 1,
  ) => {
    const logP = tf.logSoftmax(x, -1);
    const value = tf.div(total(tf.mul(target, logP)), -rows);
    if (!wantsGrad) return { value };
    const p = tf.exp(logP);
    return { value, grad: tf.div(tf.sub(sums === 1 ? p : tf.mul(p, sums), target), rows) };
  };
  /** g − p·Σ g: what dL/d(log p) gives for the logits. */
  const throughSoftmax = (g: TfTensor, p: TfTensor) => tf.sub(g, tf.mul(p, tf.sum(g, -1, true)));

  return {
    CrossEntropyLoss: (x, { oneHot, batch: { rows } }, wantsGrad) => dense(x, oneHot, rows, wantsGrad),
    LabelSmoothingCrossEntropy: (x, { smoothed, batch: { rows } }, wantsGrad) =>
      dense(x, smoothed, rows, wantsGrad),
    SoftTargetCrossEntropy: (x, { soft, softSums, batch: { rows } }, wantsGrad) =>
      dense(x, soft, rows, wantsGrad, softSums),
    JsdCrossEntropy: (x, { batch: { rows, classes }, firstSmoothed }, wantsGrad) => {
      const size = Math.floor(rows / splits);
      const factor = 12 / (splits * size);
      const parts = Array.from({ length: splits }, (_, k) => tf.slice(x, [k * size, 0], [size, classes]));
      const logPs = parts.map((part) => tf.logSoftmax(part, -1));
      const ps = logPs.map((logP) => tf.exp(logP));
      const totalP = ps.reduce((a, b) => tf.add(a, b));
      const mean = tf.div(totalP, splits);
      const logM = tf.log(tf.maximum(mean, 1e-7));
      const own = ps.map((p, k) => total(tf.mul(p, logPs[k]!))).reduce((a, b) => tf.add(a, b));
      const divergence = tf.sub(own, total(tf.mul(totalP, logM)));
      const first = dense(parts[0]!, firstSmoothed, size, wantsGrad);
      const value = tf.add(first.value, tf.mul(divergence, factor));
      if (first.grad === undefined) return { value };
      const shift = tf.sub(logM, tf.cast(tf.less(mean, 1e-7), 'float32'));
      const grads = ps.map((p, k) => {
        const g = tf.mul(tf.mul(p, factor), tf.sub(logPs[k]!, shift));
        return throughSoftmax(g, p);
      });
      grads[0] = tf.add(grads[0]!, first.grad);
      return { value, grad: tf.concat(grads, 0) };
    },
    'BinaryCrossEntropy, dense target': (x, { multiHot, batch: { rows, classes } }, wantsGrad) => {
      const count = rows * classes;
      const soft = tf.log(tf.add(tf.exp(tf.neg(tf.abs(x))), 1));
      const value = tf.div(total(tf.add(tf.sub(tf.relu(x), tf.mul(x, multiHot)), soft)), count);
      return wantsGrad ? { value, grad: tf.div(tf.sub(tf.sigmoid(x), multiHot), count) } : { value };
    },
    AsymmetricLossMultiLabel: (x, { multiHot }, wantsGrad) => {
      const [clip, eps] = [0.05, 1e-8];
      const p = tf.sigmoid(x);
      const not = tf.sub(1, multiHot);
      // Of a class that is not there: u = 1 − q, clipped at 0.
      const u = tf.relu(tf.sub(p, clip));
      const q = tf.maximum(tf.sub(1, u), eps);
      const [logP, logQ] = [tf.log(tf.maximum(p, eps)), tf.log(q)];
      const square = tf.square(u);
      const present = tf.mul(multiHot, tf.mul(tf.sub(1, p), logP));
      const absent = tf.mul(not, tf.mul(tf.square(square), logQ));
      const value = tf.neg(total(tf.add(present, absent)));
      if (!wantsGrad) return { value };
      const slope = tf.mul(p, tf.sub(1, p));
      const ofPresent = tf.sub(logP, tf.div(tf.sub(1, p), p));
      const ofAbsent = tf.mul(tf.mul(square, u), tf.sub(tf.div(u, q), tf.mul(4, logQ)));
      return {
        value,
        grad: tf.mul(slope, tf.add(tf.mul(multiHot, ofPresent), tf.mul(not, ofAbsent))),
      };
    },
    AsymmetricLossSingleLabel: (x, { oneHot, smoothed, batch: { rows } }, wantsGrad) => {
      const logP = tf.logSoftmax(x, -1);
      const p = tf.exp(logP);
      const not = tf.sub(1, oneHot);
      const fourth = tf.mul(not, tf.square(tf.square(p)));
      const rest = tf.mul(oneHot, tf.sub(1, p));
      const value = tf.div(total(tf.mul(smoothed, tf.mul(logP, tf.add(rest, fourth)))), -rows);
      if (!wantsGrad) return { value };
      const ofLabel = tf.sub(rest, tf.mul(oneHot, tf.mul(p, logP)));
      const ofOthers = tf.mul(fourth, tf.add(1, tf.mul(4, logP)));
      const g = tf.div(tf.mul(smoothed, tf.add(ofLabel, ofOthers)), -rows);
      return { value, grad: throughSoftmax(g, p) };
    },
  };
}

function rowSums(values: Float32Array, rows: number, classes: number): Float32Array {
  return Float32Array.from({ length: rows }, (_, row) =>
    values.subarray(row * classes, (row + 1) * classes).reduce((a, b) => a + b, 0),
  );
}

class Tfjs implements Peer {
  readonly name = name;
  readonly detail: string;
  readonly #tf: Tf;
  readonly #formulas: ReturnType<typeof formulas>;
  #data: Loaded | undefined;

  constructor(tf: Tf, wasm: Wasm) {
    this.#tf = tf;
    this.#formulas = formulas(tf);
    this.detail = `tfjs-core ${tf.version_core}, tfjs-backend-wasm ${wasm.version_wasm}, one thread`;
  }

  async load(batch: PeerBatch): Promise<void> {
    this.#dispose();
    const { rows, classes, labels } = batch;
    const matrix = (values: Float32Array, height = rows) => this.#tf.tensor2d(values, [height, classes]);
    const targets = (height: number, floor: number, peak: number) => {
      const values = new Float32Array(height * classes).fill(floor);
      for (let row = 0; row < height; row++) values[row * classes + labels[row]!]! += peak;
      return matrix(values, height);
    };
    this.#data = {
      batch,
      logits: matrix(batch.logits),
      soft: matrix(batch.soft),
      softSums: this.#tf.tensor2d(rowSums(batch.soft, rows, classes), [rows, 1]),
      multiHot: matrix(batch.multiHot),
      oneHot: targets(rows, 0, 1),
      smoothed: targets(rows, smoothing / classes, 1 - smoothing),
      firstSmoothed: targets(Math.floor(rows / splits), smoothing / classes, 1 - smoothing),
    };
  }

  async setThreads(): Promise<void> {
    // Its threads are Web Workers, which Node has not.
  }

  /** The loss, read back, which waits for it; the gradient stays in the backend's heap. */
  #run(loss: PeerLoss, pass: Pass, read?: (grad: Float32Array) => void): number {
    const tf = this.#tf;
    return tf.tidy(() => {
      const data = this.#data!;
      const { value, grad } = this.#formulas[loss](data.logits, data, pass !== 'forward');
      if (grad !== undefined) read?.(grad.dataSync().slice());
      return value.dataSync()[0]!;
    });
  }

  async result(loss: PeerLoss, pass: Pass): Promise<PeerResult> {
    let grad: Float32Array | undefined;
    const value = this.#run(loss, pass, (values) => (grad = values));
    return grad === undefined ? { value } : { value, grad };
  }

  async sample(loss: PeerLoss, pass: Pass, repeats: number, rehearse: boolean): Promise<number> {
    if (rehearse) this.#run(loss, pass);
    const start = process.hrtime.bigint();
    for (let i = 0; i < repeats; i++) this.#run(loss, pass);
    return Number(process.hrtime.bigint() - start) / repeats;
  }

  #dispose(): void {
    if (this.#data === undefined) return;
    const { logits, soft, softSums, multiHot, oneHot, smoothed, firstSmoothed } = this.#data;
    for (const tensor of [logits, soft, softSums, multiHot, oneHot, smoothed, firstSmoothed])
      tensor.dispose();
    this.#data = undefined;
  }

  async close(): Promise<void> {
    this.#dispose();
  }
}

const require = createRequire(import.meta.url);

export async function openTfjs(): Promise<Peer | AbsentPeer> {
  try {
    const tf = require('@tensorflow/tfjs-core') as Tf;
    const wasm = require('@tensorflow/tfjs-backend-wasm') as Wasm;
    wasm.setWasmPaths(dirname(require.resolve('@tensorflow/tfjs-backend-wasm')) + sep);
    await tf.setBackend('wasm');
    await tf.ready();
    if (tf.getBackend() !== 'wasm') return { name, reason: `its backend is ${tf.getBackend()}` };
    return new Tfjs(tf, wasm);
  } catch (error) {
    return { name, reason: (error as Error).message.split('\n')[0]! };
  }
}
