// Compiles test/cuda/formulas.cu, which uses every header of native/loss in device code, with nvcc: the formulas must
// stay valid for the device. No GPU is needed. Where nvcc is missing the check is left out, and says so.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const source = 'test/cuda/formulas.cu';

const listed = spawnSync('nvcc', ['--list-gpu-arch'], { encoding: 'utf8' });
if (listed.error || listed.status !== 0) {
  console.log(`check:nvcc: left out, as nvcc was not found; ${source} was not compiled`);
  process.exit(0);
}
// The oldest architecture that this nvcc knows has the fewest intrinsics, so what compiles for it compiles for all.
const arch = listed.stdout.trim().split('\n')[0].trim();
const args = ['-std=c++20', `-arch=${arch.replace('compute', 'sm')}`];
// A host function called from device code is only a warning to nvcc.
args.push('--Werror=all-warnings', '-Xcompiler=-Wall,-Wextra', '-Inative', '-c', '-o', '/dev/null', source);
const { error, status } = spawnSync('nvcc', args, { cwd: root, stdio: 'inherit' });
if (error) throw error;
console.log(
  status === 0 ? `check:nvcc: ${source} compiles for ${arch}` : `check:nvcc: nvcc ${args.join(' ')} failed`,
);
process.exit(status ?? 1);
