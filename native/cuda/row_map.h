#pragma once

// Drivers of what maps a row to a row of its length: softmax, log_softmax, and their backwards (input: the gradient of
// the output; dense: the output). The result goes where a loss's gradient would.

#include <type_traits>

#include "launches.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Of a row that a thread holds: of a backward pass it holds two. */
constexpr int map_register_bytes(bool backward) { return backward ? kRegisterBytes / 2 : kRegisterBytes; }

/** Σ g·weight and Σ p of a backward pass, in double: all of a result may depend on what they come to. */
template <class Map, class T, int n>
SURPRISAL_DEVICE void add_backward(const RowPart<T>& rows, const Compute<T> (&g)[n], Compute<T> (&p)[n],
                                   double (&sums)[2]) {
  SURPRISAL_UNROLL
  for (int j = 0; j < n; ++j) {
    if (!rows.has(j)) continue;
    p[j] = Map::probability(p[j]);
    sums[0] += static_cast<double>(g[j]) * static_cast<double>(Map::weight(p[j]));
    sums[1] += static_cast<double>(p[j]);
  }
}

/** Calls f with the map that is asked for. */
template <class Maps, class F>
SURPRISAL_DEVICE void with_map(bool is_log, F&& f) {
  if (is_log) {
    f(typename Maps::Log{});
  } else {
    f(typename Maps::Plain{});
  }
}

/** A map and its logarithm's are one kernel. */
template <class T, class Maps>
struct RowMap {
  using R = Compute<T>;
  static constexpr bool kIsBackward = Maps::Plain::backward;
  static constexpr int kHeld = kElements<R, map_register_bytes(kIsBackward)>;
  static constexpr int most_threads = kThreadsOfRow<R>;

  Problem problem;
  RowPlan plan;
  bool is_log;

  SURPRISAL_DEVICE void operator()() const {
    RowPart<T> rows(problem, plan);
    R x[kHeld], p[kHeld];
    rows.load_logits(x);
    if constexpr (kIsBackward) {
      // The dense rows of a backward pass are the outputs of the forward one.
      rows.load_dense(p);
      double sums[2] = {};
      with_map<Maps>(is_log, [&](auto map) { add_backward<decltype(map)>(rows, x, p, sums); });
      rows.team.sum(sums);
      const Split<R> mean(sums[0] / normaliser(sums[1]));
      map_each([&](auto map, int j) { x[j] = map.map(x[j], p[j], mean); });
    } else {
      SURPRISAL_UNROLL
      for (int j = 0; j < kHeld; ++j) p[j] = x[j];
      const RowSums<> row = softmax_pass<0>(rows, p, NoTerms{}).row;
      const R m = static_cast<R>(row.max);
      // Each map takes one of these alone.
      const R log_sum = static_cast<R>(row.log_sum());
      const Split<R> inverse(row.inverse());
      map_each([&](auto map, int j) { x[j] = map.map(x[j] - m, p[j], log_sum, inverse); });
    }
    rows.write(x, {});
  }

 private:
  template <class F>
  SURPRISAL_DEVICE void map_each(F&& f) const {
    with_map<Maps>(is_log, [&](auto map) {
      SURPRISAL_UNROLL
      for (int j = 0; j < kHeld; ++j) f(map, j);
    });
  }
};

/** The same of a row that does not fit, which is read twice. */
template <class T, class Maps>
struct RowMapTwoPass {
  using R = Compute<T>;
  static constexpr int most_threads = kPassThreads;
  static constexpr bool kIsBackward = Maps::Plain::backward;
  static constexpr int kHeld = kElements<R, kPassBytes>;

  Problem problem;
  RowPlan plan;
  bool is_log;

  SURPRISAL_DEVICE void operator()() const {
    RowPart<T> rows(problem, plan);
    // Calls f with this thread's elements of each slice.
    const auto for_each_slice = [&](auto&& f) {
      rows.for_each_slice([&] {
        R x[kHeld], p[kHeld];
        rows.load_logits(x);
        if constexpr (kIsBackward) rows.load_dense(p);
        f(x, p);
      });
    };
    // And writes what it makes of each.
    const auto map_each_slice = [&](auto&& f) {
      for_each_slice([&](R(&x)[kHeld], R(&p)[kHeld]) {
        with_map<Maps>(is_log, [&](auto map) {
          SURPRISAL_UNROLL
          for (int j = 0; j < kHeld; ++j) x[j] = f(map, x[j], p[j]);
        });
        rows.write(x, {});
      });
    };
    if constexpr (kIsBackward) {
      double sums[2] = {};
      for_each_slice([&](const R(&g)[kHeld], R(&p)[kHeld]) {
        with_map<Maps>(is_log, [&](auto map) { add_backward<decltype(map)>(rows, g, p, sums); });
      });
      rows.team.sum(sums);
      const Split<R> mean(sums[0] / normaliser(sums[1]));
      map_each_slice([&](auto map, R g, R p) { return map.map(g, map.probability(p), mean); });
    } else {
      RunningSums<R> running;
      for_each_slice([&](const R(&z)[kHeld], const R(&)[kHeld]) {
        running.add(z, [](int, Shifted<R>, double&) { return R(0); });
      });
      running.finish(rows.team);
      const RowSums<> row = running.row();
      const R m = static_cast<R>(row.max), log_sum = static_cast<R>(row.log_sum());
      const Split<R> inverse(row.inverse());
      const ExponentialBelow<R> exponential(m);
      map_each_slice([&](auto map, R z, R) { return map.map(z - m, exponential(z), log_sum, inverse); });
    }
  }
};

/** Their launches. */
template <class T, class Formula>
struct RowMapJobs {
  static int64_t parts(const Evaluation&, const DeviceLimits&) { return 0; }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    using Maps = typename Formula::Maps;
    constexpr bool kIsLog = std::is_same_v<Formula, typename Maps::Log>;
    const RowPlan plan = plan_of<T>(problem.call, limits, map_register_bytes(Formula::backward));
    const LaunchShape shape = shape_of(plan, problem, limits);
    if (plan.driver == RowDriver::two_pass) {
      return surprisal::launch(RowMapTwoPass<T, Maps>{problem, plan, kIsLog}, shape, stream);
    }
    surprisal::launch(RowMap<T, Maps>{problem, plan, kIsLog}, shape, stream);
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
