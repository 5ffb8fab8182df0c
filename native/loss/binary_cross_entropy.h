#pragma once

// Binary cross entropy of logits, x = z_c with target y, u the factor of positives:
//
//   loss  = u·y·(−log σ(x)) + (1 − y)·(−log(1 − σ(x)))
//   dL/dx = (1 − y)·σ(x) − u·y·(1 − σ(x)), which is σ(x) − y for u = 1
//
// with −log σ(x) = max(−x, 0) + log(1 + e^−|x|).

#include "loss.h"
#include "math.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class R>
struct BinaryCrossEntropy {
  static constexpr const char* name = "binary_cross_entropy";
  static constexpr Kind kind = Kind::elementwise;
  static constexpr Denominator denominator = Denominator::elements;
  static constexpr const char* parameters[] = {"smoothing", "targetThreshold"};
  static constexpr bool has_pos_weight = true;

  double threshold;  // NaN: none
  double on, off;    // targets of the label and of every other class

  SURPRISAL_FN BinaryCrossEntropy(const double* parameters, int64_t classes) : threshold(parameters[1]) {
    const double floor = parameters[0] / static_cast<double>(classes);
    on = cut(1 - parameters[0] + floor);
    off = cut(floor);
  }

  SURPRISAL_FN double cut(double y) const { return threshold != threshold ? y : (y > threshold ? 1 : 0); }

  template <class V>
  SURPRISAL_FN V target(V given) const {
    if (threshold != threshold) return given;
    return select(given > V(static_cast<Scalar<V>>(threshold)), V(1), V(0));
  }

  enum Part { t };
  static constexpr int passes = 1;
  SURPRISAL_FN static constexpr int parts(int pass, bool /*grad*/) { return pass; }

  template <int pass, bool kGrad, class V>
  SURPRISAL_FN void prepare(V x, V /*y*/, V* part) const {
    part[t] = exponential(-absolute(x));
  }

  template <bool kGrad, bool kPosWeight, class V>
  SURPRISAL_FN void evaluate(const V* part, V x, V y, V y_tail, V pos_weight, V& loss, V& grad) const {
    if constexpr (kPosWeight) {
      weighted<kGrad>(x, part[t], y, y_tail, pos_weight, loss, grad);
    } else {
      plain<kGrad>(x, part[t], y, y_tail, loss, grad);
    }
  }

 private:
  /** u = 1: log(1 + t) + |x|·(1 − y or y, against which x speaks), with t = e^−|x|. */
  template <bool kGrad, class V>
  SURPRISAL_FN void plain(V x, V t, V y, V y_tail, V& loss, V& grad) const {
    const V zero(0), one(1);
    const V size = absolute(x);
    const V log1p_exp = log1p_unit(t);
    const auto positive = x > zero;
    // A target that is met adds nothing, even where its logit is infinite.
    const V against = select(positive, one - y, y);
    loss = select(against == zero, log1p_exp, multiply_add(size, against, log1p_exp));
    if constexpr (kGrad) {
      // σ(x) − y over the denominator 1 + t: a target that is nearly met leaves little, of which no digit was lost.
      const V sum = one + t;
      const V sum_tail = t - (sum - one);
      const V head = residual(select(positive, one, t), y, sum);
      grad = residual(residual(head, y, sum_tail), y_tail, sum) * reciprocal(sum);
    }
  }

  /** Any u. */
  template <bool kGrad, class V>
  SURPRISAL_FN void weighted(V x, V t, V y, V y_tail, V pos_weight, V& loss, V& grad) const {
    const Logistic<V> sigma = logistic(x, t);
    const V not_y = V(1) - y;
    const V positive = pos_weight * y;
    const V log1p_exp = sigma.log1p_exp();
    // A side that weighs nothing adds nothing, even where its logarithm is infinite.
    loss = select(positive == V(0), V(0), positive * (maximum(-x, V(0)) + log1p_exp)) +
           select(not_y == V(0), V(0), not_y * (maximum(x, V(0)) + log1p_exp)) + (sigma.p - sigma.p);
    if constexpr (kGrad) {
      // p·s − u·y with s = 1 + (u − 1)·y: a target that is met leaves little, so every part carries its tail.
      const V excess = pos_weight - V(1);
      const V product = excess * y;
      const V s = V(1) + product;
      const V s_tail = difference_tail(V(1), -product, s) - residual(product, excess, y);
      const V tails = (sigma.p_tail * s + sigma.p * s_tail) + residual(positive, pos_weight, y) +
                      y_tail * (excess * sigma.p - pos_weight);
      grad = tails - residual(positive, sigma.p, s);
    }
  }
};
SURPRISAL_REGISTER(BinaryCrossEntropy);

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
