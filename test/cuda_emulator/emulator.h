#pragma once

// CUDA's execution model on one thread of the CPU. The threads of a cluster's blocks are fibers, which take turns at
// barriers and shuffles; clusters run one after the other. Warps and clusters come in an order that is never the same.
// Shared memory is poisoned with NaN at the start of a block, a buffer of exactly its size on the heap, as an
// AddressSanitizer build wants it.

#include <cstddef>
#include <cstdint>
#include <functional>

#include "../../native/cuda/launch_shape.h"
#include "../../native/cuda/plan.h"

namespace surprisal::emulator {

/** Bytes that kernels moved through global memory. */
struct Traffic {
  int64_t read = 0;
  int64_t written = 0;
};

/** Of this thread's kernels since it was last asked for. */
Traffic take_traffic();
void count_read(int64_t bytes);
void count_written(int64_t bytes);

/** How many kernels this thread has launched. */
int64_t launches();

/** How often a host thread has waited for the device. */
int64_t host_waits();
/** Bytes of the device that are allocated. */
int64_t device_memory();

/** What the device has from now on, for this thread: an H100's at first. */
void set_limits(const DeviceLimits&);

/** Runs a kernel. Throws std::logic_error where threads wait for what never comes. */
void run(const LaunchShape& shape, const std::function<void()>& thread);

// What a running thread asks for.
int thread_index();
int thread_count();
int64_t block_index();
int64_t block_count();
int cluster_size();
std::byte* dynamic_shared();
std::byte* peer_shared(std::byte* mine, int rank);
void sync_block();
void sync_cluster();
void shuffle_xor(void* value, size_t size, int bits);

// Blocks of a cluster send at once; who waits for it waits until as many bytes as were expected have come.
void init_mail(MailBarrier*);
void expect_mail(MailBarrier*, int bytes);
void deliver(MailBarrier*, int bytes);
void wait_for_mail(const MailBarrier*, unsigned turn);

}  // namespace surprisal::emulator
