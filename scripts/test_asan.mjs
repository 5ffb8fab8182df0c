// Builds the addon with AddressSanitizer and UndefinedBehaviorSanitizer into build-asan/ and runs the suites that use it
// on it. Fails when a test fails, when a sanitizer stops a process, or when one reports in any child process.
//
//   node scripts/test_asan.mjs [mocha arguments]
//
// Linux with GCC only: Node itself is not instrumented, so the sanitizer's runtime has to be preloaded.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const build = join(root, 'build-asan');
const addon = join(build, 'surprisal.node');
const reports = join(build, 'reports');

function run(command, args, env = {}) {
  const { error, signal, status } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  if (error) throw error;
  if (signal) console.error(`test:asan: ${command} ended with ${signal}`);
  return status ?? 1;
}

function must(command, args) {
  const status = run(command, args);
  if (status !== 0) {
    console.error(`test:asan: ${command} ${args.join(' ')} failed with exit code ${status}`);
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
const ignored = ['{bench,package,readme,types}', 'cli/{browser,checkpoint,curve,html,progress,readme}'];
const status = run(
  process.execPath,
  [
    createRequire(import.meta.url).resolve('mocha/bin/mocha.js'),
    ...ignored.flatMap((names) => ['--ignore', `dist-dev/test/${names}.test.js`]),
    ...process.argv.slice(2),
  ],
  {
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
  },
);
const reported = printReports();
if (reported > 0) console.error(`test:asan: the sanitizers reported in ${reported} processes (above)`);
process.exit(status !== 0 || reported > 0 ? 1 : 0);
