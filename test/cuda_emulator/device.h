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

inline int thread_index() { return emulator::thread_index(); }
inline int thread_count() { return emulator::thread_count(); }
inline int64_t block_index() { return emulator::block_index(); }
inline int64_t block_count() { return emulator::block_count(); }
inline void sync_block() { emulator::sync_block(); }
inline void sync_cluster() { emulator::sync_cluster(); }
inline std::byte* dynamic_shared() { return emulator::dynamic_shared(); }

template <class V>
inline V shuffle_xor(V x, int bits) {
  emulator::shuffle_xor(&x, sizeof(x), bits);
  return x;
}

template <class V>
inline V* peer_shared(V* mine, int rank) {
  return reinterpret_cast<V*>(emulator::peer_shared(reinterpret_cast<std::byte*>(mine), rank));
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
inline void copy_to_shared(void* shared, const void* global) {
  check_aligned(shared);
  check_aligned(global);
  emulator::count_read(kPackBytes);
  memcpy(shared, global, kPackBytes);
}
inline void wait_for_copies() {}
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
