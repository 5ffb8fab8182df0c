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

/** dL/dz of one of a sample's rows, from factors made once a row. */
template <class R>
struct JensenShannonGradient {
  double factor;     // scale·α/K
  double slope_sum;  // Σ p·G, over Σp, which rounding leaves not quite 1
  Split<R> slope_parts;
  R p_scale, offset;  // of the first row's cross entropy, scale·(Q·p − floor); 0 in the others

  SURPRISAL_FN JensenShannonGradient(double factor, double slope_sum, double scale, double q_sum, double floor)
      : factor(scale * factor),
        slope_sum(slope_sum),
        slope_parts(slope_sum),
        p_scale(static_cast<R>(scale * q_sum)),
        offset(static_cast<R>(scale * floor)) {}

  /** Where p is near 1 the sum is near G, so it comes in two parts. */
  template <class V>
  SURPRISAL_FN V value(V p, V slope) const {
    const V coupled = p * ((slope - V(slope_parts.head)) - V(slope_parts.tail));
    return multiply_add(coupled, V(static_cast<R>(factor)), multiply_add(p, V(p_scale), -V(offset)));
  }

  /** The divergence's part of the label's class, beside LinearGradient::label. */
  SURPRISAL_FN double label(double p, double slope) const { return factor * p * (slope - slope_sum); }
};

template <class R>
struct JensenShannon {
  static constexpr const char* name = "jsd";
  static constexpr Kind kind = Kind::row_group;
  static constexpr Denominator denominator = Denominator::samples;
  static constexpr const char* parameters[] = {"numSplits", "alpha", "smoothing"};
  static constexpr double lowest_mixture = 1e-7;
  using Gradient = JensenShannonGradient<R>;

  int splits;
  double factor;  // α/K, of the divergence
  CrossEntropy<R> cross_entropy;

  SURPRISAL_FN JensenShannon(const double* parameters, int64_t classes)
      : splits(static_cast<int>(parameters[0])),
        factor(parameters[1] / parameters[0]),
        cross_entropy(parameters + 2, classes) {}

  /** 1/m of a class, and the +1 of a clamped one. */
  template <class V>
  SURPRISAL_FN static void mixture(V mean, V& inverse, V& clamped) {
    const V lowest = V(static_cast<Scalar<V>>(lowest_mixture));
    clamped = select(mean < lowest, V(1), V(0));
    // NaN stays: maximum() would drop it.
    inverse = V(1) / maximum(mean, lowest) + (mean - mean);
  }

  /**
   * log(p/m), of which p times is the loss and which, clamped, is G. `excess` is p − m, summed from differences of
   * the rows' p, which are exact where these are close: the logarithm of the ratio then has all its digits, while
   * log p − log m would have lost them. Where p underflows p·log(p/m) is 0 in the limit, and so is this.
   */
  template <class V>
  SURPRISAL_FN static V log_of_ratio(V p, V excess, V inverse, V clamped) {
    const V smallest = V(Format<Scalar<V>>::smallest_normal);
    const V ratio = p * inverse;
    const V difference = select(clamped == V(0), excess * inverse, ratio - V(1));
    const V result = log_ratio(maximum(ratio, smallest), difference);
    return select(ratio < smallest, V(0), result) + (ratio - ratio);
  }
};
SURPRISAL_REGISTER(JensenShannon);

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
