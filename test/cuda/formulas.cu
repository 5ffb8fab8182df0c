// Proof that the formulas of native/loss compile for the device as they stand: each is instantiated in a kernel, in
// float and double. Compiled by `npm run check:nvcc`, never run; parity is the CUDA backend's tests' matter.

#define SURPRISAL_TARGET device
#include "../../native/loss/registry.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class F, class R>
__device__ R use(const double* parameters, R x, R y, int classes) {
  if constexpr (F::kind == Kind::row_map) {
    if constexpr (F::backward) {
      return F::map(x, F::weight(y), Split<R>(F::centre(x, y)));
    } else {
      return F::map(x, exponential(x), x, Split<R>(y));
    }
  } else {
    const F formula(parameters, classes);
    const RowSums row(x, y, 1);
    if constexpr (F::kind == Kind::softmax_linear) {
      R maxima = 0;
      const R q = spread_target<Spread::weighted_dense>(R(formula.floor), R(formula.mass), x, y);
      const LinearGradient<R> gradient(row, q, 1);
      const double label = LinearGradient<R>::label(row, q, q, y, 1);
      return R(linear_loss(row, q, surprisal_term(q, x), {q, x, y})) + gradient.template value<Spread::dense>(y, q) +
             rest_term(x, y, shifted_exponential(x, y, x - y), maxima) + negative_entropy_term(q) + R(label);
    } else if constexpr (F::kind == Kind::softmax_coupled) {
      R loss, g;
      double label_loss, label_g;
      formula.other(x, y, loss, g);
      formula.label(x, y, x, label_loss, label_g);
      return loss + g + R(label_loss + label_g);
    } else if constexpr (F::kind == Kind::row_group) {
      R inverse, clamped;
      F::mixture(x, inverse, clamped);
      const R slope = F::log_of_ratio(x, y, inverse, clamped);
      return F::gradient(x, slope, Split<R>(formula.factor)) + times(slope, Split<R>(y));
    } else if constexpr (F::kind == Kind::elementwise) {
      R loss, g;
      formula.template evaluate<true, true>(x, formula.target(y), y, R(formula.on), loss, g);
      return loss + g + R(formula.off);
    } else {
      return R(formula.value(x, y) + formula.slope(y));
    }
  }
}

template <class R, int index>
__device__ void use_place(const double* parameters, R* values, int classes) {
  if constexpr (Registered<index>::present) {
    using F = typename Registered<index>::template Formula<R>;
    values[index] = use<F, R>(parameters, values[index], values[index + 1], classes);
  }
  if constexpr (index + 1 < kRegistrySize) use_place<R, index + 1>(parameters, values, classes);
}

__global__ void use_all(const double* parameters, float* floats, double* doubles, int classes) {
  use_place<float, 0>(parameters, floats, classes);
  use_place<double, 0>(parameters, doubles, classes);
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
