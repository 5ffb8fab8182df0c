#pragma once

#include <cstddef>
#include <memory>

namespace surprisal {

/** A thread's scratch memory: grows to what the largest block needed, is never given back, is reused by the next. */
class Arena {
 public:
  static constexpr size_t kAlignment = 128;  // of the widest vectors, sums in double

  /** This thread's. */
  static Arena& local();

  /** Makes room for a block of work and forgets the last one's. Throws std::bad_alloc. */
  void reserve(size_t bytes);

  /** The next part of the reserved room, aligned, uninitialised. */
  template <class T>
  T* take(size_t count) {
    T* part = reinterpret_cast<T*>(base_ + used_);
    used_ += room<T>(count);
    return part;
  }

  /** Bytes that take<T>(count) uses. */
  template <class T>
  static constexpr size_t room(size_t count) {
    return (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
  }

 private:
  std::unique_ptr<std::byte[]> memory_;
  std::byte* base_ = nullptr;
  size_t capacity_ = 0;
  size_t used_ = 0;
};

}  // namespace surprisal
