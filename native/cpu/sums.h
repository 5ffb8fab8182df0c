#pragma once

// Sums over a row, and numbers of several rows: terms are added up in the compute type in short stretches, stretches in
// double, always in the same order.

#include "simd.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Several terms of a sum, a vector each. */
template <class V, int n>
struct Terms {
  V term[n];

  SURPRISAL_FN friend Terms operator+(Terms a, const Terms& b) {
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) a.term[i] = a.term[i] + b.term[i];
    return a;
  }
};

/** f(c) + f(c + step) + ... of n terms, in pairs, pairs of pairs and so on: equal terms add up without an error. */
template <int n, class F>
SURPRISAL_FN auto sum_in_pairs(int64_t c, int64_t step, F&& f) {
  if constexpr (n == 1) {
    return f(c);
  } else {
    const auto first = sum_in_pairs<n / 2>(c, step, f);
    return first + sum_in_pairs<n / 2>(c + n / 2 * step, step, f);
  }
}

/** Vectors of a row that are summed in the compute type before they are added to a sum in double. */
inline constexpr int kStretch = 8;

/** A double for each lane of V: the numbers of as many rows. */
template <class V>
struct Doubles {
  using Part = Vec<double>;
  using Scalar = double;
  static constexpr int parts = V::size / Part::size;
  Part part[parts];

  struct Truth {
    Mask<double> part[parts];
  };

  Doubles() = default;
  SURPRISAL_FN Doubles(double x) {
    for (int i = 0; i < parts; ++i) part[i] = Part(x);
  }

  SURPRISAL_FN friend Doubles operator+(Doubles a, Doubles b) {
    return each([&](int i) __attribute__((always_inline)) { return a.part[i] + b.part[i]; });
  }
  SURPRISAL_FN friend Doubles operator-(Doubles a, Doubles b) {
    return each([&](int i) __attribute__((always_inline)) { return a.part[i] - b.part[i]; });
  }
  SURPRISAL_FN friend Doubles operator*(Doubles a, Doubles b) {
    return each([&](int i) __attribute__((always_inline)) { return a.part[i] * b.part[i]; });
  }
  SURPRISAL_FN friend Doubles operator/(Doubles a, Doubles b) {
    return each([&](int i) __attribute__((always_inline)) { return a.part[i] / b.part[i]; });
  }
  SURPRISAL_FN Doubles operator-() const {
    return each([&](int i) __attribute__((always_inline)) { return -part[i]; });
  }
  SURPRISAL_FN friend Truth operator==(Doubles a, Doubles b) {
    Truth truth;
    for (int i = 0; i < parts; ++i) truth.part[i] = a.part[i] == b.part[i];
    return truth;
  }
  SURPRISAL_FN friend Truth operator<(Doubles a, Doubles b) {
    Truth truth;
    for (int i = 0; i < parts; ++i) truth.part[i] = a.part[i] < b.part[i];
    return truth;
  }
  SURPRISAL_FN friend Doubles select(Truth truth, Doubles a, Doubles b) {
    return each([&](int i) __attribute__((always_inline)) { return select(truth.part[i], a.part[i], b.part[i]); });
  }
  SURPRISAL_FN friend Doubles absolute(Doubles a) {
    return each([&](int i) __attribute__((always_inline)) { return absolute(a.part[i]); });
  }
  SURPRISAL_FN friend Doubles log1p_positive(Doubles a) {
    return each([&](int i) __attribute__((always_inline)) { return log1p_positive(a.part[i]); });
  }
  SURPRISAL_FN friend Doubles power_unit_uniform(Doubles a, double exponent) {
    return each([&](int i) __attribute__((always_inline)) { return power_unit_uniform(a.part[i], exponent); });
  }

  /** Of all rows. */
  SURPRISAL_FN double total() const {
    double sum = 0;
    for (int i = 0; i < parts; ++i) {
      sum += reduce_lanes(part[i].raw, [](auto a, auto b) __attribute__((always_inline)) { return a + b; });
    }
    return sum;
  }

 private:
  template <class F>
  SURPRISAL_FN static Doubles each(F&& f) {
    Doubles result;
    for (int i = 0; i < parts; ++i) result.part[i] = f(i);
    return result;
  }
};

template <class R>
struct InDoubleOf<Vec<R>> {
  using type = Doubles<Vec<R>>;
};

template <class V>
  requires(!std::is_arithmetic_v<V>)
SURPRISAL_FN V rounded(Doubles<V> x) {
  if constexpr (sizeof(Scalar<V>) == 8) {
    return x.part[0];
  } else {
    WideVector wide;
    memcpy(&wide, &x, sizeof(wide));
    return V(in_float(wide));
  }
}
template <class R>
SURPRISAL_FN Doubles<Vec<R>> in_double(Vec<R> x) {
  const auto wide = in_double(x.raw);
  Doubles<Vec<R>> result;
  memcpy(&result, &wide, sizeof(wide));
  return result;
}

/** A row's sum in double, lane by lane, always in the same order. */
template <class V>
class Sum {
 public:
  SURPRISAL_FN void add(V v) { wide_ += in_double(v.raw); }

  /** Adds a·b, taken in double. */
  SURPRISAL_FN void add_product(V a, V b) { wide_ += in_double(a.raw) * in_double(b.raw); }

  SURPRISAL_FN void add_number(double x) {
    Doubles<V> sum = lanes();
    sum.part[0].raw[0] += x;
    memcpy(&wide_, &sum, sizeof(wide_));
  }
  SURPRISAL_FN void scale(double factor) { wide_ *= factor; }

  /** Of all lanes together. */
  SURPRISAL_FN double total() const {
    return reduce_lanes(wide_, [](auto a, auto b) __attribute__((always_inline)) { return a + b; });
  }

  SURPRISAL_FN Doubles<V> lanes() const {
    Doubles<V> result;
    memcpy(&result, &wide_, sizeof(wide_));
    return result;
  }

 private:
  using Wide = typename Vectors<Scalar<V>>::Wide;

  Wide wide_ = {};
};

template <class V, int n>
struct Sums {
  Sum<V> sum[n];

  SURPRISAL_FN void add(const Terms<V, n>& terms) {
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) sum[i].add(terms.term[i]);
  }
};

/**
 * Σ f(c, lanes) over [0, count): f gives the terms of a vector's lanes, 0 past the row's end. One copy of f a kind of
 * lanes: the terms of a stretch are added up one by one.
 */
template <class V, int n, class F>
SURPRISAL_FN Sums<V, n> sum_over(int64_t count, F&& f) {
  Sums<V, n> sums;
  constexpr int64_t step = kStretch * V::size;
  int64_t c = 0;
  for (; c + step <= count; c += step) {
    Terms<V, n> stretch = {};
#pragma GCC unroll 1
    for (int64_t i = c; i < c + step; i += V::size) stretch = stretch + f(i, Full{});
    sums.add(stretch);
  }
  Terms<V, n> last = {};
#pragma GCC unroll 1
  for (; c + V::size <= count; c += V::size) last = last + f(c, Full{});
  if (c < count) last = last + f(c, Partial{static_cast<int>(count - c)});
  sums.add(last);
  return sums;
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
