#pragma once

// How rows reach the kernels: each as a run of classes in memory. Contiguous rows are used where they are. Where
// the class dimension is strided, a tile of neighbouring rows is transposed into scratch and back.

#include "arena.h"
#include "indices.h"
#include "problem.h"
#include "simd.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Rows of a tile: a cache line of float32 along the inner dimension. */
inline constexpr int64_t kTileRows = 16;

/** Elements that a row takes in scratch: whole vectors, so that loops over scratch need no tail. */
template <class T>
constexpr int64_t padded(int64_t classes) {
  constexpr int64_t lanes = Vec<Compute<T>>::size;
  return (classes + lanes - 1) / lanes * lanes;
}

/** Offset of a row's first class. */
inline int64_t row_offset(const Evaluation& call, const Strides& strides, int64_t row) {
  if (call.inner == 1) return row * strides.outer;
  return row / call.inner * strides.outer + row % call.inner * strides.inner;
}

/** Rows from `row` that lie side by side, up to a tile and the block's end. */
inline int64_t tile_rows(const Evaluation& call, int64_t row, int64_t end) {
  int64_t count = call.inner - row % call.inner;
  if (count > kTileRows) count = kTileRows;
  return count < end - row ? count : end - row;
}

/** Reads rows of T. Rows must be asked for in rising order. */
template <class T>
class RowReader {
 public:
  RowReader(const Evaluation& call, const void* data, const Strides& strides, Arena& arena, int64_t end)
      : call_(call), data_(static_cast<const T*>(data)), strides_(strides), end_(end) {
    if (!direct()) tile_ = arena.take<T>(kTileRows * padded<T>(call.classes));
  }

  static size_t scratch(const Evaluation& call, const Strides& strides) {
    return strides.classes == 1 ? 0 : Arena::room<T>(kTileRows * padded<T>(call.classes));
  }

  const T* row(int64_t row) {
    if (direct()) return data_ + row_offset(call_, strides_, row);
    if (row >= tile_end_) gather(row);
    return tile_ + (row - tile_begin_) * padded<T>(call_.classes);
  }

  /** Where the row after this one stands, to fetch it early; of the last one, and of tiles, any address does. */
  const T* next(int64_t row) const {
    return direct() && row + 1 < end_ ? data_ + row_offset(call_, strides_, row + 1) : data_;
  }

 private:
  bool direct() const { return strides_.classes == 1; }

  void gather(int64_t row) {
    const int64_t count = tile_rows(call_, row, end_);
    const T* from = data_ + row_offset(call_, strides_, row);
    const int64_t pitch = padded<T>(call_.classes);
    for (int64_t c = 0; c < call_.classes; ++c) {
      for (int64_t j = 0; j < count; ++j) tile_[j * pitch + c] = from[c * strides_.classes + j * strides_.inner];
    }
    tile_begin_ = row;
    tile_end_ = row + count;
  }

  const Evaluation& call_;
  const T* data_;
  Strides strides_;
  int64_t end_;
  T* tile_ = nullptr;
  int64_t tile_begin_ = 0, tile_end_ = 0;
};

/** Writes rows of T, in rising order; `finish` after the last. Tiles are those of RowReader, so a row may be written
    over the one that was read. */
template <class T>
class RowWriter {
 public:
  RowWriter(const Evaluation& call, void* data, const Strides& strides, Arena& arena, int64_t end)
      : call_(call), data_(static_cast<T*>(data)), strides_(strides), end_(end) {
    if (data_ != nullptr && !direct()) tile_ = arena.take<T>(kTileRows * padded<T>(call.classes));
  }

  static size_t scratch(const Evaluation& call, const Strides& strides) { return RowReader<T>::scratch(call, strides); }

  T* row(int64_t row) {
    if (direct()) return data_ + row_offset(call_, strides_, row);
    if (row >= tile_end_) {
      finish();
      tile_begin_ = row;
      tile_end_ = row + tile_rows(call_, row, end_);
    }
    return tile_ + (row - tile_begin_) * padded<T>(call_.classes);
  }

  void finish() {
    if (data_ == nullptr || direct() || tile_end_ == tile_begin_) return;
    T* to = data_ + row_offset(call_, strides_, tile_begin_);
    const int64_t pitch = padded<T>(call_.classes);
    for (int64_t c = 0; c < call_.classes; ++c) {
      for (int64_t j = 0; j < tile_end_ - tile_begin_; ++j) {
        to[c * strides_.classes + j * strides_.inner] = tile_[j * pitch + c];
      }
    }
    tile_begin_ = tile_end_;
  }

 private:
  bool direct() const { return strides_.classes == 1; }

  const Evaluation& call_;
  T* data_;
  Strides strides_;
  int64_t end_;
  T* tile_ = nullptr;
  int64_t tile_begin_ = 0, tile_end_ = 0;
};

/** Calls f with a value of the storage type of a floating dtype. */
template <class F>
inline auto with_storage(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float64:
      return f(double{});
    case DType::float16:
      return f(Float16{});
    case DType::bfloat16:
      return f(BFloat16{});
    default:
      return f(float{});
  }
}

/** Reads a dense target's rows in the compute type R, whatever their dtype. */
template <class R>
class DenseReader {
 public:
  DenseReader(const Evaluation& call, Arena& arena) : call_(call) {
    if (call.dense != nullptr && !direct()) converted_ = arena.take<R>(padded<R>(call.classes));
  }

  static size_t scratch(const Evaluation& call) {
    return call.dense == nullptr ? 0 : Arena::room<R>(padded<R>(call.classes));
  }

  /** The row of a unit, or of its class index. */
  const R* row(int64_t row, int64_t index) {
    const int64_t offset =
        call_.dense_by_index ? index * call_.dense_strides.outer : row_offset(call_, call_.dense_strides, row);
    if (direct()) return static_cast<const R*>(call_.dense) + offset;
    with_storage(call_.dense_dtype, [&](auto storage) {
      using T = decltype(storage);
      const T* from = static_cast<const T*>(call_.dense) + offset;
      const int64_t step = call_.dense_strides.classes;
      for (int64_t c = 0; c < call_.classes; ++c) converted_[c] = static_cast<R>(load_one(from + c * step));
    });
    return converted_;
  }

 private:
  bool direct() const {
    constexpr DType own = sizeof(R) == 8 ? DType::float64 : DType::float32;
    return call_.dense_dtype == own && call_.dense_strides.classes == 1;
  }

  const Evaluation& call_;
  R* converted_ = nullptr;
};

template <class R>
inline double class_weight(const Evaluation& call, int64_t index) {
  return call.weight == nullptr ? 1 : static_cast<const R*>(call.weight)[index];
}

/** What a row's gradient is multiplied by. */
template <class R>
inline double row_scale(const Problem& problem, int64_t row) {
  const auto* each = static_cast<const R*>(problem.call.grad_outputs);
  return each == nullptr ? problem.grad_scale : problem.grad_scale * each[row];
}

/** Puts a row's loss where reduction 'none' wants it. */
template <class R>
inline void put_row_loss(const Evaluation& call, int64_t row, double loss) {
  if (call.reduction == Reduction::none) static_cast<R*>(call.output)[row] = static_cast<R>(loss);
}

template <class T>
inline void fill_zero(T* row, int64_t classes) {
  memset(static_cast<void*>(row), 0, classes * sizeof(T));
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
