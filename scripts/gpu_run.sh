#!/usr/bin/env bash
# Builds with plain CMake for the GPU that is here, from the tracked files and the bundle of scripts/gpu_bundle.sh, and
# runs what is asked:
#
#   scripts/gpu_run.sh test       the kernels beside the CPU backend, then mocha's suites, and those of results once more
#                                 with every call on the GPU
#   scripts/gpu_run.sh sanitize   compute-sanitizer: memcheck, racecheck and initcheck over every driver
#   scripts/gpu_run.sh ipc        memory that processes share: with another Node process and with PyTorch
#   scripts/gpu_run.sh bench      each loss beside a copy, after timm in PyTorch, which has $PEER_SECONDS; JSON into $OUT,
#                                 or build-gpu/
#
# It needs CMake, Ninja or make, a C++ compiler and nvcc, but neither Node nor a network. What needs a GPU is left out
# where there is none, with a word.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build-gpu
PATH="$PATH:/usr/local/cuda/bin"
step() {
  printf '\n=== %s\n' "$*"
  "$@"
}

capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '.' || true)
if [[ -z $capability ]]; then
  echo 'No GPU was found: what needs one is left out'
fi

unpack() {
  mkdir -p "$build"
  if [[ ! -x $build/node || .gpu/node.xz -nt $build/node ]]; then
    xz -dc .gpu/node.xz >"$build/node"
    chmod +x "$build/node"
  fi
  # A checkout's own packages are left alone.
  [[ -d node_modules ]] || tar xJf .gpu/node_modules.tar.xz
  tar xJf .gpu/javascript.tar.xz
}

compile() {
  local generator=()
  [[ -f $build/CMakeCache.txt ]] || ! command -v ninja >/dev/null || generator=(-G Ninja)
  step cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release \
    -DSURPRISAL_CUDA_ARCHITECTURES="${capability:-90}"
  step cmake --build "$build" --target surprisal cuda_parity --parallel "$(nproc)"
}

sanitize() {
  if [[ -z $capability ]]; then return; fi
  local tool failed=0
  for tool in memcheck racecheck initcheck; do
    step compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/cuda_parity" --quick || failed=1
  done
  return "$failed"
}

# Those that are about the checkout's own tools stay at home.
mochas() {
  SURPRISAL_BINDING="$PWD/$build/surprisal.node" step "$build/node" node_modules/mocha/bin/mocha.js \
    --ignore 'dist-dev/test/{bench,package,readme,types}.test.js' --ignore 'dist-dev/test/examples/**' "$@"
}

task=${1:-}
case $task in
  test)
    unpack
    compile
    failed=0
    step "$build/cuda_parity" || failed=1
    mochas "${@:2}" || failed=1
    if [[ -n $capability ]]; then
      mochas --no-config --timeout 300000 'dist-dev/test/cuda/*.test.js' || failed=1
      SURPRISAL_TEST_ON_CUDA=1 mochas --config test/cuda/all_on_cuda.mocharc.json || failed=1
    fi
    exit "$failed"
    ;;
  sanitize)
    unpack
    compile
    sanitize
    ;;
  bench)
    unpack
    compile
    if [[ -z $capability ]]; then exit 0; fi
    results=${OUT:-$build}
    # The most that peers may take: torch.compile takes longer than all the rest.
    python3 bench/gpu/peers.py "$results/peers.json" --seconds "${PEER_SECONDS:-300}" >"$results/peers.log" 2>&1 || true
    if [[ -f $results/peers.json ]]; then set -- "$@" --peers "$results/peers.json"; fi
    SURPRISAL_BINDING="$PWD/$build/surprisal.node" "$build/node" dist-dev/bench/gpu/bench.js \
      --out "$results/gpu.json" "${@:2}"
    ;;
  ipc)
    unpack
    compile
    if [[ -z $capability ]]; then exit 0; fi
    mochas --no-config --timeout 300000 'dist-dev/test/cuda/sharing.test.js' 'dist-dev/test/cuda/torch_peer.test.js'
    ;;
  *)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 1
    ;;
esac
