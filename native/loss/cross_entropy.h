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

/** What q is multiplied by in Σ q·(m − z): m − z = −d, or 0 for a class that is no target, though it be masked. */
template <class V>
SURPRISAL_FN V distance(V q, V d) {
  return select(q == V(0), V(0), -d);
}

/** The class y of a hard label, apart from what is spread: its share of q, and its place in the row. */
template <class Number = double>
struct Label {
  Number share;  // w_y·mass
  Number d;      // z_y − m
  Number e;      // e^d
};

/** Loss of a row from log S, from Σ q and Σ q·(m − z) of the spread part, and from the label's share. */
template <class Number>
SURPRISAL_FN Number linear_loss(Number log_sum, Number q_sum, Number dot, const Label<Number>& label) {
  const Number own = select(label.share == Number(0), Number(0), label.share * -label.d);
  return (q_sum + label.share) * log_sum + (dot + own);
}

/** The same, for whoever takes the logarithms of several rows together later. */
struct LinearLoss {
  double rest = 0, mass = 0, dot = 0;

  LinearLoss() = default;
  /** One that is known already. */
  SURPRISAL_FN explicit LinearLoss(double loss) : dot(loss) {}
  SURPRISAL_FN LinearLoss(const RowSums<>& row, double q_sum, double dot, const Label<>& label)
      : rest(row.rest), mass(q_sum + label.share), dot(dot + select(label.share == 0, 0, label.share * -label.d)) {}

  SURPRISAL_FN double value() const { return mass * log_sum_of(rest) + dot; }
};

/** dL/dz of a class that is not a hard label, from factors made once a row. */
template <class S>
struct LinearGradient {
  using Number = InDouble<S>;

  S scale;
  S p_scale;          // scale·Q/S, times e gives scale·Q·p
  Split<S> p_factor;  // Q/S

  LinearGradient() = default;
  SURPRISAL_FN LinearGradient(const RowSums<Number>& row, Number q_sum, Number scale)
      : scale(rounded<S>(scale)), p_scale(rounded<S>(scale * q_sum * row.inverse())), p_factor(q_sum * row.inverse()) {}

  /** scale·(Q·p − q): where a target is nearly met little is left, so both come in two parts. */
  template <Spread spread, class V>
  SURPRISAL_FN V value(V e, Parts<V> q) const {
    if constexpr (spread == Spread::none) return e * V(p_scale);
    const V tails = multiply_add(e, V(p_factor.tail), -q.tail);
    return (tails - residual(q.head, e, V(p_factor.head))) * V(scale);
  }

  /** The label's: (Q − q_y) − Q·(1 − p_y). */
  SURPRISAL_FN static Number label(const RowSums<Number>& row, Number q_sum, Number q_label, Number e, Number scale) {
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

  static constexpr int passes = 0;
  SURPRISAL_FN static constexpr int parts(int /*pass*/, bool /*grad*/) { return 0; }

  bool log_target;
  static constexpr double on = 1, off = 0;

  SURPRISAL_FN KLDivergence(const double* parameters, int64_t) : log_target(parameters[0] != 0) {}

  template <class V>
  SURPRISAL_FN V target(V given) const {
    return given;
  }

  template <bool kGrad, bool kPosWeight, class V>
  SURPRISAL_FN void evaluate(const V* /*part*/, V x, V target, V /*target_tail*/, V /*pos_weight*/, V& loss,
                             V& grad) const {
    const V smallest = V(Format<Scalar<V>>::smallest_normal);
    const V t = log_target ? exponential(target) : target;
    const V difference = log_target ? target - x : logarithm_less(maximum(t, smallest), x);
    // A target of 0 adds nothing, if x is a number at all; a negative one has no logarithm.
    const V nothing = select(x == x, t * V(0), x);
    const V value = select(absolute(t) < smallest, nothing, t * difference);
    loss = select(t < V(0), V(static_cast<Scalar<V>>(NAN)), value);
    if constexpr (kGrad) grad = -t;
  }
};
SURPRISAL_REGISTER(KLDivergence);

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
