#pragma once

// Driver of losses over the K rows of a sample, which lie samples apart: sample i is rows i, i + B, i + 2B, ...
// All K rows stay in cache; one exponential an element, one logarithm a class.

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
    const size_t readers = Arena::room<RowReader<T>>(k) + Arena::room<RowWriter<T>>(k) + Arena::room<RowSums>(k);
    const size_t tiles = RowReader<T>::scratch(call, call.input_strides) +
                         RowWriter<T>::scratch(call, call.grad_strides);
    return readers + k * tiles + (k + 2) * Arena::room<R>(padded<T>(call.classes));
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
    for (int k = 0; k < splits; ++k) {
      const int64_t end = k * samples + block.end;
      new (&input[k]) RowReader<T>(call, call.input, call.input_strides, arena, end);
      new (&grad[k]) RowWriter<T>(call, call.grad, call.grad_strides, arena, end);
    }
    R* log_mixtures = arena.take<R>(width);
    R* clamps = arena.take<R>(width);
    R* exponentials = arena.take<R>(splits * width);
    const V mean_factor(static_cast<R>(1.0 / splits));

    double loss_sum = 0;
    for (int64_t sample = block.begin; sample < block.end; ++sample) {
      const int64_t y = read_index(call, sample);
      const T* z[kMaxRowsOnStack];
      const T** rows = splits <= kMaxRowsOnStack ? z : nullptr;
      const auto row_of = [&](int k) { return rows != nullptr ? rows[k] : input[k].row(k * samples + sample); };
      Sum<V> d_total;
      for (int k = 0; k < splits; ++k) {
        const T* row = input[k].row(k * samples + sample);
        if (rows != nullptr) rows[k] = row;
        R* e_row = exponentials + k * width;
        sums[k] = softmax_pass(row, input[k].next(k * samples + sample), classes, [&](int64_t c, auto lanes, V d, V e) __attribute__((always_inline)) {
          store(e_row + c, e, Full{});
          if (k == 0) d_total.add(spread_distance(c, lanes, d));
        });
      }

      for_each_vector<V>(classes, [&](int64_t c, auto) __attribute__((always_inline)) {
        V total(0);
        for (int k = 0; k < splits; ++k) {
          total = total + load(exponentials + k * width + c, Full{}) * V(static_cast<R>(sums[k].inverse()));
        }
        V log_m, clamped;
        Formula::mixture(total * mean_factor, log_m, clamped);
        store(log_mixtures + c, log_m, Full{});
        store(clamps + c, clamped, Full{});
      });

      const double smoothing_floor = formula.cross_entropy.floor;
      const double q_sum = smoothing_floor * static_cast<double>(classes);
      const Label label = {formula.cross_entropy.mass, static_cast<double>(load_one(row_of(0) + y)) - sums[0].max,
                           exponentials[y]};
      double loss = linear_loss(sums[0], q_sum, smoothing_floor == 0 ? 0 : smoothing_floor * d_total.total(), label);

      const double scale = row_scale<R>(problem, sample);
      for (int k = 0; k < splits; ++k) {
        const T* row = row_of(k);
        const R* e_row = exponentials + k * width;
        const V inverse(static_cast<R>(sums[k].inverse())), log_sum(static_cast<R>(sums[k].log_sum()));
        const V m(static_cast<R>(sums[k].max));
        const auto terms = [&](int64_t c, auto lanes, V& p, V& log_p) __attribute__((always_inline)) {
          p = load(e_row + c, Full{}) * inverse;
          log_p = (load(row + c, lanes, -static_cast<R>(__builtin_inf())) - m) - log_sum;
        };
        Sum<V> divergence, slope;
        for_each_vector<V>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
          V p, log_p;
          terms(c, lanes, p, log_p);
          const V log_m = load(log_mixtures + c, Full{});
          divergence.add(Formula::divergence(p, log_p, log_m));
          slope.add(Formula::slope(p, log_p, log_m, load(clamps + c, Full{})));
        });
        loss += formula.factor * divergence.total();
        if (call.grad == nullptr) continue;

        T* dz = grad[k].row(k * samples + sample);
        const double factor = formula.factor * scale;
        const double slope_sum = slope.total();
        const V f(static_cast<R>(factor)), p_slope(static_cast<R>(factor * slope_sum));
        const LinearGradient<R> linear(sums[k], k == 0 ? q_sum + label.share : 0, scale);
        const V floor(static_cast<R>(k == 0 ? smoothing_floor : 0));
        const double p_label = e_row[y] * sums[k].inverse();
        const double label_log_p = (static_cast<double>(load_one(row + y)) - sums[k].max) - sums[k].log_sum();
        for_each_vector<V>(classes, [&](int64_t c, auto lanes) __attribute__((always_inline)) {
          V p, log_p;
          terms(c, lanes, p, log_p);
          const V log_m = load(log_mixtures + c, Full{});
          V g = Formula::slope(p, log_p, log_m, load(clamps + c, Full{})) * f - p * p_slope;
          if (k == 0) g = g + linear.template value<Spread::uniform>(load(e_row + c, Full{}), floor);
          store(dz + c, g, lanes);
        });
        if (k == 0) {
          const double coupled = Formula::slope(p_label, label_log_p, static_cast<double>(log_mixtures[y]),
                                                static_cast<double>(clamps[y]));
          const double own = LinearGradient<R>::label(sums[0], q_sum + label.share, label.share + smoothing_floor,
                                                      label.e, scale);
          store_one(dz + y, static_cast<R>(factor * (coupled - p_label * slope_sum) + own));
        }
      }
      loss_sum += loss;
    }
    for (int k = 0; k < splits; ++k) grad[k].finish();
    return loss_sum;
  }

 private:
  /** Rows whose addresses are kept; of larger groups they are asked for again. */
  static constexpr int kMaxRowsOnStack = 16;

  /** m − z of lanes inside the row. */
  template <class Lanes>
  SURPRISAL_FN static V spread_distance(int64_t, Lanes lanes, V d) {
    if constexpr (std::is_same_v<Lanes, Full>) {
      return -d;
    } else {
      return select(lane_numbers<V>() < V(static_cast<R>(lanes.count)), -d, V(0));
    }
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
