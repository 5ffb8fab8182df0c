// Compiles test/native/elementary.cc for each instruction set and runs it where the processor has it: exp and log are
// held to their stated error over every float32 of their range, and over random float64.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const source = 'test/native/elementary.cc';

/** Bounds in ULP, as math.h states them: with tables in registers and fused multiplication, and without. */
const withTables = { exp: 0.7, expOfOneMaximum: 1.7, log: 1.1 };
const without = { exp: 1.6, expOfOneMaximum: 2.5, log: 1.35 };

const instructionSets =
  process.arch === 'x64'
    ? [
        { name: 'x86_64_v4', march: 'x86-64-v4', flag: 'avx512f', float32: withTables, float64: withTables },
        { name: 'x86_64_v3', march: 'x86-64-v3', flag: 'avx2', float32: withTables, float64: without },
        { name: 'baseline', march: 'x86-64', flag: 'sse2', float32: without, float64: without },
      ]
    : [{ name: 'baseline', float32: without, float64: without }];

const processor = process.platform === 'linux' ? readFileSync('/proc/cpuinfo', 'utf8') : '';
const folder = mkdtempSync(join(tmpdir(), 'surprisal-ulp-'));
let failed = false;
try {
  for (const { name, march, flag, float32, float64 } of instructionSets) {
    if (flag !== undefined && !processor.includes(` ${flag} `)) {
      console.log(`${name}: left out, as this processor does not have it`);
      continue;
    }
    const program = join(folder, name);
    const flags = [
      '-O3',
      '-std=gnu++20',
      '-pthread',
      '-fno-math-errno',
      '-fno-trapping-math',
      '-ffp-contract=off',
    ];
    flags.push('-Wno-psabi', `-DSURPRISAL_TARGET=${name}`);
    flags.push(`-DSURPRISAL_EXP_ULP=${float32.exp}`, `-DSURPRISAL_LOG_ULP=${float32.log}`);
    flags.push(`-DSURPRISAL_EXP_ONE_ULP=${float32.expOfOneMaximum}`);
    flags.push(`-DSURPRISAL_EXP_FLOAT64_ULP=${float64.exp}`, `-DSURPRISAL_LOG_FLOAT64_ULP=${float64.log}`);
    if (march !== undefined) flags.push(`-march=${march}`);
    for (const [command, args] of [
      [process.env.CXX ?? 'g++', [...flags, source, '-o', program]],
      [program, []],
    ]) {
      const { error, status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
      if (error) throw error;
      if (status !== 0) failed = true;
      if (status !== 0) break;
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
