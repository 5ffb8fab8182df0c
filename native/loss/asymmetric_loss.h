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
  double floor, log_floor;
  static constexpr double on = 1, off = 0;

  SURPRISAL_FN AsymmetricMultiLabel(const double* parameters, int64_t)
      : gamma_neg(parameters[0]),
        gamma_pos(parameters[1]),
        clip(parameters[2]),
        eps(parameters[3]),
        constant_weight(parameters[4] != 0),
        floor(eps > Format<R>::smallest_normal ? static_cast<double>(static_cast<R>(eps)) : Format<R>::smallest_normal),
        log_floor(log(floor)) {}

  template <class V>
  SURPRISAL_FN V target(V given) const {
    return given;
  }

  /**
   * Each element by the formula that its own target asks for, so that it comes out the same among any neighbours: of
   * targets of 0 and 1 only one half of the sums is left. A half that no lane asks for is skipped.
   */
  template <bool kGrad, bool kPosWeight, class V>
  SURPRISAL_FN void evaluate(V x, V y, V /*y_tail*/, V /*pos_weight*/, V& loss, V& grad) const {
    const V zero(0), one(1);
    const Logistic<V> sigma = logistic(x);
    negative<kGrad>(x, sigma, loss, grad);
    const auto is_positive = y == one;
    if (any(is_positive)) {
      V positive_loss, positive_grad;
      positive<kGrad>(x, sigma, positive_loss, positive_grad);
      loss = select(is_positive, positive_loss, loss);
      if constexpr (kGrad) grad = select(is_positive, positive_grad, grad);
    }
    const V hardness = absolute(y * (one - y));
    if (any(hardness > zero)) [[unlikely]] {
      V soft_loss, soft_grad;
      soft<kGrad>(x, y, sigma, soft_loss, soft_grad);
      loss = select(hardness > zero, soft_loss, loss);
      if constexpr (kGrad) grad = select(hardness > zero, soft_grad, grad);
    }
    // NaN of a logit or a target stays NaN.
    const V number = (sigma.p - sigma.p) + (y - y);
    loss = loss + number;
    if constexpr (kGrad) grad = grad + number;
  }

 private:
  SURPRISAL_FN bool focal() const { return gamma_neg > 0 || gamma_pos > 0; }

  /** m = 1 − n, the shifted probability of a negative: 0 inside the margin. */
  template <class V>
  struct Shifted {
    V m, m_tail, n, log_n;
  };

  template <class V>
  SURPRISAL_FN Shifted<V> shifted(V x, const Logistic<V>& sigma) const {
    using S = Scalar<V>;
    const V zero(0), least(static_cast<S>(floor)), margin(static_cast<S>(clip));
    const V p = sigma.p - margin;
    const V m = maximum(p + sigma.p_tail, zero);
    const V m_tail = select(m == zero, zero, (p - m) + sigma.p_tail);
    const V n = select(m == zero, V(1), sigma.q + margin);
    // From the logits where nothing is shifted: all their digits.
    V log_n;
    if (clip == 0) {
      log_n = -(maximum(x, zero) + sigma.log1p_exp());
    } else {
      log_n = log_ratio(maximum(n, least), -(m + m_tail));
    }
    log_n = select(n < least, V(static_cast<S>(log_floor)), select(m == zero, zero, log_n));
    return {m, m_tail, n, log_n};
  }

  /** log p, from the logits where it is not clipped. */
  template <class V>
  SURPRISAL_FN V log_p(V x, const Logistic<V>& sigma) const {
    using S = Scalar<V>;
    return select(sigma.p < V(static_cast<S>(floor)), V(static_cast<S>(log_floor)),
                  -(maximum(-x, V(0)) + sigma.log1p_exp()));
  }

  /** y = 0: A = log n, W = m^γ₋; (1 − p)/n is 1 where nothing is shifted. */
  template <bool kGrad, class V>
  SURPRISAL_FN void negative(V x, const Logistic<V>& sigma, V& loss, V& grad) const {
    using S = Scalar<V>;
    const V zero(0), least(static_cast<S>(floor));
    const Shifted<V> s = shifted(x, sigma);
    const V w = weight(s.m, s.m_tail, gamma_neg);
    loss = -(s.log_n * w);
    if constexpr (kGrad) {
      const V ratio = clip == 0 ? sigma.p : sigma.p * (sigma.q * reciprocal(s.n));
      V slope = select(s.n < least, zero, -ratio);
      if (focal() && !constant_weight) slope = slope + s.log_n * weight_slope(s.m, sigma, gamma_neg);
      grad = select(s.m == zero, zero, -(slope * w));
    }
  }

  /** y = 1: A = log p, W = (1 − p)^γ₊ */
  template <bool kGrad, class V>
  SURPRISAL_FN void positive(V x, const Logistic<V>& sigma, V& loss, V& grad) const {
    using S = Scalar<V>;
    const V zero(0), smallest(Format<S>::smallest_normal);
    const V a = log_p(x, sigma);
    const V w = weight(sigma.q, sigma.q_tail, gamma_pos);
    loss = -(a * w);
    if constexpr (kGrad) {
      V slope = select(sigma.p < V(static_cast<S>(floor)), zero, sigma.q);
      if (focal() && !constant_weight) {
        slope = slope - select(sigma.q < smallest, zero, (a * V(static_cast<S>(gamma_pos))) * sigma.p);
      }
      grad = -(slope * w);
    }
  }

  /** Any y: both halves, each by its share. */
  template <bool kGrad, class V>
  SURPRISAL_FN void soft(V x, V y, const Logistic<V>& sigma, V& loss, V& grad) const {
    using S = Scalar<V>;
    const V zero(0), one(1), least(static_cast<S>(floor)), smallest(Format<S>::smallest_normal);
    const Shifted<V> s = shifted(x, sigma);
    const V not_y = one - y;
    const V a = y * log_p(x, sigma) + not_y * s.log_n;
    const V base = y * sigma.q + not_y * s.m;
    const V gamma = y * V(static_cast<S>(gamma_pos)) + not_y * V(static_cast<S>(gamma_neg));
    const V w = focal() ? power_unit(base, gamma) : one;
    loss = -(a * w);
    if constexpr (kGrad) {
      // A'·p·(1 − p) and (d base/dp)·p·(1 − p), each term without the factor that it divides by.
      const V outside_margin = select(s.m == zero, zero, not_y);
      V slope = select(sigma.p < least, zero, y * sigma.q) -
                select(s.n < least, zero, outside_margin * (sigma.p * (sigma.q / s.n)));
      if (focal() && !constant_weight) {
        // dW = γ·base^(γ−1)·d base, taken as W·γ·d base/base; at base = 0 it is 0, as the clamp stops it there.
        const V dbase = (outside_margin - y) * (sigma.p * (sigma.q / maximum(base, smallest)));
        slope = slope + select(base < smallest, zero, (a * gamma) * dbase);
      }
      grad = -(slope * w);
    }
  }

  /** γ·p·(1 − p)/m: dm^γ/dx without m^γ. */
  template <class V>
  SURPRISAL_FN V weight_slope(V m, const Logistic<V>& sigma, double gamma) const {
    using S = Scalar<V>;
    const V smallest(Format<S>::smallest_normal);
    const V slope = (sigma.p * (sigma.q * reciprocal(maximum(m, smallest)))) * V(static_cast<S>(gamma));
    return select(m < smallest, V(0), slope);
  }

  /** base^γ: by multiplication where γ is an integer, as usual. */
  template <class V>
  SURPRISAL_FN V weight(V base, V base_tail, double gamma) const {
    constexpr double kMostByMultiplication = 16;
    const int n = static_cast<int>(gamma);
    if (n != gamma || gamma > kMostByMultiplication) return power_unit(base, V(static_cast<Scalar<V>>(gamma)));
    switch (n) {
      case 0:
        return V(1);
      case 1:
        return base + base_tail;
      case 2:
        return power_integer(base, base_tail, 2);
      case 4:
        return power_integer(base, base_tail, 4);
      default:
        return power_integer(base, base_tail, n);
    }
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
    const V w = power_unit_uniform(p, gamma_neg) * V(static_cast<S>(off));
    // A class that weighs nothing adds nothing: the limit of p^γ·log p at 0.
    const auto nothing = w == V(0);
    loss = select(nothing, V(0), -(w * log_p));
    g = select(nothing, V(0), -(w * (V(1) + gamma * log_p)));
  }

  template <class Number>
  SURPRISAL_FN void label(Number p, Number complement, Number log_p, Number& loss, Number& g) const {
    const Number zero(0);
    const Number power = power_unit_uniform(complement, gamma_pos);
    const Number w = power * Number(on);
    loss = select(w == zero, zero, -(w * log_p));
    const Number dw = select(complement == zero, zero, w * Number(gamma_pos) * p / complement);
    g = select(dw == zero, zero, log_p * dw) - w;
  }
};
SURPRISAL_REGISTER(AsymmetricSingleLabel);

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
