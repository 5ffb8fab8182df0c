#pragma once

// Driver of losses that are a sum over elements.

#include "../loss/loss.h"
#include "rows.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class T, class Formula>
struct Elementwise {
  using R = Compute<T>;
  using V = Vec<R>;

  static size_t scratch(const Evaluation& call) {
    return RowReader<T>::scratch(call) + RowWriter<T>::scratch(call) + DenseReader<R>::scratch(call);
  }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    if (call.pos_weight != nullptr) return with_grad<true>(problem, block, formula);
    return with_grad<false>(problem, block, formula);
  }

 private:
  /** Factors of a row: one an element, or one for all. */
  struct Factor {
    const R* values;
    int64_t row_stride;
    bool per_class;

    Factor(const void* data, int64_t row_stride, int64_t class_stride)
        : values(static_cast<const R*>(data)), row_stride(row_stride), per_class(class_stride != 0) {}

    template <class Lanes>
    SURPRISAL_FN V at(int64_t row, int64_t c, Lanes lanes) const {
      if (values == nullptr) return V(1);
      const R* from = values + row * row_stride;
      return per_class ? load(from + c, lanes) : V(*from);
    }
  };

  template <bool kPosWeight>
  static double with_grad(const Problem& problem, Block block, const Formula& formula) {
    return problem.call.grad != nullptr ? rows<kPosWeight, true>(problem, block, formula)
                                        : rows<kPosWeight, false>(problem, block, formula);
  }

  template <bool kPosWeight, bool kGrad>
  static double rows(const Problem& problem, Block block, const Formula& formula) {
    const Evaluation& call = problem.call;
    const int64_t classes = call.classes;
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    RowReader<T> input(call, block, arena);
    RowWriter<T> grad(problem, block, arena);
    DenseReader<R> dense(call, block, arena);
    const Factor weight(call.weight, call.weight_row_stride, call.weight_class_stride);
    const Factor pos_weight(call.pos_weight, call.pos_weight_row_stride, call.pos_weight_class_stride);
    const auto* grad_outputs = static_cast<const R*>(call.grad_outputs);
    const V scale(static_cast<R>(problem.grad_scale));
    const Split<R> on(formula.on), off(formula.off);
    R* losses = call.reduction == Reduction::none ? static_cast<R*>(call.output) : nullptr;
    double loss_sum = 0;
    for (int64_t row = block.begin; row < block.end; ++row) {
      const T* x_row = input.row(row);
      const R* y_row = call.dense != nullptr ? dense.row(row) : nullptr;
      const int64_t y_index = y_row == nullptr ? read_index(call, row) : 0;
      T* dx = nullptr;
      if constexpr (kGrad) dx = grad.row(row);
      const auto sums = sum_over<V, 1>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
        V y, y_tail(0);
        if (y_row != nullptr) {
          y = formula.target(load(y_row + c, lanes));
        } else {
          const auto is_label = lane_numbers<V>() == V(static_cast<R>(y_index - c));
          y = select(is_label, V(on.head), V(off.head));
          y_tail = select(is_label, V(on.tail), V(off.tail));
        }
        const V w = weight.at(row, c, lanes);
        const V u = kPosWeight ? pos_weight.at(row, c, lanes) : V(1);
        V loss, g;
        formula.template evaluate<kGrad, kPosWeight>(load(x_row + c, lanes), y, y_tail, u, loss, g);
        loss = loss * w;
        if (losses != nullptr) store(losses + row * classes + c, loss, lanes);
        if constexpr (kGrad) {
          const V factor = grad_outputs != nullptr ? scale * load(grad_outputs + row * classes + c, lanes) : scale;
          store(dx + c, g * w * factor, lanes);
        }
        return Terms<V, 1>{inside(lanes, loss)};
      });
      loss_sum += sums.sum[0].total();
    }
    grad.finish();
    return loss_sum;
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
