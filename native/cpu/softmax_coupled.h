#pragma once

// Driver of losses that are a function of log softmax class by class, with one label a row: by their slopes
// g = ∂L/∂log p.

#include "softmax_pass.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class T, class Formula>
struct SoftmaxCoupled {
  using R = Compute<T>;
  using V = Vec<R>;

  static size_t scratch(const Evaluation& call) {
    return RowReader<T>::scratch(call) + RowWriter<T>::scratch(call) + 2 * Arena::room<R>(padded<T>(call.classes)) +
           Arena::room<R>(stretch_maxima_size<R>(call.classes));
  }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    const int64_t classes = call.classes;
    const Formula formula(call.parameters, classes);
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    RowReader<T> input(call, block, arena);
    RowWriter<T> grad(problem, block, arena);
    R* exponentials = arena.take<R>(padded<T>(classes));
    R* slopes = arena.take<R>(padded<T>(classes));
    R* stretch_maxima = arena.take<R>(stretch_maxima_size<R>(classes));
    double loss_sum = 0;
    for (int64_t row = block.begin; row < block.end; ++row) {
      const T* z = input.row(row);
      const int64_t y = read_index(call, row);
      if (is_ignored(call, y)) {
        put_row_loss<R>(call, row, 0);
        if (call.grad != nullptr) fill_zero(grad.row(row), classes);
        continue;
      }
      const auto keep = [&](int64_t c, auto, Shifted<V> shifted) __attribute__((always_inline)) {
        store(exponentials + c, shifted.e, Full{});
        return Terms<V, 0>{};
      };
      const RowSums sums = softmax_pass<0>(z, input.next(row), classes, stretch_maxima, keep).row;
      const V inverse(static_cast<R>(sums.inverse())), log_sum(static_cast<R>(sums.log_sum()));
      const V m(static_cast<R>(sums.max));
      const auto others = sum_over<V, 2>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
        const V p = load(exponentials + c, Full{}) * inverse;
        const V log_p = (load(z + c, lanes, -static_cast<R>(__builtin_inf())) - m) - log_sum;
        V loss, g;
        formula.other(p, log_p, loss, g);
        // The label has a formula of its own; lanes past the row's end have none.
        const auto is_label = lane_numbers<V>() == V(static_cast<R>(y - c));
        loss = inside(lanes, select(is_label, V(0), loss));
        g = inside(lanes, select(is_label, V(0), g));
        store(slopes + c, g, Full{});
        return Terms<V, 2>{loss, g};
      });
      const double e = exponentials[y];
      const double p = e * sums.inverse();
      const double log_p = (static_cast<double>(load_one(z + y)) - sums.max) - sums.log_sum();
      double label_loss, label_slope;
      formula.label(p, sums.complement(e), log_p, label_loss, label_slope);
      const double loss = others.sum[0].total() + label_loss;
      loss_sum += loss;
      put_row_loss<R>(call, row, loss);
      if (call.grad == nullptr) continue;
      T* dz = grad.row(row);
      const double scale = row_scale<R>(problem, row);
      const double other_sum = others.sum[1].total();
      const CoupledGradient<R> gradient(sums, other_sum + label_slope, scale);
      grad.write(dz, [&](int64_t c, auto) __attribute__((always_inline)) {
        return gradient.value(load(slopes + c, Full{}), load(exponentials + c, Full{}));
      });
      store_one(dz + y, static_cast<R>(CoupledGradient<R>::label(sums, label_slope, other_sum, e, scale)));
    }
    grad.finish();
    return loss_sum;
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
