#pragma once

// Drivers of losses linear in log softmax. Where a row fits on the chip it is read once: each thread turns its logits
// into exponentials in registers, and these into the gradient.

#include "../loss/cross_entropy.h"
#include "launches.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Of a row that a thread holds: of a dense target it holds as much. */
constexpr int linear_register_bytes(Spread spread) { return is_dense(spread) ? kRegisterBytes / 2 : kRegisterBytes; }

/** The part of the target view that is spread over classes. */
template <class R, Spread spread>
struct SpreadTarget {
  Split<R> floor, mass;
  const R* weight;

  SURPRISAL_FN SpreadTarget(double floor, double mass, const void* weight)
      : floor(floor), mass(mass), weight(static_cast<const R*>(weight)) {}

  /** Of this thread's element j, whose dense target is given. */
  template <class T>
  SURPRISAL_DEVICE Parts<R> at(const RowPart<T>& rows, int j, R dense) const {
    R w = 1;
    if (spread == Spread::mixed && weight != nullptr && rows.has(j)) {
      w = load_global(weight + rows.begin + rows.place_of_element(j));
    }
    return spread_target<spread>(floor, mass, w, dense);
  }
};

/** A row's sums, with Σ q and Σ q·(m − z) of the spread target, and its label's own part. */
struct LinearRow {
  RowSums<> sums;
  double q_sum, dot;
  Label<> label;

  SURPRISAL_DEVICE double q_all() const { return q_sum + label.share; }
  /** With a constant of its label's, where the call has them. */
  SURPRISAL_DEVICE LinearLoss loss(const Evaluation& call, int64_t y) const {
    const double constant = call.constants == nullptr ? 0 : load_global(call.constants + y);
    return LinearLoss(sums, q_sum, dot + constant, label);
  }
};

/** The label's slope, for the thread that has its place. A floor is the label's, too, times the weight of its class. */
template <Spread spread, class T, class Formula>
SURPRISAL_DEVICE typename RowPart<T>::Own own_slope(const RowPart<T>& rows, const Formula& formula,
                                                    const LinearRow& row, Compute<T> z_label) {
  using R = Compute<T>;
  const int label = rows.label_place();
  if (!rows.owns(label)) return {};
  const double e = RowExponential<T>(static_cast<R>(row.sums.max))(z_label);
  const double own_floor = formula.floor * (spread == Spread::mixed ? rows.weight() : 1);
  const double slope = LinearGradient<R>::label(row.sums, row.q_all(), row.label.share + own_floor, e, rows.scale());
  return {label, static_cast<R>(slope)};
}

template <class T, class Formula, Spread spread, bool kGrad>
struct SoftmaxLinear {
  using R = Compute<T>;
  static constexpr int kBytes = linear_register_bytes(spread), kHeld = kElements<R, kBytes>;
  static constexpr int most_threads = kThreadsOfRow<R>;
  /** Fewer registers than these leave a thread would not do; more would leave room for fewer blocks. */
  static constexpr int threads_of_registers = sizeof(R) == 4 ? 640 : most_threads;

  Problem problem;
  RowPlan plan;
  Formula formula;
  SpreadTarget<R, spread> target;

  SURPRISAL_DEVICE void operator()() const {
    RowPart<T> rows(problem, plan);
    R e[kHeld], q[kHeld];
    rows.load_logits(e);
    rows.find_label();
    if (has_dense()) {
      rows.load_dense(q);
    } else if (is_dense(spread)) {
      SURPRISAL_UNROLL
      for (int j = 0; j < kHeld; ++j) q[j] = 0;
    }
    const R z_label = has_dense() ? R(0) : rows.label_logit();
    const LinearRow row = sums(rows, e, q, z_label);
    const LinearLoss loss = row.loss(problem.call, rows.label.y);
    if (kGrad && problem.call.grad != nullptr) {
      typename RowPart<T>::Own own;
      if (!has_dense()) own = own_slope<spread>(rows, formula, row, z_label);
      const LinearGradient<R> gradient(row.sums, row.q_all(), rows.scale());
      const bool counts = rows.counts();
      SURPRISAL_UNROLL
      for (int j = 0; j < kHeld; ++j) {
        const R value = gradient.template value<spread>(e[j], target.at(rows, j, q[j]));
        e[j] = counts ? value : R(0);
      }
      rows.write(e, own);
    }
    rows.put_loss(loss);
  }

 private:
  /** Whether there is a dense target: what serves every target may be given a label alone. */
  SURPRISAL_DEVICE bool has_dense() const {
    return spread == Spread::dense || (spread == Spread::mixed && problem.call.dense != nullptr);
  }

  SURPRISAL_DEVICE LinearRow sums(RowPart<T>& rows, R (&e)[kHeld], const R (&q)[kHeld], R z_label) const {
    // The heads of q are summed in double: all of a gradient may depend on what they add up to.
    constexpr int kTerms = spread == Spread::none ? 0 : spread == Spread::uniform ? 1 : 2;
    double q_heads[1] = {0};
    const auto each = [&](int j, Shifted<R> shifted) {
      Terms<R, kTerms> terms;
      if constexpr (spread != Spread::none) {
        if (!rows.has(j)) return terms;
        if constexpr (spread == Spread::uniform) {
          terms.term[0] = -shifted.d;
        } else {
          const Parts<R> own = target.at(rows, j, q[j]);
          q_heads[0] += static_cast<double>(own.head);
          terms.term[0] = own.head * distance(own.head, shifted.d);
          terms.term[1] = own.tail;
        }
      }
      return terms;
    };
    const PassSums<kTerms> pass = softmax_pass<kTerms>(rows, e, each);
    LinearRow row = {pass.row, 0, 0, {0, 0, 0}};
    if constexpr (spread == Spread::uniform) {
      row.q_sum = formula.floor * static_cast<double>(problem.call.classes);
      row.dot = formula.floor * pass.terms[0];
    } else if constexpr (spread != Spread::none) {
      rows.team.sum(q_heads);
      row.q_sum = q_heads[0] + pass.terms[1];
      row.dot = pass.terms[0];
    }
    if (!has_dense()) {
      row.label = {rows.weight() * formula.mass, static_cast<double>(z_label) - row.sums.max, 0};
    }
    return row;
  }
};

/**
 * The same of a row that does not fit: in slices, one pass for its sums, which are raised to the largest logit so far
 * slice by slice, and one for the gradient, where one is asked for. Rare enough for one kernel to serve every target.
 */
template <class T, class Formula>
struct SoftmaxLinearTwoPass {
  using R = Compute<T>;
  static constexpr int kHeld = kElements<R, kPassBytes>;
  static constexpr int most_threads = kPassThreads;
  static constexpr Spread kSpread = Spread::mixed;

  Problem problem;
  RowPlan plan;
  Formula formula;
  SpreadTarget<R, kSpread> target;

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    const bool dense = call.dense != nullptr;
    RowPart<T> rows(problem, plan);
    rows.find_label();
    // Calls f with this thread's logits of each slice and the elements of its dense target, 0 where it has none.
    const auto for_each_slice = [&](auto&& f) {
      rows.for_each_slice([&] {
        R z[kHeld], q[kHeld];
        rows.load_logits(z);
        SURPRISAL_UNROLL
        for (int j = 0; j < kHeld; ++j) q[j] = 0;
        if (dense) rows.load_dense(q);
        f(z, q);
      });
    };
    const R z_label = dense ? R(0) : rows.label_logit();

    RunningSums<R> running;
    for_each_slice([&](const R(&z)[kHeld], const R(&q)[kHeld]) {
      running.add(z, [&](int j, Shifted<R> shifted, double& q_sum) {
        if (!rows.has(j)) return R(0);
        const Parts<R> own = target.at(rows, j, q[j]);
        q_sum += static_cast<double>(own.head) + static_cast<double>(own.tail);
        return own.head * distance(own.head, shifted.d);
      });
    });
    running.finish(rows.team);
    LinearRow row = {running.row(), running.q_sum, running.dot, {0, 0, 0}};
    if (!dense) row.label = {rows.weight() * formula.mass, static_cast<double>(z_label) - row.sums.max, 0};

    if (call.grad != nullptr) {
      const LinearGradient<R> gradient(row.sums, row.q_all(), rows.scale());
      const ExponentialBelow<R> exponential(static_cast<R>(row.sums.max));
      const bool counts = rows.counts();
      for_each_slice([&](R(&z)[kHeld], const R(&q)[kHeld]) {
        SURPRISAL_UNROLL
        for (int j = 0; j < kHeld; ++j) {
          const Parts<R> spread_q = target.at(rows, j, q[j]);
          z[j] = counts ? gradient.template value<kSpread>(exponential(z[j]), spread_q) : R(0);
        }
        typename RowPart<T>::Own own;
        if (!dense) own = own_slope<kSpread>(rows, formula, row, z_label);
        rows.write(z, own);
      });
    }
    rows.put_loss(row.loss(call, rows.label.y));
  }
};

/** Their launches. */
template <class T, class Formula>
struct SoftmaxLinearJobs {
  using R = Compute<T>;

  static RowPlan plan_of(const Evaluation& call, const DeviceLimits& limits) {
    return surprisal::plan_of<T>(call, limits, linear_register_bytes(spread_of(call)));
  }

  static int64_t parts(const Evaluation& call, const DeviceLimits& limits) { return plan_of(call, limits).tiles; }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    const RowPlan plan = plan_of(call, limits);
    const LaunchShape shape = shape_of(plan, problem, limits);
    if (plan.driver == RowDriver::two_pass) {
      using Job = SoftmaxLinearTwoPass<T, Formula>;
      const SpreadTarget<R, Job::kSpread> target(formula.floor, formula.mass, call.weight);
      return surprisal::launch(Job{problem, plan, formula, target}, shape, stream);
    }
    with_spread(spread_of(call), [&](auto spread) {
      const SpreadTarget<R, spread.value> target(formula.floor, formula.mass, call.weight);
      const auto run = [&](auto grad) {
        using Job = SoftmaxLinear<T, Formula, spread.value, grad.value>;
        surprisal::launch(Job{problem, plan, formula, target}, shape, stream);
      };
      if constexpr (kHasForward<R> && spread.value != Spread::mixed) {
        with_bool(call.grad != nullptr, run);
      } else {
        run(std::true_type{});
      }
    });
  }

 private:
  /** That of the call's target, or `mixed`, which every target is a case of. */
  static Spread spread_of(const Evaluation& call) {
    const Formula formula(call.parameters, call.classes);
    if (call.dense != nullptr) {
      const bool as_it_is = formula.floor == 0 && formula.mass == 1 && call.weight == nullptr;
      return as_it_is ? Spread::dense : Spread::mixed;
    }
    if (formula.floor == 0) return Spread::none;
    return call.weight != nullptr ? Spread::mixed : Spread::uniform;
  }

  template <Spread spread>
  using Constant = std::integral_constant<Spread, spread>;

  template <class F>
  static void with_spread(Spread spread, F&& f) {
    if (spread == Spread::none) return f(Constant<Spread::none>{});
    if (spread == Spread::uniform) return f(Constant<Spread::uniform>{});
    if (spread == Spread::dense) return f(Constant<Spread::dense>{});
    f(Constant<Spread::mixed>{});
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
