// Compiles the kernels for every architecture that the addon is built for, and fails where one of them has a stack frame
// or spills registers: rows would then travel through memory once more. No GPU is needed. Where nvcc is missing the check
// is left out, and says so.
//
//   node scripts/check_ptxas.mjs [dtype ...] [sm_NN ...]
//
// Without arguments each architecture is compiled for one dtype, and each dtype for one architecture or two.

import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const dtypes = ['float32', 'bfloat16', 'float16', 'float64'];

const listed = spawnSync('nvcc', ['--list-gpu-arch'], { encoding: 'utf8' });
if (listed.error || listed.status !== 0) {
  console.log('check:ptxas: left out, as nvcc was not found; no kernel was compiled');
  process.exit(0);
}
const known = listed.stdout.match(/\d+/g);
const [, built] = /SURPRISAL_CUDA_ARCHITECTURES "([\d;]+)"/.exec(
  readFileSync(`${root}/CMakeLists.txt`, 'utf8'),
);
const architectures = built.split(';').filter((arch) => known.includes(arch));

const asked = process.argv.slice(2);
const askedArchitectures = asked.filter((name) => name.startsWith('sm_')).map((name) => name.slice(3));
const askedDTypes = asked.filter((name) => dtypes.includes(name));
if (askedArchitectures.length + askedDTypes.length !== asked.length) {
  console.error(`check:ptxas: expected dtypes (${dtypes.join(', ')}) and sm_NN, got ${asked.join(' ')}`);
  process.exit(1);
}

/** What is compiled: [dtype, architecture]. */
const jobs =
  asked.length > 0
    ? (askedDTypes.length > 0 ? askedDTypes : dtypes).flatMap((dtype) =>
        (askedArchitectures.length > 0 ? askedArchitectures : architectures).map((arch) => [dtype, arch]),
      )
    : architectures.map((arch, i) => [dtypes[i % dtypes.length], arch]);

function compile(dtype, arch) {
  const virtual = Math.min(Number(arch), 90);
  const args = [
    ...['-std=c++20', `-gencode=arch=compute_${virtual},code=sm_${arch}`, '-fmad=false'],
    ...['--expt-relaxed-constexpr', '-Xptxas=-v', '-DSURPRISAL_TARGET=device', `-DSURPRISAL_DTYPE=${dtype}`],
    ...['-cubin', '-o', '/dev/null', 'native/cuda/kernels.cu'],
  ];
  return new Promise((resolve) => {
    const nvcc = spawn('nvcc', args, { cwd: root });
    let output = '';
    nvcc.stdout.on('data', (data) => (output += data));
    nvcc.stderr.on('data', (data) => (output += data));
    nvcc.on('close', (status) => resolve({ dtype, arch, status, output }));
  });
}

/** Kernels that ptxas tells of, with their frames and spills in bytes. */
function kernels(output) {
  const found = [];
  for (const line of output.split('\n')) {
    const name = /Compiling entry function '(\w+)'/.exec(line)?.[1];
    if (name !== undefined) found.push({ name, registers: 0, frame: 0, spills: 0 });
    const bytes = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (bytes !== null && found.length > 0) {
      found.at(-1).frame += Number(bytes[1]);
      found.at(-1).spills += Number(bytes[2]) + Number(bytes[3]);
    }
    const registers = /Used (\d+) registers/.exec(line)?.[1];
    if (registers !== undefined && found.length > 0) found.at(-1).registers = Number(registers);
  }
  return found;
}

/** A mangled name's words. */
const readable = (name) => name.replace(/^_ZN9surprisal6device7run_jobI/, '').replace(/E*vT_$/, '');

let failures = 0;
function report({ dtype, arch, status, output }) {
  const found = kernels(output);
  const bad = found.filter(({ frame, spills }) => frame > 0 || spills > 0);
  if (status !== 0 || found.length === 0) {
    failures++;
    console.error(output);
    console.error(`check:ptxas: sm_${arch} ${dtype}: nvcc failed with exit code ${status}`);
    return;
  }
  failures += bad.length;
  const most = Math.max(...found.map(({ registers }) => registers));
  console.log(
    `check:ptxas: sm_${arch} ${dtype}: ${found.length} kernels, at most ${most} registers, ` +
      `${bad.length} with a stack frame or spills`,
  );
  for (const { name, frame, spills } of bad) {
    console.error(`  ${readable(name)}: a frame of ${frame} bytes, ${spills} bytes spilled`);
  }
}

const waiting = [...jobs];
async function work() {
  for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) report(await compile(...job));
}
await Promise.all(Array.from({ length: Math.min(availableParallelism(), jobs.length) }, work));
process.exit(failures === 0 ? 0 : 1);
