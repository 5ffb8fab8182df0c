#pragma once

// Driver of what maps a row to a row of its length: softmax, log_softmax, and their backwards (input: the gradient of
// the output; dense: the output). The result goes where a loss's gradient would.

#include "lanes.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** The pass that softmax and log_softmax have in common, compiled once. */
template <class Lanes>
struct RowExponentials {
  using V = typename Lanes::V;

  __attribute__((noinline)) static RowSums<typename Lanes::Number> take(
      const Lanes& lanes, const typename Lanes::Reader& input, const typename Lanes::Reader::Row& z,
      typename Lanes::R* exponentials, const typename Lanes::Writer& result, const typename Lanes::Writer::Row& out) {
    const auto each = [&](int64_t at, auto, V) __attribute__((always_inline)) {
      result.prepare(out, at);
      return Terms<V, 0>{};
    };
    typename Lanes::Reference reference = lanes.reference(z);
    const auto row = lanes.template single_pass<0>(input, z, reference, exponentials, each);
    return lanes.template conclude<0>(reference, row, z).row;
  }
};

template <class Lanes, class Formula>
struct RowMap {
  using T = typename Lanes::Stored;
  using R = typename Lanes::R;
  using V = typename Lanes::V;
  using Number = typename Lanes::Number;
  using Factor = typename Lanes::Factor;
  using Reader = typename Lanes::Reader;
  using Writer = typename Lanes::Writer;
  using Labels = typename Lanes::Labels;

  static size_t scratch(const Evaluation& call) {
    return Lanes::scratch(call, 1) + Reader::scratch(call) + Writer::scratch(call) + Lanes::Targets::scratch(call) +
           Arena::room<R>(padded<T>(Lanes::extent(call)));
  }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    const int64_t extent = Lanes::extent(call);
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    const Lanes lanes(call, 1, arena);
    Reader input(call, block, arena);
    Writer result(problem, block, arena);
    typename Lanes::Targets output(call, block, arena);
    R* scratch_row = arena.take<R>(padded<T>(extent));
    for (int64_t row = block.begin; row < block.end; row += Lanes::kRows) {
      const Labels labels(call, block, row);
      const typename Writer::Row out = result.row(row);
      result.prepare_ends(out);
      const auto z = input.row(row);
      input.expect(row + Lanes::kRows);
      if constexpr (Formula::backward) {
        backward(input, z, output.row(row, labels), extent, scratch_row, result, labels, out);
      } else {
        forward(lanes, input, z, scratch_row, result, labels, out);
      }
    }
    result.finish();
    return 0;
  }

 private:
  static void forward(const Lanes& lanes, const Reader& input, const typename Reader::Row& z, R* exponentials,
                      Writer& result, const Labels& labels, const typename Writer::Row& out) {
    const RowSums<Number> sums = RowExponentials<Lanes>::take(lanes, input, z, exponentials, result, out);
    const V m(rounded<Factor>(sums.max));
    const Factor log_sum = rounded<Factor>(sums.log_sum());
    const Split<Factor> inverse(sums.inverse());
    result.write(out, labels, [&](int64_t at, auto within) __attribute__((always_inline)) {
      return Formula::map(load(z + at, within) - m, load(exponentials + at, Full{}), log_sum, inverse);
    });
  }

  static void backward(const Reader& input, const typename Reader::Row& g_row, const R* output_row, int64_t extent,
                       R* probabilities, Writer& result, const Labels& labels, const typename Writer::Row& out) {
    Sum<V> sum, p_sum;
    for_each_vector<V>(extent, [&](int64_t at, auto within) __attribute__((always_inline)) {
      input.fetch_next(at);
      result.prepare(out, at);
      const V p = inside(within, Formula::probability(load(output_row + at, within)));
      store(probabilities + at, p, Full{});
      sum.add_product(load(g_row + at, within), Formula::weight(p));
      p_sum.add(p);
    });
    const Split<Factor> mean(Lanes::total(sum) / normaliser(Lanes::total(p_sum)));
    result.write(out, labels, [&](int64_t at, auto within) __attribute__((always_inline)) {
      return Formula::map(load(g_row + at, within), load(probabilities + at, Full{}), mean);
    });
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
