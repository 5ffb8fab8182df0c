import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** What an example prints to a pipe; rejects unless it exits with 0. */
async function run(name: string, ...options: string[]): Promise<string> {
  const file = join(root, 'dist-dev/examples', name);
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [file, ...options], { cwd: root });
  assert.equal(stderr, '');
  return stdout;
}

interface GoldenCase {
  readonly name: string;
  readonly expected: { readonly output: { readonly data: readonly number[] } };
  readonly tolerance: number;
}

const { cases } = JSON.parse(readFileSync(join(root, 'test/golden/seeds.json'), 'utf8')) as {
  cases: readonly GoldenCase[];
};

const losses = ['JsdCrossEntropy', 'CrossEntropyLoss', 'LabelSmoothingCrossEntropy'];

interface Row {
  readonly accuracy: number;
  readonly meanLoss: number;
  readonly calibrationError: number;
}

/** The rows of one loss in the demo's table: on clean penguins, and on noisy ones. */
function rowsOf(output: string, loss: string): Row[] {
  const mean = String.raw`([\d.]+) ± [\d.]+`;
  const pattern = new RegExp(String.raw`│ +${loss} +│ +${mean} +│ +${mean} +│ +${mean} +│`, 'g');
  return [...output.matchAll(pattern)].map(([, ...numbers]) => {
    const [accuracy, meanLoss, calibrationError] = numbers.map(Number) as [number, number, number];
    return { accuracy, meanLoss, calibrationError };
  });
}

/** The names of an XML document's elements in order; throws where tags do not match. */
function elementsOf(xml: string): string[] {
  const names: string[] = [];
  const open: string[] = [];
  const tag = /<(\/?)([\w:-]+)((?:\s+[\w:-]+="[^"<&]*(?:&\w+;[^"<&]*)*")*)\s*(\/?)>/g;
  const text = xml.replace(tag, (_, closing: string, name: string, _attributes, selfClosing: string) => {
    if (closing) {
      assert.equal(open.pop(), name, 'a closing tag without its element');
    } else {
      if (open.length === 0) assert.equal(names.length, 0, 'a second root element');
      names.push(name);
      if (!selfClosing) open.push(name);
    }
    return '';
  });
  assert.deepEqual(open, [], 'elements that nothing closes');
  assert.doesNotMatch(text, /[<>]/, 'markup that is no tag');
  return names;
}

describe('examples/demo', () => {
  const folder = mkdtempSync(join(tmpdir(), 'surprisal-demo-'));
  const options = ['--out', join(folder, 'new'), '--runs', '3'];
  let output = '';
  before(async () => {
    output = await run('demo.js', ...options);
  });
  after(() => rmSync(folder, { recursive: true }));

  for (const loss of losses) {
    it(`tells the species apart with ${loss}`, () => {
      const [clean, noisy, ...others] = rowsOf(output, loss);
      assert.ok(
        clean && noisy && others.length === 0,
        'expected a row for clean and a row for noisy penguins',
      );
      // Always guessing Adelie is right for 44 %, and taking every Chinstrap for an Adelie for 80 %: beyond 90 % all
      // three species must have been learnt. Ten seeds gave means from 97 to 99 % with a deviation below 2.
      assert.ok(clean.accuracy >= 90 && clean.accuracy <= 100, `accuracy ${clean.accuracy} %`);
      // Noise as large as the features' own spread leaves about 80 %, and cannot leave what the clean ones have.
      assert.ok(
        noisy.accuracy >= 70 && noisy.accuracy < clean.accuracy,
        `accuracy in noise ${noisy.accuracy} %`,
      );
      // A model that knows nothing has a loss of ln 3.
      assert.ok(clean.meanLoss > 0 && clean.meanLoss < Math.log(3) / 2, `mean loss ${clean.meanLoss}`);
      assert.ok(noisy.meanLoss > clean.meanLoss, `mean loss in noise ${noisy.meanLoss}`);
      for (const { calibrationError } of [clean, noisy]) {
        assert.ok(calibrationError > 0 && calibrationError < 50, `calibration error ${calibrationError} %`);
      }
    });
  }

  it('shows that its losses differ', () => {
    const clean = losses.map((loss) => rowsOf(output, loss)[0]!);
    assert.equal(new Set(clean.map(({ meanLoss }) => meanLoss)).size, losses.length);
    // Plain cross entropy minimises what `mean loss` measures; the others give some of it away.
    assert.equal(Math.min(...clean.map(({ meanLoss }) => meanLoss)), clean[1]!.meanLoss);
  });

  it('writes plain lines of at most 80 columns where there is no terminal', () => {
    // eslint-disable-next-line no-control-regex
    assert.doesNotMatch(output, /[\u001b\r]/);
    for (const loss of losses)
      assert.match(output, new RegExp(String.raw`^ +${loss} +training loss \d+\.\d{3}$`, 'm'));
    const drawing = 'Drawn in ';
    for (const line of output.split('\n').filter((text) => !text.startsWith(drawing))) {
      // No character here takes two code units or two columns.
      assert.ok(line.length <= 80, line);
    }
  });

  it('draws the curve in the terminal', () => {
    const chart = output.split('\n').filter((line) => /^.{6}[┤┼]/.test(line));
    // 12 steps of height, and the line of 0.
    assert.equal(chart.length, 13);
    assert.match(chart.at(-1)!, /^ {2}0\.0 ┤ +╰─+╯$/);
  });

  it('draws the curve as an SVG document with the golden points', () => {
    const svg = readFileSync(join(folder, 'new', 'jsd_curve.svg'), 'utf8');
    assert.equal(elementsOf(svg)[0], 'svg');
    const [, path] = /aria-roledescription="line mark" d="([^"]+)"/.exec(svg) ?? [];
    assert.ok(path, 'no line');
    const points = path
      .split(/[ML]/)
      .slice(1)
      .map((pair) => pair.split(',').map(Number) as [number, number]);

    const curve = cases.find(({ name }) => name.startsWith('the JS divergence curve'))!;
    assert.equal(points.length, curve.expected.output.data.length);
    const [width, height, top] = [600, 320, 0.4];
    for (const [i, [x, y]] of points.entries()) {
      // Vega rounds coordinates to 0.001.
      assert.ok(Math.abs(x - (width * i) / 20) <= 0.0005 + 1e-9, `point ${i}: x ${x}`);
      const value = top * (1 - y / height);
      const tolerance = curve.tolerance + (0.0005 / height) * top + 1e-9;
      assert.ok(Math.abs(value - curve.expected.output.data[i]!) <= tolerance, `point ${i}: ${value}`);
    }
  });

  it('gives the same numbers again', async () => {
    const withoutTime = (text: string): string => text.replace(/[\d.]+ s in all/, '');
    assert.equal(withoutTime(await run('demo.js', ...options)), withoutTime(output));
  });

  it('says what is wrong with an option', async () => {
    await assert.rejects(run('demo.js', '--runs', 'many'), /expected an integer of at least 2.*got 'many'/);
  });
});

describe('examples/notebooks', () => {
  let output = '';
  before(async () => {
    output = await run('notebooks.js');
  });

  const number = String.raw`(-?\d+\.\d+)`;
  const scalar = (expression: string): RegExp =>
    new RegExp(`^  ${expression.replace(/[()[\],.]/g, String.raw`\$&`)} +(?:tensor\\()?${number}`, 'gm');

  /** Where the notebooks' printed values stand in the output, by the golden case's name. */
  const places: Record<string, { readonly pattern: RegExp; readonly count: number }> = {
    'jsd without smoothing and alpha is plain cross entropy of the first split': {
      pattern: scalar('base_loss'),
      count: 1,
    },
    // The first of the two is that of the case before.
    'jsd with two splits': { pattern: scalar('jsd(output,labels)'), count: 2 },
    'cross entropy of the label smoothing notebook': { pattern: scalar('CrossEntropy'), count: 2 },
    'label smoothing of the label smoothing notebook': {
      pattern: scalar('LableSmoothingCrossEntropy'),
      count: 1,
    },
    'lens: KL divergence of Q from a delta distribution is the unlensed loss': {
      pattern: scalar('F.kl_div(logQ, P)'),
      count: 2,
    },
    'lens: class 0 and class 1 interchangeable': { pattern: scalar('F.kl_div(logQ, Cw)'), count: 1 },
    'lens: nll_loss of the batch': { pattern: scalar('F.nll_loss(logQ_batch, target)'), count: 1 },
    'lensed cross entropy, batch, pair lens': { pattern: scalar('lensed'), count: 1 },
    'lensed cross entropy, identity lens equals cross entropy': { pattern: scalar('unlensed'), count: 1 },
    'cross entropy of the five class example': {
      pattern: scalar('F.cross_entropy(input, target)'),
      count: 1,
    },
  };

  const numbersIn = (text: string): string[] => text.match(/-?\d+\.?\d*(?:e[+-]\d+)?/g) ?? [];

  /** What rounding to the digits of a printed number can have taken away. */
  const halfUnit = (printed: string): number => {
    const [mantissa, exponent = '0'] = printed.split('e');
    return 0.5 * 10 ** (Number(exponent) - (mantissa!.split('.')[1] ?? '').length);
  };

  /** What stands after an expression, from one mark to another. */
  const after = (expression: string, start: string, end: string): string => {
    const found = output.indexOf(`\n  ${expression}`);
    assert.ok(found >= 0, `no '${expression}' in the output`);
    const from = output.indexOf(start, found);
    return output.slice(from, output.indexOf(end, from));
  };

  const tensors: Record<string, () => string[]> = {
    'the JS divergence curve: one of three predictions is moved by t*[-0.1, 0.1, 0, ...], t = -10..10; loss minus the plain cross entropy':
      () => numbersIn(after('losses ', 'losses', '\n\n')),
    'its log probabilities': () => numbersIn(after('log_probs', 'tensor(', ')')),
    'gather along the last dimension': () => numbersIn(after('torch.gather', 'tensor(', ')')),
  };

  for (const { name, expected, tolerance } of cases) {
    it(name, () => {
      const { data } = expected.output;
      const place = places[name];
      const got = place
        ? [...output.matchAll(place.pattern)].map(([, text]) => text!)
        : (tensors[name] ?? assert.fail(`the notebooks example does not show '${name}'`))();
      assert.equal(got.length, place?.count ?? data.length);
      for (const [i, text] of got.entries()) {
        const value = place ? data[0]! : data[i]!;
        // Both sides are rounded: the golden value's tolerance is its own share.
        const allowed = tolerance + halfUnit(text);
        assert.ok(Math.abs(Number(text) - value) <= allowed, `${text}, expected ${value} within ${allowed}`);
      }
    });
  }

  it('finds every value as it stands in the notebooks', () => {
    assert.doesNotMatch(output, /DIFFERS/);
    // The notebooks print 23 values of known input; two of them come once more, through the lensed loss.
    assert.equal(output.match(/as in the notebook|notebook: /g)?.length, 25);
  });
});
