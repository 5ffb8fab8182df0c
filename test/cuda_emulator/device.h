#pragma once

// The functions of native/cuda/device.h on the emulator.

#include <cstddef>

#define SURPRISAL_DEVICE inline
#define SURPRISAL_RARE inline
#define SURPRISAL_UNROLL
#define SURPRISAL_NO_UNROLL

#include "emulator.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

inline constexpr bool kHasClusters = true;

inline int thread_index() { return emulator::thread_index(); }
inline int thread_count() { return emulator::thread_count(); }
inline int64_t block_index() { return emulator::block_index(); }
inline int64_t block_count() { return emulator::block_count(); }
inline int block_in_cluster() { return static_cast<int>(emulator::block_index() % emulator::cluster_size()); }
inline unsigned cluster_index() { return static_cast<unsigned>(emulator::block_index() / emulator::cluster_size()); }
inline void sync_block() { emulator::sync_block(); }
inline void greet_cluster() {}
inline void await_cluster() { emulator::sync_cluster(); }
inline std::byte* dynamic_shared() { return emulator::dynamic_shared(); }

template <class V>
inline V shuffle_xor(V x, int bits) {
  emulator::shuffle_xor(&x, sizeof(x), bits);
  return x;
}

template <class V>
inline V of_first_lane(V x) {
  return shuffle_xor(x, thread_index() % kWarp);
}

template <class V>
inline V load_global(const V* from) {
  emulator::count_read(sizeof(V));
  return *from;
}
template <class V>
inline void store_global(V* to, V x) {
  emulator::count_written(sizeof(V));
  *to = x;
}

/** Traps at an address that a GPU would refuse. */
inline void check_aligned(const void* address) {
  if (reinterpret_cast<uintptr_t>(address) % kPackBytes != 0) __builtin_trap();
}
template <class V>
inline V load_broadcast(const V* from, bool first) {
  return first ? load_global(from) : *from;
}
template <class V>
inline V load_fresh(const V* from) {
  return load_global(from);
}

inline void init_mail(MailBarrier* barrier) { emulator::init_mail(barrier); }
inline void expect_mail(MailBarrier* barrier, int bytes) { emulator::expect_mail(barrier, bytes); }
inline void wait_for_mail(MailBarrier* barrier, unsigned turn) { emulator::wait_for_mail(barrier, turn); }
template <class V>
inline void send_to_block(V* mine, int rank, V value, MailBarrier* barrier) {
  static_assert(sizeof(V) == sizeof(uint64_t));
  const auto of_peer = [rank](void* mine) { return emulator::peer_shared(static_cast<std::byte*>(mine), rank); };
  memcpy(of_peer(mine), &value, sizeof(value));
  emulator::deliver(reinterpret_cast<MailBarrier*>(of_peer(barrier)), sizeof(value));
}
// Kernels run one after the other.
inline void let_next_begin() {}
inline void wait_for_previous() {}
inline void copy_to_global(void* global, const void* shared) {
  check_aligned(shared);
  check_aligned(global);
  emulator::count_written(kPackBytes);
  memcpy(global, shared, kPackBytes);
}
template <class V>
inline V load_pack(const void* from) {
  static_assert(sizeof(V) == kPackBytes);
  check_aligned(from);
  emulator::count_read(kPackBytes);
  V pack;
  memcpy(&pack, from, sizeof(pack));
  return pack;
}
template <class V>
inline void store_pack(void* to, const V& pack) {
  static_assert(sizeof(V) == kPackBytes);
  check_aligned(to);
  emulator::count_written(kPackBytes);
  memcpy(to, &pack, sizeof(pack));
}

inline void fence() {}
inline uint32_t take_ticket(uint32_t* counter) { return (*counter)++; }
inline void raise_to(uint64_t* value, uint64_t x) { *value = x > *value ? x : *value; }

inline float widen(Float16 x) {
  _Float16 value;
  memcpy(&value, &x.bits, sizeof(value));
  return static_cast<float>(value);
}
inline float widen(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
inline Float16 narrow(float x, Float16) {
  const auto value = static_cast<_Float16>(x);
  Float16 result;
  memcpy(&result.bits, &value, sizeof(value));
  return result;
}
inline BFloat16 narrow(float x, BFloat16) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  bits = x == x ? bits + 0x7fff + ((bits >> 16) & 1) : bits | 0x400000;
  return {static_cast<uint16_t>(bits >> 16)};
}

inline int opaque(int x) { return x; }

template <class Job>
void launch(const Job& job, const LaunchShape& shape, Stream /*work is done where it is launched*/) {
  if (shape.threads > Job::most_threads) __builtin_trap();
  emulator::run(shape, [&job] { job(); });
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
