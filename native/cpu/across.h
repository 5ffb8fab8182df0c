#pragma once

// Lanes across rows: a unit of work is a tile of as many rows as a vector has lanes, one vector a class, which is
// transposed on its way in and out. Where the block ends, or the batch, some lanes stay empty.

#include "../loss/softmax.h"
#include "rows.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Classes up to which rows are short, as measured: more fill vectors along the row well enough. */
template <class R>
constexpr int64_t most_of_short_row() {
  if (kVectorBytes == 64) return 7 * Vec<R>::size;
  return (Vec<R>::size == 8 ? 8 : 3) * Vec<R>::size;
}
template <class R>
inline constexpr int64_t kShortRow = most_of_short_row<R>();

/** Rows from `row` on of a block of a tile of n. */
template <int n>
inline int rows_of_tile(Block block, int64_t row) {
  return static_cast<int>(block.end - row < n ? block.end - row : n);
}

/** Rows that stand `step` elements apart, and `stride` their classes. */
template <class T>
struct RowsInMemory {
  T* data;
  int64_t step, stride;
};

/** Calls f(rows, lane, count) for the stretches of the rows [row, row + count) that are a step apart. */
template <class T, class F>
inline void for_each_stretch(const Evaluation& call, T* data, const Strides& strides, int64_t row, int count, F&& f) {
  if (call.inner == 1) return f(RowsInMemory<T>{data + row * strides.outer, strides.outer, strides.classes}, 0, count);
  for (int lane = 0; lane < count;) {
    const int64_t left = call.inner - (row + lane) % call.inner;
    const int length = static_cast<int>(left < count - lane ? left : count - lane);
    f(RowsInMemory<T>{data + row_offset(call, strides, row + lane), strides.inner, strides.classes}, lane, length);
    lane += length;
  }
}

/** Calls f with a value of the storage type of a floating dtype that is computed in R. */
template <class R, class F>
inline void with_storage_of(DType dtype, F&& f) {
  with_storage(dtype, [&](auto storage) {
    if constexpr (std::is_same_v<Compute<decltype(storage)>, R>) f(storage);
  });
}

/** Vectors of rows, one a class: a tile in scratch, or rows that stand side by side in memory. */
template <class R>
struct Columns {
  static constexpr int n = Vec<R>::size;
  const R* data;
  int64_t step;

  /** Of a position in a tile. */
  SURPRISAL_FN friend const R* operator+(const Columns& columns, int64_t position) {
    return columns.data + position / n * columns.step;
  }
};

/** Whether a tile's rows are Columns in memory. */
template <class R>
inline bool lie_in_columns(const Evaluation& call, DType dtype, const Strides& strides, Block block, int64_t row) {
  constexpr int n = Vec<R>::size;
  constexpr DType own = sizeof(R) == 8 ? DType::float64 : DType::float32;
  const bool neighbours =
      call.inner == 1 ? strides.outer == 1 : strides.inner == 1 && row % call.inner + n <= call.inner;
  return dtype == own && neighbours && rows_of_tile<n>(block, row) == n;
}

/** A vector of rows a class, in scratch. */
template <class R>
class Tile {
  using V = Vec<R>;
  static constexpr int n = V::size;

 public:
  Tile(const Evaluation& call, R* values) : call_(call), values_(values) {}
  static int64_t size(const Evaluation& call) { return call.classes * n; }

  R* values() const { return values_; }

  void load_rows(const void* data, DType dtype, const Strides& strides, int64_t row, int count) const {
    if (count < n) clear();
    with_storage(dtype, [&](auto storage) {
      using T = decltype(storage);
      for_each_stretch(call_, static_cast<const T*>(data), strides, row, count,
                       [&](RowsInMemory<const T> rows, int lane, int length) { load_stretch(rows, lane, length); });
    });
  }

  void store_rows(void* data, DType dtype, const Strides& strides, int64_t row, int count) const {
    with_storage_of<R>(dtype, [&](auto storage) {
      using T = decltype(storage);
      for_each_stretch(call_, static_cast<T*>(data), strides, row, count,
                       [&](RowsInMemory<T> rows, int lane, int length) { store_stretch(rows, lane, length); });
    });
  }

  /** The rows at these places, by lane. */
  template <class T, class At>
  void load_each(int64_t stride, int count, At&& at) const {
    if constexpr (std::is_same_v<Compute<T>, R>) {
      if (stride == 1) return transpose_to_vectors(at, Pitched<R>{values_, n}, count, call_.classes);
    }
    for (int64_t c = 0; c < call_.classes; ++c) {
      for (int j = 0; j < count; ++j) values_[c * n + j] = static_cast<R>(load_one(at(j) + c * stride));
    }
  }

  void clear() const { memset(values_, 0, call_.classes * n * sizeof(R)); }

 private:
  template <class T>
  void load_stretch(RowsInMemory<const T> rows, int lane, int length) const {
    const int64_t classes = call_.classes;
    R* to = values_ + lane;
    if constexpr (std::is_same_v<Compute<T>, R>) {
      if (rows.stride == 1) {
        if (!is_copied(lane, length)) {
          return transpose_to_vectors(Pitched<const T>{rows.data, rows.step}, Pitched<R>{to, n}, length, classes);
        }
        T copy[kCopied];
        for (int j = 0; j < length; ++j) copy_row(copy + j * classes, rows.data + j * rows.step);
        fill_zero(copy + length * classes, (n - length) * classes);
        return transpose_to_vectors(Pitched<const T>{copy, classes}, Pitched<R>{to, n}, n, classes);
      }
      if (rows.step == 1) {
        const T* from = rows.data;
        if (length == n) {
          for (int64_t c = 0; c < classes; ++c) store(to + c * n, load(from + c * rows.stride, Full{}), Full{});
        } else {
          const Partial lanes{length};
          for (int64_t c = 0; c < classes; ++c) store(to + c * n, load(from + c * rows.stride, lanes), lanes);
        }
        return;
      }
    }
    for (int64_t c = 0; c < classes; ++c) {
      const T* from = rows.data + c * rows.stride;
      for (int j = 0; j < length; ++j) to[c * n + j] = static_cast<R>(load_one(from + j * rows.step));
    }
  }

  template <class T>
  void store_stretch(RowsInMemory<T> rows, int lane, int length) const {
    const int64_t classes = call_.classes;
    const R* from = values_ + lane;
    if (rows.stride == 1) {
      if (!is_copied(lane, length)) {
        return transpose_from_vectors(Pitched<const R>{from, n}, Pitched<T>{rows.data, rows.step}, classes, length);
      }
      T copy[kCopied];
      transpose_from_vectors(Pitched<const R>{from, n}, Pitched<T>{copy, classes}, classes, n);
      for (int j = 0; j < length; ++j) copy_row(rows.data + j * rows.step, copy + j * classes);
      return;
    }
    for (int64_t c = 0; c < classes; ++c) {
      T* to = rows.data + c * rows.stride;
      if (rows.step == 1 && length == n) {
        store(to, load(from + c * n, Full{}), Full{});
      } else if (rows.step == 1) {
        store(to, load(from + c * n, Partial{length}), Partial{length});
      } else {
        for (int j = 0; j < length; ++j) store_one(to + j * rows.step, from[c * n + j]);
      }
    }
  }

  /** Fewer short rows than a vector has lanes, as a small batch has, go by way of a copy with as many. */
  static constexpr int64_t kCopied = n * kShortRow<R>;
  bool is_copied(int lane, int length) const { return lane == 0 && length < n && call_.classes <= kShortRow<R>; }

  template <class T>
  void copy_row(T* to, const T* from) const {
    memcpy(static_cast<void*>(to), from, call_.classes * sizeof(T));
  }

  const Evaluation& call_;
  R* values_;
};

/**
 * A tile's place in memory, a piece for each of its classes: of contiguous rows as many elements as it has rows. To
 * fetch a piece its end is enough: what stands before it in memory was its neighbour's.
 */
template <int n>
class TilePieces {
 public:
  TilePieces() = default;
  TilePieces(const Evaluation& call, const void* data, DType dtype, const Strides& strides, int64_t row)
      : last_(static_cast<const char*>(data) + (row_offset(call, strides, row) + n) * element_size(dtype) - 1),
        step_((strides.classes == 1 ? n : strides.classes) * element_size(dtype)) {}

  SURPRISAL_FN const char* end_of(int64_t position) const { return last_ + position / n * step_; }
  SURPRISAL_FN void fetch(int64_t position) const { __builtin_prefetch(end_of(position)); }

 private:
  const char* last_ = nullptr;
  int64_t step_ = 0;
};

/** Reads tiles of the logits, or of another tensor of their shape; one of each unit that is worked at together. */
template <class R>
class TileReader {
  static constexpr int n = Vec<R>::size;

 public:
  using Row = Columns<R>;

  TileReader(const Evaluation& call, Block block, Arena& arena, int units = 1)
      : TileReader(call, call.input, call.dtype, call.input_strides, block, arena, units) {}
  TileReader(const Evaluation& call, const void* data, DType dtype, const Strides& strides, Block block, Arena& arena,
             int units)
      : call_(call),
        data_(data),
        dtype_(dtype),
        strides_(strides),
        block_(block),
        tiles_(arena.take<R>(units * Tile<R>::size(call))) {}
  static size_t scratch(const Evaluation& call, int units = 1) { return Arena::room<R>(units * Tile<R>::size(call)); }

  /** Where the rows stand, if that is in columns: a copy of few classes is better, as its lines lie side by side. */
  Row row(int64_t row, int unit = 0) {
    if (call_.classes > kShortRow<R> && lie_in_columns<R>(call_, dtype_, strides_, block_, row)) {
      return {static_cast<const R*>(data_) + row_offset(call_, strides_, row), strides_.classes};
    }
    return {copied(row, unit), n};
  }

  const R* copied(int64_t row, int unit = 0) {
    const Tile<R> tile = this->tile(unit);
    tile.load_rows(data_, dtype_, strides_, row, rows_of_tile<n>(block_, row));
    return tile.values();
  }

  /** The tile that fetch_next is to fetch. Past the end any will do. */
  void expect(int64_t row) {
    next_ = TilePieces<n>(call_, data_, dtype_, strides_, row < block_.run_end ? row : block_.begin);
  }
  SURPRISAL_FN void fetch_next(int64_t at) const { next_.fetch(at); }
  const TilePieces<n>& next() const { return next_; }

  Tile<R> tile(int unit) const { return {call_, tiles_ + unit * Tile<R>::size(call_)}; }

 private:
  const Evaluation& call_;
  const void* data_;
  DType dtype_;
  Strides strides_;
  Block block_;
  R* tiles_;
  TilePieces<n> next_;
};

/** Dense targets of a tile's rows, or of their class indices where that is asked for. */
template <class R>
class TargetTiles {
  static constexpr int n = Vec<R>::size;

 public:
  TargetTiles(const Evaluation& call, Block block, Arena& arena, int units = 1)
      : call_(call),
        block_(block),
        rows_(call, call.dense, call.dense_dtype, call.dense_strides, block, arena, call.dense == nullptr ? 0 : units) {
  }
  static size_t scratch(const Evaluation& call, int units = 1) {
    return call.dense == nullptr ? 0 : TileReader<R>::scratch(call, units);
  }

  bool holds_many() const { return true; }

  template <class Labels>
  const R* row(int64_t row, const Labels& labels, int unit = 0) {
    if (!call_.dense_by_index) return rows_.copied(row, unit);
    const int count = rows_of_tile<n>(block_, row);
    const Tile<R> tile = rows_.tile(unit);
    if (count < n) tile.clear();
    with_storage(call_.dense_dtype, [&](auto storage) {
      using T = decltype(storage);
      tile.template load_each<T>(call_.dense_strides.classes, count, [&](int64_t lane) {
        return static_cast<const T*>(call_.dense) + labels.index(lane) * call_.dense_strides.outer;
      });
    });
    return tile.values();
  }

  void expect(int64_t row) { rows_.expect(row); }
  /** What to fetch beside an element of a tile: the next one. */
  auto ahead(const R*) const { return rows_.next(); }

 private:
  const Evaluation& call_;
  Block block_;
  TileReader<R> rows_;
};

/** The class indices of a tile's rows. Rows that are ignored do not count, and lanes without a row. */
template <class R>
class TileLabels {
  using V = Vec<R>;
  using Number = Doubles<V>;
  static constexpr int n = V::size;

 public:
  TileLabels() = default;
  TileLabels(const Evaluation& call, Block block, int64_t row) : row_(row), count_(rows_of_tile<n>(block, row)) {
    Index room[n];
    if (call.indices == nullptr) {
      for (int j = 0; j < n; ++j) room[j] = j < count_ ? 0 : kNone;
    } else {
      with_indices(call, [&](const auto* indices) {
        if (count_ == n) return read(call, indices + row, n, room);
        for (int j = count_; j < n; ++j) room[j] = kNone;
        read(call, indices + row, count_, room);
      });
    }
    memcpy(&index_, room, sizeof(room));
    classes_ = V(__builtin_convertvector(index_, typename V::Raw));
  }

  bool any() const { return !all(classes_ == V(R(kNone))); }

  template <class F>
  SURPRISAL_FN Number each(F&& f) const {
    double values[n];
    for (int j = 0; j < n; ++j) values[j] = index_[j] == kNone ? 0 : f(row_ + j, index_[j]);
    Number result;
    memcpy(&result, values, sizeof(values));
    return result;
  }

  SURPRISAL_FN Number of(const R* values) const { return of(Columns<R>{values, n}); }
  SURPRISAL_FN Number of(const Columns<R>& values) const {
    const auto index = index_ < 0 ? typename V::Bits{} : index_;  // any of a lane without a class
    return in_double(gather_across(values.data, values.step, index));
  }

  SURPRISAL_FN Mask<R> at(int64_t position) const { return classes_ == V(static_cast<R>(position / n)); }

  SURPRISAL_FN V counted(V x) const { return select(classes_ == V(R(kNone)), V(0), x); }
  SURPRISAL_FN Number counted(Number x) const { return select(in_double(classes_) == Number(kNone), Number(0), x); }

  SURPRISAL_FN void put(R* losses, Number loss) const { store(losses + row_, rounded<V>(loss), Partial{count_}); }

  /** Of a lane; 0 where there is none. */
  int64_t index(int64_t lane) const { return index_[lane] == kNone ? 0 : index_[lane]; }

 private:
  using Index = typename Format<R>::Int;
  static constexpr Index kNone = -1;

  template <class Stored>
  SURPRISAL_FN static void read(const Evaluation& call, const Stored* indices, int count, Index* to) {
    const bool ignores = call.has_ignore_index;
    const int64_t ignored = call.ignore_index;
    for (int j = 0; j < count; ++j) to[j] = static_cast<Index>(indices[j]);
    if (!ignores) return;
    for (int j = 0; j < count; ++j) {
      if (static_cast<int64_t>(indices[j]) == ignored) to[j] = kNone;
    }
  }

  int64_t row_;
  int count_;
  V classes_;
  typename V::Bits index_;
};

/** Writes the gradient's tiles. */
template <class R>
class TileWriter {
  using V = Vec<R>;
  static constexpr int n = V::size;

 public:
  TileWriter(const Problem& problem, Block block, Arena& arena)
      : call_(problem.call),
        block_(block),
        tile_(call_, arena.take<R>(Tile<R>::size(call_))),
        streams_(problem.streams) {}
  static size_t scratch(const Evaluation& call) { return Arena::room<R>(Tile<R>::size(call)); }

  bool holds_many() const { return true; }

  /** Rows of a tile go to their places together. */
  static constexpr bool kInSteps = false;

  /** Where a tile will be written. */
  struct Row {
    int64_t first;
    TilePieces<n> pieces;
  };
  Row row(int64_t row) const { return {row, TilePieces<n>(call_, call_.grad, call_.dtype, call_.grad_strides, row)}; }

  /** To the first cache; of many classes to the second, as their lines would push everything else out of the first. */
  SURPRISAL_FN void prepare(const Row& row, int64_t at) const {
    if (call_.classes <= kShortRow<R>) {
      __builtin_prefetch(row.pieces.end_of(at), 1);
    } else {
      __builtin_prefetch(row.pieces.end_of(at), 0, 2);
    }
  }
  SURPRISAL_FN void prepare_ends(const Row&) const {}

  template <class F>
  SURPRISAL_FN void write(const Row& row, const TileLabels<R>& labels, F&& f) const {
    R* to = tile_.values();
    int64_t stride = n;
    const bool in_place = lie_in_columns<R>(call_, call_.dtype, call_.grad_strides, block_, row.first);
    if (in_place) {
      to = static_cast<R*>(call_.grad) + row_offset(call_, call_.grad_strides, row.first);
      stride = call_.grad_strides.classes;
    }
    if (in_place && streams_ && is_aligned(to, stride)) {
      for (int64_t c = 0; c < call_.classes; ++c) stream(to + c * stride, labels.counted(f(c * n, Full{})));
    } else {
      for (int64_t c = 0; c < call_.classes; ++c) store(to + c * stride, labels.counted(f(c * n, Full{})), Full{});
      if (!in_place) put(row.first);
    }
  }

  template <class F>
  SURPRISAL_FN void write(const Row& row, const TileLabels<R>& labels, V label_value, F&& f) const {
    write(row, labels, [&](int64_t at, auto lanes) __attribute__((always_inline)) {
      return select(labels.at(at), label_value, f(at, lanes));
    });
  }

  void clear(const Row& row) const {
    tile_.clear();
    put(row.first);
  }

  void finish() const {
    if (streams_) finish_streaming();
  }

 private:
  static bool is_aligned(const R* to, int64_t stride) {
    return reinterpret_cast<uintptr_t>(to) % (n * sizeof(R)) == 0 && stride % n == 0;
  }

  void put(int64_t row) const {
    tile_.store_rows(call_.grad, call_.dtype, call_.grad_strides, row, rows_of_tile<n>(block_, row));
  }

  const Evaluation& call_;
  Block block_;
  Tile<R> tile_;
  bool streams_;
};

/** One exponential an element and one logarithm a row, of as many rows at once as a vector has lanes. */
template <class Compute>
class Across {
 public:
  using R = Compute;
  using V = Vec<R>;
  using Stored = R;
  using Number = Doubles<V>;
  using Factor = V;
  using Reader = TileReader<R>;
  using Writer = TileWriter<R>;
  using Targets = TargetTiles<R>;
  using Labels = TileLabels<R>;
  static constexpr int kRows = V::size;

  static int64_t extent(const Evaluation& call) { return call.classes * V::size; }

  static size_t scratch(const Evaluation&, int) { return 0; }
  Across(const Evaluation& call, int, Arena&) : extent_(extent(call)) {}

  template <class Lanes>
  SURPRISAL_FN static V per_class(const R* values, int64_t at, Lanes) {
    return V(values[at / V::size]);
  }
  SURPRISAL_FN static Number total(const Sum<V>& sum) { return sum.lanes(); }
  SURPRISAL_FN static double total(const Number& rows) { return rows.total(); }

  /** The rows' maxima; −∞ of a row of NaN. */
  using Maxima = V;
  using Reference = V;

  static constexpr bool fetches_soon(bool) { return true; }

  SURPRISAL_FN Maxima maxima(const Columns<R>& z, int) const {
    V max(-static_cast<R>(__builtin_inf()));
    for (int64_t at = 0; at < extent_; at += V::size) max = maximum(load(z + at, Full{}), max);
    return max;
  }

  SURPRISAL_FN Reference reference(const Columns<R>& z) const { return maxima(z, 0); }

  int64_t extent() const { return extent_; }

  /** The class of a vector's elements. */
  SURPRISAL_FN static V class_numbers(int64_t at) { return V(static_cast<R>(at / V::size)); }

  template <int n, class Exponentials, class Each, class OnRise>
  SURPRISAL_FN PassSums<Number, V, n> softmax_pass(const Reader& input, const Columns<R>& z, Maxima m,
                                                   Exponentials exponentials, Each&& each, OnRise&&) const {
    // Of fewer classes than a stretch along a row: there are few.
    constexpr int kClasses = 4;
    constexpr int64_t step = kClasses * V::size;
    const ExponentialBelow<V> exponential(m);
    V maxima(0);
    const auto terms = [&](int64_t at) __attribute__((always_inline)) {
      input.fetch_next(at);
      const V x = load(z + at, Full{});
      const V e = exponential(x);
      if constexpr (!std::is_null_pointer_v<Exponentials>) store(exponentials + at, e, Full{});
      const Mask<R> is_maximum = x == m;
      maxima = maxima + select(is_maximum, V(1), V(0));
      Terms<V, n + 1> all;
      all.term[0] = rest_term(x, m, e);
      const Terms<V, n> others = each(at, Full{}, Shifted<V>{exponential.difference(x), e}, all.term[0], is_maximum);
      for (int i = 0; i < n; ++i) all.term[i + 1] = others.term[i];
      return all;
    };
    Sums<V, n + 1> sums;
    int64_t at = 0;
    for (; at + step <= extent_; at += step) {
      sums.add(sum_in_pairs<kClasses>(at, V::size, terms));
      end_stretch(each);
    }
    Terms<V, n + 1> last = {};
    for (; at < extent_; at += V::size) last = last + terms(at);
    sums.add(last);
    end_stretch(each);
    PassSums<Number, V, n> result = {{in_double(m), sums.sum[0].lanes(), in_double(maxima)}, {}, in_double(maxima)};
    for (int i = 0; i < n; ++i) result.terms.sum[i] = sums.sum[i + 1];
    return result;
  }

  template <int n>
  using Collected = ReferredSums<Number, V, n>;

  template <int n, class Exponentials, class Each>
  SURPRISAL_FN Collected<n> single_pass(const Reader& input, const Columns<R>& z, Reference m,
                                        Exponentials exponentials, Each&& each) const {
    const auto [row, terms, maxima] = softmax_pass<n>(
        input, z, m, exponentials,
        [&](int64_t at, auto lanes, Shifted<V> x, V, auto)
            __attribute__((always_inline)) { return each(at, lanes, x.d); },
        [](const Rise&, Sum<V>*) {});
    return {row, terms, Number(0)};
  }

  template <int n>
  SURPRISAL_FN static const Collected<n>& conclude(const Reference&, const Collected<n>& rows, const Columns<R>&) {
    return rows;
  }

 private:
  int64_t extent_;
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
