// Formats the C++ and CUDA sources in place; with --check, fails where one is not formatted.
//
// clang-format comes from the package clang-format-node, because its versions disagree about layout: everyone who
// runs `npm install` gets the same one, and the system's is never used.

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const folders = ['native', 'test', 'bench'];

function sources() {
  return folders
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true })
        .filter((file) => /\.(h|cc|cu)$/.test(file))
        .map((file) => join(folder, file)),
    )
    .sort();
}

function locate() {
  try {
    return createRequire(import.meta.url)('clang-format-node').clangFormatPath;
  } catch (error) {
    const needed = process.env.CI === 'true';
    console[needed ? 'error' : 'warn'](
      `clang-format was not found (${String(error.message).split('\n')[0]}). ` +
        `It comes with the development dependencies: npm install --include=dev. C++ sources were not checked.`,
    );
    process.exit(needed ? 1 : 0);
  }
}

const files = sources();
if (files.length === 0) {
  console.error(`clang-format: no C++ sources under ${folders.join(', ')}`);
  process.exit(1);
}
const mode = process.argv.includes('--check') ? ['--dry-run', '-Werror'] : ['-i'];
const { error, status } = spawnSync(locate(), [...mode, ...files], { cwd: root, stdio: 'inherit' });
if (error) throw error;
console.log(
  status === 0
    ? `clang-format: ${files.length} files are formatted`
    : 'clang-format: some files differ; run: npm run format',
);
process.exit(status ?? 1);
