import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { writeNpy } from 'surprisal/io';
import { temporaryFolder } from '../io/files.js';
import { batch, output, signalled, surprisal, writeBatch } from './command.js';
import { moments } from './signal_at.js';

const [rows, classes] = [45_000, 10];

for (const threads of [1, 3]) {
  describe(`surprisal eval --checkpoint --threads ${threads}`, () => {
    const path = temporaryFolder();
    let common: string[] = [];
    let whole = '';
    let state = '';
    before(async () => {
      await writeBatch(path('logits.npy'), path('labels.npy'), rows, classes, 1);
      await writeBatch(path('logits2.npy'), path('labels2.npy'), rows / 3, classes, 2);
      const files = ['logits.npy', 'labels.npy', 'logits2.npy', 'labels2.npy'].map(path);
      common = ['eval', ...files, '--loss', 'jsd', '--num-splits', '3', '--rows-per-block', '50', '--json'];
      whole = output(...common, '--state', path('whole.json'));
      state = readFileSync(path('whole.json'), 'utf8');
      common.push('--threads', String(threads));
    });

    const position = (checkpoint: string) => {
      const { position } = JSON.parse(readFileSync(checkpoint, 'utf8')) as {
        position: { shard: number; row: number };
      };
      return position.shard * rows + 3 * position.row;
    };
    const often = (checkpoint: string) => ['--checkpoint', checkpoint, '--checkpoint-every', '0'];

    it('counts no row twice and loses none, killed at any moment of writing a checkpoint', () => {
      const checkpoint = path('killed.json');
      let last = 0;
      for (const moment of moments) {
        const { signal } = signalled('SIGKILL', moment, 2, ...common, ...often(checkpoint));
        assert.equal(signal, 'SIGKILL');
        assert.ok(position(checkpoint) > last, `no progress from row ${last}`);
        last = position(checkpoint);
        assert.ok(last < 60_000);
      }
      const rest = ['--state', path('state.json'), '--checkpoint', checkpoint];
      const { code, stdout, stderr } = surprisal(...common, ...rest);
      assert.match(stderr, /^surprisal: resumed at row [\d,]+ of 60,000 /);
      assert.equal(code, 0);
      assert.equal(stdout, whole);
      assert.equal(readFileSync(path('state.json'), 'utf8'), state);
      const left = readdirSync(dirname(checkpoint)).filter((name) => name.startsWith('killed.json'));
      assert.deepEqual(left, [], 'what is left when it is done');
    });

    it('starts over where it was killed before there was a checkpoint', () => {
      const checkpoint = path('early.json');
      signalled('SIGKILL', 'half written', 1, ...common, ...often(checkpoint));
      assert.ok(!existsSync(checkpoint));
      const { stdout, stderr } = surprisal(...common, '--checkpoint', checkpoint);
      assert.equal(stderr, '');
      assert.equal(stdout, whole);
    });

    for (const [signal, expected] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
    ] as const) {
      it(`gives the partial result at ${signal}, and goes on from there`, () => {
        const checkpoint = path(`${signal}.json`);
        const { code, stdout, stderr } = signalled(signal, 'renamed', 3, ...common, ...often(checkpoint));
        assert.equal(code, expected);
        assert.match(stderr, /^surprisal: interrupted after [\d,]+ of 60,000 rows: the result is partial; /);
        const result = JSON.parse(stdout) as { partial: boolean; rows: number };
        assert.equal(result.partial, true);
        assert.equal(result.rows, position(checkpoint));
        assert.ok(result.rows > 0 && result.rows < 60_000);
        const resumed = surprisal(...common, '--checkpoint', checkpoint);
        assert.equal(resumed.stdout, whole);
      });
    }
  });
}

describe('surprisal eval --checkpoint', () => {
  const path = temporaryFolder();
  let common: string[] = [];
  before(async () => {
    await writeBatch(path('logits.npy'), path('labels.npy'), rows, classes, 1);
    await writeBatch(path('logits2.npy'), path('labels2.npy'), rows / 3, classes, 2);
    const files = ['logits.npy', 'labels.npy', 'logits2.npy', 'labels2.npy'].map(path);
    common = ['eval', ...files, '--loss', 'jsd', '--num-splits', '3', '--rows-per-block', '50', '--json'];
  });

  it('says in words that a result is partial', () => {
    const { stdout } = signalled(
      'SIGINT',
      'renamed',
      1,
      ...common.filter((option) => option !== '--json'),
      '--checkpoint',
      path('words.json'),
      '--checkpoint-every',
      '0',
    );
    assert.match(stdout, /^PARTIAL: interrupted after [\d,]+ of 60,000 rows\nrows /);
  });

  describe('refuses to resume', () => {
    let checkpoint = '';
    let text = '';
    before(() => {
      checkpoint = path('refused.json');
      const often = ['--checkpoint', checkpoint, '--checkpoint-every', '0'];
      signalled('SIGKILL', 'renamed', 2, ...common, ...often);
      text = readFileSync(checkpoint, 'utf8');
    });

    const refused = (message: RegExp, ...args: string[]) => {
      const { code, stdout, stderr } = surprisal(...args, '--checkpoint', checkpoint);
      assert.equal(code, 1);
      assert.equal(stdout, '');
      assert.match(stderr, message);
      assert.match(stderr, /delete it to start over\n$/);
      assert.equal(readFileSync(checkpoint, 'utf8'), text, 'the checkpoint was touched');
    };

    it('with other options', () => {
      refused(/topK is \[1,3\] here, \[1,5\] there/, ...common, '--top-k', '1,3');
      refused(/losses/, ...common, '--alpha', '3');
      refused(
        /of 3 splits, not of 1/,
        ...common.filter((arg) => !['--loss', 'jsd', '--num-splits', '3'].includes(arg)),
      );
    });

    it('with other files', () => {
      refused(
        /of 2 pairs of files, not of these 1/,
        'eval',
        path('logits.npy'),
        path('labels.npy'),
        '--loss',
        'jsd',
      );
      const swapped = common.map((arg) => (arg === path('logits.npy') ? path('logits2.npy') : arg));
      const { code, stderr } = surprisal(...swapped, '--checkpoint', checkpoint);
      assert.equal(code, 1);
      assert.match(stderr, /expected class indices of shape/);
    });

    it('with a file that was written to since', async () => {
      const { atime, mtime } = statSync(path('labels.npy'), { bigint: false });
      const bytes = readFileSync(path('labels.npy'));
      await writeNpy(path('labels.npy'), batch(rows, classes, 3).labels);
      refused(/can't resume: instead of .*labels\.npy it has seen another version/, ...common);
      writeFileSync(path('labels.npy'), bytes);
      utimesSync(path('labels.npy'), atime, mtime);
    });
  });

  it('refuses what is no checkpoint', () => {
    for (const text of ['', '{}', 'null', '[]', '{"schema":"surprisal.evaluator"}']) {
      writeFileSync(path('other.json'), text);
      const { code, stderr } = surprisal(...common, '--checkpoint', path('other.json'));
      assert.equal(code, 1);
      assert.match(stderr, /expected a checkpoint of surprisal eval, but this file is something else/);
      assert.equal(readFileSync(path('other.json'), 'utf8'), text);
    }
  });
});
