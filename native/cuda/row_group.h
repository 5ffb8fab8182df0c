#pragma once

// Drivers of losses over the K rows of a sample, which lie samples apart: sample i is rows i, i + B, i + 2B, ...
// Where all K rows fit on the chip they are read once: their logits, their probabilities and their slopes wait in
// shared memory, of which each thread uses the places of its own classes alone.

#include "../loss/jsd.h"
#include "launches.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Shared memory of a block's samples: the K tiles of rows, then what the threads keep a class and row. */
template <class T>
class GroupMemory {
  using R = Compute<T>;

 public:
  SURPRISAL_DEVICE GroupMemory(const RowPlan& plan, int splits, std::byte* begin)
      : plan_(plan), splits_(splits), tiles_(begin) {}

  /** Bytes a class of all K rows, beside the rows themselves. */
  static int64_t bytes_per_class(int splits) { return 2 * splits * static_cast<int64_t>(sizeof(R)); }
  /** Bytes a sample. */
  static int64_t bytes_per_sample(int splits) { return splits * static_cast<int64_t>(sizeof(DivergenceSums<>)); }

  SURPRISAL_DEVICE T* tile(int k) const { return reinterpret_cast<T*>(tiles_ + k * plan_.rows * plan_.row_bytes); }
  SURPRISAL_DEVICE R* probabilities(int k, int sample) const { return values(k, sample); }
  SURPRISAL_DEVICE R* slopes(int k, int sample) const { return values(splits_ + k, sample); }
  SURPRISAL_DEVICE DivergenceSums<>& sums(int k, int sample) const {
    auto* end = reinterpret_cast<DivergenceSums<>*>(tiles_ + splits_ * plan_.rows * plan_.row_bytes);
    return end[k * plan_.rows + sample];
  }

 private:
  SURPRISAL_DEVICE R* values(int array, int sample) const {
    auto* first = reinterpret_cast<R*>(&sums(splits_, 0));
    return first + (static_cast<int64_t>(array) * plan_.rows + sample) * plan_.slice;
  }

  const RowPlan& plan_;
  int splits_;
  std::byte* tiles_;
};

/** What the drivers of a group's rows share. */
template <class T, class Formula>
struct RowGroupPart {
  using R = Compute<T>;

  const Problem& problem;
  const RowPlan& plan;
  const Formula& formula;
  int64_t samples;
  RowBlock<T> block;  // of samples, as if they were the first split's rows
  GroupMemory<T> memory;
  const RowHead& head;

  SURPRISAL_DEVICE RowGroupPart(const Problem& problem, const RowPlan& plan, const Formula& formula)
      : problem(problem),
        plan(plan),
        formula(formula),
        samples(problem.call.rows() / formula.splits),
        block(problem.call, plan, samples),
        memory(plan, formula.splits, reinterpret_cast<std::byte*>(block.shared_rows())),
        head(block.head()) {
    block.read_heads(problem);
  }

  SURPRISAL_DEVICE RowTile<T> tile(int k) const {
    return RowTile<T>(problem.call, plan, memory.tile(k), k * samples + block.first, block.count);
  }

  /** All K tiles of a tensor into shared memory. */
  SURPRISAL_DEVICE void load() const {
    const Evaluation& call = problem.call;
    SURPRISAL_NO_UNROLL
    for (int k = 0; k < formula.splits; ++k) {
      tile(k).load(static_cast<const T*>(call.input), call.input_strides, block.begin, block.width);
    }
    wait_for_copies();
    sync_block();
  }

  SURPRISAL_DEVICE const T* logits(int k) const {
    return tile(k).row(static_cast<const T*>(problem.call.input), problem.call.input_strides, block.team.number,
                       block.begin);
  }

  /** Calls f(i) for this thread's classes block.begin + i. */
  template <class F>
  SURPRISAL_DEVICE void for_each(F&& f) const {
    if (!block.exists) return;
    SURPRISAL_NO_UNROLL
    for (int i = block.team.rank; i < block.width; i += block.team.size) f(i);
  }

  SURPRISAL_DEVICE double floor() const { return formula.cross_entropy.floor; }

  /** Turns the probabilities in shared memory into slopes, and adds to the rows' sums: this thread's classes alone. */
  SURPRISAL_DEVICE void diverge(int k, DivergenceSums<>& sums, double& clamped) const {
    const int sample = block.team.number, splits = formula.splits;
    for_each([&](int i) {
      const R p = memory.probabilities(k, sample)[i];
      R total = 0, excess = 0;
      SURPRISAL_NO_UNROLL
      for (int other = 0; other < splits; ++other) {
        const R q = memory.probabilities(other, sample)[i];
        total = total + q;
        excess = excess + (p - q);
      }
      const auto mixture = Formula::mixture(total, splits);
      const R slope = Formula::slope(p, excess, mixture);
      memory.slopes(k, sample)[i] = slope;
      // Where p is near 1 all depends on what the others add to it: their sum must not be rounded beside it.
      sums.slope += static_cast<double>(p) * static_cast<double>(slope);
      sums.p += static_cast<double>(p);
      clamped += static_cast<double>(p * mixture.clamped);
    });
  }

  /** The sums of all K rows, of which each thread has brought its part of row k; of the clamp, of all rows at once. */
  SURPRISAL_DEVICE void finish_sums(int k, DivergenceSums<>& sums, double& clamped) {
    double terms[3] = {sums.slope, sums.p, clamped};
    block.team.sum(terms);
    sums = {terms[0], terms[1]};
    clamped = terms[2];
    if (block.team.rank == 0) memory.sums(k, block.team.number) = sums;
  }

  struct Divergence {
    double value = 0;    // Σ over rows of Σ p·G
    double clamped = 0;  // Σ p where the clamp is active
    double nothing = 0;  // of the rows' DivergenceSums
  };

  /** The sample's loss, for the thread that has its label's logit. */
  SURPRISAL_DEVICE double loss(const RowSums<>& first, double distances, const Divergence& divergence,
                               R z_label) const {
    const Label<> own = {formula.cross_entropy.mass, static_cast<double>(z_label) - first.max, 0};
    const double q_sum = floor() * static_cast<double>(problem.call.classes);
    const double cross_entropy = linear_loss(first.log_sum(), q_sum, floor() == 0 ? 0 : floor() * distances, own);
    return formula.loss(cross_entropy, divergence.value, divergence.clamped) + divergence.nothing;
  }

  /** The gradient of row k of the tile's classes in place of its logits. */
  SURPRISAL_DEVICE void write(int k, const RowSums<>& first, const Divergence& divergence, R z_label) const {
    const Evaluation& call = problem.call;
    const bool counts = head.state == RowState::counts;
    const double q_sum = floor() * static_cast<double>(call.classes);
    const DivergenceSums<> sums = memory.sums(k, block.team.number);
    const double slope_sum = sums.mean() + divergence.nothing;
    const double q_all = k == 0 ? q_sum + formula.cross_entropy.mass : 0;
    const typename Formula::template Gradient<R> gradient(formula.factor, slope_sum, head.scale, q_all,
                                                          k == 0 ? floor() : 0);
    const R* p = memory.probabilities(k, block.team.number);
    const R* slopes = memory.slopes(k, block.team.number);
    T* dz = tile(k).row(static_cast<T*>(call.grad), call.grad_strides, block.team.number, block.begin);
    for_each([&](int i) { dz[i] = stored<T>(counts ? gradient.value(p[i], slopes[i]) : R(0)); });
    if (const int i = block.place_of(head.y); k == 0 && counts && block.owns(i)) {
      const R e = ExponentialBelow<R>(static_cast<R>(first.max))(z_label);
      const double own = LinearGradient<R>::label(first, q_all, formula.cross_entropy.mass + floor(), e, head.scale);
      dz[i] = stored<T>(static_cast<R>(own + gradient.label(p[i], slopes[i])));
    }
  }

  SURPRISAL_DEVICE void store() const {
    const Evaluation& call = problem.call;
    sync_block();
    SURPRISAL_NO_UNROLL
    for (int k = 0; k < formula.splits; ++k) {
      tile(k).store(static_cast<T*>(call.grad), call.grad_strides, block.begin, block.width);
    }
  }

  SURPRISAL_DEVICE void put_loss(bool leads, double loss) const { block.put_loss(problem, samples, leads, loss); }
};

template <class T, class Formula>
struct RowGroup {
  using R = Compute<T>;
  using Part = RowGroupPart<T, Formula>;
  static constexpr int most_threads = kRowThreads;

  Problem problem;
  RowPlan plan;
  Formula formula;

  SURPRISAL_DEVICE void operator()() const {
    Part part(problem, plan, formula);
    part.load();
    const auto* input = static_cast<const T*>(problem.call.input);
    const RowBlock<T>& block = part.block;
    const int label = block.place_of(part.head.y);
    // Its thread and the first one ask for it; other blocks of a cluster don't hold it.
    R z_label = 0;
    if (label >= 0) {
      z_label = widen(part.logits(0)[label]);
    } else if (block.team.block == 0 && block.team.rank == 0 && block.exists) {
      z_label = widen(load_global(block.global(input, problem.call.input_strides, part.head.y)));
    }
    double distances = 0;
    RowSums<> first = softmax(part, 0, distances);
    SURPRISAL_NO_UNROLL
    for (int k = 1; k < formula.splits; ++k) {
      double ignored = 0;
      softmax(part, k, ignored);
    }
    typename Part::Divergence divergence;
    SURPRISAL_NO_UNROLL
    for (int k = 0; k < formula.splits; ++k) {
      DivergenceSums<> sums = {};
      double clamped = 0;
      part.diverge(k, sums, clamped);
      part.finish_sums(k, sums, clamped);
      divergence.value += sums.slope;
      divergence.clamped += clamped;
      divergence.nothing += sums.nothing();
    }
    if (problem.call.grad != nullptr) {
      sync_block();  // The logits were read; the gradient may lie otherwise beside multiples of 16.
      SURPRISAL_NO_UNROLL
      for (int k = 0; k < formula.splits; ++k) part.write(k, first, divergence, z_label);
      part.store();
    }
    part.put_loss(part.block.team.block == 0, part.loss(first, distances, divergence, z_label));
    if (plan.cluster > 1) sync_cluster();  // Others may still read this block's shared memory.
  }

 private:
  /** Row k's probabilities into shared memory; its sums, and Σ (max − z). */
  SURPRISAL_DEVICE RowSums<> softmax(Part& part, int k, double& distances) const {
    const T* z = part.logits(k);
    R* p = part.memory.probabilities(k, part.block.team.number);
    R largest = -static_cast<R>(INFINITY);
    part.for_each([&](int i) { largest = maximum(widen(z[i]), largest); });
    const R max = part.block.team.maximum(largest);
    const ExponentialBelow<R> exponential(max);
    int maxima = 0;
    double sums[3] = {};
    part.for_each([&](int i) {
      const R x = widen(z[i]), e = exponential(x);
      p[i] = e;
      sums[0] += static_cast<double>(rest_term(x, max, e));
      maxima += x == max;
      sums[2] -= static_cast<double>(exponential.difference(x));
    });
    sums[1] = static_cast<double>(maxima);
    part.block.team.sum(sums);
    distances = sums[2];
    const RowSums<> row(static_cast<double>(max), sums[0], sums[1]);
    const Split<R> inverse(row.inverse());
    part.for_each([&](int i) { p[i] = times(p[i], inverse); });
    return row;
  }
};

/** The same of samples that do not fit, in tiles: a pass for the rows' sums, one for the divergence, one for the
 * gradient. */
template <class T, class Formula>
struct RowGroupPasses {
  using R = Compute<T>;
  using Part = RowGroupPart<T, Formula>;
  static constexpr int most_threads = kPassThreads;

  Problem problem;
  RowPlan plan;
  Formula formula;

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    Part part(problem, plan, formula);
    sync_block();
    const auto* input = static_cast<const T*>(call.input);
    const R z_label = widen(load_global(part.block.global(input, call.input_strides, part.head.y)));
    auto* rows = reinterpret_cast<RowSums<>*>(part.memory.probabilities(2 * formula.splits, 0));
    double distances = 0;
    SURPRISAL_NO_UNROLL
    for (int k = 0; k < formula.splits; ++k) sum_row(part, k, rows, distances);
    sync_block();
    const RowSums<> first = rows[0];

    typename Part::Divergence divergence;
    DivergenceSums<> nothing_yet = {};
    if (part.block.team.rank == 0) {
      SURPRISAL_NO_UNROLL
      for (int k = 0; k < formula.splits; ++k) part.memory.sums(k, 0) = nothing_yet;
    }
    for_each_tile(part, rows, [&] {
      SURPRISAL_NO_UNROLL
      for (int k = 0; k < formula.splits; ++k) {
        DivergenceSums<> sums = {};
        double clamped = 0;
        part.diverge(k, sums, clamped);
        const DivergenceSums<> before = part.memory.sums(k, 0);
        sync_block();  // Every thread knows what there was.
        if (part.block.team.rank == 0) sums = {sums.slope + before.slope, sums.p + before.p};
        part.finish_sums(k, sums, clamped);
        divergence.clamped += clamped;
      }
    });
    sync_block();
    SURPRISAL_NO_UNROLL
    for (int k = 0; k < formula.splits; ++k) {
      const DivergenceSums<> sums = part.memory.sums(k, 0);
      divergence.value += sums.slope;
      divergence.nothing += sums.nothing();
    }
    if (call.grad != nullptr) {
      for_each_tile(part, rows, [&] {
        SURPRISAL_NO_UNROLL
        for (int k = 0; k < formula.splits; ++k) {
          DivergenceSums<> known = {};
          double clamped = 0;
          part.diverge(k, known, clamped);
        }
        sync_block();
        SURPRISAL_NO_UNROLL
        for (int k = 0; k < formula.splits; ++k) part.write(k, first, divergence, z_label);
        part.store();
      });
    }
    part.put_loss(true, part.loss(first, distances, divergence, z_label));
  }

 private:
  SURPRISAL_DEVICE void sum_row(Part& part, int k, RowSums<>* rows, double& distances) const {
    const Evaluation& call = problem.call;
    RunningSums<R> running;
    SURPRISAL_NO_UNROLL
    for (int64_t c = 0; c < call.classes; c += plan.slice) {
      part.block.move_to(c);
      sync_block();
      part.load();
      const T* z = part.logits(k);
      Held<R> values;
      part.block.read(z, values, -static_cast<R>(INFINITY));
      running.add(values, [&](int j, Shifted<R> shifted, double& q_sum) {
        if (!part.block.has(part.block.place(j))) return R(0);
        q_sum += 1;
        return -shifted.d;
      });
    }
    running.finish(part.block.team);
    if (k == 0) distances = running.dot;
    if (part.block.team.rank == 0) rows[k] = running.row();
  }

  /** Calls f for each tile of the sample, its probabilities in shared memory. */
  template <class F>
  SURPRISAL_DEVICE void for_each_tile(Part& part, const RowSums<>* rows, F&& f) const {
    SURPRISAL_NO_UNROLL
    for (int64_t c = 0; c < problem.call.classes; c += plan.slice) {
      part.block.move_to(c);
      sync_block();  // The last tile is done with.
      part.load();
      SURPRISAL_NO_UNROLL
      for (int k = 0; k < formula.splits; ++k) {
        const T* z = part.logits(k);
        R* p = part.memory.probabilities(k, 0);
        const ExponentialBelow<R> exponential(static_cast<R>(rows[k].max));
        const Split<R> inverse(rows[k].inverse());
        part.for_each([&](int i) { p[i] = times(exponential(widen(z[i])), inverse); });
      }
      f();
    }
  }
};

/** Their launches. */
template <class T, class Formula>
struct RowGroupJobs {
  static RowPlan plan_of(const Evaluation& call, const DeviceLimits& limits) {
    using Memory = GroupMemory<T>;
    const int splits = Formula(call.parameters, call.classes).splits;
    // The sums of the rows that do not fit come last.
    const int64_t per_unit = Memory::bytes_per_sample(splits) + splits * static_cast<int64_t>(sizeof(RowSums<>));
    return plan_rows(call.classes, sizeof(T), sizeof(Compute<T>), limits,
                     {splits, per_unit, Memory::bytes_per_class(splits)});
  }

  static int64_t samples(const Evaluation& call) { return call.rows() / Formula(call.parameters, call.classes).splits; }

  static int64_t parts(const Evaluation& call, const DeviceLimits& limits) {
    return plan_of(call, limits).tiles(samples(call));
  }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    const RowPlan plan = plan_of(call, limits);
    const LaunchShape shape = shape_of(plan, samples(call));
    if (plan.driver == RowDriver::two_pass) {
      return surprisal::launch(RowGroupPasses<T, Formula>{problem, plan, formula}, shape, stream);
    }
    surprisal::launch(RowGroup<T, Formula>{problem, plan, formula}, shape, stream);
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
