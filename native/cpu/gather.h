#pragma once

// Driver of losses of the label's element alone: the others are not read.

#include "../loss/loss.h"
#include "rows.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class T, class Formula>
struct Gather {
  using R = Compute<T>;

  static size_t scratch(const Evaluation& call) { return RowWriter<T>::scratch(call); }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    RowWriter<T> grad(problem, block, arena);
    const T* input = static_cast<const T*>(call.input);
    double loss_sum = 0;
    for (int64_t row = block.begin; row < block.end; ++row) {
      const int64_t y = read_index(call, row);
      double loss = 0, slope = 0;
      if (!is_ignored(call, y)) {
        const double weight = class_weight<R>(call, y);
        const T* x = input + row_offset(call, call.input_strides, row) + y * call.input_strides.classes;
        loss = formula.value(load_one(x), weight);
        slope = formula.slope(weight) * row_scale<R>(problem, row);
      }
      loss_sum += loss;
      if (call.reduction == Reduction::none) static_cast<R*>(call.output)[row] = static_cast<R>(loss);
      if (call.grad == nullptr) continue;
      T* dx = grad.row(row);
      grad.clear(dx);
      if (!is_ignored(call, y)) store_one(dx + y, static_cast<R>(slope));
    }
    grad.finish();
    return loss_sum;
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
