#pragma once

// Softmax of a row, relative to its maximum m. S = Σ e^(z_c − m) is kept as 1 + rest: the maximum's own 1 is set
// apart and never added, so a confident row's rest, however small, keeps its digits. Then
//
//   −log p_c = log1p(rest) + (m − z_c)      both terms ≥ 0: no cancellation for any class
//   1 − p_c  = (rest + (1 − e_c)) / (1 + rest)

#include <cmath>
#include <type_traits>

#include "loss.h"
#include "math.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** A logit relative to its row's maximum: d = z − m, rounded, and e^(z − m) of the exact difference. */
template <class V>
struct Shifted {
  V d;
  V e;
};

/** What of e = e^(z − m) goes to `rest`; the maxima, whose e is 1, are counted instead. */
template <class V>
SURPRISAL_FN V rest_term(V z, V m, V e) {
  return select(z == m, V(0), e);
}

/**
 * A row's maximum rises from m, the largest logit so far, to m': what was relative to that is brought to this, in
 * double. All logits so far are below m', so those that were at the maximum go to the rest.
 */
struct Rise {
  double by, factor;    // m' − m and e^(m − m')
  double rest, maxima;  // of the classes so far: Σ e below their maximum, and how many are at it

  SURPRISAL_FN Rise(double m, double larger, double rest, double maxima)
      : by(larger - m), factor(exponential(-by)), rest(rest), maxima(maxima) {}

  /** What Σ q·(m − z) of the classes so far grows by, from their Σ q. */
  SURPRISAL_FN double distances(double q_sum) const { return q_sum == 0 ? 0 : q_sum * by; }
};

/** log S */
template <class Number>
SURPRISAL_FN Number log_sum_of(Number rest) {
  return log1p_positive(rest);
}

/**
 * Sums of one row, or of as many rows as a Number has. Where its exponentials are relative to another number than the
 * maximum, the `peak` is the maximum's, and the others are worth what they are beside it.
 */
template <class Number = double>
struct RowSums {
  Number max;
  Number rest;  // S − 1, of exponentials relative to the maximum
  Number peak;

  RowSums() = default;
  /** From the exponentials' sum over all classes that are not at the maximum, and the number of those that are. */
  SURPRISAL_FN RowSums(Number max, Number others, Number maxima, Number peak = Number(1))
      // An infinite maximum (or a NaN) makes the row NaN, as in torch: m − m is 0 else.
      : max(max), rest(others + (maxima - Number(1)) + (max - max)), peak(peak) {}

  /** What makes p of e. */
  SURPRISAL_FN Number inverse() const { return Number(1) / (peak * (Number(1) + rest)); }
  SURPRISAL_FN Number log_sum() const { return log_sum_of(rest); }
  /** 1 − p of a class with this e. Of many rows the division that inverse() has done does for this too. */
  SURPRISAL_FN Number complement(Number e) const {
    const Number others = peak * rest + (peak - e);
    if constexpr (std::is_arithmetic_v<Number>) {
      return others / (peak * (Number(1) + rest));
    } else {
      return others * inverse();
    }
  }
};

/** dz = g − p·Σg of a loss with slopes g = ∂L/∂log p, from factors made once a row. */
template <class S>
struct CoupledGradient {
  using Number = InDouble<S>;

  S scale;
  S p_scale;  // scale·Σg/S, times e gives scale·p·Σg

  SURPRISAL_FN CoupledGradient(const RowSums<Number>& row, Number slope_sum, Number scale)
      : scale(rounded<S>(scale)), p_scale(rounded<S>(scale * slope_sum * row.inverse())) {}

  template <class V>
  SURPRISAL_FN V value(V slope, V e) const {
    return multiply_add(slope, V(scale), -(e * V(p_scale)));
  }

  /** The label's, its own slope taken together: g·(1 − p) − p·Σ g of the others. */
  SURPRISAL_FN static Number label(const RowSums<Number>& row, Number slope, Number other_sum, Number e, Number scale) {
    return scale * (slope * row.complement(e) - e * row.inverse() * other_sum);
  }
};

template <class R>
struct Softmax;
template <class R>
struct LogSoftmax;
template <class R>
struct SoftmaxBackward;
template <class R>
struct LogSoftmaxBackward;

/** A map of rows and its logarithm's, for a driver that is compiled once for both. */
template <class R>
struct SoftmaxMaps {
  using Plain = Softmax<R>;
  using Log = LogSoftmax<R>;
};
template <class R>
struct SoftmaxBackwardMaps {
  using Plain = SoftmaxBackward<R>;
  using Log = LogSoftmaxBackward<R>;
};

/** torch.nn.functional.log_softmax */
template <class R>
struct LogSoftmax {
  using Maps = SoftmaxMaps<R>;
  static constexpr const char* name = "log_softmax";
  static constexpr Kind kind = Kind::row_map;
  static constexpr bool backward = false;

  template <class V, class S>
  SURPRISAL_FN static V map(V d, V /*e*/, S log_sum, Split<S> /*inverse*/) {
    return d - V(log_sum);
  }
};
SURPRISAL_REGISTER(LogSoftmax);

/** torch.nn.functional.softmax */
template <class R>
struct Softmax {
  using Maps = SoftmaxMaps<R>;
  static constexpr const char* name = "softmax";
  static constexpr Kind kind = Kind::row_map;
  static constexpr bool backward = false;

  template <class V, class S>
  SURPRISAL_FN static V map(V /*d*/, V e, S /*log_sum*/, Split<S> inverse) {
    return times(e, inverse);
  }
};
SURPRISAL_REGISTER(Softmax);

/**
 * The p of a backward pass were rounded on their way here. As float32 or float64 they sum to 1 but for a few last
 * places (log p of 10 costs 10 of them); where one of them is nearly all, the gradient is as small as that error, so
 * it is divided out. What is further from 1, half precision or no softmax at all, is taken at its word.
 */
template <class Number>
SURPRISAL_FN Number normaliser(Number p_sum) {
  constexpr double kRounding = 1e-5;
  return select(absolute(p_sum - Number(1)) < Number(kRounding), p_sum, Number(1));
}

/** dz = g − p·Σg, from g and log p. */
template <class R>
struct LogSoftmaxBackward {
  using Maps = SoftmaxBackwardMaps<R>;
  static constexpr const char* name = "log_softmax_backward";
  static constexpr Kind kind = Kind::row_map;
  static constexpr bool backward = true;

  template <class V>
  SURPRISAL_FN static V probability(V log_p) {
    return exponential(log_p);
  }
  /** What g is multiplied by in the sum. */
  template <class V>
  SURPRISAL_FN static V weight(V /*p*/) {
    return V(1);
  }
  template <class V, class S>
  SURPRISAL_FN static V map(V g, V p, Split<S> mean) {
    return residual(residual(g, p, V(mean.head)), p, V(mean.tail));
  }
};
SURPRISAL_REGISTER(LogSoftmaxBackward);

/** dz = p·(g − Σ g·p), from g and p. */
template <class R>
struct SoftmaxBackward {
  using Maps = SoftmaxBackwardMaps<R>;
  static constexpr const char* name = "softmax_backward";
  static constexpr Kind kind = Kind::row_map;
  static constexpr bool backward = true;

  template <class V>
  SURPRISAL_FN static V probability(V p) {
    return p;
  }
  template <class V>
  SURPRISAL_FN static V weight(V p) {
    return p;
  }
  template <class V, class S>
  SURPRISAL_FN static V map(V g, V p, Split<S> mean) {
    return p * ((g - V(mean.head)) - V(mean.tail));
  }
};
SURPRISAL_REGISTER(SoftmaxBackward);

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
