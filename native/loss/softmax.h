#pragma once

// Softmax of a row, relative to its maximum m. S = Σ e^(z_c − m) is kept as 1 + rest: the maximum's own 1 is set
// apart and never added, so a confident row's rest, however small, keeps its digits. Then
//
//   −log p_c = log1p(rest) + (m − z_c)      both terms ≥ 0: no cancellation for any class
//   1 − p_c  = (rest + (1 − e_c)) / (1 + rest)

#include <cmath>

#include "loss.h"
#include "math.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** e^(z − m), given d = z − m as rounded: what the rounding lost is put back, or far classes would lose digits. */
template <class V>
SURPRISAL_FN V shifted_exponential(V z, V m, V d) {
  return exponential(d, difference_tail(z, m, d));
}

/** Splits e = e^(z − m) into what goes to `rest` and a count of maxima. */
template <class V>
SURPRISAL_FN V rest_term(V z, V m, V e, V& maxima) {
  const auto at_maximum = z == m;
  maxima = maxima + select(at_maximum, V(1), V(0));
  return select(at_maximum, V(0), e);
}

/** Sums of one row. */
struct RowSums {
  double max;
  double rest;  // S − 1

  SURPRISAL_FN RowSums(double max, double others, double maxima)
      // An infinite maximum (or a NaN) makes the row NaN, as in torch: m − m is 0 else.
      : max(max), rest(others + (maxima - 1) + (max - max)) {}

  SURPRISAL_FN double inverse() const { return 1 / (1 + rest); }
  SURPRISAL_FN double log_sum() const { return log1p(rest); }
  /** 1 − p of a class with this e. */
  SURPRISAL_FN double complement(double e) const { return (rest + (1 - e)) / (1 + rest); }
};

/** torch.nn.functional.log_softmax */
template <class R>
struct LogSoftmax {
  static constexpr const char* name = "log_softmax";
  static constexpr Kind kind = Kind::row_map;
  static constexpr bool backward = false;

  template <class V>
  SURPRISAL_FN static V map(V d, V /*e*/, Scalar<V> log_sum, Split<Scalar<V>> /*inverse*/) {
    return d - V(log_sum);
  }
};
SURPRISAL_REGISTER(LogSoftmax);

/** torch.nn.functional.softmax */
template <class R>
struct Softmax {
  static constexpr const char* name = "softmax";
  static constexpr Kind kind = Kind::row_map;
  static constexpr bool backward = false;

  template <class V>
  SURPRISAL_FN static V map(V /*d*/, V e, Scalar<V> /*log_sum*/, Split<Scalar<V>> inverse) {
    return times(e, inverse);
  }
};
SURPRISAL_REGISTER(Softmax);

/** dz = g − p·Σg, from g and log p. */
template <class R>
struct LogSoftmaxBackward {
  static constexpr const char* name = "log_softmax_backward";
  static constexpr Kind kind = Kind::row_map;
  static constexpr bool backward = true;

  /** What g is multiplied by in the sum. */
  template <class V>
  SURPRISAL_FN static V weight(V /*log_p*/) {
    return V(1);
  }
  SURPRISAL_FN static double centre(double sum, double /*weights*/) { return sum; }
  template <class V>
  SURPRISAL_FN static V map(V g, V log_p, Split<Scalar<V>> centre) {
    return g - exponential(log_p) * V(centre.head);
  }
};
SURPRISAL_REGISTER(LogSoftmaxBackward);

/** dz = p·(g − ḡ) with ḡ = Σ g·p, from g and p. */
template <class R>
struct SoftmaxBackward {
  static constexpr const char* name = "softmax_backward";
  static constexpr Kind kind = Kind::row_map;
  static constexpr bool backward = true;

  template <class V>
  SURPRISAL_FN static V weight(V p) {
    return p;
  }
  /**
   * The p that were rounded on their way here sum to nearly 1. Where one of them is nearly all, g − ḡ is as small as
   * that error, so ḡ is taken as their weighted mean. What is no softmax at all keeps the plain formula.
   */
  SURPRISAL_FN static double centre(double sum, double weights) {
    constexpr double kRounding = 1e-2;
    return absolute(weights - 1) < kRounding ? sum / weights : sum;
  }
  template <class V>
  SURPRISAL_FN static V map(V g, V p, Split<Scalar<V>> centre) {
    return p * ((g - V(centre.head)) - V(centre.tail));
  }
};
SURPRISAL_REGISTER(SoftmaxBackward);

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
