#pragma once

// How rows reach the kernels: each as a run of classes in memory. Contiguous rows are used where they are. Where
// the class dimension is strided, a tile of neighbouring rows is transposed into scratch and back.

#include "../loss/softmax.h"
#include "arena.h"
#include "indices.h"
#include "problem.h"
#include "sums.h"
#include "transpose.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Rows of a tile: a cache line of float32 along the inner dimension. */
inline constexpr int64_t kTileRows = 16;

/** Elements that a row takes in scratch: whole vectors from any of its elements on, so that loops need no tail. */
template <class T>
constexpr int64_t padded(int64_t classes) {
  constexpr int64_t lanes = Vec<Compute<T>>::size;
  return (classes + lanes - 1) / lanes * lanes + lanes;
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

/** Sums of a unit's rows, and of `n` more terms that a driver asked for. */
template <class Number, class V, int n>
struct PassSums {
  RowSums<Number> row;
  Sums<V, n> terms;
  Number maxima;  // how many classes are at the maximum
};

/** The same of a pass whose reference is not the maximum, but so much below it. */
template <class Number, class V, int n>
struct ReferredSums {
  RowSums<Number> row;
  Sums<V, n> terms;
  Number maximum_above;
};

/** Tells what looks at each vector of a pass that so many were summed in the compute type. */
template <class Each>
SURPRISAL_FN void end_stretch(Each& each) {
  if constexpr (requires { each.end_stretch(); }) each.end_stretch();
}

/** Reads the input's rows. They must be asked for in rising order. */
template <class T>
class RowReader {
 public:
  using Row = const T*;

  RowReader(const Evaluation& call, Block block, Arena& arena, int /*units*/ = 1)
      : call_(call), data_(static_cast<const T*>(call.input)), strides_(call.input_strides), block_(block) {
    if (!direct()) tile_ = arena.take<T>(kTileRows * padded<T>(call.classes));
  }

  static size_t scratch(const Evaluation& call, int /*units*/ = 1) { return tile_room(call, call.input_strides); }
  static size_t tile_room(const Evaluation& call, const Strides& strides) {
    return strides.classes == 1 ? 0 : Arena::room<T>(kTileRows * padded<T>(call.classes));
  }

  const T* row(int64_t row, int /*unit*/ = 0) {
    if (direct()) return data_ + row_offset(call_, strides_, row);
    if (row >= tile_end_) gather(row);
    return tile_ + (row - tile_begin_) * padded<T>(call_.classes);
  }

  /** The row that fetch_next is to fetch, where rows are used where they are. Past the end any address does. */
  void expect(int64_t row) { next_ = row < block_.run_end ? data_ + row_offset(call_, strides_, row) : data_; }
  SURPRISAL_FN void fetch_next(int64_t c) const { __builtin_prefetch(next_ + c, 0, 2); }
  SURPRISAL_FN const T* next() const { return next_; }

 private:
  bool direct() const { return strides_.classes == 1; }

  void gather(int64_t row) {
    const int64_t count = tile_rows(call_, row, block_.end);
    const T* from = data_ + row_offset(call_, strides_, row);
    const int64_t pitch = padded<T>(call_.classes);
    if (strides_.inner == 1) {
      transpose_from_vectors(Pitched<const T>{from, strides_.classes}, Pitched<T>{tile_, pitch}, call_.classes, count);
    } else {
      for (int64_t c = 0; c < call_.classes; ++c) {
        for (int64_t j = 0; j < count; ++j) tile_[j * pitch + c] = from[c * strides_.classes + j * strides_.inner];
      }
    }
    tile_begin_ = row;
    tile_end_ = row + count;
  }

  const Evaluation& call_;
  const T* data_;
  Strides strides_;
  Block block_;
  T* tile_ = nullptr;
  int64_t tile_begin_ = 0, tile_end_ = 0;
  const T* next_ = nullptr;
};

template <class T>
inline void fill_zero(T* row, int64_t classes) {
  memset(static_cast<void*>(row), 0, classes * sizeof(T));
}

/** Writes the gradient's rows, in rising order; `finish` after the last. Tiles are those of RowReader, so a row may be
    written over the one that was read. */
template <class T>
class RowWriter {
  using V = Vec<Compute<T>>;

 public:
  RowWriter(const Problem& problem, Block block, Arena& arena)
      : call_(problem.call), data_(static_cast<T*>(call_.grad)), strides_(call_.grad_strides), block_(block) {
    if (!direct()) tile_ = arena.take<T>(kTileRows * padded<T>(call_.classes));
    streams_ = problem.streams && direct();
  }

  /** Whether rows of several units can be worked at together: where they belong, if at all, and not in a tile. */
  bool holds_many() const { return direct(); }

  using Row = T*;

  static size_t scratch(const Evaluation& call) { return RowReader<T>::tile_room(call, call.grad_strides); }

  /**
   * Fetches memory that the row will be written to, c elements on, unless it goes past the caches: there only the lines
   * that it shares with its neighbours are.
   */
  SURPRISAL_FN void prepare(T* row, int64_t c) const {
    if (!streams_) __builtin_prefetch(row + c, 1);
  }
  SURPRISAL_FN void prepare_ends(T* row) const {
    if (!streams_) return;
    __builtin_prefetch(row, 1);
    __builtin_prefetch(row + call_.classes - 1, 1);
  }

  /**
   * Writes f(c, lanes) along a row, but for a label's own value in its place; past the caches by whole vectors at
   * addresses that they divide. Step by step where other work leaves the memory time for it.
   */
  template <class F>
  class Progress {
   public:
    static constexpr int64_t kNoPlace = -1;

    Progress() = default;
    SURPRISAL_FN Progress(const RowWriter& writer, T* row, const F& f, int64_t own_place = kNoPlace,
                          Compute<T> own = {})
        : f_(f), row_(row), end_(writer.call_.classes), own_place_(own_place), own_(own) {
      constexpr int64_t bytes = V::size * sizeof(T);
      const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) % bytes);
      streams_ = writer.streams_ && past % static_cast<int64_t>(sizeof(T)) == 0 && end_ >= V::size;
      const int64_t head = !streams_ || past == 0 ? 0 : (bytes - past) / static_cast<int64_t>(sizeof(T));
      if (head > 0) store_part(0, head);
      next_ = head;
      whole_end_ = head + (end_ - head) / V::size * V::size;
    }

    /** The next vector, if there is one. */
    SURPRISAL_FN void step() {
      if (next_ == whole_end_) return;
      if (streams_) {
        stream(row_ + next_, value(next_, Full{}));
      } else {
        store(row_ + next_, f_(next_, Full{}), Full{});
      }
      next_ += V::size;
    }

    /** All that is left. */
    SURPRISAL_FN void finish() {
      if (streams_) {
        for (; next_ < whole_end_; next_ += V::size) stream(row_ + next_, value(next_, Full{}));
      } else {
        for (; next_ < whole_end_; next_ += V::size) store(row_ + next_, f_(next_, Full{}), Full{});
      }
      if (whole_end_ < end_) store_part(whole_end_, end_ - whole_end_);
      if (!streams_ && own_place_ != kNoPlace) store_one(row_ + own_place_, own_);
      next_ = whole_end_ = end_ = 0;
      own_place_ = kNoPlace;
    }

   private:
    /** A streamed label's value is not put there afterwards, when its line may have left the caches. */
    template <class Within>
    SURPRISAL_FN V value(int64_t c, Within within) const {
      const V others = f_(c, within);
      const int64_t lane = own_place_ - c;
      if (static_cast<uint64_t>(lane) >= static_cast<uint64_t>(V::size)) [[likely]]
        return others;
      return select(lane_numbers<V>() == V(static_cast<Compute<T>>(lane)), V(own_), others);
    }

    SURPRISAL_FN void store_part(int64_t c, int64_t count) const {
      const Partial lanes{static_cast<int>(count)};
      store(row_ + c, streams_ ? value(c, lanes) : f_(c, lanes), lanes);
    }

    F f_;
    T* row_ = nullptr;
    int64_t next_ = 0, whole_end_ = 0, end_ = 0, own_place_ = kNoPlace;
    Compute<T> own_ = {};
    bool streams_ = false;
  };

  /** Rows are written where they belong, so that one may be written while the next is computed. */
  static constexpr bool kInSteps = true;

  template <class Label, class F>
  SURPRISAL_FN void write(T* row, const Label&, const F& f) const {
    Progress<F>(*this, row, f).finish();
  }

  /** The same with a label's value in its place. */
  template <class Label, class F>
  SURPRISAL_FN void write(T* row, const Label& label, Compute<T> value, const F& f) const {
    Progress<F>(*this, row, f, label.index(), value).finish();
  }

  void clear(T* row) const { fill_zero(row, call_.classes); }

  T* row(int64_t row) {
    if (direct()) return data_ + row_offset(call_, strides_, row);
    if (row >= tile_end_) {
      finish();
      tile_begin_ = row;
      tile_end_ = row + tile_rows(call_, row, block_.end);
    }
    return tile_ + (row - tile_begin_) * padded<T>(call_.classes);
  }

  void finish() {
    if (streams_) finish_streaming();
    if (direct() || tile_end_ == tile_begin_) return;
    T* to = data_ + row_offset(call_, strides_, tile_begin_);
    const int64_t pitch = padded<T>(call_.classes), count = tile_end_ - tile_begin_;
    if (strides_.inner == 1) {
      transpose_to_vectors(Pitched<const T>{tile_, pitch}, Pitched<T>{to, strides_.classes}, count, call_.classes);
    } else {
      for (int64_t c = 0; c < call_.classes; ++c) {
        for (int64_t j = 0; j < count; ++j) to[c * strides_.classes + j * strides_.inner] = tile_[j * pitch + c];
      }
    }
    tile_begin_ = tile_end_;
  }

 private:
  bool direct() const { return data_ == nullptr || strides_.classes == 1; }

  const Evaluation& call_;
  T* data_;
  Strides strides_;
  Block block_;
  T* tile_ = nullptr;
  int64_t tile_begin_ = 0, tile_end_ = 0;
  bool streams_ = false;
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
  DenseReader(const Evaluation& call, Block block, Arena& arena, int /*units*/ = 1) : call_(call), block_(block) {
    if (call.dense != nullptr && !direct()) converted_ = arena.take<R>(padded<R>(call.classes));
  }

  static size_t scratch(const Evaluation& call, int /*units*/ = 1) {
    return call.dense == nullptr ? 0 : Arena::room<R>(padded<R>(call.classes));
  }

  /** Whether rows of several units are there together: they are used where they are. Else there is one at a time. */
  bool holds_many() const { return direct(); }
  bool direct() const {
    constexpr DType own = sizeof(R) == 8 ? DType::float64 : DType::float32;
    return call_.dense_dtype == own && call_.dense_strides.classes == 1;
  }

  /** The row of a unit; or, with a label, of its class index where that is asked for. */
  const R* row(int64_t row) { return at(row_offset(call_, call_.dense_strides, row), call_.classes); }
  template <class Label>
  const R* row(int64_t row, const Label& label, int /*unit*/ = 0) {
    return call_.dense_by_index ? at(label.index() * call_.dense_strides.outer, call_.classes) : this->row(row);
  }
  /** A part of a row. What is converted stays in the first cache where parts are small. */
  const R* part(int64_t row, int64_t begin, int64_t count) {
    return at(row_offset(call_, call_.dense_strides, row) + begin * call_.dense_strides.classes, count);
  }

  /** The row that is to be converted next. Short ones are better left to come by themselves. */
  void expect(int64_t row) {
    next_ = converted_;
    if (direct() || call_.dense_by_index || call_.dense_strides.classes != 1) return;
    if (row >= block_.run_end || call_.classes < kFetchedAhead) return;
    const int64_t bytes = element_size(call_.dense_dtype);
    next_ = static_cast<const char*>(call_.dense) + row_offset(call_, call_.dense_strides, row) * bytes;
  }

  /**
   * What to fetch beside the elements of a row: what is a little ahead of them; or what the next row is converted from,
   * a line for every vector whatever its elements' size.
   */
  struct Ahead {
    const R* data;

    SURPRISAL_FN void fetch(int64_t c) const { __builtin_prefetch(data + c); }
  };
  SURPRISAL_FN Ahead ahead(const R* row) const {
    return {direct() ? row + kFetchedAhead : static_cast<const R*>(next_)};
  }

 private:
  static constexpr int64_t kFetchedAhead = 1024;

  const R* at(int64_t offset, int64_t classes) {
    if (direct()) return static_cast<const R*>(call_.dense) + offset;
    with_storage(call_.dense_dtype, [&](auto storage) {
      using T = decltype(storage);
      const T* from = static_cast<const T*>(call_.dense) + offset;
      const int64_t step = call_.dense_strides.classes;
      if constexpr (std::is_same_v<Compute<T>, R>) {
        if (step == 1) {
          return for_each_vector<Vec<R>>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
            store(converted_ + c, load(from + c, lanes), Full{});
          });
        }
      }
      for (int64_t c = 0; c < classes; ++c) converted_[c] = static_cast<R>(load_one(from + c * step));
    });
    return converted_;
  }

  const Evaluation& call_;
  Block block_;
  R* converted_ = nullptr;
  const void* next_ = nullptr;
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

/** The same of the rows of a unit. */
template <class R, class Number, class Labels>
inline Number row_scales(const Problem& problem, const Labels& labels) {
  if (problem.call.grad_outputs == nullptr) return Number(problem.grad_scale);
  return labels.each([&](int64_t row, int64_t) { return row_scale<R>(problem, row); });
}

/** Puts the losses of a unit's rows where reduction 'none' wants them. */
template <class R, class Labels, class Number>
inline void put_row_losses(const Evaluation& call, const Labels& labels, const Number& losses) {
  if (call.reduction == Reduction::none) labels.put(static_cast<R*>(call.output), losses);
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
