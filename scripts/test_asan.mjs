// Builds the addon with AddressSanitizer and UndefinedBehaviorSanitizer into build-asan/ and runs the suites that use it
// on it, two processes side by side. Fails when a test fails, when a sanitizer stops a process, or when one reports in any
// child process.
//
//   node scripts/test_asan.mjs [mocha arguments]
//
// Linux with GCC only: Node itself is not instrumented, so the sanitizer's runtime has to be preloaded.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const build = join(root, 'build-asan');
const addon = join(build, 'surprisal.node');
const reports = join(build, 'reports');

function must(command, args) {
  const { error, signal, status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (error) throw error;
  if (status !== 0) {
    console.error(`test:asan: ${command} ${args.join(' ')} ended with ${signal ?? `exit code ${status}`}`);
    process.exit(1);
  }
}

/** A run-time library of GCC's, by its full path. */
function gccLibrary(name) {
  const { error, stdout } = spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' });
  const path = stdout?.trim() ?? '';
  if (error || !isAbsolute(path)) {
    console.error(
      `test:asan: g++ has no ${name}; this check needs Linux with GCC and its sanitizer libraries`,
    );
    process.exit(1);
  }
  return path;
}

function compile() {
  const configured = existsSync(join(build, 'CMakeCache.txt'));
  const generator = spawnSync('ninja', ['--version']).error ? 'Unix Makefiles' : 'Ninja';
  must('cmake', [
    ...['-S', '.', '-B', 'build-asan'],
    ...(configured ? [] : ['-G', generator]),
    '-DCMAKE_CXX_COMPILER=g++',
    '-DSURPRISAL_CUDA=OFF',
    '-DCMAKE_BUILD_TYPE=RelWithDebInfo',
    '-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1',
    // Inlined formulas have so many short-lived locals that watching their scopes takes GCC minutes a file.
    '-DCMAKE_CXX_FLAGS=-fno-sanitize-address-use-after-scope',
    '-DSURPRISAL_SANITIZE=address,undefined',
  ]);
  must('cmake', ['--build', 'build-asan', '--parallel', String(availableParallelism())]);
  const binary = readFileSync(addon, 'latin1');
  for (const symbol of ['__asan_init', '__ubsan_handle']) {
    if (!binary.includes(symbol)) {
      console.error(
        `test:asan: build-asan/surprisal.node has no ${symbol}: it was built without the sanitizers`,
      );
      process.exit(1);
    }
  }
}

/** What the sanitizers wrote, of every process. */
function printReports() {
  const files = readdirSync(reports);
  for (const file of files) console.error(`\n${file}\n${readFileSync(join(reports, file), 'utf8')}`);
  return files.length;
}

// Behind libasan, libubsan writes no report files. libstdc++ must be there before Node starts: otherwise libasan finds no
// __cxa_throw to wrap, and the first C++ exception ends the process.
const libraries = ['libubsan.so', 'libasan.so', 'libstdc++.so'].map(gccLibrary);
compile();
rmSync(reports, { recursive: true, force: true });
mkdirSync(reports);

// What these ask of the addon, others ask of it too; and each process that they start takes a second more.
const leftOut =
  /^((bench|package|readme|types)|cuda.*|cli.(browser|checkpoint|curve|html|progress|readme))\.test\.js$/;
const suites = readdirSync(join(root, 'dist-dev/test'), { recursive: true }).filter(
  (path) => path.endsWith('.test.js') && !leftOut.test(path),
);
// Half of the time, about.
const long = suites.filter((path) => /^numerics.(long_rows|memory|precision)\./.test(path));
// It measures the event loop's delays.
const alone = suites.filter((path) => path === 'async.test.js');
const others = suites.filter((path) => ![...long, ...alone].includes(path));

const env = {
  ...process.env,
  SURPRISAL_BINDING: addon,
  LD_PRELOAD: libraries.join(' '),
  // Leaks are off, because Node frees little of its own memory at exit and every run would report it.
  ASAN_OPTIONS: [
    'detect_leaks=0',
    'detect_stack_use_after_return=1',
    'verify_asan_link_order=0',
    `log_path=${join(reports, 'asan')}`,
  ].join(':'),
  UBSAN_OPTIONS: `halt_on_error=1:print_stacktrace=1:log_path=${join(reports, 'ubsan')}`,
};
const mocha = createRequire(import.meta.url).resolve('mocha/bin/mocha.js');

/** Runs suites; prints what they say at the end. Resolves to whether all passed. */
async function pass(paths) {
  const files = paths.map((path) => join('dist-dev/test', path));
  // Each test takes several times as long as without sanitizers, and has half of the machine.
  const args = [mocha, '--no-config', '--timeout', '300000', ...files, ...process.argv.slice(2)];
  const child = spawn(process.execPath, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => (output += text));
  }
  const [code, signal] = await once(child, 'close');
  process.stdout.write(output);
  if (signal) console.error(`test:asan: mocha ended with ${signal}`);
  return code === 0;
}

const passed = [...(await Promise.all([pass(others), pass(long)])), await pass(alone)];
const reported = printReports();
if (reported > 0) console.error(`test:asan: the sanitizers reported in ${reported} processes (above)`);
process.exitCode = passed.every(Boolean) && reported === 0 ? 0 : 1;
