/** The native side, loaded from the binary that the library itself uses: instruction sets are chosen there. */

import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import type { Binding } from '../binding.js';

function loadBinding(): Binding {
  const require = createRequire(import.meta.url);
  const override = process.env['SURPRISAL_BINDING'];
  if (override) return require(override) as Binding;
  const load = require('node-gyp-build') as (root: string) => Binding;
  return load(dirname(require.resolve('surprisal/package.json')));
}

export const binding = loadBinding();
