#pragma once

// Rows between global and shared memory. Whole tiles are copied in 16-byte accesses, whatever the rows' length and
// address: a run of elements is placed in shared memory as it lies beside multiples of 16 in global memory, and only
// its two ends are copied by the element. From there threads take classes by their number alone, so that a row is
// computed in the same way wherever it stands.

#include "../backend.h"
#include "plan.h"
#include "storage.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Offset of a row's first class. */
SURPRISAL_DEVICE int64_t row_offset(const Evaluation& call, const Strides& strides, int64_t row) {
  if (call.inner == 1) return row * strides.outer;
  return row / call.inner * strides.outer + row % call.inner * strides.inner;
}

/** Elements that an address is past a multiple of 16 bytes. */
template <class T>
SURPRISAL_DEVICE int misalignment(const T* address) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(address) / sizeof(T) % kPack<T>);
}

enum class Direction : uint8_t { in, out };

/** Copies a run of elements between places of one misalignment, by all threads of the block. */
template <Direction direction, class T>
SURPRISAL_DEVICE void copy_run(T* shared, T* global, int64_t count) {
  const int64_t until_aligned = (kPack<T> - misalignment(global)) % kPack<T>;
  const int64_t head = until_aligned < count ? until_aligned : count;
  const int64_t packs = (count - head) / kPack<T>;
  for (int64_t i = thread_index(); i < packs; i += thread_count()) {
    const int64_t at = head + i * kPack<T>;
    if constexpr (direction == Direction::in) {
      copy_to_shared(shared + at, global + at);
    } else {
      copy_to_global(global + at, shared + at);
    }
  }
  const auto copy_one = [&](int64_t at) {
    if constexpr (direction == Direction::in) {
      shared[at] = load_global(global + at);
    } else {
      store_global(global + at, shared[at]);
    }
  };
  if (thread_index() < head) copy_one(thread_index());
  const int64_t tail = head + packs * kPack<T> + thread_index();
  if (tail < count) copy_one(tail);
}

/** Classes [begin, end) of `count` rows from `first` on, in shared memory. */
template <class T>
class RowTile {
 public:
  SURPRISAL_DEVICE RowTile(const Evaluation& call, const RowPlan& plan, T* shared, int64_t first, int count)
      : call_(call), plan_(plan), shared_(shared), first_(first), count_(count) {}

  /** Begins to copy the rows of a tensor in; they are there after wait_for_copies and the block's next barrier. */
  SURPRISAL_DEVICE void load(const T* tensor, const Strides& strides, int64_t begin, int64_t end) const {
    copy<Direction::in>(const_cast<T*>(tensor), strides, begin, end);
  }
  SURPRISAL_DEVICE void store(T* tensor, const Strides& strides, int64_t begin, int64_t end) const {
    copy<Direction::out>(tensor, strides, begin, end);
  }

  /** Where class `begin` of row `first + i` stands, in the tile as it is copied from or to this tensor. */
  SURPRISAL_DEVICE T* row(const T* tensor, const Strides& strides, int i, int64_t begin) const {
    if (strides.classes != 1) return shared_ + i * pitch();
    if (is_one_run(strides)) return shared_ + misalignment(tensor + offset(strides, 0, begin)) + i * call_.classes;
    return shared_ + i * pitch() + misalignment(tensor + offset(strides, i, begin));
  }

 private:
  SURPRISAL_DEVICE int64_t pitch() const { return plan_.row_bytes / static_cast<int64_t>(sizeof(T)); }
  /** Whole rows that follow one another without a gap. */
  SURPRISAL_DEVICE bool is_one_run(const Strides& strides) const {
    return strides.classes == 1 && call_.inner == 1 && strides.outer == call_.classes && plan_.slice == call_.classes;
  }
  SURPRISAL_DEVICE int64_t offset(const Strides& strides, int i, int64_t begin) const {
    return row_offset(call_, strides, first_ + i) + begin * strides.classes;
  }

  template <Direction direction>
  SURPRISAL_DEVICE void copy(T* tensor, const Strides& strides, int64_t begin, int64_t end) const {
    if (strides.classes != 1) return transpose<direction>(tensor, strides, begin, end);
    if (is_one_run(strides)) {
      return copy_run<direction>(row(tensor, strides, 0, begin), tensor + offset(strides, 0, begin),
                                 count_ * call_.classes);
    }
    for (int i = 0; i < count_; ++i) {
      copy_run<direction>(row(tensor, strides, i, begin), tensor + offset(strides, i, begin), end - begin);
    }
  }

  /** Neighbouring threads take neighbouring rows, which stand side by side where classes do not. */
  template <Direction direction>
  SURPRISAL_DEVICE void transpose(T* tensor, const Strides& strides, int64_t begin, int64_t end) const {
    for (int64_t i = thread_index(); i < (end - begin) * count_; i += thread_count()) {
      const int r = static_cast<int>(i % count_);
      const int64_t c = i / count_;
      T* at = tensor + offset(strides, r, begin) + c * strides.classes;
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
  int64_t first_;
  int count_;
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
