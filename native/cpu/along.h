#pragma once

// Lanes along a row: a unit of work is one row, a vector some of its classes.

#include <type_traits>

#include "../loss/softmax.h"
#include "rows.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** The class index of a row. */
template <class R>
class RowLabel {
  using V = Vec<R>;

 public:
  RowLabel() = default;
  RowLabel(const Evaluation& call, Block, int64_t row)
      : row_(row),
        index_(call.indices == nullptr ? 0 : read_index(call, row)),
        counts_(call.indices == nullptr || !is_ignored(call, index_)) {}

  bool any() const { return counts_; }

  template <class F>
  SURPRISAL_FN double each(F&& f) const {
    return f(row_, index_);
  }

  template <class T>
  SURPRISAL_FN double of(const T* values) const {
    return load_one(values + index_);
  }

  SURPRISAL_FN Mask<R> at(int64_t position) const { return lane_numbers<V>() == V(static_cast<R>(index_ - position)); }

  SURPRISAL_FN double counted(double x) const { return x; }

  SURPRISAL_FN void put(R* losses, double loss) const { losses[row_] = static_cast<R>(loss); }

  int64_t index() const { return index_; }

 private:
  int64_t row_, index_;
  bool counts_;
};

/** One row at a time. */
template <class T>
class Along {
 public:
  using R = Compute<T>;
  using V = Vec<R>;
  using Stored = T;
  using Number = double;
  using Factor = R;
  using Reader = RowReader<T>;
  using Writer = RowWriter<T>;
  using Targets = DenseReader<R>;
  using Labels = RowLabel<R>;
  static constexpr int kRows = 1;

  static int64_t extent(const Evaluation& call) { return call.classes; }

  /** For so many units at once. */
  static size_t scratch(const Evaluation& call, int units) {
    return Arena::room<R>(units * stretch_maxima_size(call.classes));
  }
  Along(const Evaluation& call, int units, Arena& arena)
      : classes_(call.classes), stretch_maxima_(arena.take<R>(units * stretch_maxima_size(call.classes))) {}

  template <class Lanes>
  SURPRISAL_FN static V per_class(const R* values, int64_t at, Lanes lanes) {
    return load(values + at, lanes);
  }
  SURPRISAL_FN static double total(const Sum<V>& sum) { return sum.total(); }
  SURPRISAL_FN static double total(double sum) { return sum; }

  /** The row's maximum, −∞ of a row of NaN; and those of its stretches, lane by lane. */
  struct Maxima {
    R row;
    const R* stretches;
  };

  SURPRISAL_FN Maxima maxima(const T* z, int unit) const {
    constexpr int64_t step = kStretch * V::size;
    R* stretches = stretch_maxima_ + unit * stretch_maxima_size(classes_);
    V max(kLowest);
    int64_t c = 0;
    for (; c + step <= classes_; c += step) {
      // Two chains: one alone would wait for each maximum's latency.
      V even(kLowest), odd(kLowest);
      for (int64_t i = 0; i < step; i += 2 * V::size) {
        even = maximum(load(z + c + i, Full{}), even);
        odd = maximum(load(z + c + i + V::size, Full{}), odd);
      }
      even = maximum(even, odd);
      store(stretches + c / kStretch, even, Full{});
      max = maximum(max, even);
    }
    for_each_vector<V>(classes_ - c, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
      max = maximum(load(z + c + i, lanes, kLowest), max);
    });
    return {largest_lane(max), stretches};
  }

  /** Calls f(class, lanes, z) of the vectors that may have a logit of at least `bound`, as long as more() is true. */
  template <class F, class More>
  SURPRISAL_FN void look_for(V bound, const T* z, Maxima max, F&& f, More&& more) const {
    constexpr int64_t step = kStretch * V::size;
    int64_t c = 0;
    for (; c + step <= classes_; c += step) {
      const V largest = load(max.stretches + c / kStretch, Full{});
      if (!any(either(largest > bound, largest == bound))) continue;
      for (int64_t i = 0; i < step; i += V::size) f(c + i, Full{}, load(z + c + i, Full{}));
      if (!more()) return;
    }
    for_each_vector<V>(classes_ - c, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
      f(c + i, lanes, load(z + c + i, lanes, kLowest));
    });
  }

  /** The classes of a vector's elements. */
  SURPRISAL_FN static V class_numbers(int64_t at) { return lane_numbers<V>() + V(static_cast<R>(at)); }

  template <int n, class Each>
  SURPRISAL_FN PassSums<double, V, n> softmax_pass(const Reader& input, const T* z, Maxima max, Each&& each) const {
    constexpr int64_t step = kStretch * V::size;
    const V m(max.row);
    const ExponentialBelow<V> exponential(m);
    V maxima(0);
    // Only stretches that reach the maximum look for it.
    const auto terms = [&](int64_t c, auto lanes, auto may_reach_maximum) __attribute__((always_inline)) {
      input.fetch_next(c);
      const V x = load(z + c, lanes, kLowest);
      const V e = exponential(x);
      Terms<V, n + 1> all;
      all.term[0] = e;
      if constexpr (decltype(may_reach_maximum)::value) {
        all.term[0] = rest_term(x, m, e);
        maxima = maxima + select(x == m, V(1), V(0));
      }
      const Terms<V, n> others =
          each(c, lanes, Shifted<V>{exponential.difference(x), e}, all.term[0], may_reach_maximum);
      for (int i = 0; i < n; ++i) all.term[i + 1] = others.term[i];
      return all;
    };
    Sums<V, n + 1> sums;
    int64_t c = 0;
    for (; c + step <= classes_; c += step) {
      if (any(load(max.stretches + c / kStretch, Full{}) == m)) [[unlikely]] {
        Terms<V, n + 1> stretch = {};
        for (int64_t i = 0; i < step; i += V::size) stretch = stretch + terms(c + i, Full{}, std::true_type{});
        sums.add(stretch);
      } else {
        sums.add(sum_in_pairs<kStretch>(
            c, V::size, [&](int64_t i) __attribute__((always_inline)) { return terms(i, Full{}, std::false_type{}); }));
      }
      end_stretch(each);
    }
    Terms<V, n + 1> last = {};
    for_each_vector<V>(classes_ - c, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
      last = last + terms(c + i, lanes, std::true_type{});
    });
    sums.add(last);
    end_stretch(each);
    Sum<V> maxima_sum;
    maxima_sum.add(maxima);
    PassSums<double, V, n> result = {{max.row, sums.sum[0].total(), maxima_sum.total()}, {}, maxima_sum.total()};
    for (int i = 0; i < n; ++i) result.terms.sum[i] = sums.sum[i + 1];
    return result;
  }

 private:
  static constexpr R kLowest = -static_cast<R>(__builtin_inf());

  static int64_t stretch_maxima_size(int64_t classes) { return classes / kStretch + V::size; }

  int64_t classes_;
  R* stretch_maxima_;
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
