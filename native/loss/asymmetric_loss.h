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
 *
 * Where y is 0 or 1, both halves are one function of z = x or −x and the margin m = clip or 0: with the probability of
 * what is false, less the margin, b = max(σ(z) − m, 0),
 *
 *   loss = −log max(1 − b, ε)·b^γ,   dL/dz = (b^γ/(1 − b) − log(1 − b)·γ·b^(γ−1))·σ(z)·σ(−z)
 */
template <class R>
struct AsymmetricMultiLabel {
  static constexpr const char* name = "asymmetric_loss_multi_label";
  static constexpr Kind kind = Kind::elementwise;
  static constexpr Denominator denominator = Denominator::rows;
  static constexpr const char* parameters[] = {"gammaNeg", "gammaPos", "clip", "eps", "constantWeight"};

  static constexpr double on = 1, off = 0;

  SURPRISAL_FN AsymmetricMultiLabel(const double* parameters, int64_t)
      : clip(static_cast<R>(parameters[2])),
        floor(parameters[3] > Format<R>::smallest_normal ? static_cast<R>(parameters[3]) : Format<R>::smallest_normal),
        log_floor(static_cast<R>(log(static_cast<double>(floor)))),
        most_odds(1 / floor),
        gamma_neg(parameters[0], parameters[4] != 0),
        gamma_pos(parameters[1], parameters[4] != 0) {}

  template <class V>
  SURPRISAL_FN V target(V given) const {
    return given;
  }

  // loss = l·weight and dL/dx = slope + l·log_slope with l = −log max(1 − b, ε), from 1/(1 − b) and b/(1 − b).
  enum Part { t, odds, odds_less_one, weight, slope, log_slope };
  static constexpr int passes = 2;
  SURPRISAL_FN static constexpr int parts(int pass, bool grad) { return pass < 2 ? pass : grad ? 6 : 4; }

  template <int pass, bool kGrad, class V>
  SURPRISAL_FN void prepare(V x, V y, V* part) const {
    if constexpr (pass == 0) {
      part[t] = exponential(-absolute(x));
    } else {
      labelled<kGrad>(x, y, part);
    }
  }

  template <bool kGrad, bool kPosWeight, class V>
  SURPRISAL_FN void evaluate(const V* part, V /*x*/, V /*y*/, V /*y_tail*/, V /*pos_weight*/, V& loss, V& grad) const {
    const V l = minimum(V(-log_floor), log_at_least_one(part[odds], part[odds_less_one]));
    loss = l * part[weight];
    if constexpr (kGrad) grad = multiply_add(l, part[log_slope], part[slope]);
  }

 private:
  /** An exponent γ, the same for many elements. */
  struct Exponent {
    static constexpr int kMostByMultiplication = 16;

    R value;
    R slope;      // γ, or 0 where the weight is held constant
    int integer;  // γ where multiplication will do, else −1

    SURPRISAL_FN Exponent(double gamma, bool constant)
        : value(static_cast<R>(gamma)),
          slope(constant ? R(0) : static_cast<R>(gamma)),
          integer(gamma <= kMostByMultiplication && gamma == static_cast<int>(gamma) ? static_cast<int>(gamma) : -1) {}
  };

  R clip, floor, log_floor, most_odds;
  Exponent gamma_neg, gamma_pos;

  /** Each element by the formula that its own target asks for, so that it comes out the same among any neighbours. */
  template <bool kGrad, class V>
  SURPRISAL_FN void labelled(V x, V y, V* part) const {
    const V zero(0), one(1);
    const auto is_positive = y == one;
    hard<kGrad>(x, is_positive, part);
    const auto is_hard = either(is_positive, y == zero);
    if (!all(is_hard)) [[unlikely]] {
      V loss, grad;
      soft<kGrad>(x, part[t], y, loss, grad);
      // l = log 2, unless ε is larger than ½.
      part[odds] = select(is_hard, part[odds], V(2));
      part[weight] = select(is_hard, part[weight], loss / minimum(V(-log_floor), V(Format<R>::ln2)));
      if constexpr (kGrad) {
        part[slope] = select(is_hard, part[slope], grad);
        part[log_slope] = select(is_hard, part[log_slope], zero);
      }
    }
  }

  /** b^γ and γ·b^(γ−1) */
  template <class V>
  struct Power {
    V value, slope;
  };

  template <class V>
  SURPRISAL_FN static Power<V> power(V b, V b_tail, const Exponent& gamma) {
    using S = Scalar<V>;
    const V zero(0), factor(gamma.slope);
    // Where b = 0 the logarithm is 0, and the margin lets no gradient pass.
    if (gamma.integer == 0) return {select(b > zero, V(1), b), zero};
    const V whole = b + b_tail;
    if (gamma.integer == 1) return {whole, factor};
    const V square_head = b * b;
    const V square = square_head + multiply_add(b + b, b_tail, -residual(square_head, b, b));
    if (gamma.integer == 2) return {square, factor * whole};
    if (gamma.integer == 4) return {square * square, factor * (square * whole)};
    const V smallest(Format<S>::smallest_normal);
    const V value = gamma.integer > 0 ? power_integer(b, b_tail, gamma.integer) : power_unit(b, V(gamma.value));
    const V slope = (value * reciprocal(maximum(b, smallest))) * factor;
    return {value, select(b < smallest, zero, slope)};
  }

  /** y = 0 or 1: b, 1 − b and their like as fractions with the denominator 1 + t, which comes last. */
  template <bool kGrad, class V, class Mask>
  SURPRISAL_FN void hard(V x, Mask is_positive, V* part) const {
    using S = Scalar<V>;
    const V zero(0), one(1), smallest(Format<S>::smallest_normal);
    const V z = select(is_positive, -x, x);
    const V margin = select(is_positive, zero, V(clip));
    const V sum = one + part[t];
    const V sum_tail = part[t] - (sum - one);
    const V inverse = reciprocal(sum);
    const auto is_false = z > zero;
    const V head = residual(select(is_false, one, part[t]), margin, sum);
    const V excess = maximum(zero, residual(head, margin, sum_tail));
    const V rest = maximum(smallest, multiply_add(margin, sum, select(is_false, part[t], one)));
    const V rest_inverse = reciprocal(rest);
    // 1 inside the margin.
    part[odds] = maximum(one, sum * rest_inverse);
    part[odds_less_one] = excess * rest_inverse;
    const V b = excess * inverse;
    const V b_tail = residual(residual(excess, b, sum), b, sum_tail) * inverse;
    const auto of_negative = power(b, b_tail, gamma_neg);
    auto of_positive = of_negative;  // Positives are few.
    if (any(is_positive)) of_positive = power(b, b_tail, gamma_pos);
    part[weight] = select(is_positive, of_positive.value, of_negative.value);
    if constexpr (kGrad) {
      const V smaller = part[t] * inverse;
      const V factor = select(is_positive, -smaller, smaller);
      part[slope] = factor * (select(part[odds] > V(most_odds), zero, rest_inverse) * part[weight]);
      part[log_slope] = factor * (inverse * select(is_positive, of_positive.slope, of_negative.slope));
    }
  }

  /** Any y: both halves, each by its share. */
  template <bool kGrad, class V>
  SURPRISAL_FN void soft(V x, V t, V y, V& loss, V& grad) const {
    using S = Scalar<V>;
    const V zero(0), one(1), least(floor), log_least(log_floor), smallest(Format<S>::smallest_normal), margin(clip);
    const Logistic<V> sigma = logistic(x, t);
    const V m = maximum(zero, (sigma.p - margin) + sigma.p_tail);
    const V n = minimum(one, sigma.q + margin);
    const V log_p = maximum(log_least, -(maximum(-x, zero) + sigma.log1p_exp()));
    const V log_n =
        maximum(log_least, clip == 0 ? -(maximum(x, zero) + sigma.log1p_exp()) : log_ratio(maximum(least, n), -m));
    const V not_y = one - y;
    const V a = y * log_p + not_y * log_n;
    const V base = y * sigma.q + not_y * m;
    const V gamma = y * V(gamma_pos.value) + not_y * V(gamma_neg.value);
    const V w = power_unit(base, gamma);
    loss = -(a * w);
    if constexpr (kGrad) {
      // A'·p·(1 − p) and (d base/dp)·p·(1 − p), each term without the factor that it divides by.
      const V outside_margin = select(m == zero, zero, not_y);
      V slope = select(sigma.p < least, zero, y * sigma.q) -
                select(n < least, zero, outside_margin * (sigma.p * (sigma.q / n)));
      // dW = γ·base^(γ−1)·d base, taken as W·γ·d base/base; at base = 0 it is 0, as the clamp stops it there.
      const V held = y * V(gamma_pos.slope) + not_y * V(gamma_neg.slope);
      const V dbase = (outside_margin - y) * (sigma.p * (sigma.q / maximum(base, smallest)));
      slope = slope + select(base < smallest, zero, (a * held) * dbase);
      grad = -(slope * w);
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
  R lowest;  // p of others, below which they weigh nothing

  SURPRISAL_FN AsymmetricSingleLabel(const double* parameters, int64_t classes)
      : gamma_pos(parameters[0]), gamma_neg(parameters[1]) {
    off = parameters[2] / static_cast<double>(classes);
    on = 1 - parameters[2] + off;
    // Where t·p^γ would come near the numbers that are not normal: CPUs take a hundred times as long over those. 2^20
    // leaves room for the factors to come.
    const double least = 0x1p20 * Format<R>::smallest_normal / (off > 0 ? off : 1);
    lowest = gamma_neg == 0 ? R(0) : static_cast<R>(exp(log(least < 1 ? least : 1) / gamma_neg));
  }

  template <class V>
  SURPRISAL_FN void other(V p, V log_p, V& loss, V& g) const {
    using S = Scalar<V>;
    const V gamma = V(static_cast<S>(gamma_neg));
    const V w = power_unit_uniform(zero_below(p, V(lowest), p), gamma_neg) * V(static_cast<S>(off));
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
