#pragma once

// The machine that kernels run on: threads in warps, blocks and clusters, their barriers and shuffles, shared memory,
// global memory, and launches. These are the only functions with two bodies: CUDA's here, and those of
// test/cuda_emulator, by which the kernels' own source runs without a GPU. Global memory is reached through them alone,
// so that the emulator counts every byte.
//
// A kernel is a Job: a plain struct that is passed by value, with `operator()` for what a thread does and
// `most_threads`, the most that a block of it has.

#include <atomic>
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

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr bool kHasClusters = false;
#else
inline constexpr bool kHasClusters = true;
#endif

/** The block's number in its cluster, and the cluster's among all. */
SURPRISAL_DEVICE int block_in_cluster() {
#if __CUDA_ARCH__ >= 900
  return static_cast<int>(__clusterRelativeBlockRank());
#else
  return 0;
#endif
}
SURPRISAL_DEVICE unsigned cluster_index() {
#if __CUDA_ARCH__ >= 900
  return __clusterIdx().x;
#else
  return blockIdx.x;
#endif
}

/**
 * In a stream, kernels begin one after the other. One whose launch says that it overlaps begins as soon as the blocks
 * of the one before have all called let_next_begin(), or ended; until it has called wait_for_previous() it must not ask
 * for anything that that one writes.
 */
SURPRISAL_DEVICE void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
SURPRISAL_DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

SURPRISAL_DEVICE void sync_block() { __syncthreads(); }

/** The value of the lane whose number differs in these bits. All lanes of a warp call it. */
template <class V>
SURPRISAL_DEVICE V shuffle_xor(V x, int bits) {
  return __shfl_xor_sync(0xffffffffu, x, bits);
}

/** The value of a warp's first lane. All of its lanes call it. */
template <class V>
SURPRISAL_DEVICE V of_first_lane(V x) {
  return __shfl_sync(0xffffffffu, x, 0);
}

/** Tells the cluster's other blocks that this one is there; and waits until all of them are. */
SURPRISAL_DEVICE void greet_cluster() {
#if __CUDA_ARCH__ >= 900
  __cluster_barrier_arrive_relaxed();
#endif
}
SURPRISAL_DEVICE void await_cluster() {
#if __CUDA_ARCH__ >= 900
  __cluster_barrier_wait();
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

/** What all threads of a team ask for at once: one access of each of its warps, whose first lane is `first`. */
template <class V>
SURPRISAL_DEVICE V load_broadcast(const V* from, bool /*first*/) {
  return *from;
}
/** What was written by other blocks of this launch, past the first cache, which does not know of it. */
template <class V>
SURPRISAL_DEVICE V load_fresh(const V* from) {
  return __ldcg(from);
}

// What blocks of a cluster send to one another. A block's threads wait for it at a barrier, whose turns are numbered 0,
// 1, 0, 1, ...

SURPRISAL_DEVICE unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

/** By one thread, before the blocks greet one another. */
SURPRISAL_DEVICE void init_mail(MailBarrier* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/** By one thread: how many bytes come in this turn. */
SURPRISAL_DEVICE void expect_mail(MailBarrier* barrier, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
#endif
}

/** Waits for what comes in a turn. All threads of the block call it. */
SURPRISAL_DEVICE void wait_for_mail(MailBarrier* barrier, unsigned turn) {
#if __CUDA_ARCH__ >= 900
  unsigned done = 0;
  while (done == 0) {
    asm volatile(
        "{\n"
        ".reg .pred there;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 there, [%1], %2;\n"
        "selp.u32 %0, 1, 0, there;\n"
        "}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(turn)
        : "memory");
  }
#endif
}

/** Puts 8 bytes where block `rank` of the cluster has what this one has at `mine`; its threads wait at its `barrier`.
 */
template <class V>
SURPRISAL_DEVICE void send_to_block(V* mine, int rank, V value, MailBarrier* barrier) {
  static_assert(sizeof(V) == sizeof(uint64_t));
#if __CUDA_ARCH__ >= 900
  uint64_t bits;
  memcpy(&bits, &value, sizeof(bits));
  asm volatile(
      "{\n"
      ".reg .b32 to, at;\n"
      "mapa.shared::cluster.u32 to, %0, %2;\n"
      "mapa.shared::cluster.u32 at, %1, %2;\n"
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b64 [to], %3, [at];\n"
      "}" ::"r"(shared_address(mine)),
      "r"(shared_address(barrier)), "r"(rank), "l"(bits)
      : "memory");
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

/** Threads of a block as large as leaves a thread of the job the registers that it needs: its most, unless it says so.
 */
template <class Job, class = void>
inline constexpr int kThreadsOfRegisters = Job::most_threads;
template <class Job>
inline constexpr int kThreadsOfRegisters<Job, std::void_t<decltype(Job::threads_of_registers)> > =
    Job::threads_of_registers;

template <class Job>
__global__ void __launch_bounds__(kThreadsOfRegisters<Job>, 1) run_job(const __grid_constant__ Job job) {
  job();
}

/** x, of which the compiler knows nothing: what follows from it is computed where it stands. */
SURPRISAL_DEVICE int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

/** Lets a kernel have what its launches ask for, on each device once. */
template <class Job>
void set_up(const LaunchShape& shape) {
  constexpr int kMostDevices = 64;
  static std::atomic<uint64_t> done[2] = {};
  const auto kernel = run_job<Job>;
  const auto once = [&](int which, auto&& f) {
    const uint64_t device = uint64_t{1} << (shape.device % kMostDevices);
    if ((done[which].load(std::memory_order_acquire) & device) != 0) return;
    f();
    done[which].fetch_or(device, std::memory_order_release);
  };
  constexpr int kSharedWithoutAsking = 48 * 1024, kPortableCluster = 8;
  if (shape.shared_bytes > kSharedWithoutAsking) {
    once(0, [&] {
      int most = 0;
      check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, shape.device));
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    });
  }
  if (shape.cluster > kPortableCluster) {
    once(1, [&] { check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1)); });
  }
}

/** Puts a job into a stream. Throws DeviceError. */
template <class Job>
void launch(const Job& job, const LaunchShape& shape, Stream stream) {
  const auto kernel = run_job<Job>;
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  if (shape.cluster > 1) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  }
  if (shape.overlaps) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  set_up<Job>(shape);
  check(cudaLaunchKernelEx(&config, kernel, job));
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal

#endif
