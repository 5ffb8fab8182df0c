#pragma once

#include "../loss/softmax.h"
#include "rows.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** The row's maximum; −∞ of a row of NaN. */
template <class T>
SURPRISAL_FN Compute<T> row_maximum(const T* z, int64_t classes) {
  using V = Vec<Compute<T>>;
  constexpr auto lowest = -static_cast<Compute<T>>(__builtin_inf());
  V largest(lowest);
  for_each_vector<V>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
    largest = maximum(load(z + c, lanes, lowest), largest);
  });
  return largest_lane(largest);
}

/**
 * One exponential an element: the row's sums, with `each(c, lanes, z − m, e)` for what else a driver wants of them.
 * Lanes past the row's end have z = −∞, e = 0.
 */
template <class T, class Each>
SURPRISAL_FN RowSums softmax_pass(const T* z, int64_t classes, Each&& each) {
  using V = Vec<Compute<T>>;
  constexpr auto lowest = -static_cast<Compute<T>>(__builtin_inf());
  const Compute<T> max = row_maximum(z, classes);
  const V m(max);
  Sum<V> rest;
  V maxima(0);
  for_each_vector<V>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
    const V x = load(z + c, lanes, lowest);
    const V d = x - m;
    const V e = exponential(d);
    rest.add(rest_term(x, m, e, maxima));
    each(c, lanes, d, e);
  });
  double count = 0;
  for (int i = 0; i < V::size; ++i) count += maxima.raw[i];
  return RowSums(max, rest.total(), count);
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
