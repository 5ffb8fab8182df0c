// The instrument, not the figures: what it computes from samples, what its floors move, whether its peers compute the
// same losses, what it writes, and that the README says nothing else. No time is asserted.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as losses from 'surprisal/loss';
import { allowedError, checkAgreement, Ours } from '../bench/beside_peers.js';
import { cases } from '../bench/cases.js';
import { bytesOf, fastestFloor, floorAddon } from '../bench/floor.js';
import { shapes } from '../bench/matrix.js';
import { interleave, timed, type Operation } from '../bench/measure.js';
import { parseOptions } from '../bench/options.js';
import { openPeers, peerLosses, type Peer } from '../bench/peers/index.js';
import { evaluation, withEvaluationSection } from '../bench/evaluation_section.js';
import { readEvaluation, readResults, toJson, type Measurement, type Results } from '../bench/results.js';
import { scorecard } from '../bench/scorecard.js';
import { sourceOf } from '../bench/section.js';
import { speed, withSpeedSection } from '../bench/speed_section.js';
import { gigabytesPerSecond, median, ratios, relativeError, summarise } from '../bench/statistics.js';

const root = process.cwd();

describe('bench: figures from samples', () => {
  it('take the median and the quartiles, between neighbours where they fall there', () => {
    assert.deepEqual(summarise([5, 1, 4, 2, 3]), { q1: 2, median: 3, q3: 4 });
    assert.deepEqual(summarise([4, 1, 3, 2]), { q1: 1.75, median: 2.5, q3: 3.25 });
    assert.equal(median([7]), 7);
    assert.throws(() => median([]), RangeError);
  });

  it('compare round by round, so that a slow round slows both and counts once', () => {
    const floor = [100, 100, 1000, 100, 100];
    const loss = [150, 160, 1500, 140, 150];
    assert.deepEqual(ratios(loss, floor), [1.5, 1.6, 1.5, 1.4, 1.5]);
    assert.equal(summarise(ratios(loss, floor)).median, 1.5);
    assert.throws(() => ratios([1], [1, 2]), RangeError);
  });

  it('give gigabytes a second from bytes and nanoseconds', () => {
    // 64 MB in 2 ms
    assert.equal(gigabytesPerSecond(64e6, 2e6), 32);
  });

  it('know a median better with more rounds and with less spread', () => {
    const few = [8, 9, 10, 11, 12];
    assert.equal(relativeError([10, 10, 10]), 0);
    assert.ok(relativeError([...few, ...few, ...few, ...few]) < relativeError(few));
    assert.ok(relativeError([9.8, 9.9, 10, 10.1, 10.2]) < relativeError(few));
  });
});

describe('bench: rounds', () => {
  const limits = { minRounds: 4, maxRounds: 6, budget: 0, precision: 0 };

  it('run everything once a round, and at least the rounds asked for when there is no time', async () => {
    const order: string[] = [];
    const operation = (id: string): Operation => ({
      id,
      sample: () => {
        order.push(id);
        return 1e9;
      },
    });
    const samples = await interleave([operation('a'), operation('b')], [], limits, Math.random);
    assert.equal(samples.get('a')!.length, limits.minRounds);
    const rounds = order.slice(-2 * limits.minRounds);
    for (let i = 0; i < rounds.length; i += 2) assert.deepEqual(rounds.slice(i, i + 2).sort(), ['a', 'b']);
  });

  it('end when the ratios are known, and with the last round at the latest', async () => {
    let noise = 0;
    const steady: Operation = { id: 'steady', sample: () => 1e9 };
    const noisy: Operation = { id: 'noisy', sample: () => (1 + (noise++ % 3)) * 1e9 };
    const unhurried = { ...limits, budget: Infinity, precision: 0.01 };
    const pair = [['noisy', 'steady']] as const;
    const known = await interleave([steady, noisy], [['steady', 'steady']], unhurried, Math.random);
    assert.equal(known.get('steady')!.length, limits.minRounds);
    const unknown = await interleave([steady, noisy], pair, unhurried, Math.random);
    assert.equal(unknown.get('noisy')!.length, limits.maxRounds);
  });

  it('run what is timed once before the clock starts', () => {
    const calls: string[] = [];
    const operation = timed(
      'op',
      () => calls.push('run'),
      () => calls.push('prepare'),
    );
    void operation.sample(2);
    assert.deepEqual(calls, ['prepare', 'run', 'run', 'run']);
  });
});

describe('bench: floors', function () {
  // The first time, the addon is compiled.
  this.timeout(120_000);

  // Not a multiple of a line or a word, and several pieces for each thread.
  const count = 100_003;
  const from = Float32Array.from({ length: count }, (_, i) => Math.sin(i));
  const words = (view: Uint8Array): bigint => {
    const padded = new Uint8Array(Math.ceil(view.length / 8) * 8);
    padded.set(view);
    return BigInt.asUintN(
      64,
      new BigUint64Array(padded.buffer).reduce((sum, word) => sum + word, 0n),
    );
  };

  const plans = () => {
    const { readMethods, copyMethods, fillMethods } = floorAddon();
    return readMethods.flatMap((readMethod) =>
      copyMethods.flatMap((copyMethod) =>
        fillMethods.flatMap((fillMethod) =>
          [1, 2, 3].flatMap((threads) =>
            [1, 7].map((pieces) => ({ readMethod, copyMethod, fillMethod, threads, pieces })),
          ),
        ),
      ),
    );
  };

  it('read every byte, copy every byte and fill every byte, however they do it', () => {
    const { plan, sum } = floorAddon();
    for (const how of plans()) {
      const to = new Float32Array(count).fill(NaN);
      const filled = new Float32Array(count).fill(NaN);
      const run = plan({ ...how, reads: [from], gathers: [], copies: [{ from, to }], fills: [filled] });
      run();
      const what = JSON.stringify(how);
      // Parts are cut at lines, so that only the last word is filled up.
      assert.equal(sum(run), words(new Uint8Array(from.buffer)), what);
      assert.deepEqual(to, from, what);
      assert.ok(
        filled.every((x) => x === 0),
        what,
      );
    }
  });

  it("read the labels' elements and rows", () => {
    const { plan, sum, readMethods, copyMethods, fillMethods } = floorAddon();
    const [rows, classes] = [1000, 100];
    const labels = Int32Array.from({ length: rows }, (_, i) => (i * 37) % classes);
    const how = { readMethod: readMethods[0]!, copyMethod: copyMethods[0]!, fillMethod: fillMethods[0]! };
    const element = { from, indices: labels, rowStep: 4 * classes, indexStep: 4, bytes: 4 };
    const row = { from, indices: labels, rowStep: 0, indexStep: 4 * classes, bytes: 4 * classes };
    const bytes = new Uint8Array(from.buffer);
    const wanted = (at: (i: number) => number, size: number) =>
      BigInt.asUintN(
        64,
        [...labels.keys()].reduce((total, i) => total + words(bytes.subarray(at(i), at(i) + size)), 0n),
      );
    for (const threads of [1, 2]) {
      const run = (gather: typeof element) => {
        const mover = plan({
          ...how,
          threads,
          pieces: 1,
          reads: [],
          gathers: [gather],
          copies: [],
          fills: [],
        });
        mover();
        return sum(mover);
      };
      assert.equal(
        run(element),
        wanted((i) => 4 * (i * classes + labels[i]!), 4),
      );
      assert.equal(
        run(row),
        wanted((i) => 4 * classes * labels[i]!, 4 * classes),
      );
      assert.throws(() => run({ ...element, indices: labels.map(() => count) }), /outside its array/);
    }
  });

  it('count what is read and what is written', () => {
    const to = new Float32Array(count);
    assert.equal(bytesOf({ kind: 'read', reads: [from] }), 4 * count);
    assert.equal(bytesOf({ kind: 'copy', copies: [{ from, to }] }), 8 * count);
    assert.equal(bytesOf({ kind: 'both', reads: [from], copies: [{ from, to }], fills: [to] }), 16 * count);
  });

  it('are the ones that were found to be fastest, and say how', () => {
    const floor = fastestFloor({ kind: 'read', reads: [from] }, 1);
    assert.ok(floorAddon().readMethods.includes(floor.method), floor.method);
    floor.run();
  });
});

describe('bench: cases', () => {
  it('have every loss of the package', () => {
    const measured = new Set(cases.map(({ name }) => name.split(',')[0]));
    const missing = Object.keys(losses).filter((name) => name !== 'Loss' && !measured.has(name));
    assert.deepEqual(missing, []);
    for (const name of ['softmax', 'logSoftmax']) assert.ok(measured.has(name), name);
  });

  it('run over small, cached, uncached, long and short rows', () => {
    const names = shapes.map(({ name }) => name);
    for (const name of ['32x10', '1024x1000', '4096x1000', '512x32000', '64x128256', '16384x100']) {
      assert.ok(names.includes(name), name);
    }
  });
});

describe('bench: peers', function () {
  this.timeout(120_000);
  let present: Peer[] = [];
  const ours = new Ours(31, 47);

  before(async () => {
    ({ present } = await openPeers());
    for (const peer of present) await peer.load(ours.batch);
  });
  after(async () => {
    for (const peer of present) await peer.close();
  });

  it('are there, as far as npm brings them', () => {
    const names = present.map(({ name }) => name);
    for (const name of ['plain JavaScript', 'tfjs (wasm)']) assert.ok(names.includes(name), name);
  });

  for (const loss of peerLosses) {
    it(`compute the same: ${loss}`, async () => {
      for (const peer of present) {
        for (const pass of ['forward', 'loss and gradient'] as const) {
          const expected = ours.result(loss, pass);
          const { value, grad } = await peer.result(loss, pass);
          const result = grad ? { value, grad: grad.subarray(0, expected.grad?.length) } : { value };
          const what = `${peer.name}, ${loss}, ${pass}`;
          const { valueError, gradError = 0 } = checkAgreement(what, expected, result);
          // A thousand float32 roundings of 6e-8, where the bench allows for longer sums.
          assert.ok(valueError <= 6e-5 && gradError <= 6e-5, `${what}: ${valueError}, ${gradError}`);
        }
      }
    });
  }

  it('time themselves', async () => {
    for (const peer of present) {
      await peer.setThreads(1);
      assert.ok((await peer.sample('CrossEntropyLoss', 'loss and gradient', 2, true)) > 0, peer.name);
    }
  });

  it('are refused where they compute something else', () => {
    const result = { value: 2, grad: Float32Array.of(0.5, -0.25) };
    const off = (factor: number) => ({ value: 2, grad: Float32Array.of(0.5, -0.25 + factor) });
    checkAgreement('same', result, off(0.4 * allowedError));
    assert.throws(() => checkAgreement('off', result, off(allowedError)), /gradient/);
    assert.throws(() => checkAgreement('NaN', result, off(NaN)), /gradient/);
    assert.throws(() => checkAgreement('short', result, { value: 2 }), /gradient/);
    assert.throws(() => checkAgreement('value', result, { ...result, value: 2.01 }), /value/);
  });
});

/** Figures that nobody measured, to compute with. */
function madeUp(changes: Partial<Measurement>, ratio = 1): Measurement {
  const ns = { q1: 90, median: 100, q3: 110 };
  return {
    loss: 'CrossEntropyLoss',
    pass: 'forward',
    dtype: 'float32',
    shape: '512x32000',
    dims: [512, 32000],
    threads: 2,
    instructionSet: 'x86_64_v4',
    rounds: 7,
    ns,
    nsPerElement: 1,
    gigabytesPerSecond: 1,
    floor: { kind: 'read', method: 'vector loads', bytes: 100, ns, gigabytesPerSecond: 1 },
    ratio: { q1: ratio, median: ratio, q3: ratio },
    ...changes,
  };
}

describe('bench: scorecard', () => {
  const sets = ['x86_64_v4', 'x86_64_v3'];

  it('judges a target by its worst figure, and says which that was', () => {
    const measurements = [
      madeUp({}, 1.01),
      madeUp({ loss: 'SoftTargetCrossEntropy' }, 1.06),
      // None of these counts: another dtype, number of threads, kind of loss.
      madeUp({ dtype: 'float64' }, 9),
      madeUp({ threads: 1 }, 9),
      madeUp({ loss: 'JsdCrossEntropy' }, 9),
    ];
    const [target, ...others] = scorecard(measurements, [], [1, 2], sets);
    assert.deepEqual(others, []);
    assert.equal(target!.target, 1.05);
    assert.equal(target!.measured, 1.06);
    assert.equal(target!.met, false);
    assert.match(target!.where, /^SoftTargetCrossEntropy, forward/);
    assert.equal(scorecard(measurements.slice(0, 1), [], [1, 2], sets)[0]!.met, true);
  });

  it('takes the ratio to a plain copy where the floor copies by other means', () => {
    const plain = { q1: 1, median: 1.04, q3: 1.1 };
    const streamed = madeUp({ pass: 'loss and gradient', toMemcpy: plain }, 1.5);
    const [target] = scorecard([streamed], [], [1, 2], sets);
    assert.equal(target!.measured, 1.04);
    assert.equal(target!.met, true);
  });

  it('allows narrower vectors 1.6 times as much', () => {
    const forced = madeUp({ instructionSet: 'x86_64_v3' }, 1.6);
    const [target] = scorecard([forced], [], [1, 2], sets);
    assert.ok(Math.abs(target!.target - 1.05 * 1.6) < 1e-12);
    assert.equal(target!.met, true);
  });

  it('judges dtypes and layouts by what they are compared with', () => {
    const other = { q1: 1, median: 1.3, q3: 2 };
    const half = madeUp({ dtype: 'float16', toFloat32: other }, 5);
    const strided = madeUp({ shape: '4x21x512x512', toContiguous: other }, 5);
    const found = scorecard([half, strided], [], [1, 2], sets).map(({ group, measured, met }) => [
      group,
      measured,
      met,
    ]);
    assert.deepEqual(found, [
      ['dtypes', 1.3, false],
      ['strided classes', 1.3, true],
    ]);
  });

  it('judges small calls by their mean, in microseconds', () => {
    const call = { call: 'forward', shape: [1, 10], calls: 1e6, rounds: 100, meanNs: 1400, rssGrowth: 0 };
    const [target] = scorecard([], [{ ...call, ns: { q1: 1, median: 1, q3: 1 } }], [1, 2], sets);
    assert.deepEqual([target!.measured, target!.target, target!.unit, target!.met], [1.4, 1.5, 'µs', true]);
  });
});

describe('bench: command line', () => {
  const parse = (...args: string[]) => parseOptions(args, 6, ['x86_64_v4', 'x86_64_v3', 'baseline']);

  it('takes what it says that it takes', () => {
    const options = parse('--filter', 'JSD float32', '--threads', 'all,1', '--shape', '30x10,4096x1000')!;
    assert.deepEqual(options.words, ['jsd', 'float32']);
    assert.deepEqual(options.threads, [1, 6]);
    assert.deepEqual(options.shapes, [
      [30, 10],
      [4096, 1000],
    ]);
    assert.deepEqual(options.instructionSets, ['x86_64_v4', 'x86_64_v3']);
    assert.equal(options.everything, false);
    assert.equal(parse()!.everything, true);
    assert.equal(parse('--help'), undefined);
  });

  for (const args of [
    ['--dtype', 'float8'],
    ['--instruction-set', 'x86_64_v5'],
    ['--shape', '12'],
    ['--threads', '0'],
    ['--rounds', '1.5'],
    ['--nonsense'],
  ]) {
    it(`refuses ${args.join(' ')}`, () => {
      assert.throws(() => parse(...args), /expected|Unknown option/);
    });
  }

  it('runs, and writes what it measured', function () {
    this.timeout(120_000);
    const folder = mkdtempSync(join(tmpdir(), 'surprisal-bench-test-'));
    try {
      const file = join(folder, 'out.json');
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        [
          join(root, 'dist-dev', 'bench', 'bench.js'),
          ...['--filter', 'crossentropyloss', '--shape', '33x10', '--dtype', 'float32,float16'],
          ...['--rounds', '3', '--budget', '0.001', '--json', file, '--no-chart'],
        ],
        { cwd: root, encoding: 'utf8' },
      );
      assert.equal(status, 0, stderr);
      assert.match(stdout, /CrossEntropyLoss/);
      const results = readResults(file);
      assert.equal(readFileSync(file, 'utf8'), toJson(results));
      checkResults(results);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

function checkResults(results: Results): void {
  const { measurements, noise, threads, instructionSets, machine } = results;
  assert.ok(Date.parse(results.date) <= Date.now());
  assert.equal(results.node, process.versions.node);
  assert.ok(machine.cpu.length > 0 && machine.processors >= 1);
  // Each pass in float32 with each set of instructions, and in float16 with the best.
  const kinds = threads.length * 2;
  assert.equal(measurements.length, kinds * (instructionSets.length + 1));
  assert.equal(noise.length, kinds);
  for (const { rounds, ratio } of noise) {
    assert.equal(rounds, 3);
    assert.ok(ratio.q1 <= ratio.median && ratio.median <= ratio.q3);
  }
  for (const m of measurements) {
    const isForward = m.pass === 'forward';
    const size = m.dtype === 'float32' ? 4 : 2;
    assert.equal(m.loss, 'CrossEntropyLoss');
    assert.deepEqual([m.shape, ...m.dims], ['33x10', 33, 10]);
    assert.equal(m.rounds, 3);
    assert.equal(m.floor.kind, isForward ? 'read' : 'copy');
    assert.equal(m.floor.bytes, 33 * 10 * size * (isForward ? 1 : 2));
    for (const { q1, median: middle, q3 } of [m.ns, m.floor.ns, m.ratio]) {
      assert.ok(0 < q1 && q1 <= middle && middle <= q3);
    }
    // Four digits are written, so that a quotient of two is off by a few half units of the last.
    const near = (actual: number, expected: number) => assert.ok(Math.abs(actual / expected - 1) < 2e-3);
    near(m.gigabytesPerSecond, m.floor.bytes / m.ns.median);
    near(m.floor.gigabytesPerSecond, m.floor.bytes / m.floor.ns.median);
    near(m.nsPerElement, m.ns.median / 330);
    assert.equal(m.toFloat32 !== undefined, m.dtype === 'float16');
  }
}

describe('bench: README', () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const json = sourceOf(readme, speed);
  const evaluationJson = sourceOf(readme, evaluation);

  it('has the figures and charts of the JSON that it names', () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(root, 'dist-dev', 'bench', 'readme.js'), '--check'],
      { cwd: root, encoding: 'utf8' },
    );
    assert.equal(status, 0, stderr);
  });

  it('changes with the figures', async () => {
    const results = readResults(join(root, json));
    assert.equal(await withSpeedSection(readme, results, json), readme);
    const measurements = results.measurements.map((m) => ({
      ...m,
      ratio: { ...m.ratio, median: m.ratio.median + 0.5 },
    }));
    assert.notEqual(await withSpeedSection(readme, { ...results, measurements }, json), readme);
    const evaluated = readEvaluation(join(root, evaluationJson));
    assert.equal(await withEvaluationSection(readme, evaluated, evaluationJson), readme);
    const updates = evaluated.updates.map((update) => ({
      ...update,
      ratio: { ...update.ratio, median: update.ratio.median + 0.5 },
    }));
    assert.notEqual(await withEvaluationSection(readme, { ...evaluated, updates }, evaluationJson), readme);
  });
});
