#pragma once

// Transposition of a matrix in memory, with conversion to and from half precision. A block is as many rows as a vector
// has lanes and half as many columns, or the other way round: vectors of two rows' halves are transposed in each of
// their own, which takes a step less than a square of whole vectors, and reads and writes nothing past a row's end.

#include <utility>

#include "load_store.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Elements of half a vector: columns of a block of rows, or rows of a block of columns. */
template <class V>
inline constexpr int kHalf = V::size / 2;

/** The bits of half a vector in memory, and back. */
template <class Whole>
struct HalfOf {
  using Element = std::remove_cvref_t<decltype(std::declval<Whole>()[0])>;
  typedef Element type __attribute__((vector_size(sizeof(Whole) / 2)));
};

template <class Whole, size_t... i>
SURPRISAL_FN Whole join(typename HalfOf<Whole>::type first, typename HalfOf<Whole>::type second,
                        std::index_sequence<i...>) {
#if __has_builtin(__builtin_shufflevector)
  if constexpr (sizeof...(i) > 2) return __builtin_shufflevector(first, second, static_cast<int>(i)...);
#endif
  Whole whole;
  memcpy(&whole, &first, sizeof(first));
  memcpy(reinterpret_cast<char*>(&whole) + sizeof(first), &second, sizeof(second));
  return whole;
}

template <int begin, class Whole, size_t... i>
SURPRISAL_FN typename HalfOf<Whole>::type half_from(Whole whole, std::index_sequence<i...>) {
#if __has_builtin(__builtin_shufflevector)
  if constexpr (sizeof...(i) > 1) return __builtin_shufflevector(whole, whole, (begin + static_cast<int>(i))...);
#endif
  typename HalfOf<Whole>::type half;
  memcpy(&half, reinterpret_cast<const char*>(&whole) + begin * sizeof(whole[0]), sizeof(half));
  return half;
}

/** A half vector of each of two rows. */
template <class T>
SURPRISAL_FN Vec<Compute<T>> load_halves(const T* first, const T* second) {
  using V = Vec<Compute<T>>;
  using Stored = decltype(as_stored<T>(V()));
  typename HalfOf<Stored>::type a, b;
  memcpy(&a, first, sizeof(a));
  memcpy(&b, second, sizeof(b));
  return from_stored<T>(join<Stored>(a, b, std::make_index_sequence<V::size>()));
}
/** The same of rows that are narrower. */
template <class T>
SURPRISAL_FN Vec<Compute<T>> load_halves(const T* first, const T* second, int width) {
  using V = Vec<Compute<T>>;
  using Raw = typename V::Raw;
  constexpr std::make_index_sequence<kHalf<V>> lanes;
  const Partial within{width};
  return V(join<Raw>(half_from<0>(load(first, within).raw, lanes), half_from<0>(load(second, within).raw, lanes),
                     std::make_index_sequence<V::size>()));
}

template <int half, class T>
SURPRISAL_FN void store_half(T* to, Vec<Compute<T>> v) {
  constexpr int size = kHalf<Vec<Compute<T>>>;
  const auto bits = half_from<half * size>(as_stored<T>(v), std::make_index_sequence<size>());
  memcpy(to, &bits, sizeof(bits));
}
template <int half, class T>
SURPRISAL_FN void store_half(T* to, Vec<Compute<T>> v, int width) {
  using V = Vec<Compute<T>>;
  constexpr int size = kHalf<V>;
  const auto own = half_from<half * size>(v.raw, std::make_index_sequence<size>());
  store(to, V(join<typename V::Raw>(own, own, std::make_index_sequence<V::size>())), Partial{width});
}

/** The quarters of two vectors that begin there in their halves, interleaved: a0 b0 a1 b1 ..., half by half. */
template <int begin, class Raw, size_t... i>
SURPRISAL_FN Raw interleave(Raw a, Raw b, std::index_sequence<i...>) {
  constexpr int n = sizeof...(i), half = n / 2;
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(
      a, b, (static_cast<int>(i) / half * half + begin + static_cast<int>(i) % half / 2 + (i % 2 == 0 ? 0 : n))...);
#else  // GCC 11
  using Element = std::remove_cvref_t<decltype(a[0])>;
  typedef typename Format<Element>::Int Index __attribute__((vector_size(sizeof(Raw))));
  return __builtin_shuffle(
      a, b,
      Index{(static_cast<int>(i) / half * half + begin + static_cast<int>(i) % half / 2 + (i % 2 == 0 ? 0 : n))...});
#endif
}

/** One step: vectors i and i + n/4 interleaved are vectors 2i and 2i + 1. Of log2 n/2 steps come transposed halves. */
template <class V, size_t... i>
SURPRISAL_FN void interleave_rows(V (&rows)[kHalf<V>], std::index_sequence<i...>) {
  constexpr std::make_index_sequence<V::size> lanes;
  constexpr int half = kHalf<V> / 2;
  const V result[] = {V(interleave<(i % 2) * half>(rows[i / 2].raw, rows[i / 2 + half].raw, lanes))...};
  ((rows[i] = result[i]), ...);
}

template <class V>
SURPRISAL_FN void transpose_halves(V (&rows)[kHalf<V>]) {
  constexpr std::make_index_sequence<kHalf<V>> all;
  if constexpr (V::size > 2) interleave_rows(rows, all);
  if constexpr (V::size > 4) interleave_rows(rows, all);
  if constexpr (V::size > 8) interleave_rows(rows, all);
}

/** The rows of a matrix in memory, `pitch` elements apart. */
template <class T>
struct Pitched {
  T* data;
  int64_t pitch;

  SURPRISAL_FN T* operator()(int64_t row) const { return data + row * pitch; }
};

/** Calls f(begin, lanes) for blocks of [0, count): the last overlaps the one before it; an only one may be narrower. */
template <int width, class F>
SURPRISAL_FN void for_each_block(int64_t count, F&& f) {
  if (count < width) return f(0, Partial{static_cast<int>(count)});
  int64_t next = 0;
  do {
    f(next < count - width ? next : count - width, Full{});
    next += width;
  } while (next < count);
}

/** to(c)[r] = from(r)[c] of as many rows as a vector has lanes, half as many columns at a time. */
template <class From, class To, size_t... i>
SURPRISAL_FN void transpose_rows(From from, To to, int64_t columns, std::index_sequence<i...>) {
  using V = Vec<Compute<std::remove_reference_t<decltype(*to(0))>>>;
  constexpr int half = kHalf<V>;
  for_each_block<half>(columns, [&](int64_t c, auto width) __attribute__((always_inline)) {
    if constexpr (std::is_same_v<decltype(width), Full>) {
      V block[half] = {load_halves(from(i) + c, from(i + half) + c)...};
      transpose_halves(block);
      (store(to(c + i), block[i], Full{}), ...);
    } else {
      V block[half] = {load_halves(from(i), from(i + half), width.count)...};
      transpose_halves(block);
      ((static_cast<int>(i) < width.count ? store(to(i), block[i], Full{}) : void()), ...);
    }
  });
}

/** The same of as many columns as a vector has lanes, half as many rows at a time. */
template <class From, class To, size_t... i>
SURPRISAL_FN void transpose_columns(From from, To to, int64_t rows, std::index_sequence<i...>) {
  using V = Vec<Compute<std::remove_reference_t<decltype(*to(0))>>>;
  constexpr int half = kHalf<V>;
  for_each_block<half>(rows, [&](int64_t r, auto height) __attribute__((always_inline)) {
    if constexpr (std::is_same_v<decltype(height), Full>) {
      V block[half] = {load(from(r + i), Full{})...};
      transpose_halves(block);
      (store_half<0>(to(i) + r, block[i]), ...);
      (store_half<1>(to(i + half) + r, block[i]), ...);
    } else {
      const auto last = static_cast<size_t>(height.count - 1);
      V block[half] = {load(from(i < last ? i : last), Full{})...};
      transpose_halves(block);
      (store_half<0>(to(i), block[i], height.count), ...);
      (store_half<1>(to(i + half), block[i], height.count), ...);
    }
  });
}

/** The same one by one, of the few rows or columns that are left at an end. */
template <class From, class To>
inline void transpose_rest(From from, To to, int64_t rows, int64_t columns) {
  using Element = std::remove_reference_t<decltype(*to(0))>;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) store_one(to(c) + r, static_cast<Compute<Element>>(load_one(from(r) + c)));
  }
}

/** to(c)[r] = from(r)[c], written by vectors of rows. */
template <class From, class To>
__attribute__((noinline)) void transpose_to_vectors(From from, To to, int64_t rows, int64_t columns) {
  using V = Vec<Compute<std::remove_reference_t<decltype(*to(0))>>>;
  for (int64_t r = 0; r < rows; r += V::size) {
    const auto source = [&](int64_t i) __attribute__((always_inline)) { return from(r + i); };
    const auto target = [&](int64_t c) __attribute__((always_inline)) { return to(c) + r; };
    if (rows - r < V::size) return transpose_rest(source, target, rows - r, columns);
    transpose_rows(source, target, columns, std::make_index_sequence<kHalf<V>>());
  }
}

/** to(c)[r] = from(r)[c], read by vectors of columns. */
template <class From, class To>
__attribute__((noinline)) void transpose_from_vectors(From from, To to, int64_t rows, int64_t columns) {
  using V = Vec<Compute<std::remove_reference_t<decltype(*to(0))>>>;
  for (int64_t c = 0; c < columns; c += V::size) {
    const auto source = [&](int64_t r) __attribute__((always_inline)) { return from(r) + c; };
    const auto target = [&](int64_t i) __attribute__((always_inline)) { return to(c + i); };
    if (columns - c < V::size) return transpose_rest(source, target, rows, columns - c);
    transpose_columns(source, target, rows, std::make_index_sequence<kHalf<V>>());
  }
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
