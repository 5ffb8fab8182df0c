#pragma once

// Cross entropy of a sample's first row plus α times the Jensen-Shannon divergence of its K rows:
//
//   α/K · Σ_k Σ_c p_kc·(log p_kc − log m_c),   m = clamp(mean_k p_k, 1e-7, 1)
//
// With G_kc = log p_kc − log m_c (+1 where the clamp is active, as m then does not follow p):
//   dL/dz_kc = α/K · p_kc·(G_kc − Σ_c p_kc·G_kc)

#include "cross_entropy.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Of a row of a sample: Σ p·G, and Σ p, which rounding leaves not quite 1. */
template <class Number = double>
struct DivergenceSums {
  Number slope;
  Number p;

  /** Σ p·G of p that sum to 1. */
  SURPRISAL_FN Number mean() const { return slope / p; }
  /** 0, but NaN where the row is: a mixture takes it to all of them. */
  SURPRISAL_FN Number nothing() const { return p - p; }
};

/** dL/dz of one of a sample's rows, from factors made once a row. */
template <class S>
struct JensenShannonGradient {
  using Number = InDouble<S>;

  Number factor;     // scale·α/K
  Number slope_sum;  // DivergenceSums::mean
  S coupled_scale;
  Split<S> slope_parts;
  S p_scale, offset;  // of the first row's cross entropy, scale·(Q·p − floor); 0 in the others

  SURPRISAL_FN JensenShannonGradient(double factor, Number slope_sum, Number scale, Number q_sum, double floor)
      : factor(scale * Number(factor)),
        slope_sum(slope_sum),
        coupled_scale(rounded<S>(this->factor)),
        slope_parts(slope_sum),
        p_scale(rounded<S>(scale * q_sum)),
        offset(rounded<S>(scale * Number(floor))) {}

  /** Where p is near 1 the sum is near G, so it comes in two parts. */
  template <class V>
  SURPRISAL_FN V value(V p, V slope) const {
    const V coupled = p * ((slope - V(slope_parts.head)) - V(slope_parts.tail));
    return multiply_add(coupled, V(coupled_scale), multiply_add(p, V(p_scale), -V(offset)));
  }

  /** The divergence's part of the label's class, beside LinearGradient::label. */
  SURPRISAL_FN Number label(Number p, Number slope) const { return factor * p * (slope - slope_sum); }
};

template <class R>
struct JensenShannon {
  static constexpr const char* name = "jsd";
  static constexpr Kind kind = Kind::row_group;
  static constexpr Denominator denominator = Denominator::samples;
  static constexpr const char* parameters[] = {"numSplits", "alpha", "smoothing"};
  static constexpr double lowest_mixture = 1e-7;
  template <class S>
  using Gradient = JensenShannonGradient<S>;

  int splits;
  double factor;  // α/K, of the divergence
  CrossEntropy<R> cross_entropy;

  SURPRISAL_FN JensenShannon(const double* parameters, int64_t classes)
      : splits(static_cast<int>(parameters[0])),
        factor(parameters[1] / parameters[0]),
        cross_entropy(parameters + 2, classes) {}

  /** The mixture of a class. */
  template <class V>
  struct Mixture {
    V inverse;  // 1/m
    V share;    // 1/(K·m)
    V shift;    // mean/m − 1, 0 but where the clamp is active
    V clamped;  // +1 of G
  };

  /** A sample's, from Σ over its rows of Σ p·G, and of Σ p where the clamp is active. */
  template <class Number>
  SURPRISAL_FN Number loss(Number cross_entropy, Number divergence, Number clamped) const {
    return cross_entropy + Number(factor) * (divergence - clamped);
  }

  /** From Σ_k p_k. A NaN may get lost here: the driver knows it from Σ_c p_c. */
  template <class V>
  SURPRISAL_FN static Mixture<V> mixture(V total, int splits) {
    const V lowest = V(static_cast<Scalar<V>>(lowest_mixture * splits));
    const V bounded = maximum(total, lowest);
    const V share = reciprocal(bounded);
    return {share * V(static_cast<Scalar<V>>(splits)), share, (total - bounded) * share,
            select(total < lowest, V(1), V(0))};
  }

  /** p/m */
  template <class V>
  SURPRISAL_FN static V ratio(V p, const Mixture<V>& mixture) {
    return p * mixture.inverse;
  }

  /**
   * p/m − 1. `excess` is K·(p − mean), summed from differences of the rows' p, which are exact where these are close:
   * the logarithm of the ratio then has all its digits, while log p − log m would have lost them.
   */
  template <class V>
  SURPRISAL_FN static V ratio_less_one(V excess, const Mixture<V>& mixture) {
    return multiply_add(excess, mixture.share, mixture.shift);
  }

  /**
   * G = log(p/m) + clamped. Where p underflows p·log(p/m) is 0 in the limit; here the logarithm of any number is
   * finite, and so p times it is 0.
   */
  template <class V>
  SURPRISAL_FN static V slope_of_ratio(V ratio, V ratio_less_one, V clamped) {
    return log_ratio(ratio, ratio_less_one) + clamped;
  }
  template <class V>
  SURPRISAL_FN static V slope(V p, V excess, const Mixture<V>& mixture) {
    return slope_of_ratio(ratio(p, mixture), ratio_less_one(excess, mixture), mixture.clamped);
  }
};
SURPRISAL_REGISTER(JensenShannon);

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
