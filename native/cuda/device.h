#pragma once

// The machine that kernels run on: threads in warps, blocks and clusters, their barriers and shuffles, shared memory,
// global memory, and launches. These are the only functions with two bodies: CUDA's here, and those of
// test/cuda_emulator, by which the kernels' own source runs without a GPU. Global memory is reached through them alone,
// so that the emulator counts every byte.
//
// A kernel is a Job: a plain struct that is passed by value, with `operator()` for what a thread does and
// `most_threads`, the most that a block of it has.

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../dtype.h"
#include "launch_shape.h"
#include "problem.h"

#ifndef SURPRISAL_TARGET
#define SURPRISAL_TARGET device
#endif

#ifdef SURPRISAL_CUDA_EMULATED

#include "cuda_emulator/device.h"

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "error.h"

#define SURPRISAL_DEVICE __device__ __forceinline__
// What few rows come to: compiled once for all kernels, which would each be larger by it.
#define SURPRISAL_RARE inline __device__ __noinline__
#define SURPRISAL_UNROLL _Pragma("unroll")
#define SURPRISAL_NO_UNROLL _Pragma("unroll 1")

namespace surprisal {

inline namespace SURPRISAL_TARGET {

SURPRISAL_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
SURPRISAL_DEVICE int thread_count() { return static_cast<int>(blockDim.x); }
SURPRISAL_DEVICE int64_t block_index() { return blockIdx.x; }
SURPRISAL_DEVICE int64_t block_count() { return gridDim.x; }

SURPRISAL_DEVICE void sync_block() { __syncthreads(); }

/** The value of the lane whose number differs in these bits. All lanes of a warp call it. */
template <class V>
SURPRISAL_DEVICE V shuffle_xor(V x, int bits) {
  return __shfl_xor_sync(0xffffffffu, x, bits);
}

/** Barrier of a cluster's blocks; what was written to shared memory before is seen by all of them. */
SURPRISAL_DEVICE void sync_cluster() {
#if __CUDA_ARCH__ >= 900
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
}

/** Where block `rank` of the cluster has what this one has at `mine`. */
template <class V>
SURPRISAL_DEVICE V* peer_shared(V* mine, int rank) {
#if __CUDA_ARCH__ >= 900
  return static_cast<V*>(__cluster_map_shared_rank(mine, static_cast<unsigned>(rank)));
#else
  return mine;
#endif
}

/** The block's dynamic shared memory. */
SURPRISAL_DEVICE std::byte* dynamic_shared() {
  extern __shared__ __align__(kPackBytes) unsigned char memory[];
  return reinterpret_cast<std::byte*>(memory);
}

template <class V>
SURPRISAL_DEVICE V load_global(const V* from) {
  return *from;
}
template <class V>
SURPRISAL_DEVICE void store_global(V* to, V x) {
  *to = x;
}

/** 16 bytes at addresses that 16 divides, from global to shared memory; there once wait_for_copies returns. */
SURPRISAL_DEVICE void copy_to_shared(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}
SURPRISAL_DEVICE void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
SURPRISAL_DEVICE void copy_to_global(void* global, const void* shared) {
  *static_cast<uint4*>(global) = *static_cast<const uint4*>(shared);
}
/** 16 bytes as they stand, at an address that 16 divides. */
template <class V>
SURPRISAL_DEVICE V load_pack(const void* from) {
  static_assert(sizeof(V) == kPackBytes);
  const uint4 bits = *static_cast<const uint4*>(from);
  V pack;
  memcpy(&pack, &bits, sizeof(pack));
  return pack;
}
template <class V>
SURPRISAL_DEVICE void store_pack(void* to, const V& pack) {
  static_assert(sizeof(V) == kPackBytes);
  uint4 bits;
  memcpy(&bits, &pack, sizeof(bits));
  *static_cast<uint4*>(to) = bits;
}

/** What this thread wrote before is seen by whoever sees what it writes afterwards. */
SURPRISAL_DEVICE void fence() { __threadfence(); }
/** Adds 1; returns what was there. */
SURPRISAL_DEVICE uint32_t take_ticket(uint32_t* counter) { return atomicAdd(counter, 1u); }
SURPRISAL_DEVICE void raise_to(uint64_t* value, uint64_t x) {
  atomicMax(reinterpret_cast<unsigned long long*>(value), static_cast<unsigned long long>(x));
}

SURPRISAL_DEVICE float widen(Float16 x) { return __half2float(__ushort_as_half(x.bits)); }
SURPRISAL_DEVICE float widen(BFloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
/** To nearest even. */
SURPRISAL_DEVICE Float16 narrow(float x, Float16) { return {__half_as_ushort(__float2half_rn(x))}; }
SURPRISAL_DEVICE BFloat16 narrow(float x, BFloat16) { return {__bfloat16_as_ushort(__float2bfloat16_rn(x))}; }

template <class Job>
__global__ void __launch_bounds__(Job::most_threads, 1) run_job(const __grid_constant__ Job job) {
  job();
}

/** x, of which the compiler knows nothing: what follows from it is computed where it stands. */
SURPRISAL_DEVICE int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

/** Puts a job into a stream. Throws DeviceError. */
template <class Job>
void launch(const Job& job, const LaunchShape& shape, Stream stream) {
  constexpr int kSharedWithoutAsking = 48 * 1024, kPortableCluster = 8;
  const auto kernel = run_job<Job>;
  if (shape.shared_bytes > kSharedWithoutAsking) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes));
  }
  if (shape.cluster > kPortableCluster) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  }
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, job));
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal

#endif
