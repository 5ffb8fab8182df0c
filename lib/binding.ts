import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Binding, Field } from '../binding.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const load = createRequire(import.meta.url)('node-gyp-build') as (root: string) => Binding;

function loadBinding(): Binding {
  // A second build of the addon, for tests: sanitizers, the CUDA emulator.
  const override = process.env['SURPRISAL_BINDING'];
  if (override) return createRequire(import.meta.url)(override) as Binding;
  try {
    return load(root);
  } catch (cause) {
    const platform = `${process.platform}-${process.arch}, Node ${process.versions.node}`;
    throw new Error(
      `surprisal: no native binary for ${platform} was found in prebuilds/ or build/. ` +
        `With a C++20 compiler and CMake installed, run: ` +
        `npm install cmake-js node-addon-api && node ${join(root, 'scripts', 'install.mjs')}`,
      { cause },
    );
  }
}

export const binding = loadBinding();

/** The slot of each field in a call's header. */
export const slot = Object.fromEntries(binding.fields.map((field, index) => [field, index])) as Record<
  Field,
  number
>;

export const headerLength = binding.fields.length;

/** The native code of each dtype. */
export const dtypeCode = Object.fromEntries(binding.dtypes.map((dtype, index) => [dtype, index])) as Record<
  string,
  number
>;
