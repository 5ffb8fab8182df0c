import type { Pass } from '../results.js';
import * as losses from './javascript_losses.js';
import type { Peer, PeerBatch, PeerLoss, PeerResult } from './peer.js';

type Run = (batch: PeerBatch, grad: Float32Array | undefined) => number;

const runs: Readonly<Record<PeerLoss, Run>> = {
  CrossEntropyLoss: (batch, grad) => losses.crossEntropy(batch, 0, grad),
  LabelSmoothingCrossEntropy: (batch, grad) => losses.crossEntropy(batch, 0.1, grad),
  SoftTargetCrossEntropy: losses.softTarget,
  JsdCrossEntropy: (batch, grad) => losses.jsd(batch, 3, 12, 0.1, grad),
  'BinaryCrossEntropy, dense target': losses.binaryCrossEntropy,
  AsymmetricLossMultiLabel: (batch, grad) => losses.asymmetricMultiLabel(batch, 0.05, 1e-8, grad),
  AsymmetricLossSingleLabel: (batch, grad) => losses.asymmetricSingleLabel(batch, 0.1, grad),
};

/** Fused loops in plain JavaScript. */
export class JavaScript implements Peer {
  readonly name = 'plain JavaScript';
  readonly detail = `fused loops, V8 ${process.versions.v8}, one thread`;
  #batch: PeerBatch | undefined;
  #grad = new Float32Array(0);

  async load(batch: PeerBatch): Promise<void> {
    this.#batch = batch;
    this.#grad = new Float32Array(batch.logits.length);
  }

  async setThreads(): Promise<void> {
    // One thread it is.
  }

  #run(loss: PeerLoss, pass: Pass): number {
    return runs[loss](this.#batch!, pass === 'forward' ? undefined : this.#grad);
  }

  async result(loss: PeerLoss, pass: Pass): Promise<PeerResult> {
    this.#grad.fill(NaN);
    const value = this.#run(loss, pass);
    return pass === 'forward' ? { value } : { value, grad: this.#grad };
  }

  async sample(loss: PeerLoss, pass: Pass, repeats: number, rehearse: boolean): Promise<number> {
    if (rehearse) this.#run(loss, pass);
    const start = process.hrtime.bigint();
    for (let i = 0; i < repeats; i++) this.#run(loss, pass);
    return Number(process.hrtime.bigint() - start) / repeats;
  }

  async close(): Promise<void> {
    this.#batch = undefined;
    this.#grad = new Float32Array(0);
  }
}
