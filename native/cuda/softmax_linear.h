#pragma once

// Drivers of losses linear in log softmax. Where a row fits on the chip it is read once: its logits wait in shared
// memory, each thread turns its own into exponentials in registers, and these into the gradient, which takes the
// logits' place in shared memory on its way out.

#include "../loss/cross_entropy.h"
#include "launches.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** The part of the target view that is spread over classes. */
template <class R, Spread spread>
struct SpreadTarget {
  Split<R> floor, mass;
  const R* weight;

  SURPRISAL_DEVICE SpreadTarget(double floor, double mass, const void* weight)
      : floor(floor), mass(mass), weight(static_cast<const R*>(weight)) {}

  SURPRISAL_DEVICE Parts<R> at(R dense, int64_t c) const {
    constexpr bool weighs = spread == Spread::weighted || spread == Spread::mixed;
    const R w = weighs && weight != nullptr ? load_global(weight + c) : R(1);
    return spread_target<spread>(floor, mass, w, dense);
  }
};

/** A row's sums, with Σ q and Σ q·(m − z) of the spread target, and its label's own part. */
struct LinearRow {
  RowSums<> sums;
  double q_sum, dot;
  Label<> label;

  SURPRISAL_DEVICE double loss() const { return linear_loss(sums.log_sum(), q_sum, dot, label); }
  SURPRISAL_DEVICE double q_all() const { return q_sum + label.share; }
};

/** The label's slope, for the thread that has its place. */
template <Spread spread, class T, class Formula>
SURPRISAL_DEVICE auto own_slope(const RowBlock<T>& block, const Formula& formula, const LinearRow& row,
                                const RowHead& head, Compute<T> z_label) {
  using R = Compute<T>;
  if constexpr (is_dense(spread)) return typename RowBlock<T>::Own{};
  return block.own_label([&] {
    const double e = ExponentialBelow<R>(static_cast<R>(row.sums.max))(z_label);
    const double own_floor = formula.floor * (spread == Spread::weighted ? head.weight : 1);
    return LinearGradient<R>::label(row.sums, row.q_all(), row.label.share + own_floor, e, head.scale);
  });
}

template <class T, class Formula, Spread spread, bool kGrad>
struct SoftmaxLinear {
  using R = Compute<T>;
  static constexpr int most_threads = kRowThreads;

  Problem problem;
  RowPlan plan;
  Formula formula;

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    const int64_t rows = call.rows();
    RowBlock<T> block(call, plan, rows);
    const T* input = static_cast<const T*>(call.input);
    block.read_heads(problem);
    block.load(input, call.input_strides);
    const RowHead& head = block.head();

    Held<R> z, e, dense = {};
    const T* z_row = block.shared_row(input, call.input_strides);
    block.read(z_row, z, -static_cast<R>(INFINITY));
    if constexpr (is_dense(spread)) block.read_dense(head.y, dense);
    const int label = is_dense(spread) ? -1 : block.place_of(head.y);
    const R z_label = label >= 0 ? widen(z_row[label]) : R(0);

    const SpreadTarget<R, spread> target(formula.floor, formula.mass, call.weight);
    const LinearRow row = sums(block, target, head, z, e, dense, z_label);
    // One block of a row's has its label, and it knows the loss.
    const bool leads = is_dense(spread) ? block.team.block == 0 : label >= 0;
    const double loss = block.exists && leads && block.team.rank == 0 ? row.loss() + constant(head.y) : 0;
    if constexpr (kGrad) write(block, target, head, row, e, dense, z_label);
    block.put_loss(problem, rows, leads, loss);
    if (plan.cluster > 1) sync_cluster();  // Others may still read this block's shared memory.
  }

 private:
  SURPRISAL_DEVICE double constant(int64_t y) const {
    return problem.call.constants == nullptr ? 0 : load_global(problem.call.constants + y);
  }

  SURPRISAL_DEVICE LinearRow sums(RowBlock<T>& block, const SpreadTarget<R, spread>& target, const RowHead& head,
                                  const Held<R>& z, Held<R>& e, const Held<R>& dense, R z_label) const {
    // The heads of q are summed in double: all of a gradient may depend on what they add up to.
    constexpr int kTerms = spread == Spread::none ? 0 : spread == Spread::uniform ? 1 : 2;
    double q_heads[1] = {0};
    const auto each = [&](int j, Shifted<R> shifted) {
      Terms<R, kTerms> terms;
      const bool has = block.has(block.place(j));
      if constexpr (spread == Spread::uniform) terms.term[0] = has ? -shifted.d : R(0);
      if constexpr (spread != Spread::none && spread != Spread::uniform) {
        if (has) {
          const Parts<R> q = target.at(dense[j], block.begin + block.place(j));
          q_heads[0] += static_cast<double>(q.head);
          terms.term[0] = q.head * distance(q.head, shifted.d);
          terms.term[1] = q.tail;
        }
      }
      return terms;
    };
    const PassSums<kTerms> pass = softmax_pass<kTerms, R>(block.team, z, e, each);
    LinearRow row = {pass.row, 0, 0, {0, 0, 0}};
    if constexpr (spread == Spread::uniform) {
      row.q_sum = formula.floor * static_cast<double>(problem.call.classes);
      row.dot = formula.floor * pass.terms[0];
    } else if constexpr (spread != Spread::none) {
      block.team.sum(q_heads);
      row.q_sum = q_heads[0] + pass.terms[1];
      row.dot = pass.terms[0];
    }
    if constexpr (!is_dense(spread)) {
      row.label = {head.weight * formula.mass, static_cast<double>(z_label) - row.sums.max, 0};
    }
    return row;
  }

  SURPRISAL_DEVICE void write(const RowBlock<T>& block, const SpreadTarget<R, spread>& target, const RowHead& head,
                              const LinearRow& row, const Held<R>& e, const Held<R>& dense, R z_label) const {
    const Evaluation& call = problem.call;
    T* grad = static_cast<T*>(call.grad);
    const LinearGradient<R> gradient(row.sums, row.q_all(), head.scale);
    const auto own = own_slope<spread>(block, formula, row, head, z_label);
    sync_block();  // The logits were read; the gradient may lie otherwise beside multiples of 16.
    block.write(block.shared_row(grad, call.grad_strides), own, [&](int j, int i) {
      return gradient.template value<spread>(e[j], target.at(dense[j], block.begin + i));
    });
    block.store(grad, call.grad_strides);
  }
};

/**
 * The same of a row that does not fit: in tiles, one pass for its sums, which are raised to the largest logit so far
 * tile by tile, and one for the gradient, where one is asked for.
 */
template <class T, class Formula, Spread spread>
struct SoftmaxLinearTwoPass {
  using R = Compute<T>;
  static constexpr int most_threads = kPassThreads;

  Problem problem;
  RowPlan plan;
  Formula formula;

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    RowBlock<T> block(call, plan, call.rows());
    block.read_heads(problem);
    sync_block();
    const RowHead& head = block.head();
    const SpreadTarget<R, spread> target(formula.floor, formula.mass, call.weight);
    R z_label = 0;
    if constexpr (!is_dense(spread)) {
      z_label = widen(load_global(block.global(static_cast<const T*>(call.input), call.input_strides, head.y)));
    }
    const LinearRow row = sums(block, target, head, z_label);
    double loss = 0;
    if (block.team.rank == 0) {
      loss = row.loss() + (call.constants == nullptr ? 0 : load_global(call.constants + head.y));
    }
    if (call.grad != nullptr) write(block, target, head, row, z_label);
    block.put_loss(problem, call.rows(), true, loss);
  }

 private:
  /** Calls f for each tile of the row, with this thread's logits and, of a dense target, its elements. */
  template <class F>
  SURPRISAL_DEVICE void for_each_tile(RowBlock<T>& block, int64_t y, F&& f) const {
    const Evaluation& call = problem.call;
    block.for_each_tile(static_cast<const T*>(call.input), call.input_strides, [&](const Held<R>& z) {
      Held<R> dense = {};
      if constexpr (is_dense(spread)) block.read_dense(y, dense);
      f(z, dense);
    });
  }

  SURPRISAL_DEVICE LinearRow sums(RowBlock<T>& block, const SpreadTarget<R, spread>& target, const RowHead& head,
                                  R z_label) const {
    RunningSums<R> running;
    for_each_tile(block, head.y, [&](const Held<R>& z, const Held<R>& dense) {
      running.add(z, [&](int j, Shifted<R> shifted, double& q_sum) {
        const int i = block.place(j);
        if (spread == Spread::none || !block.has(i)) return R(0);
        const Parts<R> q = target.at(dense[j], block.begin + i);
        q_sum += static_cast<double>(q.head) + static_cast<double>(q.tail);
        return q.head * distance(q.head, shifted.d);
      });
    });
    running.finish(block.team);
    LinearRow row = {running.row(), running.q_sum, running.dot, {0, 0, 0}};
    if constexpr (!is_dense(spread)) {
      row.label = {head.weight * formula.mass, static_cast<double>(z_label) - row.sums.max, 0};
    }
    return row;
  }

  SURPRISAL_DEVICE void write(RowBlock<T>& block, const SpreadTarget<R, spread>& target, const RowHead& head,
                              const LinearRow& row, R z_label) const {
    const Evaluation& call = problem.call;
    T* grad = static_cast<T*>(call.grad);
    const LinearGradient<R> gradient(row.sums, row.q_all(), head.scale);
    const ExponentialBelow<R> exponential(static_cast<R>(row.sums.max));
    for_each_tile(block, head.y, [&](const Held<R>& z, const Held<R>& dense) {
      const auto own = own_slope<spread>(block, formula, row, head, z_label);
      block.write(block.shared_row(grad, call.grad_strides), own, [&](int j, int i) {
        return gradient.template value<spread>(exponential(z[j]), target.at(dense[j], block.begin + i));
      });
      block.store(grad, call.grad_strides);
      sync_block();
    });
  }
};

/** Their launches. */
template <class T, class Formula>
struct SoftmaxLinearJobs {
  using R = Compute<T>;

  static int64_t parts(const Evaluation& call, const DeviceLimits& limits) { return row_parts<T>(call, limits); }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    const RowPlan plan = plan_of<T>(call, limits);
    const LaunchShape shape = shape_of(plan, call.rows());
    with_spread(call, formula, [&](auto spread) {
      if (plan.driver == RowDriver::two_pass) {
        // Rare enough for one kernel to serve both.
        constexpr Spread general = spread.value == Spread::uniform ? Spread::weighted : spread.value;
        return surprisal::launch(SoftmaxLinearTwoPass<T, Formula, general>{problem, plan, formula}, shape, stream);
      }
      with_bool(call.grad != nullptr, [&](auto grad) {
        using Job = SoftmaxLinear<T, Formula, spread.value, grad.value>;
        surprisal::launch(Job{problem, plan, formula}, shape, stream);
      });
    });
  }

 private:
  template <Spread spread>
  using Constant = std::integral_constant<Spread, spread>;

  /** Calls f with the target view's spread. A dense row travels as slowly with a floor and weights as without. */
  template <class F>
  static void with_spread(const Evaluation& call, const Formula& formula, F&& f) {
    if (call.dense != nullptr) return f(Constant<Spread::mixed>{});
    if (formula.floor == 0) return f(Constant<Spread::none>{});
    return call.weight != nullptr ? f(Constant<Spread::weighted>{}) : f(Constant<Spread::uniform>{});
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
