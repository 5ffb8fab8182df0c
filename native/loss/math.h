#pragma once

// Elementary functions over the value type. Errors are in units in the last place of the result, against the exact
// value; test/native/elementary.cc holds them over every float32, test/numerics by samples.

#include "value.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** A row's number as two factors, which sums and products take one after the other. */
template <class S>
struct Split {
  S head, tail;

  Split() = default;
  SURPRISAL_FN explicit Split(InDouble<S> x) : head(rounded<S>(x)), tail(rounded<S>(x - in_double(head))) {}
};

/** x times a factor in two parts: rounded about once. */
template <class V, class S>
SURPRISAL_FN V times(V x, Split<S> factor) {
  return multiply_add(x, V(factor.head), x * V(factor.tail));
}

/** Σ_{k=0}^{Terms−1} z^k·2/(2k+3): the tail of 2·atanh(s)/s − 2 over z = s², divided by z. */
template <int K, int Terms, class V>
SURPRISAL_FN V atanh_series(V z) {
  constexpr auto coefficient = static_cast<Scalar<V>>(2.0 / (2 * K + 3));
  if constexpr (K == Terms - 1) {
    return V(coefficient);
  } else {
    return multiply_add(atanh_series<K + 1, Terms>(z), z, V(coefficient));
  }
}

// e^x = 2^(n/2^B)·2^(−u/2^B) with n the nearest integer to x·2^B/ln 2 and u = n − x·2^B/ln 2, |u| ≤ ½. The first
// factor is a table of 2^B entries and an exponent (B = 0: the exponent alone), the second a short series.

/** 2^B/ln 2 in two parts. */
template <class R, int B>
inline constexpr double kOctaves = 1.4426950408889634 * (1 << B);
template <class R, int B>
inline constexpr R kOctavesHead = static_cast<R>(kOctaves<R, B>);
template <class R, int B>
inline constexpr R kOctavesTail =
    static_cast<R>((kOctaves<R, B> - static_cast<double>(kOctavesHead<R, B>)) + 2.0355273740931033e-17 * (1 << B));

/** Coefficient k of 2^(−u/2^B) as a series in u. */
template <class R, int B>
SURPRISAL_FN constexpr double exp2_coefficient(int k) {
  double power = 1, factorial = 1;
  for (int i = 1; i <= k; ++i) {
    power *= -0.6931471805599453 / (1 << B);
    factorial *= i;
  }
  if constexpr (B == Format<R>::exp_coefficient_bits) return Format<R>::exp_coefficients[k] * power;
  return power / factorial;
}

/** Σ_{k=K} c_k·u^(k−K), by Horner's rule. */
template <int K, class V>
SURPRISAL_FN V exp2_series(V u) {
  constexpr int B = kTableBits<V>;
  constexpr auto coefficient = static_cast<Scalar<V>>(exp2_coefficient<Scalar<V>, B>(K));
  if constexpr (K == Format<Scalar<V>>::exp_degree(B)) {
    return V(coefficient);
  } else {
    return multiply_add(exp2_series<K + 1>(u), u, V(coefficient));
  }
}

/** 2^(j/16) */
inline constexpr double kRootsOfTwo[16] = {1.0,
                                           1.0442737824274138,
                                           1.0905077326652577,
                                           1.1387886347566916,
                                           1.189207115002721,
                                           1.241857812073484,
                                           1.2968395546510096,
                                           1.3542555469368927,
                                           1.4142135623730951,
                                           1.4768261459394993,
                                           1.5422108254079407,
                                           1.6104903319492543,
                                           1.681792830507429,
                                           1.7562521603732995,
                                           1.8340080864093424,
                                           1.9152065613971474};

/** What 2^(j/16) lost in rounding to double, relative to it. */
inline constexpr double kRootsOfTwoTails[16] = {0,           8.18932e-17, -2.79391e-17, 7.82657e-17,  3.34846e-17,
                                                3.75085e-17, 1.95726e-17, 5.68648e-17,  -6.83581e-17, -2.35911e-17,
                                                5.15483e-17, 1.53414e-17, 4.87516e-17,  1.68549e-17,  1.79013e-17,
                                                -5.54507e-17};

/**
 * 2^(j/2^B), by itself and less j where an index of these low bits will be added with the exponent; what rounding it
 * lost; and −j.
 */
template <class R, int B>
struct Exp2Table {
  static_assert(B <= 4);
  using Int = typename Format<R>::Int;
  R roots[1 << B];
  Int entries[1 << B];
  R tails[1 << B];
  Int indices_off[1 << B];

  constexpr Exp2Table() : roots(), entries(), tails(), indices_off() {
    for (int j = 0; j < 1 << B; ++j) {
      const double root = kRootsOfTwo[j << (4 - B)];
      roots[j] = static_cast<R>(root);
      entries[j] = std::bit_cast<Int>(roots[j]) - (static_cast<Int>(j) << (Format<R>::fraction_bits - B));
      tails[j] = static_cast<R>((root - roots[j]) / root + kRootsOfTwoTails[j << (4 - B)]);
      indices_off[j] = -static_cast<Int>(j);
    }
  }
};
template <class R, int B>
inline constexpr Exp2Table<R, B> kExp2Table;

/** u = n − x·2^B/ln 2 */
template <class V>
SURPRISAL_FN V exp2_fraction(V n, V x) {
  using R = Scalar<V>;
  constexpr int B = kTableBits<V>;
  return residual(residual(n, x, V(kOctavesHead<R, B>)), x, V(kOctavesTail<R, B>));
}

/** 2^((n − u)/2^B) for `rounded` = n + round_magic. */
template <class V>
SURPRISAL_FN V exp2_parts(V rounded, V u) {
  using F = Format<Scalar<V>>;
  constexpr int B = kTableBits<V>;
  if constexpr (B == 0) {
    const V power = add_shifted_bits<F::fraction_bits>(V(1), rounded);
    return multiply_add(power, exp2_series<1>(u) * u, power);
  } else {
    constexpr const auto& table = kExp2Table<Scalar<V>, B>;
    const V power = add_shifted_bits<F::fraction_bits - B>(lookup(table.entries, rounded), rounded);
    return multiply_add(power, multiply_add(exp2_series<1>(u), u, lookup(table.tails, rounded)), power);
  }
}

/**
 * e^x for x ≤ 0 and a little above (to 88): 0.7 ulp with tables, 1.6 without. 0 below the logarithm of the smallest
 * normal number; NaN for NaN.
 */
template <class V>
SURPRISAL_FN V exponential(V x) {
  using R = Scalar<V>;
  using F = Format<R>;
  constexpr int B = kTableBits<V>;
  const V rounded = multiply_add(x, V(kOctavesHead<R, B>), V(F::round_magic));
  const V u = exp2_fraction(rounded - V(F::round_magic), x);
  return zero_below(x, V(F::exp_lowest), exp2_parts(rounded, u));
}

/** An m that others' exponentials are relative to, reduced: n_m + round_magic taken off, and u_m. */
template <class V>
struct ReducedMaximum {
  using F = Format<Scalar<V>>;
  static constexpr int B = kTableBits<V>;

  V m, shift;  // 0, or m where the reduction of numbers as large would lose digits, but z − m is exact
  V magic;     // round_magic − n_m: sums with it are n_z − n_m, in the low bits
  V u;

  ReducedMaximum() = default;
  SURPRISAL_FN explicit ReducedMaximum(V max)
      : m(max), shift(select(absolute(max) > V(-2 * F::exp_lowest), max, V(0))), magic(F::round_magic) {
    const V n = multiply_add(rest(), V(kOctavesHead<Scalar<V>, B>), magic) - magic;
    magic = magic - n;
    u = exp2_fraction(n, rest());
  }

  SURPRISAL_FN V rest() const { return m - shift; }
};

/**
 * e^(z − m) for the z of a row and its maximum m, as near as exponential(), but to the exact difference's, which z − m
 * as a rounded number has lost. z and m are reduced apart, each exactly: u = (n_z − z·2^B/ln 2) − (n_m − m·2^B/ln 2).
 * Where |m| is large the reduction would lose digits, but there z − m is exact for every z whose exponential is not 0.
 */
template <class V>
class ExponentialBelow {
  using R = Scalar<V>;
  using F = Format<R>;
  static constexpr int B = kTableBits<V>;

 public:
  SURPRISAL_FN explicit ExponentialBelow(V max) : max_(max) {}

  /** d = z − m, rounded. */
  SURPRISAL_FN V difference(V z) const { return z - max_.m; }

  /** Of a V, or of what several are evaluated in together. */
  template <class Z>
  SURPRISAL_FN Z operator()(Z z) const {
    const Z d = z - Z(max_.m);
    const Z rounded = multiply_add(d, Z(kOctavesHead<R, B>), Z(F::round_magic));
    const Z u = exp2_fraction(rounded - Z(max_.magic), z - Z(max_.shift)) - Z(max_.u);
    return zero_below(d, Z(F::exp_lowest), exp2_parts(rounded, u));
  }

 private:
  ReducedMaximum<V> max_;
};

/**
 * The same of vectors that all have one m, in fewer operations: 1.7 ulp with tables, 2.5 without. z alone is reduced,
 * and not the difference: e^(z − m) = 2^((n_z − n_m)/2^B)·2^(u_m/2^B)·2^(−u_z/2^B), where the factor of m is a part of
 * the table. z may be above m, by 40. 0 where 2^(n_z/2^B)·2^(u_m/2^B) could be subnormal.
 */
template <class V>
class ExponentialBelowOne {
  using R = Scalar<V>;
  using F = Format<R>;
  static constexpr int B = kTableBits<V>;

 public:
  ExponentialBelowOne() = default;
  SURPRISAL_FN explicit ExponentialBelowOne(V max)
      : max_(max), lowest_(max_.rest() + V(F::exp_lowest + F::ln2 / (2 << B) + R(0.003))) {
    const V factor = exp2_series<1>(-max_.u) * -max_.u;
    if constexpr (B == 0) {
      powers_ = V(1) + factor;
    } else {
      constexpr const auto& table = kExp2Table<R, B>;
      const V roots = V::of(table.roots);
      powers_ = multiply_add(roots, factor + V::of(table.tails), roots);
      powers_ = add_shifted_bits<F::fraction_bits - B>(powers_, V::of(table.indices_off));
    }
  }

  /** d = z − m, rounded. */
  SURPRISAL_FN V difference(V z) const { return z - max_.m; }

  /** Of a V, or of what several are evaluated in together. */
  template <class Z>
  SURPRISAL_FN Z operator()(Z z) const {
    const Z reduced = z - Z(max_.shift);
    const Z rounded = multiply_add(reduced, Z(kOctavesHead<R, B>), Z(max_.magic));
    const Z u = exp2_fraction(rounded - Z(max_.magic), reduced);
    const Z entry = B == 0 ? Z(powers_) : lookup(powers_, rounded);
    const Z power = add_shifted_bits<F::fraction_bits - B>(entry, rounded);
    return zero_below(reduced, Z(lowest_), multiply_add(exp2_series<1>(u) * u, power, power));
  }

 private:
  ReducedMaximum<V> max_;
  V lowest_, powers_;
};

/**
 * The same in a third of the operations, by exp2_fast: e^d = 2^t·(1 + (d − t·ln 2)) for the rounded t = d/ln 2. Off by
 * 4 units of 2^-24 of itself, and 2e-9 for each unit of |z − m|: what logits of half precision are worth.
 */
class FastExponentialBelow {
 public:
  SURPRISAL_FN explicit FastExponentialBelow(float max) : m_(max) {}

  SURPRISAL_FN float difference(float z) const { return z - m_; }

  SURPRISAL_FN float operator()(float z) const {
    const float d = z - m_;
    const float t = d * kOctavesHead<float, 0>;
    const float power = exp2_fast(t);
    // Of a masked class it is no number, beside a power of 0.
    const float rest = fminf(fmaf(t, -Format<float>::ln2, d), 1);
    return multiply_add(power, rest, power);
  }

 private:
  float m_;
};

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
  const V s = quotient(f, f + V(2));
  const V z = s * s;
  return s * residual(f, z, atanh_series<0, Terms>(z));
}
template <int Terms, class V>
SURPRISAL_FN V log_one_plus(V f) {
  return f - log_one_plus_deficit<Terms>(f);
}

// Where lookup() has tables, logarithms take no division: with c near x from a table and r = x/c − 1,
// log x = log c + log(1 + r). The entry c = 1 makes that exact around 1, where the logarithm is small.

/** What log c of a table for R is made in: more digits than R has. */
template <class R>
using TableWide = std::conditional_t<sizeof(R) == 4, double, long double>;

/** log x for x in [½, 2], as 2·atanh((x − 1)/(x + 1)). */
template <class W>
constexpr W table_log(W x) {
  const W s = (x - 1) / (x + 1);
  W sum = 0;
  for (int k = 41; k > 0; k -= 2) sum = sum * (s * s) + W(1) / k;
  return 2 * s * sum;
}

/** 1/c and log c = head + tail for c = k/cells, √½ ≤ c ≤ √2, each k at its low B bits. */
template <class R, int B>
struct LogTable {
  static constexpr int cells = 5 << (B - 2);
  R inverse[1 << B];
  /** Multiples of 1/log_head_places, which add up with ln2_head times an exponent without rounding. */
  R head[1 << B];
  R tail[1 << B];

  constexpr LogTable() : inverse(), head(), tail() {
    using W = TableWide<R>;
    constexpr W places = Format<R>::log_head_places;
    constexpr int last = (cells * 1415) / 1000;
    for (int k = last - (1 << B) + 1; k <= last; ++k) {
      const int j = k & ((1 << B) - 1);
      inverse[j] = static_cast<R>(static_cast<W>(cells) / k);
      const W log_c = -table_log(static_cast<W>(inverse[j]));
      head[j] = static_cast<R>(static_cast<int64_t>(log_c * places + (log_c < 0 ? -0.5 : 0.5)) / places);
      tail[j] = static_cast<R>(log_c - head[j]);
    }
  }
};
template <class R, int B>
inline constexpr LogTable<R, B> kLogTable;

/** 1/c and log c for c near 1 + j/cells: of the inverses near that, the one whose logarithm is nearest to an R. */
template <class R, int B>
struct Log1pTable {
  static constexpr double cells = (1 << B) - 0.75;
  R inverse[1 << B];
  R log[1 << B];

  constexpr Log1pTable() : inverse(), log() {
    using W = TableWide<R>;
    constexpr W last_place = W(1) / (int64_t{1} << Format<R>::fraction_bits);
    inverse[0] = 1;
    for (int j = 1; j < 1 << B; ++j) {
      W least = 1;
      for (int i = 0; i < 64; ++i) {
        const auto candidate = static_cast<R>(cells / (cells + j) + i * last_place);
        const W log_c = -table_log(static_cast<W>(candidate));
        const auto rounded = static_cast<R>(log_c);
        const W lost = log_c < rounded ? rounded - log_c : log_c - rounded;
        if (lost >= least) continue;
        least = lost;
        inverse[j] = candidate;
        log[j] = rounded;
      }
    }
  }
};
template <class R, int B>
inline constexpr Log1pTable<R, B> kLog1pTable;

/** Coefficient k of (r − log(1 + r))/r² = Σ (−r)^k/(k + 2) for the r that a table leaves. */
template <class R>
SURPRISAL_FN constexpr R log_coefficient(int k) {
  if constexpr (sizeof(R) == 8) return Format<R>::log_coefficients[k];
  return static_cast<R>((k % 2 == 0 ? 1.0 : -1.0) / (k + 2));
}

/** Σ of every Step-th term from that of r^K on, over r^K, for z = r^Step. */
template <int B, int K, int Step, class V>
SURPRISAL_FN V log_series_part(V z) {
  constexpr auto coefficient = log_coefficient<Scalar<V>>(K);
  if constexpr (K + Step > Format<Scalar<V>>::log_table_degree(B)) {
    return V(coefficient);
  } else {
    return multiply_add(log_series_part<B, K + Step, Step>(z), z, V(coefficient));
  }
}

/** (r − log(1 + r))/r²: a long series in two halves, which need not wait for one another. */
template <int B, class V>
SURPRISAL_FN V log_series(V r) {
  if constexpr (Format<Scalar<V>>::log_table_degree(B) > 5) {
    const V square = r * r;
    return multiply_add(log_series_part<B, 1, 2>(square), r, log_series_part<B, 0, 2>(square));
  } else {
    return log_series_part<B, 0, 1>(r);
  }
}

/** Index into a table of `cells` to a unit: the nearest integer to x·cells, in the low bits. */
template <class V>
SURPRISAL_FN V table_index(V x, double cells) {
  using S = Scalar<V>;
  return multiply_add(x, V(static_cast<S>(cells)), V(Format<S>::round_magic));
}

/** exponent·ln 2 + log(1 + f) with f = significand − 1 in [√½ − 1, √2 − 1). */
template <class V>
SURPRISAL_FN V logarithm_parts(V exponent, V significand, V f) {
  using F = Format<Scalar<V>>;
  constexpr int B = kLogTableBits<V>;
  if constexpr (B == 0) {
    const V fraction = log_one_plus<F::log_terms>(f);
    return multiply_add(exponent, V(F::ln2_head), multiply_add(exponent, V(F::ln2_tail), fraction));
  } else {
    constexpr const auto& table = kLogTable<Scalar<V>, B>;
    const V j = table_index(significand, table.cells);
    const V inverse = lookup(table.inverse, j);
    const V r = multiply_add(f, inverse, inverse - V(1));
    const V small = multiply_add(exponent, V(F::ln2_tail), lookup(table.tail, j));
    return multiply_add(exponent, V(F::ln2_head), lookup(table.head, j)) +
           (r + residual(small, r * r, log_series<B>(r)));
  }
}

/** log x for positive normal x: 1.1 ulp with tables, 1.35 without. */
template <class V>
SURPRISAL_FN V logarithm(V x) {
  V significand, exponent;
  split_exponent(x, significand, exponent);
  return logarithm_parts(exponent, significand, significand - V(1));
}

/**
 * log r for positive normal r, given t = r − 1 with more digits than r has: 1 ulp of the result near r = 1 too, where
 * log r ≈ t.
 */
template <class V>
SURPRISAL_FN V log_ratio(V r, V t) {
  V significand, exponent;
  split_exponent(r, significand, exponent);
  return logarithm_parts(exponent, significand, select(exponent == V(0), t, significand - V(1)));
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
  const V small = multiply_add(exponent, V(F::ln2_tail), -log_one_plus_deficit<F::log_terms>(f));
  const V whole = exponent * V(F::ln2_head);
  const V sum = whole + f;
  const V difference = sum - y;
  // An infinite y has no tail, and leaves the difference infinite.
  const V tail = difference_tail(whole, -f, sum) + difference_tail(sum, y, difference);
  return difference + (select(tail == tail, tail, V(0)) + small);
}

/** log(1 + t) for t in [0, 1]: 1.1 ulp with tables, 1.35 without. */
template <class V>
SURPRISAL_FN V log1p_unit(V t) {
  constexpr int B = kLogTableBits<V>;
  if constexpr (B == 0) {
    return log_one_plus<Format<Scalar<V>>::log1p_terms>(t);
  } else {
    constexpr const auto& table = kLog1pTable<Scalar<V>, B>;
    const V j = table_index(t, table.cells);
    const V inverse = lookup(table.inverse, j);
    const V r = multiply_add(t, inverse, inverse - V(1));
    return lookup(table.log, j) + residual(r, r * r, log_series<B>(r));
  }
}

/**
 * log r for normal r ≥ 1; below 2 from r − 1, given with more digits than r has: 1.1 ulp there, and the error of r
 * besides above. A NaN may give any number.
 */
template <class V>
SURPRISAL_FN V log_at_least_one(V r, V less_one) {
  using F = Format<Scalar<V>>;
  V significand, exponent;
  split_binade(r, significand, exponent);
  const V fraction = log1p_unit(select(exponent == V(0), less_one, significand - V(1)));
  return multiply_add(exponent, V(F::ln2), fraction);
}

/** log(1 + x) for x ≥ 0: 1 ulp. NaN for NaN and for infinity. */
template <class V>
SURPRISAL_FN V log1p_positive(V x) {
  const V sum = x + V(1);
  const V tail = difference_tail(x, V(-1), sum);
  return logarithm(sum) + (tail / sum + (x - x));
}

/** b^g for b in [0, 1] and g ≥ 0, with 0^0 = 1. Absolute error 1e-7 in float32. */
template <class V>
SURPRISAL_RARE_FN V power_unit(V b, V g) {
  const V smallest = V(Format<Scalar<V>>::smallest_normal);
  const V power = exponential(g * logarithm(maximum(b, smallest)));
  // b < smallest is false for NaN, which maximum() dropped.
  return select(g == V(0), V(1), select(b < smallest, V(0), power + (b - b)));
}

/** The same of one exponent for all elements: by multiplication where it is a small integer. */
template <class V>
SURPRISAL_FN V power_unit_uniform(V b, double g) {
  const V square = b * b;
  if (g == 4) return square * square;
  if (g == 3) return square * b;
  if (g == 2) return square;
  if (g == 1) return b;
  if (g == 0) return V(1);
  return power_unit(b, V(static_cast<Scalar<V>>(g)));
}

/** (head + tail)^n by squaring, what each product loses in rounding carried along: 1 ulp. */
template <class V>
SURPRISAL_FN V power_integer(V head, V tail, int n) {
  V power(1), power_tail(0);
  for (bool first = true;;) {
    if (n & 1) {
      const V product = first ? head : power * head;
      power_tail = first ? tail : multiply_add(power, tail, power_tail * head) - residual(product, power, head);
      power = product;
      first = false;
    }
    n >>= 1;
    if (n == 0) return power + power_tail;
    const V square = head * head;
    tail = multiply_add(head + head, tail, -residual(square, head, head));
    head = square;
  }
}

/** The logistic function of x and what goes with it, from t = e^−|x|. */
template <class V>
struct Logistic {
  V p;       // 1/(1 + e^−x)
  V q;       // 1 − p, with all its digits
  V p_tail;  // what p lost in rounding
  V t;

  /** log(1 + t) = −log max(p, q) */
  SURPRISAL_FN V log1p_exp() const { return log1p_unit(t); }
};

template <class V>
SURPRISAL_FN Logistic<V> logistic(V x, V t) {
  const V sum = t + V(1);
  const V larger = reciprocal(sum);
  const V smaller = t * larger;
  const V sum_tail = t - (sum - V(1));
  const V larger_tail = residual(residual(V(1), larger, sum), larger, sum_tail) * larger;
  const V smaller_tail = multiply_add(t, larger_tail, -residual(smaller, t, larger));
  const auto positive = x > V(0);
  return {select(positive, larger, smaller), select(positive, smaller, larger),
          select(positive, larger_tail, smaller_tail), t};
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
