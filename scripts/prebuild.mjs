// Makes prebuilds/<platform>-<arch>/surprisal.node, which npm packs: built by cmake-js, stripped and named by prebuildify.
// With CUDA where nvcc is, for the GPUs of servers: the package, which is 6 MB at most, has no room for more.
//
//   node scripts/prebuild.mjs [--arch x64|arm64] [--out <folder>] [--from <file.node>]
//
//   --arch   for another processor, by Debian's cross compiler; without CUDA then
//   --out    the folder that prebuilds/ is made in; default: the checkout
//   --from   takes this build instead of a new one

import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const { values } = parseArgs({
  options: {
    arch: { type: 'string', default: process.arch },
    out: { type: 'string', default: root },
    from: { type: 'string' },
  },
});
const crosses = values.arch !== process.arch;
if (crosses && !(process.platform === 'linux' && values.arch === 'arm64')) {
  console.error(`prebuild: expected --arch ${process.arch}, or arm64 on Linux, got ${values.arch}`);
  process.exit(1);
}

// A folder of its own, as prebuildify builds in ./build and moves what it finds there.
const target = `${process.platform}-${values.arch}`;
const folder = join(root, 'build-prebuild', target);
const out = resolve(values.out);
rmSync(join(folder, 'build'), { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'surprisal' }));

const prebuildify = require.resolve('prebuildify/bin.js');
const args = ['--napi', '--strip', '--arch', values.arch, '--cwd', folder, '--out', out];
args.push('--node-gyp', join(root, 'scripts', 'cmake_js.mjs'));
if (crosses) args.push('--strip-bin', 'aarch64-linux-gnu-strip');
const { error, status } = spawnSync(process.execPath, [prebuildify, ...args], {
  cwd: root,
  stdio: 'inherit',
  env: {
    SURPRISAL_CUDA_ARCHITECTURES: '75,80,90,100',
    // What is left of the 6 MB beside the other's GPUs.
    SURPRISAL_CPU_SMALL: values.arch === 'arm64' ? '1' : '0',
    ...process.env,
    ...(values.from === undefined ? {} : { SURPRISAL_PREBUILD_FROM: resolve(values.from) }),
  },
});
if (error) console.error(`prebuildify: ${error.message}`);
if (status !== 0) process.exit(status ?? 1);
const file = join(out, 'prebuilds', target, 'surprisal.node');
console.log(`${file}: ${(statSync(file).size / 1e6).toFixed(2)} MB`);
