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
    return Arena::room<R>(units * stretch_maxima_size(call.classes)) + Arena::room<R>(chunks(call.classes));
  }
  Along(const Evaluation& call, int units, Arena& arena)
      : classes_(call.classes),
        stretch_maxima_(arena.take<R>(units * stretch_maxima_size(call.classes))),
        references_(arena.take<R>(chunks(call.classes))) {}

  template <class Lanes>
  SURPRISAL_FN static V per_class(const R* values, int64_t at, Lanes lanes) {
    return load(values + at, lanes);
  }
  SURPRISAL_FN static double total(const Sum<V>& sum) { return sum.total(); }
  SURPRISAL_FN static double total(double sum) { return sum; }

  /**
   * Classes that stay in the first cache from one look to the next, so that memory is read once however long the row.
   * Each chunk is taken relative to the largest logit so far.
   */
  static constexpr int64_t kChunk = 2048;

  /** The largest logit of a row's first chunk, −∞ of NaN; and those of stretches, lane by lane. */
  struct Maxima {
    R first;
    R *stretches, *references;
  };

  /** What a row's exponentials are relative to: the largest of its first logits, or of all where these are masked. */
  using Reference = ExponentialBelowOne<V>;
  SURPRISAL_FN Reference reference(const T* z) const {
    // Rows that are no longer than a vector are worked at across.
    R largest = largest_lane(maximum(load(z, Full{}), V(kLowest)));
    if (largest == kLowest) [[unlikely]]
      largest = largest_of(z);
    // Where all is masked any number will do.
    return Reference(V(largest == kLowest ? R(0) : largest));
  }

  /** Whether what a pass fetches is to be in the first cache soon. Quick passes over short rows do better without. */
  bool fetches_soon(bool takes_long) const { return takes_long || classes_ > kChunk; }

  SURPRISAL_FN Maxima maxima(const T* z, int unit) const {
    R* stretches = stretch_maxima_ + unit * stretch_maxima_size(classes_);
    return {chunk_maximum(z, 0, chunk_end(0), stretches), stretches, references_};
  }

  /**
   * Calls f(class, lanes, z) of a chunk's vectors that may have a logit of at least `bound`, as long as more() is true.
   */
  template <class F, class More>
  SURPRISAL_FN static void look_for(V bound, const T* z, int64_t begin, int64_t end, const Maxima& maxima, F&& f,
                                    More&& more) {
    constexpr int64_t step = kStretch * V::size;
    int64_t c = begin;
    for (; c + step <= end; c += step) {
      const V largest = load(maxima.stretches + c / kStretch, Full{});
      if (all(largest < bound)) continue;
      for (int64_t i = 0; i < step; i += V::size) f(c + i, Full{}, load(z + c + i, Full{}));
      if (!more()) return;
    }
    for_each_vector<V>(end - c, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
      f(c + i, lanes, load(z + c + i, lanes, kLowest));
    });
  }

  /** The classes of a vector's elements. */
  SURPRISAL_FN static V class_numbers(int64_t at) { return lane_numbers<V>() + V(static_cast<R>(at)); }

  /** What a single pass leaves of a row, lane by lane, which conclude() brings together. */
  template <int n>
  struct Collected {
    Sums<V, n + 1> sums;
    V top;    // the largest logits
    V held;   // of the stretches' sums of exponentials the largest, which is not among the sums
    V place;  // and its stretch
  };

  /**
   * Memory is read once, and a row's maximum found on the way. Its exponential is not to be added to the others',
   * beside which it may be all: so of the stretches' sums each lane's largest is held back, and taken apart in the end.
   * Where the reference turns out to be far below the maximum, once more.
   */
  template <int n, class Exponentials, class Each>
  SURPRISAL_FN Collected<n> single_pass(const Reader& input, const T* z, Reference& reference,
                                        Exponentials exponentials, Each&& each) const {
    for (;;) {
      const Collected<n> row = pass_from<n>(input, z, reference, exponentials, each);
      if (!any(reference.difference(row.top) > V(kHeadroom))) [[likely]]
        return row;
      reference = Reference(V(largest_lane(row.top)));
    }
  }

  template <int n>
  SURPRISAL_FN ReferredSums<double, V, n> conclude(const Reference& exponential, const Collected<n>& row,
                                                   const T* z) const {
    const V max(largest_lane(row.top));
    Sum<V> all = row.sums.sum[0];
    all.add(row.held);
    const double peak = exponential(max).raw[0];
    double others = all.total() - peak;
    // Of what is little beside the maximum, that difference has lost digits.
    if (others < peak / 2) [[unlikely]]
      others = others_beside(max, row.sums.sum[0], row.top, row.held, row.place, exponential, z);
    ReferredSums<double, V, n> result = {{max.raw[0], others / peak, 1, peak}, {}, exponential.difference(max).raw[0]};
    for (int i = 0; i < n; ++i) result.terms.sum[i] = row.sums.sum[i + 1];
    return result;
  }

  template <int n, class Exponentials, class Each, class OnRise>
  SURPRISAL_FN PassSums<double, V, n> softmax_pass(const Reader& input, const T* z, const Maxima& maxima,
                                                   Exponentials exponentials, Each&& each, OnRise&& on_rise) const {
    constexpr int64_t step = kStretch * V::size;
    constexpr bool kKept = !std::is_null_pointer_v<Exponentials>;
    const bool soon = fetches_soon(kKept || requires { std::remove_cvref_t<Each>::kTakesLong; });
    Sums<V, n + 1> all_sums;
    V all_at_maximum(0);
    R max = maxima.first;
    for (int64_t begin = 0;;) {
      const int64_t end = chunk_end(begin);
      if (begin > 0) [[unlikely]] {
        const R largest = further_maximum(z, begin, end, maxima.stretches);
        if (largest > max) {
          if (max != kLowest) {
            const Rise rise = rise_to(largest, max, all_sums.sum[0].total(), total(all_at_maximum));
            all_sums.sum[0].add_number(rise.maxima);
            all_sums.sum[0].scale(rise.factor);
            on_rise(rise, all_sums.sum + 1);
          }
          all_at_maximum = V(0);
          max = largest;
        }
      }
      if constexpr (kKept) maxima.references[begin / kChunk] = max;
      if constexpr (requires { each.begin_chunk(begin, end); }) each.begin_chunk(begin, end);
      // Where all is masked so far any number will do.
      const V m(max == kLowest ? R(0) : max);
      const ExponentialBelowOne<V> exponential(m);
      // In registers, which last from call to call.
      Sums<V, n + 1> sums = all_sums;
      V at_maximum = all_at_maximum;
      const T* fetched = begin + kChunk < classes_ ? z + kChunk : input.next() + (chunk_end(0) - classes_);
      // Only stretches that reach the maximum look for it.
      const auto terms = [&](int64_t c, auto lanes, V x, V e, auto is_maximum) __attribute__((always_inline)) {
        if (soon) {
          __builtin_prefetch(fetched + c);
        } else {
          __builtin_prefetch(fetched + c, 0, 2);
        }
        if constexpr (kKept) store(exponentials + c, e, Full{});
        Terms<V, n + 1> all;
        all.term[0] = e;
        if constexpr (!std::is_same_v<decltype(is_maximum), std::false_type>) {
          all.term[0] = rest_term(x, m, e);
          at_maximum = at_maximum + select(is_maximum, V(1), V(0));
        }
        const Terms<V, n> others = each(c, lanes, Shifted<V>{exponential.difference(x), e}, all.term[0], is_maximum);
        for (int i = 0; i < n; ++i) all.term[i + 1] = others.term[i];
        return all;
      };
      const auto terms_at_maximum = [&](int64_t c, auto lanes) __attribute__((always_inline)) {
        const V x = load(z + c, lanes, kLowest);
        const Mask<R> is_maximum = x == m;
        return terms(c, lanes, x, select(is_maximum, V(1), exponential(x)), is_maximum);
      };
      int64_t c = begin;
      for (; c + step <= end; c += step) {
        if (any(load(maxima.stretches + c / kStretch, Full{}) == m)) [[unlikely]] {
          Terms<V, n + 1> stretch = {};
          for (int64_t i = 0; i < step; i += V::size) stretch = stretch + terms_at_maximum(c + i, Full{});
          sums.add(stretch);
        } else {
          sums.add(sum_in_pairs<kStretch / kTogether>(
              c, kTogether * V::size, [&](int64_t at) __attribute__((always_inline)) {
                Pack<V, kTogether> x;
#pragma GCC unroll 8
                for (int i = 0; i < kTogether; ++i) x.part[i] = load(z + at + i * V::size, Full{});
                const Pack<V, kTogether> e = exponential(x);
                return sum_in_pairs<kTogether>(0, 1, [&](int64_t i) __attribute__((always_inline)) {
                  return terms(at + i * V::size, Full{}, x.part[i], e.part[i], std::false_type{});
                });
              }));
        }
        end_stretch(each);
      }
      if (c < end) {
        Terms<V, n + 1> last = {};
        for_each_vector<V>(end - c, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
          last = last + terms_at_maximum(c + i, lanes);
        });
        sums.add(last);
        end_stretch(each);
      }
      all_sums = sums;
      all_at_maximum = at_maximum;
      if (end == classes_) [[likely]]
        break;
      begin = end;
    }
    if constexpr (kKept) {
      if (classes_ > kChunk) bring_to(max, maxima, exponentials);
    }
    const double count = total(all_at_maximum);
    PassSums<double, V, n> result = {{max, all_sums.sum[0].total(), count}, {}, count};
    for (int i = 0; i < n; ++i) result.terms.sum[i] = all_sums.sum[i + 1];
    return result;
  }

 private:
  /** Vectors whose exponentials are taken together. */
  static constexpr int kTogether = 4;

  static constexpr R kLowest = -static_cast<R>(__builtin_inf());

  /** How far above its reference a row's maximum may be: sums of e^40, and factors for their inverse, are floats. */
  static constexpr R kHeadroom = 40;

  template <int n, class Exponentials, class Each>
  SURPRISAL_FN Collected<n> pass_from(const Reader& input, const T* z, const Reference exponential,
                                      Exponentials exponentials, Each& each) const {
    constexpr int64_t step = kStretch * V::size;
    constexpr bool kKept = !std::is_null_pointer_v<Exponentials>;
    Collected<n> row = {{}, V(kLowest), V(0), V(0)};
    V number(0);
    const int64_t own = classes_ > kChunk ? classes_ - kChunk : 0;
    const T* fetched = z + kChunk;
    const auto terms = [&](int64_t c, auto lanes, V x, V e) __attribute__((always_inline)) {
      if constexpr (kKept) store(exponentials + c, e, Full{});
      row.top = maximum(x, row.top);
      Terms<V, n + 1> all;
      all.term[0] = e;
      const Terms<V, n> others = each(c, lanes, exponential.difference(x));
      for (int i = 0; i < n; ++i) all.term[i + 1] = others.term[i];
      return all;
    };
    const auto add = [&](Terms<V, n + 1> stretch) __attribute__((always_inline)) {
      const V sum = stretch.term[0];
      row.place = select(sum > row.held, number, row.place);
      stretch.term[0] = minimum(row.held, sum);  // NaN of NaN
      row.held = maximum(sum, row.held);
      number = number + V(1);
      row.sums.add(stretch);
    };
    int64_t c = 0;
    for (int64_t end = own;; end = classes_) {
      for (; c + step <= end; c += step) {
        add(sum_in_pairs<kStretch / kTogether>(c, kTogether * V::size, [&](int64_t at) __attribute__((always_inline)) {
          Pack<V, kTogether> x;
#pragma GCC unroll 8
          for (int i = 0; i < kTogether; ++i) __builtin_prefetch(fetched + at + i * V::size);
#pragma GCC unroll 8
          for (int i = 0; i < kTogether; ++i) x.part[i] = load(z + at + i * V::size, Full{});
          const Pack<V, kTogether> e = exponential(x);
          return sum_in_pairs<kTogether>(0, 1, [&](int64_t i) __attribute__((always_inline)) {
            return terms(at + i * V::size, Full{}, x.part[i], e.part[i]);
          });
        }));
      }
      if (end == classes_) break;
      fetched = input.next() - own;
    }
    if (c < classes_) {
      Terms<V, n + 1> last = {};
      for_each_vector<V>(classes_ - c, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
        __builtin_prefetch(fetched + c + i);
        const V x = load(z + c + i, lanes, kLowest);
        last = last + terms(c + i, lanes, x, exponential(x));
      });
      add(last);
    }
    return row;
  }

  /**
   * The sum of the exponentials below one that is more than all of them: its lane has held back the stretch that it is
   * in, whose other elements are taken one by one.
   */
  __attribute__((noinline)) double others_beside(V max, Sum<V> others, V top, V held, V place,
                                                 const Reference& exponential, const T* z) const {
    const int lane = first_lane(top == max);
    others.add(select(lane_numbers<V>() == V(static_cast<R>(lane)), V(0), held));
    const int64_t first = static_cast<int64_t>(place.raw[lane]) * (kStretch * V::size) + lane;
    const int64_t left = (classes_ - first + V::size - 1) / V::size;
    const int count = static_cast<int>(left < kStretch ? left : kStretch);
#pragma GCC unroll 8
    for (int begin = 0; begin < kStretch; begin += V::size) {
      V x(kLowest);
#pragma GCC unroll 8
      for (int i = 0; i < (V::size < kStretch ? V::size : kStretch); ++i) {
        const int at = begin + i < count ? begin + i : 0;
        x.raw[i] = static_cast<R>(load_one(z + first + at * V::size));
      }
      x = select(lane_numbers<V>() < V(static_cast<R>(count - begin)), x, V(kLowest));
      others.add(select(x == max, V(0), exponential(x)));
    }
    return others.total();
  }

  __attribute__((noinline)) R largest_of(const T* z) const {
    V max(kLowest);
    for_each_vector<V>(classes_, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
      max = maximum(load(z + c, lanes, kLowest), max);
    });
    return largest_lane(max);
  }

  int64_t chunk_end(int64_t begin) const { return classes_ - begin < kChunk ? classes_ : begin + kChunk; }

  static int64_t stretch_maxima_size(int64_t classes) { return classes / kStretch + V::size; }
  static int64_t chunks(int64_t classes) { return (classes + kChunk - 1) / kChunk; }

  SURPRISAL_FN static double total(V counts) {
    Sum<V> sum;
    sum.add(counts);
    return sum.total();
  }

  /** A chunk's maximum, −∞ of NaN; keeps those of its whole stretches, lane by lane. */
  SURPRISAL_FN static R chunk_maximum(const T* z, int64_t begin, int64_t end, R* stretches) {
    constexpr int64_t step = kStretch * V::size;
    V max(kLowest);
    int64_t c = begin;
    for (; c + step <= end; c += step) {
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
    for_each_vector<V>(end - c, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
      max = maximum(load(z + c + i, lanes, kLowest), max);
    });
    return largest_lane(max);
  }

  // What long rows alone come to is not inlined: that of one driver is as good for all.

  __attribute__((noinline)) static R further_maximum(const T* z, int64_t begin, int64_t end, R* stretches) {
    return chunk_maximum(z, begin, end, stretches);
  }

  __attribute__((noinline)) static Rise rise_to(R largest, R max, double rest, double maxima) {
    return Rise(max, largest, rest, maxima);
  }

  /** Makes exponentials relative to the maximum of their time those of the row's. */
  __attribute__((noinline)) void bring_to(R max, const Maxima& maxima, R* exponentials) const {
    for (int64_t begin = 0; begin < classes_; begin += kChunk) {
      const R reference = maxima.references[begin / kChunk];
      if (reference == max) return;
      const double below = static_cast<double>(reference) - static_cast<double>(max);
      const Split<R> factor(surprisal::exponential(below));
      for (int64_t c = begin; c < begin + kChunk; c += V::size) {
        store(exponentials + c, times(load(exponentials + c, Full{}), factor), Full{});
      }
    }
  }

  int64_t classes_;
  R* stretch_maxima_;
  R* references_;  // of one pass
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
