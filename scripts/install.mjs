// The package's install script: a prebuilt binary where one loads, else a build from source, else what to do.
//
//   node scripts/install.mjs [--build-from-source]
//
// npm_config_build_from_source asks for a build as the flag does. In a checkout `npm install` brings what a build
// needs; in an installed package cmake-js and node-addon-api must have been installed beside it.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const target = `${process.platform}-${process.arch}, Node ${process.versions.node}`;
const tools = ['cmake-js', 'node-addon-api'];

function wantsSource() {
  if (process.argv.includes('--build-from-source')) return true;
  // npm hands on `true`, or the names of the packages to build.
  const asked = process.env.npm_config_build_from_source ?? '';
  return asked.split(',').some((name) => name === 'true' || name === 'surprisal');
}

/**
 * Loads the addon in a process of its own, which a binary for another machine may kill. Gives the reason of a
 * failure, or undefined.
 */
function loadFailure(env) {
  const load = 'require("node-gyp-build")(process.argv[1])';
  const { error, signal, status, stderr } = spawnSync(process.execPath, ['-e', load, root], {
    cwd: root,
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  if (error) return error.message;
  if (signal) return `loading it ended with ${signal}`;
  if (status === 0) return undefined;
  return /^(?:\w*Error): (.+)$/m.exec(stderr)?.[1] ?? `loading it failed with exit code ${status}`;
}

function isInstalled(name) {
  try {
    require.resolve(`${name}/package.json`);
    return true;
  } catch {
    return false;
  }
}

/** The command that brings the tools and builds. */
function remedy() {
  const isCheckout = existsSync(join(root, 'tsconfig.json'));
  if (isCheckout) return 'npm install --include=dev';
  // npm takes a package away again whose install script failed.
  if (process.env.npm_lifecycle_event === 'install') return `npm install ${tools.join(' ')} surprisal`;
  const script = relative(process.cwd(), fileURLToPath(import.meta.url));
  const path = /^[\w@./-]+$/.test(script) ? script : JSON.stringify(script);
  return `npm install ${tools.join(' ')} && node ${path}`;
}

function fail(...lines) {
  console.error([`surprisal: no native binary for ${target}.`, ...lines].join('\n'));
  process.exit(1);
}

/** Builds build/Release/surprisal.node; an up-to-date one is left as it is. */
function compile() {
  const bin = require('cmake-js/package.json').bin['cmake-js'];
  const cmakeJs = require.resolve(join('cmake-js', bin));
  // `compile` starts anew where a build fails, as one that was configured elsewhere does; a first one need not.
  const command = existsSync(join(root, 'build')) ? 'compile' : 'build';
  const jobs = String(availableParallelism());
  return spawnSync(process.execPath, [cmakeJs, command, '--directory', root, '--parallel', jobs], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

const fromSource = wantsSource();
const prebuiltFailure = fromSource
  ? 'not tried, as a build from source was asked for'
  : loadFailure({ PREBUILDS_ONLY: '1' });
if (prebuiltFailure === undefined) {
  console.log(`surprisal: using the prebuilt binary for ${target}`);
  process.exit(0);
}

const tried = [`  prebuilt binary: ${prebuiltFailure}`];
const missing = tools.filter((name) => !isInstalled(name));
if (missing.length > 0) {
  fail(
    'Tried:',
    ...tried,
    `  build from source: needs ${missing.join(' and ')}, not installed here`,
    'With a C++20 compiler, CMake and make or Ninja on this machine, run:',
    `  ${remedy()}`,
  );
}

console.log(`surprisal: compiling the native addon for ${target} ...`);
const started = performance.now();
const { error, status, stdout, stderr } = compile();
if (error || status !== 0) {
  process.stderr.write(`${stdout ?? ''}${stderr ?? ''}`);
  fail(
    'Tried:',
    ...tried,
    `  build from source: ${error?.message ?? `cmake-js failed with exit code ${status}; its output is above`}`,
    'It needs a C++20 compiler, CMake and make or Ninja (on Debian and Ubuntu: apt-get install g++ cmake make). Then run:',
    `  ${remedy()}`,
  );
}
const builtFailure = loadFailure({});
if (builtFailure !== undefined) {
  fail('Tried:', ...tried, `  build from source: compiled, but it does not load: ${builtFailure}`);
}
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(`surprisal: built build/Release/surprisal.node in ${seconds} s`);
