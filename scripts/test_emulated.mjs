// Builds the CUDA kernels' own source as C++ against the emulator in test/cuda_emulator, and runs them: beside the CPU
// backend, every loss, driver and tail, and the bytes that they move; then mocha's suite of tensors on a GPU, and those of
// results with every call on the kernels. With --asan the first part under AddressSanitizer and
// UndefinedBehaviorSanitizer, where every array is a buffer of exactly its size. Neither a GPU nor nvcc is needed.
//
//   node scripts/test_emulated.mjs [--asan] [part of the name of a test of the first part, alone]

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const sanitized = process.argv.includes('--asan');
const wanted = process.argv.slice(2).filter((argument) => argument !== '--asan');
const build = sanitized ? 'build-emulated-asan' : 'build-emulated';

function must(command, args, env = {}) {
  const { error, status, signal } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  if (error) throw error;
  if (status === 0) return;
  console.error(`test:emulated: ${command} ${args.join(' ')} ended with ${signal ?? `exit code ${status}`}`);
  process.exit(1);
}

const configured = existsSync(join(root, build, 'CMakeCache.txt'));
const generator = spawnSync('ninja', ['--version']).error ? 'Unix Makefiles' : 'Ninja';
must('cmake', [
  ...['-S', '.', '-B', build, '-DSURPRISAL_CUDA_EMULATED=ON'],
  ...(configured ? [] : ['-G', generator]),
  '-DCMAKE_CXX_COMPILER=g++',
  ...(sanitized
    ? [
        '-DCMAKE_BUILD_TYPE=RelWithDebInfo',
        '-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1',
        // Inlined formulas have so many short-lived locals that watching their scopes takes GCC minutes a file.
        '-DCMAKE_CXX_FLAGS=-fno-sanitize-address-use-after-scope',
        '-DSURPRISAL_SANITIZE=address,undefined',
      ]
    : ['-DCMAKE_BUILD_TYPE=Release']),
]);
const jobs = process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(availableParallelism());
const mochas = !sanitized && wanted.length === 0;
const targets = mochas ? ['cuda_parity', 'surprisal'] : ['cuda_parity'];
must('cmake', ['--build', build, '--target', ...targets, '--parallel', jobs]);
must(join(root, build, 'cuda_parity'), wanted, { ASAN_OPTIONS: 'detect_leaks=0' });

function mocha(options, env = {}) {
  must(
    process.execPath,
    ['--expose-gc', createRequire(import.meta.url).resolve('mocha/bin/mocha.js'), ...options],
    { SURPRISAL_BINDING: join(root, build, 'surprisal.node'), ...env },
  );
}

if (mochas) {
  const suites = ['device_tensors', 'sharing', 'endurance'].map(
    (name) => `dist-dev/test/cuda/${name}.test.js`,
  );
  mocha(['--no-config', '--timeout', '300000', ...suites]);
  mocha(['--config', 'test/cuda/all_on_cuda.mocharc.json'], { SURPRISAL_TEST_ON_CUDA: '1' });
}
