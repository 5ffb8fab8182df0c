import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { totalmem, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { devices, diagnose, getNumThreads, setNumThreads } from 'surprisal';
import { nativeBinding } from './support/losses.js';

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
      const { allowed } = nativeBinding().processors();
      assert.match(diagnose(), new RegExp(`\\b5 threads, on ${allowed} processors\\b`));
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

  /** What a process with these variables says that its number of threads is, and its warnings. */
  function start(asked: string | undefined, command: readonly string[] = []) {
    const env = { ...process.env };
    delete env['SURPRISAL_NUM_THREADS'];
    if (asked !== undefined) env['SURPRISAL_NUM_THREADS'] = asked;
    const script = `const { getNumThreads } = await import('surprisal'); console.log(getNumThreads());`;
    const [program, ...args] = [...command, process.execPath, '--input-type=module', '-e', script];
    const { stdout, stderr, status } = spawnSync(program, args, { encoding: 'utf8', env });
    assert.equal(status, 0, stderr);
    return { count: Number(stdout), stderr };
  }

  it('is SURPRISAL_NUM_THREADS, where that is one', () => {
    for (const asked of ['1', '5', '1024']) {
      assert.deepEqual(start(asked), { count: Number(asked), stderr: '' });
    }
  });

  it('is what the processors give, without that variable', () => {
    const { threads } = nativeBinding().processors();
    for (const asked of [undefined, '']) assert.deepEqual(start(asked), { count: threads, stderr: '' });
  });

  it('is the same where the variable says anything else, which is warned of', () => {
    const { threads } = nativeBinding().processors();
    for (const asked of ['none', '0', '-1', '2.5', '1025', '4 ', '0x4', '99999999999']) {
      const { count, stderr } = start(asked);
      assert.equal(count, threads, asked);
      const message = `SURPRISAL_NUM_THREADS: expected an integer in [1, 1024], got '${asked}'; it is ignored`;
      assert.ok(stderr.includes(message), `${asked}: ${stderr}`);
    }
  });

  if (process.platform === 'linux') {
    it('is no more than the affinity allows', () => {
      assert.equal(start(undefined, ['taskset', '-c', '0']).count, 1);
    });
  }
});

describe('the processors that may be used', () => {
  const { allowed } = nativeBinding().processors();
  let root = '';
  beforeEach(() => (root = mkdtempSync(join(tmpdir(), 'surprisal-'))));
  afterEach(() => rmSync(root, { recursive: true }));

  /** What is found on a system that has these files. */
  function processors(files: Readonly<Record<string, string>>) {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    return nativeBinding().processors(root);
  }

  const quotaOf = (files: Readonly<Record<string, string>>) => processors(files).quota;

  /** A control group of version 2, and that of version 1 as Docker shows it without a namespace of its own. */
  const unified = '30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n';
  const cpuMount = (top: string) =>
    '31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n' +
    `32 30 0:28 ${top} /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n`;
  const other = '25 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n';

  it('are those of the affinity where nothing is known of control groups', () => {
    assert.deepEqual(processors({}), { allowed, quota: Infinity, threads: Math.min(allowed, 1024) });
    assert.equal(
      quotaOf({ 'proc/self/cgroup': 'nonsense\n', 'proc/self/mountinfo': `\n- \n${other}` }),
      Infinity,
    );
  });

  it('have no quota where the group says "max", or nothing', () => {
    const files = { 'proc/self/cgroup': '0::/user.slice\n', 'proc/self/mountinfo': other + unified };
    assert.equal(quotaOf(files), Infinity);
    assert.equal(quotaOf({ 'sys/fs/cgroup/user.slice/cpu.max': 'max 100000\n' }), Infinity);
  });

  it('have the quota of a group of version 2', () => {
    const files = {
      'proc/self/cgroup': '0::/a/b\n',
      'proc/self/mountinfo': other + unified,
      'sys/fs/cgroup/a/b/cpu.max': '150000 100000\n',
    };
    assert.equal(quotaOf(files), 1.5);
  });

  it('have the least quota of the groups above it', () => {
    const files = {
      'proc/self/cgroup': '0::/a/b/c\n',
      'proc/self/mountinfo': unified,
      'sys/fs/cgroup/a/b/c/cpu.max': '400000 100000\n',
      'sys/fs/cgroup/a/b/cpu.max': 'max 100000\n',
      'sys/fs/cgroup/a/cpu.max': '20000 10000\n',
      'sys/fs/cgroup/a/b2/cpu.max': '10000 10000\n', // a neighbour's
    };
    assert.equal(quotaOf(files), 2);
    assert.equal(quotaOf({ 'sys/fs/cgroup/cpu.max': '25000 100000\n' }), 0.25);
  });

  it("have the quota that a container sees at its namespace's root", () => {
    const files = {
      'proc/self/cgroup': '0::/\n',
      'proc/self/mountinfo': unified,
      'sys/fs/cgroup/cpu.max': '300000 100000\n',
    };
    assert.equal(quotaOf(files), 3);
    // A process that was moved out of the namespace.
    assert.equal(quotaOf({ 'proc/self/cgroup': '0::/../elsewhere\n' }), 3);
  });

  it('have the quota of a group of version 1, beside an empty one of version 2', () => {
    const files = {
      'proc/self/cgroup': '5:memory:/a\n4:cpu,cpuacct:/a/b\n1:name=systemd:/a\n0::/a\n',
      'proc/self/mountinfo': other + unified + cpuMount('/'),
      'sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us': '250000\n',
      'sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us': '100000\n',
      'sys/fs/cgroup/memory/a/cpu.cfs_quota_us': '10000\n',
      'sys/fs/cgroup/memory/a/cpu.cfs_period_us': '100000\n',
    };
    assert.equal(quotaOf(files), 2.5);
    const above = {
      'sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us': '50000\n',
      'sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us': '50000\n',
    };
    assert.equal(quotaOf(above), 1);
    assert.equal(quotaOf({ 'sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us': '-1\n' }), 2.5);
  });

  it('have the quota of a group that is mounted alone', () => {
    const files = {
      'proc/self/cgroup': '4:cpu,cpuacct:/docker/0123/inner\n',
      'proc/self/mountinfo': cpuMount('/docker/0123'),
      'sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us': '200000\n',
      'sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_period_us': '100000\n',
    };
    assert.equal(quotaOf(files), 2);
    // Not inside of what is mounted, though its name begins so.
    assert.equal(quotaOf({ 'proc/self/cgroup': '4:cpu,cpuacct:/docker/01234/inner\n' }), Infinity);
  });

  it('are found behind a path with a blank', () => {
    const files = {
      'proc/self/cgroup': '0::/a: b\n',
      'proc/self/mountinfo': '30 23 0:26 / /sys/control\\040groups rw - cgroup2 cgroup2 rw\n',
      'sys/control groups/a: b/cpu.max': '70000 100000\n',
    };
    assert.equal(quotaOf(files), 0.7);
  });

  it('give a thread for each, one for a part of one, and at least one', () => {
    const threads = (quota: number) =>
      processors({
        'proc/self/cgroup': '0::/\n',
        'proc/self/mountinfo': unified,
        'sys/fs/cgroup/cpu.max': `${Math.round(quota * 100000)} 100000\n`,
      }).threads;
    const most = Math.min(allowed, 1024);
    assert.equal(threads(0.1), 1);
    assert.equal(threads(1), 1);
    assert.equal(threads(1.2), Math.min(2, most));
    assert.equal(threads(2000), most);
  });
});
