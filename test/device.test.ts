import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { availableParallelism, totalmem } from 'node:os';
import { devices, diagnose, getNumThreads, setNumThreads } from 'surprisal';

describe('devices()', () => {
  it('begins with the CPU', () => {
    const [cpu] = devices();
    assert.ok(cpu !== undefined);
    assert.equal(cpu.device, 'cpu');
    assert.equal(cpu.memory, totalmem());
    assert.ok(cpu.name.length > 0);
    assert.match(cpu.capability, /^[a-z][a-z0-9_.-]*$/i);
  });

  it('names each device once', () => {
    const names = devices().map(({ device }) => device);
    assert.equal(new Set(names).size, names.length);
    for (const name of names) assert.match(name, /^(cpu|cuda:\d+)$/);
  });

  it('gives new objects, so that a caller can keep or change them', () => {
    const first = devices();
    first.pop();
    assert.notEqual(devices().length, first.length);
  });
});

describe('diagnose()', () => {
  it('says in words what is here', () => {
    const text = diagnose();
    assert.ok(text.includes(process.versions.node));
    assert.ok(text.includes(`${process.platform}-${process.arch}`));
    const { name, capability } = devices()[0]!;
    assert.ok(text.includes(name));
    assert.ok(text.includes(capability));
    assert.match(text, /^cpu: /m);
    assert.match(text, /^cuda: /m);
    assert.doesNotMatch(text, /undefined|NaN|\[object/);
  });

  it('says how many threads are in use', () => {
    const before = getNumThreads();
    try {
      setNumThreads(5);
      assert.match(diagnose(), new RegExp(`\\b5 of ${availableParallelism()} threads\\b`));
    } finally {
      setNumThreads(before);
    }
  });
});

describe('the number of threads', () => {
  const before = getNumThreads();
  afterEach(() => setNumThreads(before));

  it('is what was set', () => {
    for (const count of [1, 2, 3, 8, 64, 1]) {
      setNumThreads(count);
      assert.equal(getNumThreads(), count);
    }
  });

  it('stays when a wrong one is refused', () => {
    setNumThreads(3);
    assert.throws(() => setNumThreads(0), { name: 'RangeError', code: 'ERR_OPTION' });
    assert.throws(() => setNumThreads('4' as never), { name: 'TypeError', code: 'ERR_OPTION' });
    assert.equal(getNumThreads(), 3);
  });

  it('can be set by the environment, and is at least 1 without that', () => {
    const script = `const { getNumThreads } = await import('surprisal'); console.log(getNumThreads());`;
    const start = (count?: string) => {
      const env = { ...process.env };
      delete env['SURPRISAL_NUM_THREADS'];
      const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
        encoding: 'utf8',
        env: count === undefined ? env : { ...env, SURPRISAL_NUM_THREADS: count },
      });
      assert.equal(status, 0, stderr);
      return Number(stdout);
    };
    assert.equal(start('5'), 5);
    const unset = start();
    assert.ok(Number.isInteger(unset) && unset >= 1, `got ${unset}`);
    assert.equal(start('none'), unset);
  });
});
