#pragma once

#include "../loss/softmax.h"
#include "rows.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Scratch that softmax_pass needs: the maxima of each stretch of a row, lane by lane. */
template <class R>
constexpr int64_t stretch_maxima_size(int64_t classes) {
  return classes / kStretch + Vec<R>::size;
}

/** The row's maximum; −∞ of a row of NaN. */
template <class T>
SURPRISAL_FN Compute<T> row_maximum(const T* z, int64_t classes, Compute<T>* stretch_maxima) {
  using R = Compute<T>;
  using V = Vec<R>;
  constexpr R lowest = -static_cast<R>(__builtin_inf());
  constexpr int64_t step = kStretch * V::size;
  V max(lowest);
  int64_t c = 0;
  for (; c + step <= classes; c += step) {
    // Two chains: one alone would wait for each maximum's latency.
    V even(lowest), odd(lowest);
    for (int64_t i = 0; i < step; i += 2 * V::size) {
      even = maximum(load(z + c + i, Full{}), even);
      odd = maximum(load(z + c + i + V::size, Full{}), odd);
    }
    even = maximum(even, odd);
    store(stretch_maxima + c / kStretch, even, Full{});
    max = maximum(max, even);
  }
  for_each_vector<V>(classes - c, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
    max = maximum(load(z + c + i, lanes, lowest), max);
  });
  return largest_lane(max);
}

/** Sums of a row, and of `n` more terms that a driver asked for. */
template <class V, int n>
struct PassSums {
  RowSums row;
  Sums<V, n> terms;
};

/**
 * One exponential an element: the row's sums, and those of the n terms that `each(c, lanes, shifted)` gives of a
 * vector. Lanes past the row's end have z = −∞, e = 0. Meanwhile the next row is fetched: the exponentials leave time
 * for it.
 */
template <int n, class T, class Each>
SURPRISAL_FN PassSums<Vec<Compute<T>>, n> softmax_pass(const T* z, const T* next, int64_t classes,
                                                       Compute<T>* stretch_maxima, Each&& each) {
  using R = Compute<T>;
  using V = Vec<R>;
  constexpr R lowest = -static_cast<R>(__builtin_inf());
  constexpr int64_t step = kStretch * V::size;
  const R max = row_maximum(z, classes, stretch_maxima);
  const V m(max);
  const ExponentialBelow<V> exponential(max);
  int64_t maxima = 0;
  // A vector's terms: what goes to `rest`, then the driver's. Only stretches that reach the maximum look for it.
  const auto terms = [&](int64_t c, auto lanes, auto may_reach_maximum) __attribute__((always_inline)) {
    __builtin_prefetch(next + c, 0, 2);
    const V x = load(z + c, lanes, lowest);
    const V e = exponential(x);
    const Terms<V, n> others = each(c, lanes, Shifted<V>{exponential.difference(x), e});
    Terms<V, n + 1> all;
    all.term[0] = may_reach_maximum ? rest_term(x, m, e, maxima) : e;
    for (int i = 0; i < n; ++i) all.term[i + 1] = others.term[i];
    return all;
  };
  Sums<V, n + 1> sums;
  int64_t c = 0;
  for (; c + step <= classes; c += step) {
    if (any(load(stretch_maxima + c / kStretch, Full{}) == m)) [[unlikely]] {
      Terms<V, n + 1> stretch = {};
      for (int64_t i = 0; i < step; i += V::size) stretch = stretch + terms(c + i, Full{}, std::true_type{});
      sums.add(stretch);
    } else {
      sums.add(sum_in_pairs<kStretch>(
          c, V::size, [&](int64_t i) __attribute__((always_inline)) { return terms(i, Full{}, std::false_type{}); }));
    }
  }
  Terms<V, n + 1> last = {};
  for_each_vector<V>(classes - c, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
    last = last + terms(c + i, lanes, std::true_type{});
  });
  sums.add(last);
  PassSums<V, n> result = {RowSums(max, sums.sum[0].total(), maxima), {}};
  for (int i = 0; i < n; ++i) result.terms.sum[i] = sums.sum[i + 1];
  return result;
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
