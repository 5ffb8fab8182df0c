#pragma once

// Drivers of what maps a row to a row of its length: softmax, log_softmax, and their backwards (input: the gradient of
// the output; dense: the output). The result goes where a loss's gradient would. A map and its logarithm's are one
// kernel, as they differ in little.

#include <type_traits>

#include "launches.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Calls f with the map that is asked for. */
template <class Maps, class F>
SURPRISAL_DEVICE void with_map(bool is_log, F&& f) {
  if (is_log) {
    f(typename Maps::Log{});
  } else {
    f(typename Maps::Plain{});
  }
}

/** Σ g·weight and Σ p of a backward pass, in double: all of a result may depend on what they come to. */
template <class Maps, class T>
SURPRISAL_DEVICE void add_backward(bool is_log, const RowBlock<T>& block, const Held<Compute<T>>& g,
                                   Held<Compute<T>>& p, double (&sums)[2]) {
  with_map<Maps>(is_log, [&](auto map) {
    block.for_each([&](int j, int) {
      p[j] = map.probability(p[j]);
      sums[0] += static_cast<double>(g[j]) * static_cast<double>(map.weight(p[j]));
      sums[1] += static_cast<double>(p[j]);
    });
  });
}

template <class T, class Maps>
struct RowMap {
  using R = Compute<T>;
  static constexpr int most_threads = kRowThreads;

  Problem problem;
  RowPlan plan;
  bool is_log;

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    RowBlock<T> block(call, plan, call.rows());
    const T* input = static_cast<const T*>(call.input);
    T* result = static_cast<T*>(call.grad);
    block.load(input, call.input_strides);
    Held<R> x, p;
    block.read(block.shared_row(input, call.input_strides), x, -static_cast<R>(INFINITY));
    T* out = block.shared_row(result, call.grad_strides);
    if constexpr (Maps::Plain::backward) {
      block.read_dense(0, p);
      double sums[2] = {};
      add_backward<Maps>(is_log, block, x, p, sums);
      block.team.sum(sums);
      const Split<R> mean(sums[0] / normaliser(sums[1]));
      sync_block();  // The rows were read; the results may lie otherwise beside multiples of 16.
      with_map<Maps>(is_log, [&](auto map) {
        block.for_each([&](int j, int i) { out[i] = stored<T>(map.map(x[j], p[j], mean)); });
      });
    } else {
      const RowSums<> row = softmax_pass<0, R>(block.team, x, p, NoTerms{}).row;
      const R m = static_cast<R>(row.max), log_sum = static_cast<R>(row.log_sum());
      const Split<R> inverse(row.inverse());
      sync_block();
      with_map<Maps>(is_log, [&](auto map) {
        block.for_each([&](int j, int i) { out[i] = stored<T>(map.map(x[j] - m, p[j], log_sum, inverse)); });
      });
    }
    block.store(result, call.grad_strides);
    if (plan.cluster > 1) sync_cluster();  // Others may still read this block's shared memory.
  }
};

/** The same of a row that does not fit, which is read twice. */
template <class T, class Maps>
struct RowMapTwoPass {
  using R = Compute<T>;
  static constexpr int most_threads = kPassThreads;

  Problem problem;
  RowPlan plan;
  bool is_log;

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    RowBlock<T> block(call, plan, call.rows());
    const T* input = static_cast<const T*>(call.input);
    if constexpr (Maps::Plain::backward) {
      double sums[2] = {};
      block.for_each_tile(input, call.input_strides, [&](const Held<R>& g) {
        Held<R> p;
        block.read_dense(0, p);
        add_backward<Maps>(is_log, block, g, p, sums);
      });
      block.team.sum(sums);
      const Split<R> mean(sums[0] / normaliser(sums[1]));
      write(block, [&](const Held<R>& g, T* out) {
        Held<R> p;
        block.read_dense(0, p);
        with_map<Maps>(is_log, [&](auto map) {
          block.for_each([&](int j, int i) { out[i] = stored<T>(map.map(g[j], map.probability(p[j]), mean)); });
        });
      });
    } else {
      RunningSums<R> running;
      block.for_each_tile(input, call.input_strides,
                          [&](const Held<R>& z) { running.add(z, [](int, Shifted<R>, double&) { return R(0); }); });
      running.finish(block.team);
      const RowSums<> row = running.row();
      const R m = static_cast<R>(row.max), log_sum = static_cast<R>(row.log_sum());
      const Split<R> inverse(row.inverse());
      const ExponentialBelow<R> exponential(m);
      write(block, [&](const Held<R>& z, T* out) {
        with_map<Maps>(is_log, [&](auto map) {
          block.for_each(
              [&](int j, int i) { out[i] = stored<T>(map.map(z[j] - m, exponential(z[j]), log_sum, inverse)); });
        });
      });
    }
  }

 private:
  template <class F>
  SURPRISAL_DEVICE void write(RowBlock<T>& block, F&& f) const {
    const Evaluation& call = problem.call;
    T* result = static_cast<T*>(call.grad);
    block.for_each_tile(static_cast<const T*>(call.input), call.input_strides, [&](const Held<R>& x) {
      f(x, block.shared_row(result, call.grad_strides));
      block.store(result, call.grad_strides);
      sync_block();
    });
  }
};

/** Their launches. */
template <class T, class Formula>
struct RowMapJobs {
  static int64_t parts(const Evaluation&, const DeviceLimits&) { return 0; }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    using Maps = typename Formula::Maps;
    constexpr bool kIsLog = std::is_same_v<Formula, typename Maps::Log>;
    const RowPlan plan = plan_of<T>(problem.call, limits);
    const LaunchShape shape = shape_of(plan, problem.call.rows());
    if (plan.driver == RowDriver::two_pass) {
      return surprisal::launch(RowMapTwoPass<T, Maps>{problem, plan, kIsLog}, shape, stream);
    }
    surprisal::launch(RowMap<T, Maps>{problem, plan, kIsLog}, shape, stream);
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
