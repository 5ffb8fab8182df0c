#pragma once

// Drivers of losses that are a function of log softmax class by class, with one label a row: by their slopes
// g = ∂L/∂log p. Where a row fits on the chip it is read once.

#include "launches.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** A row's sums over the classes that are not its label, and the label's own. */
struct CoupledSums {
  double loss, slope, label_loss, label_slope;
};

/** The formula over one row, whose sums are known. */
template <class R, class Formula>
class CoupledRow {
 public:
  SURPRISAL_DEVICE CoupledRow(const Formula& formula, const RowSums<>& row)
      : formula_(formula),
        row_(row),
        inverse_(static_cast<R>(row.inverse())),
        log_sum_(static_cast<R>(row.log_sum())),
        max_(static_cast<R>(row.max)) {}

  /** Loss and slope of a class that is not the label. */
  SURPRISAL_DEVICE Terms<R, 2> other(R z, R e) const {
    Terms<R, 2> terms;
    formula_.other(e * inverse_, (z - max_) - log_sum_, terms.term[0], terms.term[1]);
    return terms;
  }

  /** Of the label, whose logit this is. */
  SURPRISAL_DEVICE void label(R z, CoupledSums& sums) const {
    const double e = exponential(z);
    const double log_p = (static_cast<double>(z) - row_.max) - row_.log_sum();
    formula_.label(e * row_.inverse(), row_.complement(e), log_p, sums.label_loss, sums.label_slope);
  }

  SURPRISAL_DEVICE R exponential(R z) const { return ExponentialBelow<R>(max_)(z); }

 private:
  const Formula& formula_;
  const RowSums<>& row_;
  R inverse_, log_sum_, max_;
};

/** Adds up what the threads of a row have; one of them has the label's part. */
SURPRISAL_DEVICE void finish_sums(Team& team, CoupledSums& sums) {
  double terms[4] = {sums.loss, sums.slope, sums.label_loss, sums.label_slope};
  team.sum(terms);
  sums = {terms[0], terms[1], terms[2], terms[3]};
}

/** The label's slope, for the thread that has its place. */
template <class T, class Coupled>
SURPRISAL_DEVICE auto own_slope(const RowBlock<T>& block, const Coupled& coupled, const RowSums<>& row,
                                const CoupledSums& sums, Compute<T> z_label) {
  return block.own_label([&] {
    const double e = coupled.exponential(z_label);
    return CoupledGradient<Compute<T>>::label(row, sums.label_slope, sums.slope, e, block.head().scale);
  });
}

template <class T, class Formula>
struct SoftmaxCoupled {
  using R = Compute<T>;
  static constexpr int most_threads = kRowThreads;

  Problem problem;
  RowPlan plan;
  Formula formula;

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    RowBlock<T> block(call, plan, call.rows());
    const T* input = static_cast<const T*>(call.input);
    block.read_heads(problem);
    block.load(input, call.input_strides);
    const RowHead& head = block.head();

    Held<R> z, e;
    block.read(block.shared_row(input, call.input_strides), z, -static_cast<R>(INFINITY));
    const bool leads = block.team.block == 0;
    const int label = block.place_of(head.y);
    // Its thread and the first one ask for it; other blocks of a cluster don't hold it.
    R z_label = 0;
    if (label >= 0) {
      z_label = widen(block.shared_row(input, call.input_strides)[label]);
    } else if (leads && block.team.rank == 0 && block.exists) {
      z_label = widen(load_global(block.global(input, call.input_strides, head.y)));
    }
    const RowSums<> row = softmax_pass<0, R>(block.team, z, e, NoTerms{}).row;
    const CoupledRow<R, Formula> coupled(formula, row);
    CoupledSums sums = {};
    if (leads && block.team.rank == 0) coupled.label(z_label, sums);
    Held<R> slopes;
    const auto others = sum_in_pairs<kElements<R>>([&](int j) {
      const int i = block.place(j);
      Terms<R, 2> terms;
      if (block.has(i) && i != label) terms = coupled.other(z[j], e[j]);
      slopes[j] = terms.term[1];
      return terms;
    });
    sums.loss = static_cast<double>(others.term[0]);
    sums.slope = static_cast<double>(others.term[1]);
    finish_sums(block.team, sums);

    if (call.grad != nullptr) {
      T* grad = static_cast<T*>(call.grad);
      const CoupledGradient<R> gradient(row, sums.slope + sums.label_slope, head.scale);
      const auto own = own_slope(block, coupled, row, sums, z_label);
      sync_block();  // The logits were read; the gradient may lie otherwise beside multiples of 16.
      block.write(block.shared_row(grad, call.grad_strides), own,
                  [&](int j, int) { return gradient.value(slopes[j], e[j]); });
      block.store(grad, call.grad_strides);
    }
    block.put_loss(problem, call.rows(), leads, sums.loss + sums.label_loss);
    if (plan.cluster > 1) sync_cluster();  // Others may still read this block's shared memory.
  }
};

/** The same of a row that does not fit: a pass for its sums, one for its slopes' and one for the gradient. */
template <class T, class Formula>
struct SoftmaxCoupledPasses {
  using R = Compute<T>;
  static constexpr int most_threads = kPassThreads;

  Problem problem;
  RowPlan plan;
  Formula formula;

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    RowBlock<T> block(call, plan, call.rows());
    const T* input = static_cast<const T*>(call.input);
    block.read_heads(problem);
    sync_block();
    const RowHead& head = block.head();
    const R z_label = widen(load_global(block.global(input, call.input_strides, head.y)));

    RunningSums<R> running;
    block.for_each_tile(input, call.input_strides,
                        [&](const Held<R>& z) { running.add(z, [](int, Shifted<R>, double&) { return R(0); }); });
    running.finish(block.team);
    const RowSums<> row = running.row();
    const CoupledRow<R, Formula> coupled(formula, row);
    CoupledSums sums = {};
    if (block.team.rank == 0) coupled.label(z_label, sums);
    block.for_each_tile(input, call.input_strides, [&](const Held<R>& z) {
      const auto others = sum_in_pairs<kElements<R>>([&](int j) {
        const int i = block.place(j);
        return block.has(i) && i != block.place_of(head.y) ? coupled.other(z[j], coupled.exponential(z[j]))
                                                           : Terms<R, 2>{};
      });
      sums.loss += static_cast<double>(others.term[0]);
      sums.slope += static_cast<double>(others.term[1]);
    });
    finish_sums(block.team, sums);

    if (call.grad != nullptr) {
      T* grad = static_cast<T*>(call.grad);
      const CoupledGradient<R> gradient(row, sums.slope + sums.label_slope, head.scale);
      block.for_each_tile(input, call.input_strides, [&](const Held<R>& z) {
        const auto own = own_slope(block, coupled, row, sums, z_label);
        block.write(block.shared_row(grad, call.grad_strides), own, [&](int j, int) {
          const R e = coupled.exponential(z[j]);
          return gradient.value(coupled.other(z[j], e).term[1], e);
        });
        block.store(grad, call.grad_strides);
        sync_block();
      });
    }
    block.put_loss(problem, call.rows(), true, sums.loss + sums.label_loss);
  }
};

/** Their launches. */
template <class T, class Formula>
struct SoftmaxCoupledJobs {
  static int64_t parts(const Evaluation& call, const DeviceLimits& limits) { return row_parts<T>(call, limits); }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    const RowPlan plan = plan_of<T>(call, limits);
    const LaunchShape shape = shape_of(plan, call.rows());
    if (plan.driver == RowDriver::two_pass) {
      return surprisal::launch(SoftmaxCoupledPasses<T, Formula>{problem, plan, formula}, shape, stream);
    }
    surprisal::launch(SoftmaxCoupled<T, Formula>{problem, plan, formula}, shape, stream);
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
