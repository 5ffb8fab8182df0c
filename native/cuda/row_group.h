#pragma once

// Drivers of losses over the K rows of a sample, which lie samples apart: sample i is rows i, i + B, i + 2B, ...
// The K of users' calls have kernels of their own, which hold a thread's classes of all K rows in registers and read
// each row once. Others, and rows that don't fit, go in passes.

#include "../loss/jsd.h"
#include "launches.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Of each row of a group that a thread holds in registers: its probabilities, and as many slopes. */
inline constexpr int kGroupBytes = 32;
/** The most threads of a block: they need more registers than those of a row alone. */
inline constexpr int kGroupThreads = 384;

/** What the K rows of a sample come to together. */
struct GroupSums {
  double divergence = 0;  // Σ over rows of Σ p·G
  double clamped = 0;     // Σ p where the clamp is active
  double nothing = 0;     // of the rows' DivergenceSums

  SURPRISAL_DEVICE void add(const DivergenceSums<>& row) {
    divergence += row.slope;
    nothing += row.nothing();
  }
};

/** What both drivers ask of the formula about a sample. */
template <class T, class Formula>
struct GroupFormula {
  using R = Compute<T>;
  using Gradient = typename Formula::template Gradient<R>;

  const Formula& formula;
  const Evaluation& call;

  SURPRISAL_DEVICE double floor() const { return formula.cross_entropy.floor; }
  SURPRISAL_DEVICE double q_sum() const { return floor() * static_cast<double>(call.classes); }

  SURPRISAL_DEVICE LinearLoss loss(const RowSums<>& first, double distances, const GroupSums& sums, R z_label) const {
    const Label<> own = {formula.cross_entropy.mass, static_cast<double>(z_label) - first.max, 0};
    LinearLoss loss(first, q_sum(), floor() == 0 ? 0 : floor() * distances, own);
    loss.dot = formula.loss(loss.dot, sums.divergence, sums.clamped) + sums.nothing;
    return loss;
  }

  /** Of row k. */
  SURPRISAL_DEVICE Gradient gradient(int k, const DivergenceSums<>& row, const GroupSums& sums, double scale) const {
    const double q_all = k == 0 ? q_sum() + formula.cross_entropy.mass : 0;
    return Gradient(formula.factor, row.mean() + sums.nothing, scale, q_all, k == 0 ? floor() : 0);
  }

  /** Of the label's class in the first row. */
  SURPRISAL_DEVICE R label(const Gradient& gradient, const RowSums<>& first, R z_label, R p, R slope,
                           double scale) const {
    const R e = RowExponential<T>(static_cast<R>(first.max))(z_label);
    const double mass = formula.cross_entropy.mass;
    const double own = LinearGradient<R>::label(first, q_sum() + mass, mass + floor(), e, scale);
    return static_cast<R>(own + gradient.label(p, slope));
  }

  /** A class of all K rows: `p(k)` gives their probabilities, and `slope(k, p, G, clamped)` takes what follows. */
  template <class P, class F>
  SURPRISAL_DEVICE static void diverge(int splits, P&& p, F&& slope) {
    R total = 0;
    SURPRISAL_UNROLL
    for (int k = 0; k < splits; ++k) total = total + p(k);
    const auto mixture = Formula::mixture(total, splits);
    SURPRISAL_UNROLL
    for (int k = 0; k < splits; ++k) {
      R excess = 0;
      SURPRISAL_UNROLL
      for (int other = 0; other < splits; ++other) excess = excess + (p(k) - p(other));
      slope(k, p(k), Formula::slope(p(k), excess, mixture), mixture.clamped);
    }
  }

  /** Adds a class to a row's sums. Where p is near 1 all depends on what the others add to it: they are not rounded. */
  SURPRISAL_DEVICE static void add(DivergenceSums<>& sums, R p, R slope) {
    sums.slope = fma(static_cast<double>(p), static_cast<double>(slope), sums.slope);
    sums.p += static_cast<double>(p);
  }
};

template <class T, class Formula, int kSplits>
struct RowGroup {
  using R = Compute<T>;
  using Group = GroupFormula<T, Formula>;
  static constexpr int most_threads = kGroupThreads;
  static constexpr int kHeld = kElements<R, kGroupBytes>;
  static constexpr int kRun = RowPart<T>::kRun;

  Problem problem;
  RowPlan plan;
  Formula formula;

  SURPRISAL_DEVICE void operator()() const {
    const Group group = {formula, problem.call};
    RowPart<T> rows(problem, plan);
    R p[kSplits][kHeld], slopes[kSplits][kHeld], max[kSplits];
    RunMaxima<R, kHeld / kRun> maxima[kSplits];
    SURPRISAL_UNROLL
    for (int k = 0; k < kSplits; ++k) rows.load_logits(p[k], k * plan.all_rows);
    rows.find_label();
    const R z_label = rows.label_logit();
    SURPRISAL_UNROLL
    for (int k = 0; k < kSplits; ++k) {
      maxima[k].template find<kRun>(p[k]);
      max[k] = maxima[k].all;
    }
    rows.team.maximum(max);

    double sums[2 * kSplits + 1] = {};
    SURPRISAL_UNROLL
    for (int k = 0; k < kSplits; ++k) {
      const RowExponential<T> exponential(max[k]);
      const auto distance = [&](int j, Shifted<R> shifted) {
        Terms<R, 1> terms;
        if (k == 0 && rows.has(j)) terms.term[0] = -shifted.d;
        return terms;
      };
      const auto own = exponentials<1, kRun>(p[k], maxima[k].of_run, plan.runs, max[k], exponential, distance);
      sums[k] = static_cast<double>(own.terms.term[0]);
      sums[kSplits + k] = static_cast<double>(own.maxima);
      if (k == 0) sums[2 * kSplits] = static_cast<double>(own.terms.term[1]);
    }
    rows.team.sum(sums);
    const RowSums<> first(static_cast<double>(max[0]), sums[0], sums[kSplits]);
    SURPRISAL_UNROLL
    for (int k = 0; k < kSplits; ++k) {
      const RowSums<> row(static_cast<double>(max[k]), sums[k], sums[kSplits + k]);
      const Split<R> inverse(row.inverse());
      SURPRISAL_UNROLL
      for (int j = 0; j < kHeld; ++j) p[k][j] = times(p[k][j], inverse);
    }

    const double distances = sums[2 * kSplits];
    DivergenceSums<> own[kSplits] = {};
    R clamped = 0;
    SURPRISAL_UNROLL
    for (int j = 0; j < kHeld; ++j) {
      Group::diverge(
          kSplits, [&](int k) { return p[k][j]; },
          [&](int k, R probability, R slope, R is_clamped) {
            slopes[k][j] = slope;
            Group::add(own[k], probability, slope);
            clamped = multiply_add(probability, is_clamped, clamped);
          });
    }
    double all[2 * kSplits + 1] = {};
    SURPRISAL_UNROLL
    for (int k = 0; k < kSplits; ++k) {
      all[k] = own[k].slope;
      all[kSplits + k] = own[k].p;
    }
    all[2 * kSplits] = static_cast<double>(clamped);
    rows.team.sum(all);
    GroupSums group_sums;
    SURPRISAL_UNROLL
    for (int k = 0; k < kSplits; ++k) {
      own[k] = {all[k], all[kSplits + k]};
      group_sums.add(own[k]);
    }
    group_sums.clamped = all[2 * kSplits];
    if (problem.call.grad != nullptr) {
      const bool counts = rows.counts();
      const int label = rows.label_place();
      const double scale = rows.scale();
      SURPRISAL_UNROLL
      for (int k = 0; k < kSplits; ++k) {
        const auto gradient = group.gradient(k, own[k], group_sums, scale);
        typename RowPart<T>::Own of_label;
        if (k == 0 && rows.owns(label)) {
          R p_label = 0, slope = 0;
          SURPRISAL_UNROLL
          for (int j = 0; j < kHeld; ++j) {
            if (rows.place_of_element(j) != label) continue;
            p_label = p[0][j];
            slope = slopes[0][j];
          }
          of_label = {label, group.label(gradient, first, z_label, p_label, slope, scale)};
        }
        SURPRISAL_UNROLL
        for (int j = 0; j < kHeld; ++j) p[k][j] = counts ? gradient.value(p[k][j], slopes[k][j]) : R(0);
        rows.write(p[k], of_label, k * plan.all_rows);
      }
    }
    rows.put_loss(group.loss(first, distances, group_sums, z_label));
  }
};

/** Any K, and samples that do not fit: a pass for each row's sums, one for the divergence, one for the gradient. */
template <class T, class Formula>
struct RowGroupPasses {
  using R = Compute<T>;
  using Group = GroupFormula<T, Formula>;
  static constexpr int most_threads = kPassThreads;
  static constexpr int kHeld = kElements<R, kPassBytes>;

  Problem problem;
  RowPlan plan;
  Formula formula;

  /** Bytes of shared memory a sample and a class, beside the rows themselves. */
  static int64_t bytes(int splits) {
    return splits * static_cast<int64_t>(sizeof(RowSums<>) + sizeof(DivergenceSums<>));
  }
  static int64_t bytes_per_class(int splits) { return splits * static_cast<int64_t>(sizeof(R)); }

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    const int splits = formula.splits;
    const Group group = {formula, call};
    RowPart<T> rows(problem, plan);
    rows.find_label();
    const R z_label = rows.label_logit();
    auto* row_sums = reinterpret_cast<RowSums<>*>(rows.own_shared());
    auto* divergences = reinterpret_cast<DivergenceSums<>*>(row_sums + splits);
    // Of the slice at hand: each thread has the places of its own classes alone.
    R* probabilities = reinterpret_cast<R*>(divergences + splits);

    double distances = 0;
    SURPRISAL_NO_UNROLL
    for (int k = 0; k < splits; ++k) {
      RunningSums<R> running;
      rows.for_each_slice([&] {
        R z[kHeld];
        rows.load_logits(z, k * plan.all_rows);
        running.add(z, [&](int j, Shifted<R> shifted, double& q_sum) {
          if (!rows.has(j)) return R(0);
          q_sum += 1;
          return -shifted.d;
        });
      });
      running.finish(rows.team);
      if (k == 0) distances = running.dot;
      if (rows.team.rank == 0) {
        row_sums[k] = running.row();
        divergences[k] = {0, 0};
      }
    }
    sync_block();
    const RowSums<> first = row_sums[0];

    const auto for_each_class = [&](auto&& f) {
      SURPRISAL_UNROLL
      for (int j = 0; j < kHeld; ++j) {
        if (rows.has(j)) f(j, rows.place_of_element(j));
      }
    };
    const auto find_probabilities = [&] {
      SURPRISAL_NO_UNROLL
      for (int k = 0; k < splits; ++k) {
        R z[kHeld];
        rows.load_logits(z, k * plan.all_rows);
        const RowExponential<T> exponential(static_cast<R>(row_sums[k].max));
        const Split<R> inverse(row_sums[k].inverse());
        for_each_class([&](int j, int i) { probabilities[k * plan.slice + i] = times(exponential(z[j]), inverse); });
      }
    };
    const auto slope_of = [&](int k, int i, R& clamped) {
      const R p = probabilities[k * plan.slice + i];
      R total = 0, excess = 0;
      SURPRISAL_NO_UNROLL
      for (int other = 0; other < splits; ++other) {
        const R q = probabilities[other * plan.slice + i];
        total = total + q;
        excess = excess + (p - q);
      }
      const auto mixture = Formula::mixture(total, splits);
      clamped = mixture.clamped;
      return Formula::slope(p, excess, mixture);
    };
    GroupSums sums;
    rows.for_each_slice([&] {
      find_probabilities();
      SURPRISAL_NO_UNROLL
      for (int k = 0; k < splits; ++k) {
        DivergenceSums<> own = {0, 0};
        double clamped = 0;
        for_each_class([&](int, int i) {
          R is_clamped = 0;
          const R slope = slope_of(k, i, is_clamped), p = probabilities[k * plan.slice + i];
          Group::add(own, p, slope);
          clamped += static_cast<double>(p * is_clamped);
        });
        double terms[3] = {own.slope, own.p, clamped};
        rows.team.sum(terms);
        if (rows.team.rank == 0) divergences[k] = {divergences[k].slope + terms[0], divergences[k].p + terms[1]};
        sums.clamped += terms[2];
      }
    });
    sync_block();
    SURPRISAL_NO_UNROLL
    for (int k = 0; k < splits; ++k) sums.add(divergences[k]);

    if (call.grad != nullptr) {
      rows.for_each_slice([&] {
        find_probabilities();
        SURPRISAL_NO_UNROLL
        for (int k = 0; k < splits; ++k) {
          write_row(rows, group, k, first, divergences[k], sums, z_label, probabilities, slope_of);
        }
      });
    }
    rows.put_loss(group.loss(first, distances, sums, z_label));
  }

 private:
  template <class Slope>
  SURPRISAL_DEVICE void write_row(const RowPart<T>& rows, const Group& group, int k, const RowSums<>& first,
                                  const DivergenceSums<>& divergence, const GroupSums& sums, R z_label,
                                  const R* probabilities, Slope&& slope_of) const {
    const double scale = rows.scale();
    const bool counts = rows.counts();
    const auto gradient = group.gradient(k, divergence, sums, scale);
    R values[kHeld], clamped = 0;
    SURPRISAL_UNROLL
    for (int j = 0; j < kHeld; ++j) {
      const int i = rows.place_of_element(j);
      values[j] = 0;
      if (counts && rows.has(j)) values[j] = gradient.value(probabilities[k * plan.slice + i], slope_of(k, i, clamped));
    }
    typename RowPart<T>::Own own;
    const int label = rows.label_place();
    if (k == 0 && rows.owns(label)) {
      own = {label, group.label(gradient, first, z_label, probabilities[label], slope_of(0, label, clamped), scale)};
    }
    rows.write(values, own, k * plan.all_rows);
  }
};

/** Their launches. */
template <class T, class Formula>
struct RowGroupJobs {
  static RowPlan plan_of(const Evaluation& call, const DeviceLimits& limits) {
    const int splits = Formula(call.parameters, call.classes).splits;
    RowNeeds needs = needs_of<T>(call, kGroupBytes, splits);
    needs.threads = kGroupThreads;
    const auto plan = [&](auto choose) { return choose(call.classes, sizeof(T), sizeof(Compute<T>), limits, needs); };
    if (splits == 2 || splits == 3) {
      const RowPlan held = plan(plan_rows);
      if (held.driver != RowDriver::two_pass) return held;
    }
    using Passes = RowGroupPasses<T, Formula>;
    needs.bytes = Passes::bytes(splits);
    needs.bytes_per_class = Passes::bytes_per_class(splits);
    return plan(plan_passes);
  }

  static int64_t parts(const Evaluation& call, const DeviceLimits& limits) { return plan_of(call, limits).tiles; }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    const RowPlan plan = plan_of(call, limits);
    const LaunchShape shape = shape_of(plan, problem, limits);
    if (plan.driver == RowDriver::two_pass) {
      surprisal::launch(RowGroupPasses<T, Formula>{problem, plan, formula}, shape, stream);
    } else if (formula.splits == 2) {
      surprisal::launch(RowGroup<T, Formula, 2>{problem, plan, formula}, shape, stream);
    } else {
      surprisal::launch(RowGroup<T, Formula, 3>{problem, plan, formula}, shape, stream);
    }
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
