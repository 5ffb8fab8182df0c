#!/usr/bin/env node
// node-gyp's place in prebuildify, which knows no other builder: `rebuild` by cmake-js, of this checkout into the
// `build` of the folder that it is called in.
//
//   SURPRISAL_PREBUILD_FROM=<file.node>: no build, but that one

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
// --target and --devdir choose Node's headers, which node-api-headers has; a release is the default.
const { values } = parseArgs({
  allowPositionals: true,
  options: {
    arch: { type: 'string', default: process.arch },
    debug: { type: 'boolean', default: false },
    release: { type: 'boolean' },
    target: { type: 'string' },
    devdir: { type: 'string' },
  },
});
const build = join(process.cwd(), 'build');

const from = process.env.SURPRISAL_PREBUILD_FROM;
if (from) {
  mkdirSync(join(build, 'Release'), { recursive: true });
  copyFileSync(from, join(build, 'Release', 'surprisal.node'));
  process.exit(0);
}

const args = ['rebuild', '--directory', root, '--out', build, '--arch', values.arch, '--log-level', 'warn'];
if (values.debug) args.push('--debug');
const crosses = values.arch !== process.arch;
if (crosses) args.push(`--CDCMAKE_TOOLCHAIN_FILE=${join(root, 'scripts', `${values.arch}-linux-gnu.cmake`)}`);
const { error, status } = spawnSync('cmake-js', args, {
  // nvcc compiles for its own host.
  env: crosses ? { ...process.env, SURPRISAL_CUDA: '0' } : process.env,
  stdio: 'inherit',
});
if (error) console.error(`cmake-js: ${error.message}`);
process.exit(status ?? 1);
