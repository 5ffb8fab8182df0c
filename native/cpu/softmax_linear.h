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
    const bool weighted = call.weight != nullptr, smoothed = formula.floor != 0;
    if (call.dense != nullptr) {
      return weighted || smoothed ? with_grad<Spread::mixed>(problem, block, formula)
                                  : with_grad<Spread::dense>(problem, block, formula);
    }
    if (!smoothed) return with_grad<Spread::none>(problem, block, formula);
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
    const Split<R> floor(formula.floor), mass(formula.mass);
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
        constexpr bool weighs = spread == Spread::weighted || spread == Spread::mixed;
        const V w = weighs && weight != nullptr ? load(weight + c, lanes) : V(1);
        return spread_target<spread>(floor, mass, w, is_dense(spread) ? load(q_row + c, lanes) : V(0));
      };
      T* dz = nullptr;
      if constexpr (kGrad) dz = grad.row(row);
      // Σ q and Σ q·(m − z); of a uniform q, whose factor comes last, Σ (m − z).
      Sum<V> q_total, dot_total;
      const auto each = [&](int64_t c, auto lanes, Shifted<V> shifted) __attribute__((always_inline)) {
        if constexpr (kGrad) {
          store(exponentials + c, shifted.e, Full{});
          // The gradient's memory is fetched meanwhile too, to be written.
          __builtin_prefetch(dz + c, 1);
        }
        if constexpr (spread == Spread::uniform) dot_total.add_wide(inside(lanes, -shifted.d));
        if constexpr (spread != Spread::none && spread != Spread::uniform) {
          const Parts<V> q = spread_at(c, lanes);
          const V head = inside(lanes, q.head);
          q_total.add_wide(head);
          q_total.add(inside(lanes, q.tail));
          dot_total.add_product(head, distance(head, shifted.d));
          // The tail of what is masked is no number.
          dot_total.add(select(shifted.e == V(0), V(0), -(head * shifted.tail)));
        }
      };
      const RowSums sums = softmax_pass(z, input.next(row), classes, each);
      double q_sum = 0, dot = 0;
      if constexpr (spread == Spread::uniform) {
        q_sum = formula.floor * static_cast<double>(classes);
        dot = formula.floor * dot_total.total();
      } else if constexpr (spread != Spread::none) {
        q_sum = q_total.total();
        dot = dot_total.total();
      }
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
        const double scale = row_scale<R>(problem, row);
        const double q_all = q_sum + label.share;
        const LinearGradient<R> gradient(sums, q_all, scale);
        for_each_vector<V>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
          const V e = load(exponentials + c, Full{});
          store(dz + c, gradient.template value<spread>(e, spread_at(c, lanes)), lanes);
        });
        if constexpr (!is_dense(spread)) {
          const double own_floor = formula.floor * (spread == Spread::weighted ? class_weight<R>(call, y) : 1);
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
