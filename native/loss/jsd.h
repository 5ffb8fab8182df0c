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

template <class R>
struct JensenShannon {
  static constexpr const char* name = "jsd";
  static constexpr Kind kind = Kind::row_group;
  static constexpr Denominator denominator = Denominator::samples;
  static constexpr const char* parameters[] = {"numSplits", "alpha", "smoothing"};
  static constexpr double lowest_mixture = 1e-7;

  int splits;
  double factor;  // α/K, of the divergence
  CrossEntropy<R> cross_entropy;

  SURPRISAL_FN JensenShannon(const double* parameters, int64_t classes)
      : splits(static_cast<int>(parameters[0])),
        factor(parameters[1] / parameters[0]),
        cross_entropy(parameters + 2, classes) {}

  /** log m of a class, and the +1 of a clamped one. */
  template <class V>
  SURPRISAL_FN static void mixture(V mean, V& log_m, V& clamped) {
    const V lowest = V(static_cast<Scalar<V>>(lowest_mixture));
    clamped = select(mean < lowest, V(1), V(0));
    // NaN stays: maximum() would drop it.
    log_m = logarithm(maximum(mean, lowest)) + (mean - mean);
  }

  /** p·(log p − log m); its limit 0 where p underflows. */
  template <class V>
  SURPRISAL_FN static V divergence(V p, V log_p, V log_m) {
    return select(p == V(0), V(0), p * (log_p - log_m));
  }

  /** p·G */
  template <class V>
  SURPRISAL_FN static V slope(V p, V log_p, V log_m, V clamped) {
    return select(p == V(0), V(0), p * ((log_p - log_m) + clamped));
  }
};
SURPRISAL_REGISTER(JensenShannon);

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
