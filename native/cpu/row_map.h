#pragma once

// Driver of what maps a row to a row of its length: softmax, log_softmax, and their backwards (input: the gradient of
// the output; dense: the output). The result goes where a loss's gradient would.

#include "softmax_pass.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class T, class Formula>
struct RowMap {
  using R = Compute<T>;
  using V = Vec<R>;

  static size_t scratch(const Evaluation& call) {
    return RowReader<T>::scratch(call) + RowWriter<T>::scratch(call) + DenseReader<R>::scratch(call) +
           Arena::room<R>(padded<T>(call.classes)) + Arena::room<R>(stretch_maxima_size<R>(call.classes));
  }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    RowReader<T> input(call, block, arena);
    RowWriter<T> result(problem, block, arena);
    DenseReader<R> output(call, arena);
    R* scratch_row = arena.take<R>(padded<T>(call.classes));
    R* stretch_maxima = arena.take<R>(stretch_maxima_size<R>(call.classes));
    for (int64_t row = block.begin; row < block.end; ++row) {
      T* out = result.row(row);
      if constexpr (Formula::backward) {
        backward_row(input.row(row), output.row(row, -1), scratch_row, result, out, call.classes);
      } else {
        forward_row(input.row(row), input.next(row), scratch_row, stretch_maxima, result, out, call.classes);
      }
    }
    result.finish();
    return 0;
  }

 private:
  static void forward_row(const T* z, const T* next, R* exponentials, R* stretch_maxima, RowWriter<T>& result, T* out,
                          int64_t classes) {
    const auto keep = [&](int64_t c, auto, Shifted<V> shifted) __attribute__((always_inline)) {
      store(exponentials + c, shifted.e, Full{});
      if (!result.streams()) __builtin_prefetch(out + c, 1);
      return Terms<V, 0>{};
    };
    const RowSums sums = softmax_pass<0>(z, next, classes, stretch_maxima, keep).row;
    const V m(static_cast<R>(sums.max));
    const R log_sum = static_cast<R>(sums.log_sum());
    const Split<R> inverse(sums.inverse());
    result.write(out, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
      return Formula::map(load(z + c, lanes) - m, load(exponentials + c, Full{}), log_sum, inverse);
    });
  }

  static void backward_row(const T* g_row, const R* output_row, R* probabilities, RowWriter<T>& result, T* out,
                           int64_t classes) {
    Sum<V> sum, p_sum;
    for_each_vector<V>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
      const V p = inside(lanes, Formula::probability(load(output_row + c, lanes)));
      store(probabilities + c, p, Full{});
      sum.add_product(load(g_row + c, lanes), Formula::weight(p));
      p_sum.add(p);
    });
    const Split<R> mean(sum.total() / normaliser(p_sum.total()));
    result.write(out, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
      return Formula::map(load(g_row + c, lanes), load(probabilities + c, Full{}), mean);
    });
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
