#pragma once

// Driver of losses linear in log softmax: a pass for the maximum, one for the exponentials, which it keeps in
// scratch, and one that scales them into the gradient.

#include "../loss/cross_entropy.h"
#include "softmax_pass.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class T, class Formula>
struct SoftmaxLinear {
  using R = Compute<T>;
  using V = Vec<R>;

  static size_t scratch(const Evaluation& call) {
    return RowReader<T>::scratch(call, call.input_strides) + RowWriter<T>::scratch(call, call.grad_strides) +
           DenseReader<R>::scratch(call) + Arena::room<R>(padded<T>(call.classes));
  }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    const bool weighted = call.weight != nullptr;
    if (call.dense != nullptr) {
      return weighted ? with_grad<Spread::weighted_dense>(problem, block, formula)
                      : with_grad<Spread::dense>(problem, block, formula);
    }
    if (formula.floor == 0) return with_grad<Spread::none>(problem, block, formula);
    return weighted ? with_grad<Spread::weighted>(problem, block, formula)
                    : with_grad<Spread::uniform>(problem, block, formula);
  }

 private:
  template <Spread spread>
  static double with_grad(const Problem& problem, Block block, const Formula& formula) {
    return problem.call.grad != nullptr ? rows<spread, true>(problem, block, formula)
                                        : rows<spread, false>(problem, block, formula);
  }

  template <Spread spread, bool kGrad>
  static double rows(const Problem& problem, Block block, const Formula& formula) {
    const Evaluation& call = problem.call;
    const int64_t classes = call.classes;
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    RowReader<T> input(call, call.input, call.input_strides, arena, block.end);
    RowWriter<T> grad(call, call.grad, call.grad_strides, arena, block.end);
    DenseReader<R> dense(call, arena);
    R* exponentials = arena.take<R>(padded<T>(classes));
    const R* weight = static_cast<const R*>(call.weight);
    const V floor(static_cast<R>(formula.floor)), mass(static_cast<R>(formula.mass));
    double loss_sum = 0;
    for (int64_t row = block.begin; row < block.end; ++row) {
      const T* z = input.row(row);
      const int64_t y = call.indices != nullptr ? read_index(call, row) : -1;
      if (call.indices != nullptr && is_ignored(call, y)) {
        put_row_loss<R>(call, row, 0);
        if constexpr (kGrad) fill_zero(grad.row(row), classes);
        continue;
      }
      const R* q_row = nullptr;
      if constexpr (is_dense(spread)) q_row = dense.row(row, y);
      const auto spread_at = [&](int64_t c, auto lanes) __attribute__((always_inline)) {
        return spread_target<spread>(floor, mass, is_weighted(spread) ? load(weight + c, lanes) : V(1),
                                     is_dense(spread) ? load(q_row + c, lanes) : V(0));
      };
      Sum<V> q_total, dot_total;
      const RowSums sums = softmax_pass(z, input.next(row), classes,
                                        [&](int64_t c, auto lanes, V d, V e) __attribute__((always_inline)) {
                                          if constexpr (kGrad) store(exponentials + c, e, Full{});
                                          if constexpr (spread != Spread::none) {
                                            const V q = inside(lanes, spread_at(c, lanes));
                                            dot_total.add(surprisal_term(q, d));
                                            if constexpr (spread != Spread::uniform) q_total.add(q);
                                          }
                                        });
      double q_sum = 0, dot = 0;
      if constexpr (spread == Spread::uniform) q_sum = formula.floor * static_cast<double>(classes);
      if constexpr (spread != Spread::none && spread != Spread::uniform) q_sum = q_total.total();
      if constexpr (spread != Spread::none) dot = dot_total.total();
      Label label = {0, 0, 0};
      if constexpr (!is_dense(spread)) {
        const double d = static_cast<double>(load_one(z + y)) - sums.max;
        label = {class_weight<R>(call, y) * formula.mass, d, kGrad ? exponentials[y] : 0};
      }
      double loss = linear_loss(sums, q_sum, dot, label);
      if (call.constants != nullptr) loss += call.constants[y];
      loss_sum += loss;
      put_row_loss<R>(call, row, loss);
      if constexpr (kGrad) {
        T* dz = grad.row(row);
        const double scale = row_scale<R>(problem, row);
        const double q_all = q_sum + label.share;
        const LinearGradient<R> gradient(sums, q_all, scale);
        for_each_vector<V>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
          const V e = load(exponentials + c, Full{});
          store(dz + c, gradient.template value<spread>(e, spread_at(c, lanes)), lanes);
        });
        if constexpr (!is_dense(spread)) {
          const double own_floor = formula.floor * (is_weighted(spread) ? class_weight<R>(call, y) : 1);
          const double slope = LinearGradient<R>::label(sums, q_all, label.share + own_floor, label.e, scale);
          store_one(dz + y, static_cast<R>(slope));
        }
      }
    }
    grad.finish();
    return loss_sum;
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
