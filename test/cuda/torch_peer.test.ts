/** Memory of a GPU that a PyTorch process shares, both ways. Left out where there is no GPU, or no PyTorch that sees it. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Event, tensor, Tensor, type IpcHandle } from 'surprisal';
import { LabelSmoothingCrossEntropy } from 'surprisal/loss';
import { nativeBinding } from '../support/losses.js';

const finds = spawnSync('python3', ['-c', 'import torch, sys; sys.exit(not torch.cuda.is_available())']);
const isThere = finds.status === 0 && nativeBinding().emulatorCounts === undefined;

(isThere ? describe : describe.skip)('a PyTorch process', () => {
  let python: ChildProcessWithoutNullStreams;
  let lines: AsyncIterator<string>;

  const next = async () => {
    const { value } = (await lines.next()) as { value: string };
    const answer = JSON.parse(value) as Record<string, unknown>;
    assert.equal(answer['error'], undefined);
    return answer;
  };
  const ask = (task: object) => {
    python.stdin.write(`${JSON.stringify(task)}\n`);
    return next();
  };

  before(async () => {
    python = spawn('python3', [join('test', 'cuda', 'torch_peer.py')]);
    python.stderr.pipe(process.stderr);
    lines = createInterface({ input: python.stdout })[Symbol.asyncIterator]();
    assert.equal((await next())['gpu'], true);
  });
  after(async () => {
    python.stdin.end();
    await once(python, 'exit');
  });

  const [rows, classes] = [64, 1000];
  const labels = Int32Array.from({ length: rows }, (_, i) => (37 * i) % classes);
  const loss = new LabelSmoothingCrossEntropy();

  /** Against PyTorch in float64; a gradient of float32 is off by a few units of 2^-24 of its own size. */
  function assertGradient(value: number, got: number[][], reference: Record<string, unknown>): void {
    const expected = reference['grad'] as number[][];
    assert.ok(Math.abs(value - (reference['value'] as number)) <= 1e-6 * Math.abs(value));
    expected.forEach((row, i) =>
      row.forEach((g, c) => assert.ok(Math.abs(got[i]![c]! - g) <= 4e-7 * Math.abs(g) + 1e-12, `${i}, ${c}`)),
    );
  }

  it('hands logits over, and takes the gradient back', async () => {
    const { handle, values } = await ask({ task: 'make', name: 'logits', rows, classes });
    const input = Tensor.fromIpcHandle(handle as IpcHandle);
    assert.deepEqual(input.toArray(), values);
    const memory = await ask({ task: 'make', name: 'grad', rows, classes });
    const grad = Tensor.fromIpcHandle(memory['handle'] as IpcHandle);
    const { value } = loss.valueAndGrad(input, labels, { out: { grad } });
    const done = new Event();
    done.record();
    await done.synchronizeAsync();
    const written = (await ask({ task: 'read', name: 'grad' }))['values'] as number[][];
    assertGradient(
      value.item(),
      written,
      await ask({ task: 'gradient', logits: 'logits', labels: [...labels] }),
    );
  });

  it('is handed logits, and writes to them', async () => {
    const logits = Array.from({ length: rows }, (_, i) =>
      Array.from({ length: classes }, (_, c) => Math.fround(Math.sin(i * 7.3 + c * 1.7) * 4)),
    );
    const ours = tensor(new Float32Array(rows * classes), { shape: [rows, classes] }).to('cuda');
    await ask({ task: 'open', name: 'ours', handle: ours.ipcHandle() });
    await ask({ task: 'write', name: 'ours', values: logits });
    assert.deepEqual(ours.toArray(), logits);
    const { value, grad } = loss.valueAndGrad(ours, labels);
    assertGradient(
      value.item(),
      grad.toArray() as number[][],
      await ask({ task: 'gradient', logits: 'ours', labels: [...labels] }),
    );
  });
});
