#pragma once

// Transposition of a matrix in memory, a square of registers at a time, with conversion to and from half precision.

#include <utility>

#include "simd.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** The halves of two vectors, interleaved: a0 b0 a1 b1 ..., of their first lanes or of their last. */
template <int begin, class Raw, size_t... i>
SURPRISAL_FN Raw interleave(Raw a, Raw b, std::index_sequence<i...>) {
  constexpr int n = sizeof...(i);
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, (begin + static_cast<int>(i) / 2 + (i % 2 == 0 ? 0 : n))...);
#else  // GCC 11
  using Element = std::remove_cvref_t<decltype(a[0])>;
  typedef typename Format<Element>::Int Index __attribute__((vector_size(sizeof(Raw))));
  return __builtin_shuffle(a, b, Index{(begin + static_cast<int>(i) / 2 + (i % 2 == 0 ? 0 : n))...});
#endif
}

/** One step: row i and row i + n/2 interleaved are rows 2i and 2i + 1. Of log2 n steps comes the transposed matrix. */
template <class V, size_t... i>
SURPRISAL_FN void interleave_rows(V (&rows)[V::size], std::index_sequence<i...>) {
  constexpr std::make_index_sequence<V::size> lanes;
  constexpr int half = V::size / 2;
  const V result[V::size] = {V(interleave<(i % 2) * half>(rows[i / 2].raw, rows[i / 2 + half].raw, lanes))...};
  ((rows[i] = result[i]), ...);
}

template <class V>
SURPRISAL_FN void transpose_square(V (&rows)[V::size]) {
  constexpr std::make_index_sequence<V::size> all;
  interleave_rows(rows, all);
  if constexpr (V::size > 2) interleave_rows(rows, all);
  if constexpr (V::size > 4) interleave_rows(rows, all);
  if constexpr (V::size > 8) interleave_rows(rows, all);
}

/** The rows of a matrix in memory, `pitch` elements apart. */
template <class T>
struct Pitched {
  const T* data;
  int64_t pitch;

  SURPRISAL_FN const T* operator()(int64_t row) const { return data + row * pitch; }
};

/** Stores vectors [begin, end) of a square, `pitch` elements apart. */
template <int i = 0, class T, class V, class Within>
SURPRISAL_FN void store_rows(T* to, int64_t pitch, const V (&square)[V::size], int begin, int end, Within within) {
  if constexpr (i < V::size) {
    if (i >= end) return;
    if (i >= begin) store(to + i * pitch, square[i], within);
    store_rows<i + 1>(to, pitch, square, begin, end, within);
  }
}

/**
 * to[c·pitch + r] = from(r)[c] of `rows` × `columns` elements. Past a row's end stores may run on into what is written
 * later or is not used: the first `writable` elements of `to` are of that kind.
 */
template <class From, class To>
__attribute__((noinline)) void transpose(From from, To* to, int64_t pitch, int64_t rows, int64_t columns,
                                         int64_t writable) {
  using V = Vec<Compute<To>>;
  constexpr int n = V::size;
  for (int64_t c = 0; c < columns; c += n) {
    const int width = static_cast<int>(columns - c < n ? columns - c : n);
    // The last columns of `to` first: a store that runs into the next row finds it unwritten.
    for (int64_t r = (rows - 1) / n * n; r >= 0; r -= n) {
      const int64_t last = rows - 1 - r;
      V square[n];
      if (width == n) {
        for (int i = 0; i < n; ++i) square[i] = load(from(r + (i < last ? i : last)) + c, Full{});
      } else {
        const Partial within{width};
        for (int i = 0; i < n; ++i) square[i] = load(from(r + (i < last ? i : last)) + c, within);
      }
      transpose_square(square);
      To* target = to + c * pitch + r;
      int whole = width;
      if (last < n - 1) {
        const int64_t room = writable - (c * pitch + r + n);
        whole = room < 0 ? 0 : room / pitch + 1 < width ? static_cast<int>(room / pitch) + 1 : width;
      }
      store_rows(target, pitch, square, 0, whole, Full{});
      if (whole < width) store_rows(target, pitch, square, whole, width, Partial{static_cast<int>(last) + 1});
    }
  }
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
