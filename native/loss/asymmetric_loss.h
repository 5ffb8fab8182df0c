#pragma once

// Asymmetric losses (Ridnik et al. 2021, arXiv:2009.14119).

#include "loss.h"
#include "softmax.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/**
 * Multi-label, p = σ(x), n = min(1 − p + clip, 1), target y:
 *
 *   A = y·log max(p, ε) + (1 − y)·log max(n, ε),   W = (1 − y·p − (1 − y)·n)^(γ₊·y + γ₋·(1 − y)),   loss = −A·W
 *   dL/dp = −(A'·W + A·W'),   dL/dx = dL/dp·p·(1 − p)
 */
template <class R>
struct AsymmetricMultiLabel {
  static constexpr const char* name = "asymmetric_loss_multi_label";
  static constexpr Kind kind = Kind::elementwise;
  static constexpr Denominator denominator = Denominator::rows;
  static constexpr const char* parameters[] = {"gammaNeg", "gammaPos", "clip", "eps", "constantWeight"};

  double gamma_neg, gamma_pos, clip, eps;
  bool constant_weight;
  static constexpr double on = 1, off = 0;

  SURPRISAL_FN AsymmetricMultiLabel(const double* parameters, int64_t)
      : gamma_neg(parameters[0]),
        gamma_pos(parameters[1]),
        clip(parameters[2]),
        eps(parameters[3]),
        constant_weight(parameters[4] != 0) {}

  template <class V>
  SURPRISAL_FN V target(V given) const {
    return given;
  }

  template <bool kGrad, bool kPosWeight, class V>
  SURPRISAL_FN void evaluate(V x, V y, V /*y_tail*/, V /*pos_weight*/, V& loss, V& grad) const {
    using S = Scalar<V>;
    const V one(1), zero(0);
    const Logistic<V> sigma = logistic(x);
    const V p = sigma.p;
    // m = 1 − n, the shifted probability of a negative: 0 inside the margin.
    const V margin(static_cast<S>(clip));
    const V shifted_p = p - margin;
    const V m = maximum(shifted_p + sigma.p_tail, zero);
    const V m_tail = select(m == zero, zero, (shifted_p - m) + sigma.p_tail);
    const V n = select(m == zero, one, sigma.q + margin);
    const V not_y = one - y;

    // −log p and −log n from the logits where they are not clipped or shifted: all their digits.
    const V smallest = V(Format<S>::smallest_normal);
    const V floor = maximum(V(static_cast<S>(eps)), smallest);
    const V log_p = select(p < floor, logarithm(floor), -(maximum(-x, zero) + sigma.log1p_exp()));
    const V shifted = clip == 0 ? -(maximum(x, zero) + sigma.log1p_exp()) : log_ratio(maximum(n, floor), -(m + m_tail));
    const V log_n = select(n < floor, logarithm(floor), select(m == zero, zero, shifted));
    const V a = y * log_p + not_y * log_n;

    const bool focal = gamma_neg > 0 || gamma_pos > 0;
    const V base = y * sigma.q + not_y * m;
    const V gamma = y * V(static_cast<S>(gamma_pos)) + not_y * V(static_cast<S>(gamma_neg));
    const V w = focal ? weight(y, base, y * sigma.q_tail + not_y * m_tail, gamma) : one;
    loss = -(a * w) + (p - p);
    if constexpr (kGrad) {
      // A'·p·(1 − p) and (d base/dp)·p·(1 − p), each term without the factor that it divides by.
      const V outside_margin = select(m == zero, zero, one);
      const V da =
          select(p < floor, zero, y * sigma.q) - select(n < floor, zero, not_y * outside_margin * (p * (sigma.q / n)));
      V slope = da;
      if (focal && !constant_weight) {
        // dW = γ·base^(γ−1)·d base, taken as W·γ·d base/base; at base = 0 it is 0, as the clamp stops it there.
        const V dbase = (not_y * outside_margin - y) * (p * (sigma.q / maximum(base, smallest)));
        slope = slope + select(base < smallest, zero, (a * gamma) * dbase);
      }
      slope = slope * w;
      grad = -slope + (p - p);
    }
  }

 private:
  /** base^γ: by multiplication where γ is an integer, as it is for targets of 0 and 1 and the usual parameters. */
  template <class V>
  SURPRISAL_FN V weight(V y, V base, V base_tail, V gamma) const {
    constexpr double kMostByMultiplication = 16;
    const int n_pos = static_cast<int>(gamma_pos), n_neg = static_cast<int>(gamma_neg);
    const bool integers = n_pos == gamma_pos && n_neg == gamma_neg && gamma_pos <= kMostByMultiplication &&
                          gamma_neg <= kMostByMultiplication;
    const auto soft = both(y > V(0), y < V(1));
    if (!integers || any(soft)) return power_unit(base, gamma);
    return select(y == V(1), power_integer(base, base_tail, n_pos), power_integer(base, base_tail, n_neg));
  }
};
SURPRISAL_REGISTER(AsymmetricMultiLabel);

/**
 * Single label over a softmax, with targets t (label smoothing) and W_c = (1 − p_y)^γ₊ for the label, p_c^γ₋ else:
 *
 *   loss = −Σ t_c·W_c·log p_c
 *   g_c = ∂L/∂log p_c:  −t·W·(1 + γ₋·log p) for others;  −t·(W − log p·γ₊·p·(1 − p)^(γ₊−1)) for the label
 */
template <class R>
struct AsymmetricSingleLabel {
  static constexpr const char* name = "asymmetric_loss_single_label";
  static constexpr Kind kind = Kind::softmax_coupled;
  static constexpr Denominator denominator = Denominator::rows;
  static constexpr const char* parameters[] = {"gammaPos", "gammaNeg", "smoothing"};

  double gamma_pos, gamma_neg;
  double on, off;

  SURPRISAL_FN AsymmetricSingleLabel(const double* parameters, int64_t classes)
      : gamma_pos(parameters[0]), gamma_neg(parameters[1]) {
    off = parameters[2] / static_cast<double>(classes);
    on = 1 - parameters[2] + off;
  }

  template <class V>
  SURPRISAL_FN void other(V p, V log_p, V& loss, V& g) const {
    using S = Scalar<V>;
    const V gamma = V(static_cast<S>(gamma_neg));
    const V w = power_unit(p, gamma) * V(static_cast<S>(off));
    // A class that weighs nothing adds nothing: the limit of p^γ·log p at 0.
    const auto nothing = w == V(0);
    loss = select(nothing, V(0), -(w * log_p));
    g = select(nothing, V(0), -(w * (V(1) + gamma * log_p)));
  }

  SURPRISAL_FN void label(double p, double complement, double log_p, double& loss, double& g) const {
    const double w = gamma_pos == 0 ? 1 : pow(complement, gamma_pos);
    loss = on * w == 0 ? 0 : -(on * w * log_p);
    const double dw = gamma_pos == 0 || complement == 0 ? 0 : gamma_pos * p * pow(complement, gamma_pos - 1);
    g = -on * (w - (dw == 0 ? 0 : log_p * dw));
  }
};
SURPRISAL_REGISTER(AsymmetricSingleLabel);

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
