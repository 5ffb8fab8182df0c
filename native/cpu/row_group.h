#pragma once

// Driver of losses over the K rows of a sample, which lie samples apart: sample i is rows i, i + B, i + 2B, ...
// All K rows stay in cache; one exponential and one logarithm an element.

#include "../loss/cross_entropy.h"
#include "softmax_pass.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Of a row of a sample: Σ p·G, and Σ p, which rounding leaves not quite 1. */
struct DivergenceSums {
  double slope;
  double p;
};

/**
 * The pass over classes: turns a sample's exponentials e into p = e/S, writes their G to `slopes`. Past the rows' ends
 * e is 0 up to a whole vector, and so is every term. Rows are `width` apart.
 */
template <class R, class Formula>
class DivergencePass {
  using V = Vec<R>;

 public:
  int splits;
  int64_t classes, width;
  R* probabilities;
  R* slopes;

  /** Fills the rows' sums; returns the sum over rows and classes of p where the clamp is active. */
  double run(const Split<R>* inverses, DivergenceSums* sums) const {
    switch (splits) {
      case 2:
        return run_fixed<2>(inverses, sums);
      case 3:
        return run_fixed<3>(inverses, sums);
      case 4:
        return run_fixed<4>(inverses, sums);
      default:
        return run_any(inverses, sums);
    }
  }

 private:
  /** All K rows' values of a class stay in registers. */
  template <int K>
  double run_fixed(const Split<R>* inverses, DivergenceSums* row_sums) const {
    constexpr int64_t step = kStretch * V::size;
    constexpr int kSlope = 0, kP = K, kClamped = 2 * K;
    Sums<V, 2 * K + 1> sums;
    for (int64_t begin = 0; begin < classes; begin += step) {
      const int64_t end = begin + step < classes ? begin + step : classes;
      Terms<V, 2 * K + 1> stretch = {};
      V largest(0);
      for (int64_t c = begin; c < end; c += V::size) {
        V p[K], excess[K];
        for (int k = 0; k < K; ++k) p[k] = times(load(probabilities + k * width + c, Full{}), inverses[k]);
        V total = p[0];
        for (int k = 1; k < K; ++k) total = total + p[k];
        for (int j = 0; j < K; ++j) {
          for (int k = j + 1; k < K; ++k) {
            const V difference = p[j] - p[k];
            excess[j] = j == 0 && k == 1 ? difference : excess[j] + difference;
            excess[k] = j == 0 ? -difference : excess[k] - difference;
          }
        }
        const auto mixture = Formula::mixture(total, K);
        Terms<V, 2 * K + 1> terms;
        for (int k = 0; k < K; ++k) {
          const V slope = Formula::slope(p[k], excess[k], mixture);
          store(probabilities + k * width + c, p[k], Full{});
          store(slopes + k * width + c, slope, Full{});
          terms.term[kSlope + k] = p[k] * slope;
          terms.term[kP + k] = p[k];
        }
        terms.term[kClamped] = total * mixture.clamped;
        stretch = stretch + terms;
        largest = maximum(total, largest);
      }
      // Where p is near 1 all depends on what the others add to it: their sum must not be rounded beside it.
      if (!any(largest > V(static_cast<R>(0.25)))) {
        sums.add(stretch);
        continue;
      }
      for (int64_t c = begin; c < end; c += V::size) {
        for (int k = 0; k < K; ++k) add(sums.sum[kSlope + k], sums.sum[kP + k], k * width + c);
      }
      sums.sum[kClamped].add(stretch.term[kClamped]);
    }
    for (int k = 0; k < K; ++k) row_sums[k] = {sums.sum[kSlope + k].total(), sums.sum[kP + k].total()};
    return sums.sum[kClamped].total();
  }

  double run_any(const Split<R>* inverses, DivergenceSums* row_sums) const {
    for (int k = 0; k < splits; ++k) {
      R* row = probabilities + k * width;
      for (int64_t c = 0; c < classes; c += V::size) store(row + c, times(load(row + c, Full{}), inverses[k]), Full{});
    }
    Sum<V> clamped;
    for (int k = 0; k < splits; ++k) {
      Sum<V> slope_sum, p_sum;
      for (int64_t c = 0; c < classes; c += V::size) {
        const V p = load(probabilities + k * width + c, Full{});
        V total(0), excess(0);
        for (int j = 0; j < splits; ++j) {
          const V other = load(probabilities + j * width + c, Full{});
          total = total + other;
          excess = excess + (p - other);
        }
        const auto mixture = Formula::mixture(total, splits);
        store(slopes + k * width + c, Formula::slope(p, excess, mixture), Full{});
        add(slope_sum, p_sum, k * width + c);
        clamped.add(p * mixture.clamped);
      }
      row_sums[k] = {slope_sum.total(), p_sum.total()};
    }
    return clamped.total();
  }

  SURPRISAL_FN void add(Sum<V>& slope_sum, Sum<V>& p_sum, int64_t at) const {
    const V p = load(probabilities + at, Full{});
    slope_sum.add_product(p, load(slopes + at, Full{}));
    p_sum.add(p);
  }
};

template <class T, class Formula>
struct RowGroup {
  using R = Compute<T>;
  using V = Vec<R>;

  static int64_t splits(const Evaluation& call) { return Formula(call.parameters, call.classes).splits; }

  static size_t scratch(const Evaluation& call) {
    const auto k = static_cast<size_t>(splits(call));
    const size_t width = static_cast<size_t>(padded<T>(call.classes));
    const size_t readers = Arena::room<RowReader<T>>(k) + Arena::room<RowWriter<T>>(k);
    const size_t sums = Arena::room<RowSums>(k) + Arena::room<Split<R>>(k) + Arena::room<DivergenceSums>(k);
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
    Split<R>* inverses = arena.take<Split<R>>(splits);
    DivergenceSums* divergences = arena.take<DivergenceSums>(splits);
    for (int k = 0; k < splits; ++k) {
      const int64_t first = k * samples;
      const Block rows = {first + block.begin, first + block.end, first + block.run_end};
      new (&input[k]) RowReader<T>(call, rows, arena);
      new (&grad[k]) RowWriter<T>(problem, rows, arena);
    }
    R* probabilities = arena.take<R>(splits * width);
    R* slopes = arena.take<R>(splits * width);
    R* stretch_maxima = arena.take<R>(stretch_maxima_size<R>(classes));
    const DivergencePass<R, Formula> divergence_pass = {splits, classes, width, probabilities, slopes};
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
        T* dz = call.grad != nullptr ? grad[k].row(row) : nullptr;
        if (dz != nullptr) grad[k].prepare_ends(dz);
        const auto keep = [&](int64_t c, auto lanes, Shifted<V> shifted) __attribute__((always_inline)) {
          store(p_row + c, shifted.e, Full{});
          if (dz != nullptr) grad[k].prepare(dz, c);
          return Terms<V, 1>{inside(lanes, -shifted.d)};
        };
        const auto [row_sums, terms] = softmax_pass<1>(z, input[k].next(row), classes, stretch_maxima, keep);
        sums[k] = row_sums;
        if (k == 0) {
          distances = terms.sum[0];
          label.d = static_cast<double>(load_one(z + y)) - sums[0].max;
          label.e = p_row[y];
        }
        inverses[k] = Split<R>(sums[k].inverse());
      }

      const double clamped = divergence_pass.run(inverses, divergences);
      // 0, but NaN where a row is: the mixture takes it to all of them.
      double divergence = 0, nothing = 0;
      for (int k = 0; k < splits; ++k) {
        divergence += divergences[k].slope;
        nothing += divergences[k].p - divergences[k].p;
      }
      const double cross_entropy = linear_loss(sums[0], q_sum, floor == 0 ? 0 : floor * distances.total(), label);
      loss_sum += cross_entropy + formula.factor * (divergence - clamped) + nothing;
      if (call.grad == nullptr) continue;

      const double scale = row_scale<R>(problem, sample);
      for (int k = 0; k < splits; ++k) {
        T* dz = grad[k].row(k * samples + sample);
        const R* p_row = probabilities + k * width;
        const R* slope_row = slopes + k * width;
        const double slope_sum = divergences[k].slope / divergences[k].p + nothing;
        const double q_all = k == 0 ? q_sum + label.share : 0;
        const typename Formula::Gradient gradient(formula.factor, slope_sum, scale, q_all, k == 0 ? floor : 0);
        const auto values = [&](int64_t c, auto) __attribute__((always_inline)) {
          return gradient.value(load(p_row + c, Full{}), load(slope_row + c, Full{}));
        };
        if (k == 0) {
          const double own = LinearGradient<R>::label(sums[0], q_all, label.share + floor, label.e, scale);
          grad[k].write(dz, {y, static_cast<R>(own + gradient.label(p_row[y], slope_row[y]))}, values);
        } else {
          grad[k].write(dz, values);
        }
      }
    }
    for (int k = 0; k < splits; ++k) grad[k].finish();
    return loss_sum;
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
