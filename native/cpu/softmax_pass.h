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
  // Four chains: one alone would wait for each maximum's latency.
  constexpr int kChains = 4;
  V chains[kChains] = {V(lowest), V(lowest), V(lowest), V(lowest)};
  int64_t c = 0;
  for (; c + kChains * V::size <= classes; c += kChains * V::size) {
    for (int i = 0; i < kChains; ++i) chains[i] = maximum(load(z + c + i * V::size, Full{}), chains[i]);
  }
  for_each_vector<V>(classes - c, [&](int64_t rest, auto lanes) __attribute__((always_inline)) {
    chains[0] = maximum(load(z + c + rest, lanes, lowest), chains[0]);
  });
  return largest_lane(maximum(maximum(chains[0], chains[1]), maximum(chains[2], chains[3])));
}

/**
 * One exponential an element: the row's sums, with `each(c, lanes, shifted)` for what else a driver wants of them.
 * Lanes past the row's end have z = −∞, e = 0. Meanwhile the next row is fetched: the exponentials leave time for it.
 */
template <class T, class Each>
SURPRISAL_FN RowSums softmax_pass(const T* z, const T* next, int64_t classes, Each&& each) {
  using V = Vec<Compute<T>>;
  constexpr auto lowest = -static_cast<Compute<T>>(__builtin_inf());
  const Compute<T> max = row_maximum(z, classes);
  const V m(max);
  int64_t maxima = 0;
  const auto step = [&](int64_t c, auto lanes) __attribute__((always_inline)) {
    __builtin_prefetch(next + c);
    const V x = load(z + c, lanes, lowest);
    const V d = x - m;
    const V tail = difference_tail(x, m, d);
    const V e = exponential(d, tail);
    each(c, lanes, Shifted<V>{d, tail, e});
    return rest_term(x, m, e, maxima);
  };
  Sum<V> rest;
  constexpr int64_t kStretch = Sum<V>::kStretch * V::size;
  int64_t c = 0;
  for (; c + kStretch <= classes; c += kStretch) {
    V stretch(0);
    for (int64_t i = 0; i < kStretch; i += V::size) stretch = stretch + step(c + i, Full{});
    rest.add_wide(stretch);
  }
  for_each_vector<V>(classes - c,
                     [&](int64_t i, auto lanes) __attribute__((always_inline)) { rest.add(step(c + i, lanes)); });
  return RowSums(max, rest.total(), maxima);
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
