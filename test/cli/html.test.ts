import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { tensor } from 'surprisal';
import { writeNpy } from 'surprisal/io';
import { CrossEntropyLoss } from 'surprisal/loss';
import { ClassificationEvaluator } from 'surprisal/metrics';
import { temporaryFolder } from '../io/files.js';
import { output, signalled, surprisal, writeBatch, type batch } from './command.js';

const [rows, classes] = [900, 6];

describe('surprisal eval --html', () => {
  const path = temporaryFolder();
  let made: ReturnType<typeof batch>;
  let losses: Float32Array;
  let html = '';
  const pair = () => [path('<logits> & co.npy'), path('labels.npy')];
  const section = (id: string) => new RegExp(`<section id="${id}">(.*?)</section>`, 's').exec(html)![1]!;
  /** Cells of a section's table. */
  const cells = (id: string) =>
    [...section(id).matchAll(/<tr>(<td.*?)<\/tr>/g)].map(([, row]) =>
      [...row!.matchAll(/<td[^>]*>(.*?)<\/td>/g)].map(([, text]) => text!),
    );
  const number = (text: string) => Number(text.replaceAll(',', ''));

  before(async () => {
    made = await writeBatch(...(pair() as [string, string]), rows, classes, 5);
    losses = new CrossEntropyLoss({ reduction: 'none' }).forward(made.logits, made.labels)
      .data as Float32Array;
    output('eval', ...pair(), '--html', path('report.html'), '--rows-per-block', '128');
    html = readFileSync(path('report.html'), 'utf8');
  });

  it('stands alone, for light and dark, its tags closed', () => {
    assert.doesNotMatch(html, /<script|<img|https?:|url\(|@import|(?:src|href)="(?!data:,")/);
    assert.ok(html.includes('prefers-color-scheme: dark'));
    assert.ok(html.includes('&#60;logits&#62; &#38; co.npy') && !html.includes('<logits>'));
    const open: string[] = [];
    for (const [, end, tag, self] of html.matchAll(/<(\/?)([a-z]\w*)[^>]*?(\/?)>/g)) {
      if (self || ['meta', 'link'].includes(tag!)) continue;
      if (end) assert.equal(open.pop(), tag);
      else open.push(tag!);
    }
    assert.deepEqual(open, []);
  });

  it('has the worst rows, the worst first', () => {
    const expected = [...losses.keys()].sort((a, b) => losses[b]! - losses[a]! || a - b).slice(0, 25);
    const found = cells('worst');
    assert.deepEqual(
      found.map(([row]) => number(row!)),
      expected,
    );
    found.forEach(([row, label, prediction, loss]) => {
      const z = Array.from(
        made.logits.data.subarray(number(row!) * classes, (number(row!) + 1) * classes) as Float32Array,
      );
      assert.equal(Number(label), made.labels[number(row!)]);
      assert.equal(Number(prediction), z.indexOf(Math.max(...z)));
      assert.equal(loss, losses[number(row!)]!.toFixed(4));
    });
  });

  it('has a histogram of all rows', () => {
    const width = (3 * Math.log(classes)) / 40;
    const expected = new Map<string, number>();
    for (const loss of losses) {
      const from = Math.min(40, Math.floor(loss / width)) * width;
      expected.set(from.toFixed(2), (expected.get(from.toFixed(2)) ?? 0) + 1);
    }
    const bars = [...section('losses').matchAll(/<title>loss (\S+) [^:]*: ([\d,]+) rows?<\/title>/g)];
    assert.deepEqual(
      new Map(bars.map(([, from, count]) => [Number(from).toFixed(2), number(count!)])),
      new Map([...expected].sort(([a], [b]) => Number(a) - Number(b))),
    );
  });

  it('has the reliability diagram and the most confused classes', () => {
    const evaluator = new ClassificationEvaluator({ numClasses: classes }).update(made.logits, made.labels);
    const { calibration, confusionMatrix } = evaluator.compute();
    const bars = [...section('reliability').matchAll(/: ([\d.]+) % right of ([\d,]+) rows?<\/title>/g)];
    const filled = [...calibration.rows.keys()].filter((b) => calibration.rows[b]! > 0);
    assert.deepEqual(
      bars.map(([, right, count]) => [right, number(count!)]),
      filled.map((b) => [(100 * calibration.accuracy[b]!).toFixed(2), calibration.rows[b]!]),
    );
    const matrix = confusionMatrix!.toArray() as number[][];
    const wrong = matrix
      .flatMap((row, y) => row.map((n, p) => [y, p, n] as const))
      .filter(([y, p, n]) => y !== p && n > 0);
    wrong.sort((a, b) => b[2] - a[2] || a[0] - b[0] || a[1] - b[1]);
    assert.deepEqual(
      cells('confused').map((row) => row.slice(0, 3).map(number)),
      wrong.slice(0, 25),
    );
  });

  it('calls classes by their names, and shows the whole matrix of few', () => {
    const names = ['zero', 'one', '<two>', 'three', 'four', 'five'];
    writeFileSync(path('names.txt'), names.join('\n'));
    const args = ['eval', ...pair(), '--html', path('named.html'), '--class-names', path('names.txt')];
    output(...args);
    const numbered = html;
    html = readFileSync(path('named.html'), 'utf8');
    const rows = [...section('matrix').matchAll(/<tr><th>(.*?)<\/th>(<td.*?)<\/tr>/g)];
    assert.deepEqual(
      rows.map(([, name]) => name),
      ['zero', 'one', '&#60;two&#62;', 'three', 'four', 'five'],
    );
    const evaluator = new ClassificationEvaluator({ numClasses: classes }).update(made.logits, made.labels);
    assert.deepEqual(
      rows.map(([, , row]) => [...row!.matchAll(/<td[^>]*>(.*?)<\/td>/g)].map(([, text]) => number(text!))),
      evaluator.compute().confusionMatrix!.toArray(),
    );
    const [label, prediction] = cells('confused')[0]!;
    html = numbered;
    assert.deepEqual(
      cells('confused')[0]!
        .slice(0, 2)
        .map((c) => names[Number(c)]),
      [label, prediction].map((name) => name!.replace('&#60;', '<').replace('&#62;', '>')),
    );

    writeFileSync(path('names.txt'), 'zero\none\n');
    const { code, stderr } = surprisal(...args);
    assert.equal(code, 1);
    assert.match(stderr, /names\.txt: expected 6 lines, a name for each class of .*, got 2\n$/);
  });

  it('is the same after kill -9, and with any number of threads', () => {
    const checkpoint = path('checkpoint.json');
    for (const threads of ['1', '3']) {
      const args = [
        'eval',
        ...pair(),
        '--html',
        path('resumed.html'),
        '--rows-per-block',
        '2',
        '--threads',
        threads,
      ];
      const often = ['--checkpoint', checkpoint, '--checkpoint-every', '0'];
      assert.equal(signalled('SIGKILL', 'renamed', 2, ...args, ...often).signal, 'SIGKILL');
      assert.match(surprisal(...args, '--checkpoint', checkpoint).stderr, /resumed at row/);
      assert.equal(readFileSync(path('resumed.html'), 'utf8'), html);
    }
  });

  it('takes rows that are undefined, infinite or ignored, and logits of 16 bits', async () => {
    const logits = tensor(
      [
        [NaN, 0],
        [-Infinity, 0],
        [1, 0],
        [0, 0],
      ],
      { dtype: 'float16' },
    );
    await writeNpy(path('odd.npy'), logits);
    await writeNpy(path('odd-labels.npy'), new Int32Array([0, 0, 0, -100]));
    output('eval', path('odd.npy'), path('odd-labels.npy'), '--html', path('odd.html'));
    html = readFileSync(path('odd.html'), 'utf8');
    assert.deepEqual(cells('worst'), [
      ['1', '0', '1', '∞', '0.0000'],
      ['2', '0', '0', '0.3133', '0.7311'],
    ]);
    assert.match(section('losses'), / Rows without one, as their logits are undefined: 1\./);
  });
});
