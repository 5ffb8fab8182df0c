#!/usr/bin/env bash
# Packs into .gpu/ what a GPU host without Node and without a network needs beside the tracked files: Node itself, the
# packages that the build and the tests import, and the compiled TypeScript. scripts/gpu_run.sh works from it there.
#
#   npm run build:ts && scripts/gpu_bundle.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

node=$(node -p process.execPath)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p .gpu

# A package and all that it depends on, once each, as folders of node_modules.
closure() {
  node -e '
    const { existsSync, readFileSync } = require("node:fs");
    const found = new Set();
    const add = (name, from) => {
      let folder = `${from}/node_modules/${name}`;
      while (!existsSync(folder) && from !== "") {
        from = from.replace(/\/?(node_modules\/)?[^/]*$/, "");
        folder = `${from === "" ? "" : `${from}/`}node_modules/${name}`;
      }
      if (!existsSync(folder) || found.has(folder)) return;
      found.add(folder);
      const { dependencies = {} } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
      for (const each of Object.keys(dependencies)) add(each, folder);
    };
    for (const name of process.argv.slice(1)) add(name, ".");
    console.log([...found].join("\n"));
  ' "$@"
}

# Packing Node takes a minute; it stays as it is until there is another.
if [[ $(cat .gpu/node.version 2>/dev/null) != $(node --version) ]]; then
  strip -o "$work/node" "$node"
  xz -9 --threads=0 -c "$work/node" >.gpu/node.xz
  node --version >.gpu/node.version
fi
closure mocha node-gyp-build node-addon-api node-api-headers >"$work/packages"
tar cJf .gpu/node_modules.tar.xz --no-recursion --files-from <(
  while read -r folder; do find "$folder" -path "$folder/node_modules" -prune -o -type f -print; done <"$work/packages"
)
tar cJf .gpu/javascript.tar.xz dist dist-dev
du -ch .gpu/*
