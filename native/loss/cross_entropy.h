#pragma once

// Cross entropy with any target view q (target.h), linear in log p. With Q = Σq and RowSums of softmax.h:
//
//   loss   = Σ q_c·(−log p_c) = Q·log1p(rest) + Σ q_c·(m − z_c)
//   dL/dz  = Q·p − q
//
// The lens's KL divergence adds the constant Σ q·log q of its row.

#include "softmax.h"
#include "target.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class R>
struct CrossEntropy {
  static constexpr const char* name = "cross_entropy";
  static constexpr Kind kind = Kind::softmax_linear;
  static constexpr Denominator denominator = Denominator::weights;
  static constexpr const char* parameters[] = {"smoothing"};

  double floor;
  double mass;

  SURPRISAL_FN CrossEntropy(const double* parameters, int64_t classes)
      : floor(parameters[0] / static_cast<double>(classes)), mass(1 - parameters[0]) {}
};
SURPRISAL_REGISTER(CrossEntropy);

/** q·(m − z), d = z − m; a masked class (z = −∞) that is no target adds nothing. */
template <class V>
SURPRISAL_FN V surprisal_term(V q, V d) {
  return select(q == V(0), V(0), -(q * d));
}

/** The class y of a hard label, apart from what is spread: its share of q, and its place in the row. */
struct Label {
  double share;  // w_y·mass
  double d;      // z_y − m
  double e;      // e^d
};

/** Loss of a row from Σ q and Σ q·(m − z) of the spread part and the label's share. */
SURPRISAL_FN double linear_loss(const RowSums& row, double q_sum, double dot, const Label& label) {
  const double own = label.share == 0 ? 0 : label.share * -label.d;
  return (q_sum + label.share) * row.log_sum() + (dot + own);
}

/** dL/dz of a class that is not a hard label, from factors made once a row. */
template <class R>
struct LinearGradient {
  R scale;
  R p_scale;          // scale·Q/S, times e gives scale·Q·p
  Split<R> p_factor;  // Q/S
  Split<R> missing;   // Q·(1 − p) of the maximum's class, less Q
  R top;              // e of that class, where more than half of p is its

  SURPRISAL_FN LinearGradient(const RowSums& row, double q_sum, double scale)
      : scale(static_cast<R>(scale)),
        p_scale(static_cast<R>(scale * q_sum * row.inverse())),
        p_factor(q_sum * row.inverse()),
        missing(q_sum * row.rest * row.inverse() - q_sum),
        top(row.rest < 1 ? R(1) : R(2)) {}

  /**
   * scale·(Q·p − q). A dense target may be as large as p in any class, so the difference is taken before anything is
   * rounded: (e·Q/S − q), the factor in two parts; for the class that holds most of p, −q − (Q·(1 − p) − Q).
   */
  template <Spread spread, class V>
  SURPRISAL_FN V value(V e, V q) const {
    if constexpr (spread == Spread::none) return e * V(p_scale);
    if constexpr (!is_dense(spread)) return e * V(p_scale) - q * V(scale);
    const V difference = e * V(p_factor.tail) - residual(q, e, V(p_factor.head));
    const V at_top = (V(-missing.head) - q) - V(missing.tail);
    return select(e == V(top), at_top, difference) * V(scale);
  }

  /** The label's: (Q − q_y) − Q·(1 − p_y). */
  SURPRISAL_FN static double label(const RowSums& row, double q_sum, double q_label, double e, double scale) {
    return scale * ((q_sum - q_label) - q_sum * row.complement(e));
  }
};

/** Negative log likelihood of log probabilities: −w_y·x_y. */
template <class R>
struct NegativeLogLikelihood {
  static constexpr const char* name = "nll";
  static constexpr Kind kind = Kind::gather;
  static constexpr Denominator denominator = Denominator::weights;

  SURPRISAL_FN NegativeLogLikelihood(const double*, int64_t) {}

  SURPRISAL_FN double value(double x, double weight) const { return weight == 0 ? 0 : -(weight * x); }
  SURPRISAL_FN double slope(double weight) const { return -weight; }
};
SURPRISAL_REGISTER(NegativeLogLikelihood);

/** Kullback-Leibler divergence of a target from log probabilities x: t·(log t − x), or e^t·(t − x) for log targets. */
template <class R>
struct KLDivergence {
  static constexpr const char* name = "kl_div";
  static constexpr Kind kind = Kind::elementwise;
  static constexpr Denominator denominator = Denominator::elements;
  static constexpr const char* parameters[] = {"logTarget"};

  bool log_target;
  static constexpr double on = 1, off = 0;

  SURPRISAL_FN KLDivergence(const double* parameters, int64_t) : log_target(parameters[0] != 0) {}

  template <class V>
  SURPRISAL_FN V target(V given) const {
    return given;
  }

  template <bool kGrad, bool kPosWeight, class V>
  SURPRISAL_FN void evaluate(V x, V target, V /*target_tail*/, V /*pos_weight*/, V& loss, V& grad) const {
    const V smallest = V(Format<Scalar<V>>::smallest_normal);
    const V t = log_target ? exponential(target) : target;
    const V log_t = log_target ? target : logarithm(maximum(t, smallest));
    // A target of 0 adds nothing, if x is a number at all; a negative one has no logarithm.
    const V nothing = select(x == x, t * V(0), x);
    const V value = select(absolute(t) < smallest, nothing, t * (log_t - x));
    loss = select(t < V(0), (t - t) / (t - t), value);
    if constexpr (kGrad) grad = -t;
  }
};
SURPRISAL_REGISTER(KLDivergence);

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
