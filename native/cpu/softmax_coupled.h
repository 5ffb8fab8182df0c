#pragma once

// Driver of losses that are a function of log softmax class by class, with one label a row: by their slopes
// g = ∂L/∂log p.

#include "lanes.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class Lanes, class Formula>
struct SoftmaxCoupled {
  using T = typename Lanes::Stored;
  using R = typename Lanes::R;
  using V = typename Lanes::V;
  using Number = typename Lanes::Number;
  using Factor = typename Lanes::Factor;
  using Reader = typename Lanes::Reader;
  using Writer = typename Lanes::Writer;

  static size_t scratch(const Evaluation& call) {
    return Lanes::scratch(call, 1) + Reader::scratch(call) + Writer::scratch(call) +
           2 * Arena::room<R>(padded<T>(Lanes::extent(call)));
  }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    const int64_t extent = Lanes::extent(call);
    const bool writes = call.grad != nullptr;
    const Formula formula(call.parameters, call.classes);
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    const Lanes lanes(call, 1, arena);
    Reader input(call, block, arena);
    Writer grad(problem, block, arena);
    R* exponentials = arena.take<R>(padded<T>(extent));
    R* slopes = arena.take<R>(padded<T>(extent));
    Number loss_sum(0);
    for (int64_t row = block.begin; row < block.end; row += Lanes::kRows) {
      const typename Lanes::Labels labels(call, block, row);
      if (!labels.any()) {
        put_row_losses<R>(call, labels, Number(0));
        if (writes) grad.clear(grad.row(row));
        continue;
      }
      const auto z = input.row(row);
      input.expect(row + Lanes::kRows);
      typename Writer::Row dz{};
      if (writes) {
        dz = grad.row(row);
        grad.prepare_ends(dz);
      }
      const auto each = [&](int64_t at, auto, V) __attribute__((always_inline)) {
        if (writes) grad.prepare(dz, at);
        return Terms<V, 0>{};
      };
      typename Lanes::Reference reference = lanes.reference(z);
      const auto row_pass = lanes.template single_pass<0>(input, z, reference, exponentials, each);
      const RowSums<Number> sums = lanes.template conclude<0>(reference, row_pass, z).row;
      const V inverse(rounded<Factor>(sums.inverse())), log_sum(rounded<Factor>(sums.log_sum()));
      const V m(rounded<Factor>(sums.max));
      const auto others = sum_over<V, 2>(extent, [&](int64_t at, auto within) __attribute__((always_inline)) {
        const V p = load(exponentials + at, Full{}) * inverse;
        const V log_p = (load(z + at, within, -static_cast<R>(__builtin_inf())) - m) - log_sum;
        V loss, g;
        formula.other(p, log_p, loss, g);
        // The label has a formula of its own; lanes past the row's end have none.
        const auto is_label = labels.at(at);
        loss = inside(within, select(is_label, V(0), loss));
        g = inside(within, select(is_label, V(0), g));
        store(slopes + at, g, Full{});
        return Terms<V, 2>{loss, g};
      });
      const Number e = labels.of(exponentials);
      const Number log_p = (labels.of(z) - sums.max) - sums.log_sum();
      Number label_loss, label_slope;
      formula.label(e * sums.inverse(), sums.complement(e), log_p, label_loss, label_slope);
      const Number loss = labels.counted(Lanes::total(others.sum[0]) + label_loss);
      loss_sum = loss_sum + loss;
      put_row_losses<R>(call, labels, loss);
      if (!writes) continue;
      const Number scale = row_scales<R, Number>(problem, labels);
      const Number other_sum = Lanes::total(others.sum[1]);
      const CoupledGradient<Factor> gradient(sums, other_sum + label_slope, scale);
      const Number own = CoupledGradient<Factor>::label(sums, label_slope, other_sum, e, scale);
      grad.write(dz, labels, rounded<Factor>(own), [&](int64_t at, auto) __attribute__((always_inline)) {
        return gradient.value(load(slopes + at, Full{}), load(exponentials + at, Full{}));
      });
    }
    grad.finish();
    return Lanes::total(loss_sum);
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
