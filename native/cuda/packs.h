#pragma once

// Rows in global memory: where they stand, and how several of their elements come and go by one access.

#include "../backend.h"
#include "storage.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

SURPRISAL_RARE int64_t quotient(int64_t a, int64_t b) { return a / b; }

/** Offset of a row, of `inner` to each outer index. */
SURPRISAL_RARE int64_t strided_offset(int64_t inner, int64_t row, int64_t outer_stride, int64_t inner_stride) {
  const int64_t outer = row / inner;
  return outer * outer_stride + (row - outer * inner) * inner_stride;
}

/** Offset of a row's first class. */
SURPRISAL_DEVICE int64_t row_offset(int64_t inner, const Strides& strides, int64_t row) {
  return inner == 1 ? row * strides.outer : strided_offset(inner, row, strides.outer, strides.inner);
}

/** Bytes that an address is past a multiple of 16. */
SURPRISAL_DEVICE int misalignment(const void* address) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(address) % kPackBytes);
}

/** n neighbouring elements in the compute type R, at an address that 16 divides. */
template <int n, class R, class S>
SURPRISAL_DEVICE void load_packs(const S* from, R* values) {
  static_assert(n % kPack<S> == 0);
  SURPRISAL_UNROLL
  for (int i = 0; i < n; i += kPack<S>) {
    const auto pack = load_pack<Pack<S>>(from + i);
    SURPRISAL_UNROLL
    for (int k = 0; k < kPack<S>; ++k) values[i + k] = static_cast<R>(widen(pack.elements[k]));
  }
}

template <int n, class R, class S>
SURPRISAL_DEVICE void store_packs(S* to, const R* values) {
  static_assert(n % kPack<S> == 0);
  SURPRISAL_UNROLL
  for (int i = 0; i < n; i += kPack<S>) {
    Pack<S> pack;
    SURPRISAL_UNROLL
    for (int k = 0; k < kPack<S>; ++k) pack.elements[k] = stored<S>(values[i + k]);
    store_pack(to + i, pack);
  }
}

/**
 * A block's rows of results in shared memory, on their way to where they do not begin at multiples of 16 bytes: each is
 * placed as it lies beside these, so that all but its ends goes by 16 bytes.
 */
template <class T>
class Staging {
 public:
  /** Rows that are `pitch` bytes apart. */
  SURPRISAL_DEVICE Staging(std::byte* shared, int pitch) : shared_(shared), pitch_(pitch) {}

  /** Where row i stands whose result begins at `to`. */
  SURPRISAL_DEVICE T* row(int i, const T* to) const {
    return reinterpret_cast<T*>(shared_ + i * pitch_ + misalignment(to));
  }

  /** Copies row i out to `to`, so many elements `stride` apart. All threads of the block call it. */
  SURPRISAL_DEVICE void store(int i, T* to, int count, int64_t stride) const {
    const T* from = row(i, to);
    const int threads = thread_count(), rank = thread_index();
    if (stride != 1) {
      SURPRISAL_NO_UNROLL
      for (int c = rank; c < count; c += threads) store_global(to + c * stride, from[c]);
      return;
    }
    const int until_aligned = (kPackBytes - misalignment(to)) % kPackBytes / static_cast<int>(sizeof(T));
    const int head = until_aligned < count ? until_aligned : count;
    const int tail = head + (count - head) / kPack<T> * kPack<T>;
    SURPRISAL_NO_UNROLL
    for (int at = head + rank * kPack<T>; at < tail; at += threads * kPack<T>) copy_to_global(to + at, from + at);
    // The ends are shorter than a warp.
    const int end = rank < head ? rank : tail + rank - head;
    if (end < head || (end >= tail && end < count)) store_global(to + end, from[end]);
  }

 private:
  std::byte* shared_;
  int pitch_;
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
