#pragma once

// Elementary functions over the value type. Errors are in units in the last place of the result, against the exact
// value; test/numerics holds them.

#include "value.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** A double as two R, which sums and products in R take one after the other. */
template <class R>
struct Split {
  R head, tail;

  SURPRISAL_FN explicit Split(double x)
      : head(static_cast<R>(x)), tail(static_cast<R>(x - static_cast<double>(static_cast<R>(x)))) {}
};

/** x times a factor in two parts: rounded about once. */
template <class V>
SURPRISAL_FN V times(V x, Split<Scalar<V>> factor) {
  return x * V(factor.head) + x * V(factor.tail);
}

/** Σ_{k=K} c_k·r^(k−K), by Horner's rule. */
template <int K, class V>
SURPRISAL_FN V exp_series(V r) {
  using F = Format<Scalar<V>>;
  constexpr auto coefficient = static_cast<Scalar<V>>(F::exp_coefficients[K]);
  if constexpr (K == F::exp_degree) {
    return V(coefficient);
  } else {
    return exp_series<K + 1>(r) * r + V(coefficient);
  }
}

/** Σ_{k=0}^{Terms−1} z^k·2/(2k+3): the tail of 2·atanh(s)/s − 2 over z = s², divided by z. */
template <int K, int Terms, class V>
SURPRISAL_FN V atanh_series(V z) {
  constexpr auto coefficient = static_cast<Scalar<V>>(2.0 / (2 * K + 3));
  if constexpr (K == Terms - 1) {
    return V(coefficient);
  } else {
    return atanh_series<K + 1, Terms>(z) * z + V(coefficient);
  }
}

/**
 * e^(x + tail) for x ≤ 0 and a little above (to 88), |tail| ≤ ulp(x): 1 ulp. 0 below the logarithm of the smallest
 * normal number; NaN for NaN. x = n·ln 2 + r with |r| ≤ ln 2 / 2, e^x = 2^n·e^r.
 */
template <class V>
SURPRISAL_FN V exponential(V x, V tail) {
  using F = Format<Scalar<V>>;
  const V rounded = x * V(F::log2_e) + V(F::round_magic);
  const V n = rounded - V(F::round_magic);
  const V r = ((x - n * V(F::ln2_head)) - n * V(F::ln2_tail)) + tail;
  const V significand = exp_series<0>(r);
  return select(x < V(F::exp_lowest), V(0), significand * power_of_two(rounded));
}
template <class V>
SURPRISAL_FN V exponential(V x) {
  return exponential(x, V(0));
}

/** What a − b lost in rounding to `difference` (Knuth's two-sum). */
template <class V>
SURPRISAL_FN V difference_tail(V a, V b, V difference) {
  const V b_seen = difference - a;
  return (a - (difference - b_seen)) - (b + b_seen);
}

/**
 * f − log(1 + f) = s·(f − z·Σ 2z^k/(2k+3)) with s = f/(2 + f), z = s². The f that it is taken from is exact, so the
 * roundings of s weigh little.
 */
template <int Terms, class V>
SURPRISAL_FN V log_one_plus_deficit(V f) {
  const V s = f / (f + V(2));
  const V z = s * s;
  return s * (f - z * atanh_series<0, Terms>(z));
}
template <int Terms, class V>
SURPRISAL_FN V log_one_plus(V f) {
  return f - log_one_plus_deficit<Terms>(f);
}

/** log x for positive normal x: 1 ulp. */
template <class V>
SURPRISAL_FN V logarithm(V x) {
  using F = Format<Scalar<V>>;
  V significand, exponent;
  split_exponent(x, significand, exponent);
  const V fraction = log_one_plus<F::log_terms>(significand - V(1));
  return exponent * V(F::ln2_head) + (exponent * V(F::ln2_tail) + fraction);
}

/**
 * log r for positive normal r, given t = r − 1 with more digits than r has: 1 ulp of the result near r = 1 too, where
 * log r ≈ t.
 */
template <class V>
SURPRISAL_FN V log_ratio(V r, V t) {
  using F = Format<Scalar<V>>;
  V significand, exponent;
  split_exponent(r, significand, exponent);
  const V fraction = log_one_plus<F::log_terms>(select(exponent == V(0), t, significand - V(1)));
  return exponent * V(F::ln2_head) + (exponent * V(F::ln2_tail) + fraction);
}

/**
 * log x − y for positive normal x: the parts of the logarithm are summed with y, the exact ones first, so that a
 * difference of nearly equal numbers keeps digits that log x has already lost.
 */
template <class V>
SURPRISAL_FN V logarithm_less(V x, V y) {
  using F = Format<Scalar<V>>;
  V significand, exponent;
  split_exponent(x, significand, exponent);
  const V f = significand - V(1);
  const V small = exponent * V(F::ln2_tail) - log_one_plus_deficit<F::log_terms>(f);
  const V whole = exponent * V(F::ln2_head);
  const V sum = whole + f;
  const V difference = sum - y;
  // An infinite y has no tail, and leaves the difference infinite.
  const V tail = difference_tail(whole, -f, sum) + difference_tail(sum, y, difference);
  return difference + (select(tail == tail, tail, V(0)) + small);
}

/** log(1 + t) for t in [0, 1]: 1 ulp. */
template <class V>
SURPRISAL_FN V log1p_unit(V t) {
  return log_one_plus<Format<Scalar<V>>::log1p_terms>(t);
}

/** b^g for b in [0, 1] and g ≥ 0, with 0^0 = 1. Absolute error 1e-7 in float32. */
template <class V>
SURPRISAL_FN V power_unit(V b, V g) {
  const V smallest = V(Format<Scalar<V>>::smallest_normal);
  const V power = exponential(g * logarithm(maximum(b, smallest)));
  // b < smallest is false for NaN, which maximum() dropped.
  return select(g == V(0), V(1), select(b < smallest, V(0), power + (b - b)));
}

/** (head + tail)^n by squaring, what each product loses in rounding carried along: 1 ulp. */
template <class V>
SURPRISAL_FN V power_integer(V head, V tail, int n) {
  V power(1), power_tail(0);
  for (; n > 0; n >>= 1) {
    if (n & 1) {
      const V product = power * head;
      power_tail = (power * tail + power_tail * head) - residual(product, power, head);
      power = product;
    }
    const V square = head * head;
    tail = (head * tail + head * tail) - residual(square, head, head);
    head = square;
  }
  return power + power_tail;
}

/** The logistic function of x and what goes with it, from one exponential: t = e^−|x|. */
template <class V>
struct Logistic {
  V p;               // 1/(1 + e^−x)
  V q;               // 1 − p, with all its digits
  V p_tail, q_tail;  // what p and q lost in rounding
  V log1p_exp;       // log(1 + t) = −log max(p, q)
};

template <class V>
SURPRISAL_FN Logistic<V> logistic(V x) {
  const V t = exponential(-absolute(x));
  const V sum = t + V(1);
  const V larger = V(1) / sum;
  const V smaller = t * larger;
  const V sum_tail = t - (sum - V(1));
  const V larger_tail = (residual(V(1), larger, sum) - larger * sum_tail) * larger;
  const V smaller_tail = t * larger_tail - residual(smaller, t, larger);
  const auto positive = x > V(0);
  return {select(positive, larger, smaller), select(positive, smaller, larger),
          select(positive, larger_tail, smaller_tail), select(positive, smaller_tail, larger_tail), log1p_unit(t)};
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
