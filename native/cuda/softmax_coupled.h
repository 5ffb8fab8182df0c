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
template <class T, class Formula>
class CoupledRow {
  using R = Compute<T>;

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

  SURPRISAL_DEVICE R exponential(R z) const { return RowExponential<T>(max_)(z); }

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
SURPRISAL_DEVICE typename RowPart<T>::Own own_slope(const RowPart<T>& rows, const Coupled& coupled,
                                                    const RowSums<>& row, const CoupledSums& sums, Compute<T> z_label) {
  const int label = rows.label_place();
  if (!rows.owns(label)) return {};
  const double e = coupled.exponential(z_label);
  const double slope = CoupledGradient<Compute<T>>::label(row, sums.label_slope, sums.slope, e, rows.scale());
  return {label, static_cast<Compute<T>>(slope)};
}

/** Of a row that a thread holds, of whose slopes it holds as much. */
inline constexpr int kCoupledBytes = kRegisterBytes / 2;

template <class T, class Formula>
struct SoftmaxCoupled {
  using R = Compute<T>;
  static constexpr int kHeld = kElements<R, kCoupledBytes>;
  static constexpr int most_threads = kThreadsOfRow<R>;

  Problem problem;
  RowPlan plan;
  Formula formula;

  SURPRISAL_DEVICE void operator()() const {
    RowPart<T> rows(problem, plan);
    R z[kHeld], e[kHeld];
    rows.load_logits(z);
    rows.find_label();
    const R z_label = rows.label_logit();
    SURPRISAL_UNROLL
    for (int j = 0; j < kHeld; ++j) e[j] = z[j];
    const RowSums<> row = softmax_pass<0>(rows, e, NoTerms{}).row;
    const CoupledRow<T, Formula> coupled(formula, row);
    CoupledSums sums = {};
    if (rows.leads()) coupled.label(z_label, sums);
    // The slopes take the place of the logits. A row that does not count has no label, and its sums are not asked for.
    const int label = rows.label_place();
    const auto others = sum_in_pairs<kHeld>([&](int j) {
      Terms<R, 2> terms;
      if (j / rows.kRun < plan.runs && rows.has(j) && rows.place_of_element(j) != label)
        terms = coupled.other(z[j], e[j]);
      z[j] = terms.term[1];
      return terms;
    });
    sums.loss = static_cast<double>(others.term[0]);
    sums.slope = static_cast<double>(others.term[1]);
    finish_sums(rows.team, sums);
    if (problem.call.grad != nullptr) {
      const CoupledGradient<R> gradient(row, sums.slope + sums.label_slope, rows.scale());
      const bool counts = rows.counts();
      SURPRISAL_UNROLL
      for (int j = 0; j < kHeld; ++j) z[j] = counts ? gradient.value(z[j], e[j]) : R(0);
      rows.write(z, own_slope(rows, coupled, row, sums, z_label));
    }
    rows.put_loss(LinearLoss(sums.loss + sums.label_loss));
  }
};

/** The same of a row that does not fit: a pass for its sums, one for its slopes' and one for the gradient. */
template <class T, class Formula>
struct SoftmaxCoupledPasses {
  using R = Compute<T>;
  static constexpr int kHeld = kElements<R, kPassBytes>;
  static constexpr int most_threads = kPassThreads;

  Problem problem;
  RowPlan plan;
  Formula formula;

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    RowPart<T> rows(problem, plan);
    rows.find_label();
    const auto for_each_slice = [&](auto&& f) {
      rows.for_each_slice([&] {
        R z[kHeld];
        rows.load_logits(z);
        f(z);
      });
    };
    const R z_label = rows.label_logit();

    RunningSums<R> running;
    for_each_slice([&](const R(&z)[kHeld]) { running.add(z, [](int, Shifted<R>, double&) { return R(0); }); });
    running.finish(rows.team);
    const RowSums<> row = running.row();
    const CoupledRow<T, Formula> coupled(formula, row);
    CoupledSums sums = {};
    if (rows.leads()) coupled.label(z_label, sums);
    for_each_slice([&](const R(&z)[kHeld]) {
      const int label = rows.label_place();
      const auto others = sum_in_pairs<kHeld>([&](int j) {
        return rows.has(j) && rows.place_of_element(j) != label ? coupled.other(z[j], coupled.exponential(z[j]))
                                                                : Terms<R, 2>{};
      });
      sums.loss += static_cast<double>(others.term[0]);
      sums.slope += static_cast<double>(others.term[1]);
    });
    finish_sums(rows.team, sums);

    if (call.grad != nullptr) {
      const CoupledGradient<R> gradient(row, sums.slope + sums.label_slope, rows.scale());
      const bool counts = rows.counts();
      for_each_slice([&](R(&z)[kHeld]) {
        SURPRISAL_UNROLL
        for (int j = 0; j < kHeld; ++j) {
          const R e = coupled.exponential(z[j]);
          z[j] = counts && rows.has(j) ? gradient.value(coupled.other(z[j], e).term[1], e) : R(0);
        }
        rows.write(z, own_slope(rows, coupled, row, sums, z_label));
      });
    }
    rows.put_loss(LinearLoss(sums.loss + sums.label_loss));
  }
};

/** Their launches. */
template <class T, class Formula>
struct SoftmaxCoupledJobs {
  static RowPlan plan_of(const Evaluation& call, const DeviceLimits& limits) {
    return surprisal::plan_of<T>(call, limits, kCoupledBytes);
  }

  static int64_t parts(const Evaluation& call, const DeviceLimits& limits) { return plan_of(call, limits).tiles; }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    const RowPlan plan = plan_of(call, limits);
    const LaunchShape shape = shape_of(plan, problem, limits);
    if (plan.driver == RowDriver::two_pass) {
      return surprisal::launch(SoftmaxCoupledPasses<T, Formula>{problem, plan, formula}, shape, stream);
    }
    surprisal::launch(SoftmaxCoupled<T, Formula>{problem, plan, formula}, shape, stream);
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
