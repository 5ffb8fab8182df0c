#pragma once

// Driver of losses over the K rows of a sample, which lie samples apart: sample i is rows i, i + B, i + 2B, ...
// All K rows stay in cache; one exponential and one logarithm an element.

#include "../loss/cross_entropy.h"
#include "softmax_pass.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class T, class Formula>
struct RowGroup {
  using R = Compute<T>;
  using V = Vec<R>;

  static int64_t splits(const Evaluation& call) { return Formula(call.parameters, call.classes).splits; }

  static size_t scratch(const Evaluation& call) {
    const auto k = static_cast<size_t>(splits(call));
    const size_t width = static_cast<size_t>(padded<T>(call.classes));
    const size_t readers = Arena::room<RowReader<T>>(k) + Arena::room<RowWriter<T>>(k);
    const size_t sums = Arena::room<RowSums>(k) + 3 * Arena::room<Sum<V>>(k);
    const size_t tiles = RowReader<T>::scratch(call) + RowWriter<T>::scratch(call);
    return readers + sums + k * tiles + 2 * Arena::room<R>(k * width) +
           Arena::room<R>(stretch_maxima_size<R>(call.classes));
  }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    const int64_t classes = call.classes;
    const int64_t width = padded<T>(classes);
    const Formula formula(call.parameters, classes);
    const int splits = formula.splits;
    const int64_t samples = call.rows() / splits;
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    RowReader<T>* input = arena.take<RowReader<T>>(splits);
    RowWriter<T>* grad = arena.take<RowWriter<T>>(splits);
    RowSums* sums = arena.take<RowSums>(splits);
    Sum<V>* divergences = arena.take<Sum<V>>(splits);
    Sum<V>* clamp_sums = arena.take<Sum<V>>(splits);
    Sum<V>* p_sums = arena.take<Sum<V>>(splits);
    for (int k = 0; k < splits; ++k) {
      const int64_t first = k * samples;
      const Block rows = {first + block.begin, first + block.end, first + block.run_end};
      new (&input[k]) RowReader<T>(call, rows, arena);
      new (&grad[k]) RowWriter<T>(problem, rows, arena);
    }
    R* probabilities = arena.take<R>(splits * width);
    R* slopes = arena.take<R>(splits * width);
    R* stretch_maxima = arena.take<R>(stretch_maxima_size<R>(classes));
    const V mean_factor(static_cast<R>(1.0 / splits));
    const double floor = formula.cross_entropy.floor;
    const double q_sum = floor * static_cast<double>(classes);

    double loss_sum = 0;
    for (int64_t sample = block.begin; sample < block.end; ++sample) {
      const int64_t y = read_index(call, sample);
      Sum<V> distances;
      Label label = {formula.cross_entropy.mass, 0, 0};
      for (int k = 0; k < splits; ++k) {
        const int64_t row = k * samples + sample;
        const T* z = input[k].row(row);
        R* p_row = probabilities + k * width;
        const auto keep = [&](int64_t c, auto lanes, Shifted<V> shifted) __attribute__((always_inline)) {
          store(p_row + c, shifted.e, Full{});
          return Terms<V, 1>{inside(lanes, -shifted.d)};
        };
        const auto [row_sums, terms] = softmax_pass<1>(z, input[k].next(row), classes, stretch_maxima, keep);
        sums[k] = row_sums;
        if (k == 0) {
          distances = terms.sum[0];
          label.d = static_cast<double>(load_one(z + y)) - sums[0].max;
          label.e = p_row[y];
        }
        const Split<R> inverse(sums[k].inverse());
        for (int64_t c = 0; c < width; c += V::size) {
          store(p_row + c, times(load(p_row + c, Full{}), inverse), Full{});
        }
        divergences[k] = Sum<V>();
        clamp_sums[k] = Sum<V>();
        p_sums[k] = Sum<V>();
      }

      for_each_vector<V>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
        V total(0);
        for (int k = 0; k < splits; ++k) total = total + load(probabilities + k * width + c, Full{});
        V inverse, clamped;
        Formula::mixture(total * mean_factor, inverse, clamped);
        for (int k = 0; k < splits; ++k) {
          const V p = load(probabilities + k * width + c, Full{});
          V excess(0);
          for (int j = 0; j < splits; ++j) excess = excess + (p - load(probabilities + j * width + c, Full{}));
          const V log_of_ratio = Formula::log_of_ratio(p, excess * mean_factor, inverse, clamped);
          const V p_inside = inside(lanes, p);
          divergences[k].add_product(p_inside, log_of_ratio);
          clamp_sums[k].add(p_inside * clamped);
          p_sums[k].add(p_inside);
          store(slopes + k * width + c, log_of_ratio + clamped, Full{});
        }
      });

      double loss = linear_loss(sums[0], q_sum, floor == 0 ? 0 : floor * distances.total(), label);
      for (int k = 0; k < splits; ++k) loss += formula.factor * divergences[k].total();
      loss_sum += loss;
      if (call.grad == nullptr) continue;

      const double scale = row_scale<R>(problem, sample);
      for (int k = 0; k < splits; ++k) {
        T* dz = grad[k].row(k * samples + sample);
        const R* p_row = probabilities + k * width;
        const R* slope_row = slopes + k * width;
        const double slope_sum = (divergences[k].total() + clamp_sums[k].total()) / p_sums[k].total();
        const double q_all = k == 0 ? q_sum + label.share : 0;
        const typename Formula::Gradient gradient(formula.factor, slope_sum, scale, q_all, k == 0 ? floor : 0);
        for_each_vector<V>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
          store(dz + c, gradient.value(load(p_row + c, Full{}), load(slope_row + c, Full{})), lanes);
        });
        if (k == 0) {
          const double own = LinearGradient<R>::label(sums[0], q_all, label.share + floor, label.e, scale);
          store_one(dz + y, static_cast<R>(own + gradient.label(p_row[y], slope_row[y])));
        }
      }
    }
    for (int k = 0; k < splits; ++k) grad[k].finish();
    return loss_sum;
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
