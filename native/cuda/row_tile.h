#pragma once

// Rows between global and shared memory. Whole tiles are copied in 16-byte accesses, whatever the rows' length and
// address: a run of elements is placed in shared memory as it lies beside multiples of 16 in global memory, and only
// its two ends are copied by the element. From there threads take classes by their number alone, so that a row is
// computed in the same way wherever it stands.

#include "../backend.h"
#include "plan.h"
#include "scratch.h"
#include "storage.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

SURPRISAL_RARE int64_t quotient(int64_t a, int64_t b) { return a / b; }

/** Offset of the row that is `at` rows after the first with this outer index, of `inner` to each. */
SURPRISAL_RARE int64_t offset_within(int64_t inner, int64_t outer_at, int64_t at, int64_t outer_stride,
                                     int64_t inner_stride) {
  if (at < inner) return outer_at * outer_stride + at * inner_stride;
  const int64_t wraps = inner > kMostRows ? 1 : static_cast<int>(at) / static_cast<int>(inner);
  return (outer_at + wraps) * outer_stride + (at - wraps * inner) * inner_stride;
}

/** Where the rows from `first` on stand. A division takes a GPU long, so that there is one for all of a block's rows.
 */
class RowPlaces {
 public:
  SURPRISAL_DEVICE RowPlaces(int64_t inner, int64_t first)
      : inner_(inner), outer_at_(inner == 1 ? first : quotient(first, inner)), inner_at_(first - outer_at_ * inner) {}

  /** Offset of the first class of row `first + i`, with i below kMostRows. */
  SURPRISAL_DEVICE int64_t offset(const Strides& strides, int i = 0) const {
    if (inner_ == 1) return (outer_at_ + i) * strides.outer;
    return offset_within(inner_, outer_at_, inner_at_ + i, strides.outer, strides.inner);
  }

 private:
  int64_t inner_, outer_at_, inner_at_;
};

/** Elements that an address is past a multiple of 16 bytes. */
template <class T>
SURPRISAL_DEVICE int misalignment(const T* address) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(address) % kPackBytes / sizeof(T));
}

enum class Direction : uint8_t { in, out };

/** Copies a run of elements between places of one misalignment, by all threads of the block. */
template <Direction direction, class T>
SURPRISAL_DEVICE void copy_run(T* shared, T* global, int count) {
  const int until_aligned = (kPack<T> - misalignment(global)) % kPack<T>;
  const int head = until_aligned < count ? until_aligned : count;
  const int tail = head + (count - head) / kPack<T> * kPack<T>;
  SURPRISAL_NO_UNROLL
  for (int at = head + thread_index() * kPack<T>; at < tail; at += thread_count() * kPack<T>) {
    if constexpr (direction == Direction::in) {
      copy_to_shared(shared + at, global + at);
    } else {
      copy_to_global(global + at, shared + at);
    }
  }
  // The ends are shorter than a warp.
  const int end = thread_index() < head ? thread_index() : tail + thread_index() - head;
  if (end < head || (end >= tail && end < count)) {
    if constexpr (direction == Direction::in) {
      shared[end] = load_global(global + end);
    } else {
      store_global(global + end, shared[end]);
    }
  }
}

/** Some classes of a block's rows in shared memory. */
template <class T>
class RowTile {
 public:
  /** Of `count` rows from `first` on. */
  SURPRISAL_DEVICE RowTile(const Evaluation& call, const RowPlan& plan, T* shared, int64_t first, int count)
      : call_(call), plan_(plan), shared_(shared), places_(call.inner, first), count_(count) {}

  /** Begins to copy `width` classes of a tensor in; they are there after wait_for_copies and the block's next barrier.
   */
  SURPRISAL_DEVICE void load(const T* tensor, const Strides& strides, int64_t begin, int width) const {
    copy<Direction::in>(const_cast<T*>(tensor), strides, begin, width);
  }
  SURPRISAL_DEVICE void store(T* tensor, const Strides& strides, int64_t begin, int width) const {
    copy<Direction::out>(tensor, strides, begin, width);
  }

  /** Where class `begin` of row i of these stands, in the tile as it is copied from or to this tensor. */
  SURPRISAL_DEVICE T* row(const T* tensor, const Strides& strides, int i, int64_t begin) const {
    if (strides.classes != 1) return shared_ + i * pitch();
    const bool one_run = is_one_run(strides);
    T* start = shared_ + misalignment(tensor + places_.offset(strides, one_run ? 0 : i) + begin);
    return start + i * (one_run ? plan_.slice : pitch());
  }

  /** Class c of row i in global memory. */
  SURPRISAL_DEVICE const T* global(const T* tensor, const Strides& strides, int i, int64_t c) const {
    return tensor + places_.offset(strides, i) + c * strides.classes;
  }

 private:
  SURPRISAL_DEVICE int pitch() const { return plan_.row_bytes / static_cast<int>(sizeof(T)); }
  /** Whole rows that follow one another without a gap. */
  SURPRISAL_DEVICE bool is_one_run(const Strides& strides) const {
    return strides.classes == 1 && call_.inner == 1 && strides.outer == call_.classes && plan_.slice == call_.classes;
  }

  template <Direction direction>
  SURPRISAL_DEVICE void copy(T* tensor, const Strides& strides, int64_t begin, int width) const {
    if (strides.classes != 1) return transpose<direction>(tensor, strides, begin, width);
    const int runs = is_one_run(strides) ? 1 : count_;
    const int length = width * (count_ / runs);
    SURPRISAL_NO_UNROLL
    for (int i = 0; i < runs; ++i) {
      copy_run<direction>(row(tensor, strides, i, begin), tensor + places_.offset(strides, i) + begin, length);
    }
  }

  /** Neighbouring threads take neighbouring rows, which stand side by side where classes do not. */
  template <Direction direction>
  SURPRISAL_DEVICE void transpose(T* tensor, const Strides& strides, int64_t begin, int width) const {
    SURPRISAL_NO_UNROLL
    for (int i = thread_index(); i < width * count_; i += thread_count()) {
      const int c = i / count_, r = i - c * count_;
      T* at = tensor + places_.offset(strides, r) + (begin + c) * strides.classes;
      if constexpr (direction == Direction::in) {
        shared_[r * pitch() + c] = load_global(at);
      } else {
        store_global(at, shared_[r * pitch() + c]);
      }
    }
  }

  const Evaluation& call_;
  const RowPlan& plan_;
  T* shared_;
  RowPlaces places_;
  int count_;
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
