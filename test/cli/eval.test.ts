import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { tensor } from 'surprisal';
import { writeNpy, writeSafetensors } from 'surprisal/io';
import {
  AsymmetricLossSingleLabel,
  BinaryCrossEntropy,
  CrossEntropyLoss,
  JsdCrossEntropy,
  LabelSmoothingCrossEntropy,
  type Loss,
} from 'surprisal/loss';
import { ClassificationEvaluator, type ClassificationMetrics } from 'surprisal/metrics';
import { fixture, temporaryFolder } from '../io/files.js';
import { type batch, json, output, surprisal, writeBatch } from './command.js';

const [rows, classes] = [600, 7];

describe('surprisal eval', () => {
  const path = temporaryFolder();
  let made: ReturnType<typeof batch>;
  let pair: string[] = [];
  before(async () => {
    made = await writeBatch(path('logits.npy'), path('labels.npy'), rows, classes, 1);
    pair = [path('logits.npy'), path('labels.npy')];
  });

  const metricsOf = (...args: string[]) => json(...args) as ClassificationMetrics;
  const same = (actual: ClassificationMetrics, expected: ClassificationMetrics, losses = true) => {
    const { losses: ownLosses, ...metrics } = expected;
    const plain = JSON.parse(
      JSON.stringify({ ...metrics, confusionMatrix: undefined }, (_, value: unknown) =>
        ArrayBuffer.isView(value) ? Array.from(value as Float64Array) : value,
      ),
    ) as object;
    for (const [name, value] of Object.entries(plain)) {
      assert.deepEqual((actual as unknown as Record<string, unknown>)[name], value, name);
    }
    if (losses) assert.deepEqual(actual.losses, ownLosses);
  };

  it('prints what the evaluator computes, bit for bit', () => {
    const evaluator = new ClassificationEvaluator({ numClasses: classes, topK: [1, 3], bins: 10 });
    const expected = evaluator.update(made.logits, made.labels).compute();
    same(metricsOf('eval', ...pair, '--top-k', '3,1', '--bins', '10'), expected);
    same(metricsOf('eval', ...pair, '--top-k', '1,3', '--bins=10', '--rows-per-block', '7'), expected);
    for (const threads of ['1', '3', '7']) {
      same(metricsOf('eval', ...pair, '--top-k', '1,3', '--bins', '10', '--threads', threads), expected);
    }
  });

  const cases: readonly (readonly [string[], Loss])[] = [
    [['jsd', '--num-splits', '3'], new JsdCrossEntropy()],
    [
      ['jsd', '--num-splits', '2', '--alpha', '-1.5', '--smoothing', '0'],
      new JsdCrossEntropy({ numSplits: 2, alpha: -1.5, smoothing: 0 }),
    ],
    [['cross-entropy', '--smoothing', '0.2'], new CrossEntropyLoss({ labelSmoothing: 0.2 })],
    [['label_smoothing'], new LabelSmoothingCrossEntropy()],
    [['binary-cross-entropy', '--target-threshold', '0.2'], new BinaryCrossEntropy({ targetThreshold: 0.2 })],
    [
      ['asymmetric-single-label', '--gamma-neg', '3', '--eps', '0.2'],
      new AsymmetricLossSingleLabel({ gammaNeg: 3, eps: 0.2 }),
    ],
  ];
  for (const [args, loss] of cases) {
    it(`counts --loss ${args.join(' ')}, and merge makes it again of the state`, () => {
      const name = args[0]!.replaceAll('_', '-');
      const value = loss.forward(made.logits, made.labels).item();
      const result = json(
        'eval',
        ...pair,
        '--loss',
        ...args,
        '--state',
        path('state.json'),
      ) as ClassificationMetrics;
      // The class's mean is a float32, the command's is of float64 sums.
      assert.ok(
        Math.abs(result.losses[name]! - value) <= 1e-6 * Math.abs(value),
        `${result.losses[name]!}, not ${value}`,
      );
      const merged = json('merge', path('state.json')) as ClassificationMetrics;
      assert.deepEqual(merged.losses, result.losses);
      assert.equal(merged.loss, result.loss);
    });
  }

  it('reads the splits of a loss from all over the file: blocks do not change the result', () => {
    const value = new JsdCrossEntropy().forward(made.logits, made.labels).item();
    for (const block of ['1', '7', '200', '1000']) {
      const { losses } = json(
        'eval',
        ...pair,
        '--loss',
        'jsd',
        '--rows-per-block',
        block,
      ) as ClassificationMetrics;
      // Each block's sum is rounded to float32.
      assert.ok(
        Math.abs(losses['jsd']! - value) <= 1e-6 * value,
        `${block}: ${losses['jsd']!}, not ${value}`,
      );
    }
  });

  it('takes targets of the first split for all', async () => {
    const first = made.labels.slice(0, rows / 3);
    await writeNpy(path('first.npy'), first);
    await writeNpy(path('thrice.npy'), Int32Array.from([...first, ...first, ...first]));
    const [once, thrice] = ['first.npy', 'thrice.npy'].map((name) =>
      output('eval', path('logits.npy'), path(name), '--loss', 'jsd', '--rows-per-block', '33', '--json'),
    );
    assert.equal(once, thrice);
  });

  it('takes several files as one evaluation, in pairs or in lists, and merge their states, bit for bit', async () => {
    const [logits, labels, states] = [[], [], []] as string[][] as [string[], string[], string[]];
    for (const [i, end] of [100, 101, 350, rows].entries()) {
      const from = [0, 100, 101, 350][i]!;
      const part = made.logits.data.subarray(from * classes, end * classes) as Float32Array;
      await writeNpy(path(`logits-${i}.npy`), tensor(part, { shape: [end - from, classes] }));
      await writeNpy(path(`labels-${i}.npy`), made.labels.subarray(from, end));
      logits.push(path(`logits-${i}.npy`));
      labels.push(path(`labels-${i}.npy`));
      states.push(path(`state-${i}.json`));
      output('eval', logits[i]!, labels[i]!, '--state', states[i]!);
    }
    const { totalRows, splits, ...whole } = json('eval', ...pair) as ClassificationMetrics & {
      totalRows: number;
      splits: number;
    };
    assert.deepEqual([totalRows, splits], [rows, 1]);
    same(metricsOf('eval', ...logits.flatMap((file, i) => [file, labels[i]!])), whole);
    same(metricsOf('eval', '--logits', ...logits, '--targets', ...labels), whole);
    same(
      metricsOf('eval', '--logits', logits[0]!, '--logits', ...logits.slice(1), '--targets', ...labels),
      whole,
    );
    same(metricsOf('merge', ...states.reverse(), '--state', path('merged.json')), whole);
    output('eval', ...pair, '--state', path('whole.json'));
    assert.equal(readFileSync(path('merged.json'), 'utf8'), readFileSync(path('whole.json'), 'utf8'));
  });

  it('takes arrays by name, after a colon or a number sign', async () => {
    await writeSafetensors(path('both.safetensors'), { logits: made.logits, 'a:b': made.labels });
    const whole = output('eval', ...pair);
    const both = path('both.safetensors');
    assert.equal(output('eval', `${both}:logits`, `${both}:a:b`), whole);
    assert.equal(output('eval', `${both}#logits`, `${both}#a:b`), whole);
    const unnamed = surprisal('eval', both, `${both}:a:b`);
    assert.equal(unnamed.code, 2);
    assert.match(
      unnamed.stderr,
      /say which of its arrays, as '.*both\.safetensors:.*'; it has a:b, logits\n/,
    );
    assert.match(
      surprisal('eval', `${both}:logit`, `${both}:a:b`).stderr,
      /has no array 'logit', but a:b, logits; did you mean 'logits'\?/,
    );
  });

  it('leaves out rows of --ignore-index', async () => {
    const labels = made.labels.map((y, i) => (i % 3 === 0 ? -1 : y));
    await writeNpy(path('some.npy'), labels);
    const expected = new ClassificationEvaluator({ numClasses: classes, ignoreIndex: -1 })
      .update(made.logits, labels)
      .compute();
    same(metricsOf('eval', path('logits.npy'), path('some.npy'), '--ignore-index', '-1'), expected);
    const refused = surprisal(
      'eval',
      path('logits.npy'),
      path('some.npy'),
      '--ignore-index',
      '-1',
      '--loss',
      'jsd',
    );
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /row 0 is -1 \(jsd knows no rows to be ignored\)/);
  });

  it('prints a table for people', () => {
    const text = output('eval', ...pair, '--loss', 'jsd');
    const { accuracy, loss } = new ClassificationEvaluator({ numClasses: classes })
      .update(made.logits, made.labels)
      .compute();
    assert.match(text, /^rows {15}600 {6,}in 3 splits$/m);
    assert.ok(text.includes(`top-1 accuracy     ${(100 * accuracy).toFixed(2)} %`), text);
    assert.ok(text.includes(`loss               ${loss.toFixed(4)} nats`), text);
    assert.match(text, /^jsd {16}\d\.\d{4} +numSplits 3, alpha 12, smoothing 0\.1$/m);
    for (const line of text.split('\n')) assert.ok(line.length <= 80, line);
  });

  it('says of rows that it has no numbers for that they are undefined', async () => {
    await writeNpy(path('none.npy'), tensor(new Float32Array(0), { shape: [0, 3] }));
    await writeNpy(path('none-labels.npy'), new Int32Array(0));
    const none = [path('none.npy'), path('none-labels.npy')];
    assert.equal(metricsOf('eval', ...none).loss, null);
    assert.match(output('eval', ...none), /^rows +0\nloss +undefined {2}perplexity/);
  });

  describe('exit codes and messages', () => {
    const usage: readonly (readonly [string[], RegExp])[] = [
      [[], /expected a command: eval, merge, curve or devices/],
      [['evla'], /unknown command 'evla'; did you mean 'eval'\?/],
      [['constructor'], /unknown command 'constructor'/],
      [['--frob'], /unknown option '--frob'/],
      [['eval'], /expected LOGITS and TARGETS/],
      [['eval', 'one.npy'], /files in pairs, LOGITS TARGETS, got 1: 'one\.npy' has none beside it/],
      [['eval', 'a', '--logits', 'b', '--targets', 'c'], /got 'a' beside --logits and --targets/],
      [
        ['eval', '--logits', 'a', 'b', '--targets', 'c'],
        /as many files of targets as of logits, got 1 and 2/,
      ],
      [['eval', 'a', 'b', '--topk', '1'], /unknown option '--topk'; did you mean '--top-k'\?/],
      [['eval', 'a', 'b', '--los', 'jsd'], /unknown option '--los'; did you mean '--loss'\?/],
      [['eval', 'a', 'b', '--threads', '0'], /--threads: expected a whole number of at least 1/],
      [['help', 'evil'], /unknown command 'evil'; did you mean 'eval'\?/],
      [['eval', 'a', 'b', '--top-k', '1,x'], /--top-k: expected a whole number of at least 1.*, got 'x'/],
      [['eval', 'a', 'b', '--top-k'], /--top-k: argument missing/],
      [
        ['eval', 'a', 'b', '--loss', 'jds'],
        /--loss: expected one of cross-entropy.*, got 'jds'; did you mean 'jsd'\?/,
      ],
      [['eval', 'a', 'b', '--alpha', '1'], /--alpha is an option of --loss jsd, not of cross-entropy/],
      [
        ['eval', 'a', 'b', '--loss', 'jsd', '--num-splits', '0'],
        /--num-splits: expected a whole number of at least 1, got '0'/,
      ],
      [
        ['eval', 'a', 'b', '--loss', 'jsd', '--smoothing', '1'],
        /--smoothing: expected a number of at least 0 and below 1, got '1'/,
      ],
      [['eval', 'a', 'b', '--device', 'tpu'], /--device: expected auto or cpu, got 'tpu'/],
      [['eval', 'a', 'b', '--checkpoint-every', '3'], /goes with --checkpoint FILE/],
      [['merge'], /expected files of states/],
      [['curve'], /expected the curve of jsd, got nothing/],
      [['curve', 'jsdd'], /got 'jsdd'; did you mean 'jsd'\?/],
      [['devices', 'gpu'], /takes no argument, got 'gpu'/],
    ];
    for (const [args, message] of usage) {
      it(`2: surprisal ${args.join(' ')}`, () => {
        const { code, stdout, stderr } = surprisal(...args);
        assert.equal(code, 2);
        assert.equal(stdout, '');
        assert.match(stderr, message);
        assert.match(stderr, /\nsurprisal: try 'surprisal (?:\w+ )?--help'\n$/);
      });
    }

    const fails = (message: RegExp, ...args: string[]) => {
      const { code, stdout, stderr } = surprisal(...args);
      assert.equal(code, 1);
      assert.equal(stdout, '');
      assert.match(stderr, message);
      assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
    };

    it('1: a file that is not there, is damaged, or does not fit', async () => {
      const [logits, labels] = pair as [string, string];
      fails(/^surprisal: .*missing\.npy: no such file or directory\n$/, 'eval', path('missing.npy'), labels);
      fails(/are the two files swapped\?/, 'eval', labels, logits);
      fails(
        /expected class indices of shape \[600\], as .*logits\.npy is \[600, 7\], got \[\d+/,
        'eval',
        logits,
        fixture('rows_i4.npy'),
      );
      fails(/expected class indices, which are integers, got float32/, 'eval', logits, logits);
      fails(
        /expected the rows of 7 splits, so a multiple of 7, got 600/,
        'eval',
        ...pair,
        '--loss',
        'jsd',
        '--num-splits',
        '7',
      );
      writeFileSync(path('cut.npy'), readFileSync(logits).subarray(0, 1000));
      fails(/cut\.npy: .*cut off/, 'eval', path('cut.npy'), labels);
      await writeNpy(path('wide.npy'), tensor(new Float32Array(rows * 9), { shape: [rows, 9] }));
      fails(
        /wide\.npy: expected logits of 7 classes, as in .*logits\.npy, got 9/,
        'eval',
        ...pair,
        path('wide.npy'),
        labels,
      );
      fails(/device 'cuda.*' is not available/, 'eval', ...pair, '--device', 'cuda:63');
      fails(
        /no-folder.*: no such file or directory/,
        'eval',
        ...pair,
        '--state',
        path('no-folder/state.json'),
      );
      mkdirSync(path('folder'));
      fails(/folder: is a directory, expected a file\n$/, 'eval', path('folder'), labels);
      for (const option of ['--html', '--state', '--checkpoint']) {
        fails(/folder: is a directory\n$/, 'eval', ...pair, option, path('folder'));
      }
      fails(/folder: is a directory\n$/, 'merge', path('folder'));
      fails(/folder: is a directory\n$/, 'curve', 'jsd', '--out', path('folder'));
    });

    it('2: a result in the place of a file that is read, or of another result', () => {
      const before = readFileSync(pair[0]!);
      for (const [args, message] of [
        [
          ['--html', pair[0]!],
          /--html: expected a file of its own, but .*logits\.npy is a file that is read/,
        ],
        [
          ['--html', path('a'), '--state', path('a')],
          /--state: expected a file of its own, .* that of --html/,
        ],
      ] as const) {
        const { code, stdout, stderr } = surprisal('eval', ...pair, ...args);
        assert.equal(code, 2);
        assert.equal(stdout, '');
        assert.match(stderr, message);
      }
      assert.deepEqual(readFileSync(pair[0]!), before);
    });

    it('1: a label that is none, with its row in the file', async () => {
      const labels = made.labels.slice();
      labels[423] = 7;
      await writeNpy(path('bad.npy'), labels);
      for (const block of ['1000', '10']) {
        for (const loss of [
          ['--loss', 'jsd'],
          ['--loss', 'label-smoothing'],
        ]) {
          const message =
            /bad\.npy: expected class indices in \[0, 7\), but row 423 is 7 \(rows to be ignored are -100/;
          const args = ['eval', path('logits.npy'), path('bad.npy'), '--rows-per-block', block, ...loss];
          fails(message, ...args);
          fails(message, ...args, '--threads', '3');
        }
      }
    });

    it('1: states that are none, or of another evaluation', () => {
      output('eval', ...pair, '--state', path('one.json'));
      output('eval', ...pair, '--bins', '3', '--state', path('other.json'));
      fails(/other\.json: .*bins is 15 here, 3 there/, 'merge', path('one.json'), path('other.json'));
      writeFileSync(path('text.json'), 'text');
      fails(/text\.json: expected the state of an evaluation, which is JSON/, 'merge', path('text.json'));
      writeFileSync(path('null.json'), 'null');
      fails(/null\.json: expected/, 'merge', path('null.json'));
      const twice = surprisal('merge', path('one.json'), path('one.json'));
      assert.equal(twice.code, 2);
      assert.match(twice.stderr, /is the same file as .*: its rows would count twice/);
    });

    it('is a program, which npx finds where it is installed', () => {
      const { bin } = JSON.parse(readFileSync('package.json', 'utf8')) as { bin: { surprisal: string } };
      assert.match(readFileSync(bin.surprisal, 'utf8'), /^#!\/usr\/bin\/env node\n/);
      // Elsewhere npm writes a script that calls node.
      if (process.platform === 'win32') return;
      const folder = path('installed');
      mkdirSync(join(folder, 'node_modules', '.bin'), { recursive: true });
      writeFileSync(join(folder, 'package.json'), '{}');
      symlinkSync(resolve(bin.surprisal), join(folder, 'node_modules', '.bin', 'surprisal'));
      const npx = spawnSync('npx', ['--no-install', 'surprisal', 'eval', '--help'], {
        encoding: 'utf8',
        cwd: folder,
      });
      assert.equal(npx.status, 0, npx.stderr);
      assert.equal(npx.stdout, output('eval', '--help'));
    });

    it('0: help of each command, with an example, and the version', () => {
      for (const command of ['eval', 'merge', 'curve', 'devices']) {
        const help = output(command, '--help');
        assert.ok(help.startsWith(`surprisal ${command}`), help);
        assert.match(help, /\nExample:\n {2}surprisal \w+/);
        assert.equal(output('help', command), help);
        assert.ok(output('--help').includes(`surprisal ${command} `));
      }
      const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
      assert.equal(output('--version'), `${version}\n`);
    });
  });
});

describe('surprisal devices', () => {
  it('lists the CPU first', () => {
    assert.match(output('devices'), /^device +name +memory +capability\ncpu /);
    const { devices } = json('devices') as { devices: { device: string }[] };
    assert.equal(devices[0]!.device, 'cpu');
  });
});
