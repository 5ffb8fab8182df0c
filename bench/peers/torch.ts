import { spawn, spawnSync, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { childEnv } from '../child_env.js';
import type { Pass } from '../results.js';
import type { AbsentPeer, Peer, PeerBatch, PeerLoss, PeerResult } from './peer.js';

const name = 'PyTorch (eager)';
const root = dirname(createRequire(import.meta.url).resolve('surprisal/package.json'));
const script = join(root, 'bench', 'peers', 'torch_peer.py');

/** The one that the shell finds may have no torch where the system's, which has Debian's packages, does. */
const interpreters = ['python3', '/usr/bin/python3', '/usr/local/bin/python3', 'python'];

const hasTorch = (python: string): boolean =>
  spawnSync(python, ['-c', 'import torch'], { env: childEnv() }).status === 0;

type Child = ChildProcessByStdio<Writable, Readable, null>;

/** timm's formulas in eager PyTorch, in a process of their own. */
class Torch implements Peer {
  readonly name = name;
  readonly detail: string;
  readonly #child: Child;
  readonly #lines: AsyncIterableIterator<string>;
  readonly #folder = mkdtempSync(join(tmpdir(), 'surprisal-bench-'));

  private constructor(child: Child, lines: AsyncIterableIterator<string>, detail: string) {
    this.#child = child;
    this.#lines = lines;
    this.detail = detail;
  }

  static async start(python: string): Promise<Torch> {
    const child = spawn(python, [script], { stdio: ['pipe', 'pipe', 'inherit'], env: childEnv() });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const { torch, python: version } = (await ask(child, lines, { do: 'version' })) as {
      torch: string;
      python: string;
    };
    return new Torch(child, lines, `torch ${torch}, Python ${version}`);
  }

  #ask(request: object): Promise<object> {
    return ask(this.#child, this.#lines, request);
  }

  async load({ rows, classes, logits, labels, soft, multiHot }: PeerBatch): Promise<void> {
    const arrays = { logits, labels, soft, multiHot };
    const files = Object.fromEntries(
      Object.entries(arrays).map(([key, { buffer, byteOffset, byteLength }]) => {
        const file = join(this.#folder, key);
        writeFileSync(file, new Uint8Array(buffer, byteOffset, byteLength));
        return [key, file];
      }),
    );
    await this.#ask({ do: 'load', rows, classes, files });
    for (const file of Object.values(files)) rmSync(file);
  }

  async setThreads(count: number): Promise<void> {
    await this.#ask({ do: 'threads', count });
  }

  async result(loss: PeerLoss, pass: Pass): Promise<PeerResult> {
    const wantsGrad = pass !== 'forward';
    const file = join(this.#folder, 'grad');
    const { value } = (await this.#ask({ do: 'result', loss, wantsGrad, file })) as { value: number };
    if (!wantsGrad) return { value };
    const bytes = readFileSync(file);
    rmSync(file);
    return { value, grad: new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4) };
  }

  async sample(loss: PeerLoss, pass: Pass, repeats: number, rehearse: boolean): Promise<number> {
    const wantsGrad = pass !== 'forward';
    const { ns } = (await this.#ask({ do: 'sample', loss, wantsGrad, repeats, rehearse })) as { ns: number };
    return ns;
  }

  async close(): Promise<void> {
    const exit = once(this.#child, 'exit');
    this.#child.stdin.end();
    await exit;
    rmSync(this.#folder, { recursive: true });
  }
}

async function ask(child: Child, lines: AsyncIterableIterator<string>, request: object): Promise<object> {
  child.stdin.write(`${JSON.stringify(request)}\n`);
  const answer: IteratorResult<string, unknown> = await lines.next();
  if (answer.done) throw new Error(`${name}: its process ended; what it said is above`);
  return JSON.parse(answer.value) as object;
}

export async function openTorch(): Promise<Peer | AbsentPeer> {
  const python = interpreters.find(hasTorch);
  if (python === undefined) {
    const reason = `none of ${interpreters.join(', ')} can import torch (Debian: apt-get install python3-torch)`;
    return { name, reason };
  }
  return Torch.start(python);
}
