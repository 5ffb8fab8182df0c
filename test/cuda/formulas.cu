// Proof that the formulas of native/loss compile for the device as they stand: each is instantiated in a kernel, in
// float and double. Compiled by `npm run check:nvcc`, never run; parity is the CUDA backend's tests' matter.

#define SURPRISAL_TARGET device
#include "../../native/loss/classification.h"
#include "../../native/loss/registry.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class F, class R>
__device__ R use(const double* parameters, R x, R y, int classes) {
  if constexpr (F::kind == Kind::row_map) {
    if constexpr (F::backward) {
      return F::map(x, F::weight(F::probability(y)), Split<R>(normaliser(y)));
    } else {
      return F::map(x, exponential(x), x, Split<R>(y));
    }
  } else {
    const F formula(parameters, classes);
    // A row's numbers are double, whatever its elements are.
    const double a = x, b = y;
    const RowSums<> row(a, b, 1);
    if constexpr (F::kind == Kind::softmax_linear) {
      const Parts<R> q = spread_target<Spread::mixed>(Split<R>(formula.floor), Split<R>(formula.mass), x, y);
      const LinearGradient<R> gradient(row, a, 1);
      const double label = LinearGradient<R>::label(row, a, b, b, 1);
      const ExponentialBelow<R> below(y);
      const Shifted<R> shifted = {below.difference(x), below(x)};
      const double loss = linear_loss(row.log_sum(), a, b, Label<>{a, b, a});
      return R(loss + label) + gradient.template value<Spread::mixed>(shifted.e, q) + distance(q.head, shifted.d) +
             rest_term(x, y, shifted.e) + negative_entropy_term(y);
    } else if constexpr (F::kind == Kind::softmax_coupled) {
      R loss, g;
      double label_loss, label_g;
      formula.other(x, y, loss, g);
      formula.label(a, b, a, label_loss, label_g);
      const CoupledGradient<R> gradient(row, label_g, 1);
      return gradient.value(g, loss) + R(label_loss + CoupledGradient<R>::label(row, a, b, b, 1));
    } else if constexpr (F::kind == Kind::row_group) {
      const R slope = F::slope(x, y, F::mixture(x, formula.splits));
      const typename F::template Gradient<R> gradient(formula.factor, a, b, a, b);
      return gradient.value(x, slope) + times(slope, Split<R>(gradient.label(a, b)));
    } else if constexpr (F::kind == Kind::elementwise) {
      R loss, g;
      R part[8] = {};
      if constexpr (F::passes > 0) formula.template prepare<0, true>(x, y, part);
      if constexpr (F::passes > 1) formula.template prepare<1, true>(x, y, part);
      formula.template evaluate<true, true>(part, x, formula.target(y), y, R(formula.on), loss, g);
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

/** What an evaluation asks of a row. */
template <class R>
__device__ void use_classification(R* values, double* digits) {
  using Row = Classification<R>;
  const Shifted<R> shifted = {values[0], values[1]};
  const RowSums<> row(values[0], values[1], 1);
  const double squares = Row::add_square(values[1], values[2]), products = Row::add_product(shifted, values[2]);
  const RowScores<double> scores(row, row.log_sum(), 1, squares, products, values[0], values[1]);
  add_exactly(digits, scores.loss + scores.brier + scores.entropy + scores.confidence);
}

__global__ void use_all(const double* parameters, float* floats, double* doubles, int classes) {
  use_classification(floats, doubles);
  use_classification(doubles, doubles);
  use_place<float, 0>(parameters, floats, classes);
  use_place<double, 0>(parameters, doubles, classes);
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
