#pragma once

// Driver of losses over the K rows of a sample, which lie samples apart: sample i is rows i, i + B, i + 2B, ...
// All K rows stay in cache; one exponential and one logarithm an element.

#include "../loss/jsd.h"
#include "lanes.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/**
 * The pass over classes: turns a sample's exponentials e into p = e/S, writes their G to `slopes`. Past the rows' ends
 * e is 0 up to a whole vector, and so is every term. Rows are `width` apart.
 */
template <class Lanes, class Formula>
class DivergencePass {
  using R = typename Lanes::R;
  using V = typename Lanes::V;
  using Number = typename Lanes::Number;
  using Factor = typename Lanes::Factor;

 public:
  int splits;
  int64_t extent, width;
  R* probabilities;
  R* slopes;

  /** Fills the rows' sums; returns the sum over rows and extent of p where the clamp is active. */
  Number run(const Split<Factor>* inverses, DivergenceSums<Number>* sums) const {
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
  /**
   * All K rows' values of a class stay in registers. Their logarithms are taken afterwards, a stretch of each row at a
   * time: what leads to them is a long chain of operations already.
   */
  template <int K>
  Number run_fixed(const Split<Factor>* inverses, DivergenceSums<Number>* row_sums) const {
    constexpr int64_t step = kStretch * V::size;
    constexpr int kSlope = 0, kP = K, kClamped = 2 * K;
    Sums<V, 2 * K + 1> sums;
    alignas(kVectorBytes) R ratios_less_one[K * step], clamped[step];
    for (int64_t begin = 0; begin < extent; begin += step) {
      const int64_t end = begin + step < extent ? begin + step : extent;
      V p_sums[K], clamped_sum(0), largest(0);
#pragma GCC unroll 4
      for (int k = 0; k < K; ++k) p_sums[k] = V(0);
      for (int64_t c = begin; c < end; c += V::size) {
        V p[K], excess[K];
#pragma GCC unroll 4
        for (int k = 0; k < K; ++k) p[k] = times(load(probabilities + k * width + c, Full{}), inverses[k]);
        V total = p[0];
#pragma GCC unroll 4
        for (int k = 1; k < K; ++k) total = total + p[k];
#pragma GCC unroll 4
        for (int j = 0; j < K; ++j) {
#pragma GCC unroll 4
          for (int k = j + 1; k < K; ++k) {
            const V difference = p[j] - p[k];
            excess[j] = j == 0 && k == 1 ? difference : excess[j] + difference;
            excess[k] = j == 0 ? -difference : excess[k] - difference;
          }
        }
        const auto mixture = Formula::mixture(total, K);
#pragma GCC unroll 4
        for (int k = 0; k < K; ++k) {
          store(probabilities + k * width + c, p[k], Full{});
          store(slopes + k * width + c, Formula::ratio(p[k], mixture), Full{});
          store(ratios_less_one + k * step + (c - begin), Formula::ratio_less_one(excess[k], mixture), Full{});
          p_sums[k] = p_sums[k] + p[k];
        }
        store(clamped + (c - begin), mixture.clamped, Full{});
        clamped_sum = multiply_add(total, mixture.clamped, clamped_sum);
        largest = maximum(total, largest);
      }
      Terms<V, 2 * K + 1> stretch;
#pragma GCC unroll 4
      for (int k = 0; k < K; ++k) {
        const int64_t first = k * width + begin;
        stretch.term[kSlope + k] =
            take_logarithms(end - begin, probabilities + first, ratios_less_one + k * step, clamped, slopes + first);
        stretch.term[kP + k] = p_sums[k];
      }
      stretch.term[kClamped] = clamped_sum;
      // Where p is near 1 all depends on what the others add to it: their sum must not be rounded beside it. Such lanes
      // go one by one, and only they: another row may be in the next.
      const auto large = largest > V(static_cast<R>(0.25));
      if (any(large)) {
        for (int i = 0; i < 2 * K; ++i) stretch.term[i] = select(large, V(0), stretch.term[i]);
        for (int64_t c = begin; c < end; c += V::size) {
#pragma GCC unroll 4
          for (int k = 0; k < K; ++k) {
            const V p = select(large, load(probabilities + k * width + c, Full{}), V(0));
            add(sums.sum[kSlope + k], sums.sum[kP + k], p, k * width + c);
          }
        }
      }
      sums.add(stretch);
    }
    for (int k = 0; k < K; ++k) row_sums[k] = {Lanes::total(sums.sum[kSlope + k]), Lanes::total(sums.sum[kP + k])};
    return Lanes::total(sums.sum[kClamped]);
  }

  /** Turns a stretch of ratios p/m into its G; returns the sum of p·G. */
  static V take_logarithms(int64_t count, const R* p, const R* ratios_less_one, const R* clamped, R* slopes) {
    V sum(0);
    for (int64_t c = 0; c < count; c += V::size) {
      const V slope = Formula::slope_of_ratio(load(slopes + c, Full{}), load(ratios_less_one + c, Full{}),
                                              load(clamped + c, Full{}));
      store(slopes + c, slope, Full{});
      sum = multiply_add(load(p + c, Full{}), slope, sum);
    }
    return sum;
  }

  Number run_any(const Split<Factor>* inverses, DivergenceSums<Number>* row_sums) const {
    for (int k = 0; k < splits; ++k) {
      R* row = probabilities + k * width;
      for (int64_t c = 0; c < extent; c += V::size) store(row + c, times(load(row + c, Full{}), inverses[k]), Full{});
    }
    Sum<V> clamped;
    for (int k = 0; k < splits; ++k) {
      Sum<V> slope_sum, p_sum;
      for (int64_t c = 0; c < extent; c += V::size) {
        const V p = load(probabilities + k * width + c, Full{});
        V total(0), excess(0);
        for (int j = 0; j < splits; ++j) {
          const V other = load(probabilities + j * width + c, Full{});
          total = total + other;
          excess = excess + (p - other);
        }
        const auto mixture = Formula::mixture(total, splits);
        store(slopes + k * width + c, Formula::slope(p, excess, mixture), Full{});
        add(slope_sum, p_sum, p, k * width + c);
        clamped.add(p * mixture.clamped);
      }
      row_sums[k] = {Lanes::total(slope_sum), Lanes::total(p_sum)};
    }
    return Lanes::total(clamped);
  }

  SURPRISAL_FN void add(Sum<V>& slope_sum, Sum<V>& p_sum, V p, int64_t at) const {
    slope_sum.add_product(p, load(slopes + at, Full{}));
    p_sum.add(p);
  }
};

template <class Lanes, class Formula>
struct RowGroup {
  using T = typename Lanes::Stored;
  using R = typename Lanes::R;
  using V = typename Lanes::V;
  using Number = typename Lanes::Number;
  using Factor = typename Lanes::Factor;
  using Reader = typename Lanes::Reader;
  using Writer = typename Lanes::Writer;

  static int64_t splits(const Evaluation& call) { return Formula(call.parameters, call.classes).splits; }

  static size_t scratch(const Evaluation& call) {
    const auto k = static_cast<size_t>(splits(call));
    const auto width = static_cast<size_t>(padded<T>(Lanes::extent(call)));
    const size_t readers = Arena::room<Reader>(k) + Arena::room<Writer>(k);
    const size_t sums =
        Arena::room<RowSums<Number>>(k) + Arena::room<Split<Factor>>(k) + Arena::room<DivergenceSums<Number>>(k);
    const size_t tiles = Reader::scratch(call) + Writer::scratch(call);
    const size_t logits = Arena::room<typename Reader::Row>(k) + Arena::room<typename Lanes::Reference>(k) +
                          Arena::room<typename Lanes::template Collected<1>>(k);
    return Lanes::scratch(call, static_cast<int>(k)) + readers + logits + sums + k * tiles +
           2 * Arena::room<R>(k * width);
  }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    const int64_t extent = Lanes::extent(call);
    const int64_t width = padded<T>(extent);
    const Formula formula(call.parameters, call.classes);
    const int splits = formula.splits;
    const bool writes = call.grad != nullptr;
    const int64_t samples = call.rows() / splits;
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    const Lanes lanes(call, splits, arena);
    Reader* input = arena.take<Reader>(splits);
    Writer* grad = arena.take<Writer>(splits);
    auto* logits = arena.take<typename Reader::Row>(splits);
    auto* references = arena.take<typename Lanes::Reference>(splits);
    auto* collected = arena.take<typename Lanes::template Collected<1>>(splits);
    RowSums<Number>* sums = arena.take<RowSums<Number>>(splits);
    Split<Factor>* inverses = arena.take<Split<Factor>>(splits);
    DivergenceSums<Number>* divergences = arena.take<DivergenceSums<Number>>(splits);
    for (int k = 0; k < splits; ++k) {
      const int64_t first = k * samples;
      const Block rows = {first + block.begin, first + block.end, first + block.run_end};
      new (&input[k]) Reader(call, rows, arena);
      new (&grad[k]) Writer(problem, rows, arena);
    }
    R* probabilities = arena.take<R>(splits * width);
    R* slopes = arena.take<R>(splits * width);
    const DivergencePass<Lanes, Formula> divergence_pass = {splits, extent, width, probabilities, slopes};
    const double floor = formula.cross_entropy.floor;
    const Number q_sum(floor * static_cast<double>(call.classes));

    Number loss_sum(0);
    for (int64_t sample = block.begin; sample < block.end; sample += Lanes::kRows) {
      const typename Lanes::Labels labels(call, block, sample);
      Number distances(0);
      Label<Number> label = {Number(formula.cross_entropy.mass), Number(0), Number(0)};
      for (int k = 0; k < splits; ++k) {
        logits[k] = input[k].row(k * samples + sample);
        references[k] = lanes.reference(logits[k]);
      }
      for (int k = 0; k < splits; ++k) {
        const int64_t row = k * samples + sample;
        const auto z = logits[k];
        input[k].expect(row + Lanes::kRows);
        R* p_row = probabilities + k * width;
        typename Writer::Row dz{};
        if (writes) {
          dz = grad[k].row(row);
          grad[k].prepare_ends(dz);
        }
        const auto each = [&](int64_t at, auto within, V d) __attribute__((always_inline)) {
          if (writes) grad[k].prepare(dz, at);
          return Terms<V, 1>{inside(within, -d)};
        };
        collected[k] = lanes.template single_pass<1>(input[k], z, references[k], p_row, each);
      }
      for (int k = 0; k < splits; ++k) {
        const auto& [row_sums, terms, maximum_above] =
            lanes.template conclude<1>(references[k], collected[k], logits[k]);
        sums[k] = row_sums;
        if (k == 0) {
          distances = Lanes::total(terms.sum[0]) + Number(static_cast<double>(call.classes)) * maximum_above;
          label.d = labels.of(logits[0]) - sums[0].max;
          label.e = labels.of(probabilities);
        }
        inverses[k] = Split<Factor>(sums[k].inverse());
      }

      const Number clamped = divergence_pass.run(inverses, divergences);
      Number divergence(0), nothing(0);
      for (int k = 0; k < splits; ++k) {
        divergence = divergence + divergences[k].slope;
        nothing = nothing + divergences[k].nothing();
      }
      const Number dot = floor == 0 ? Number(0) : Number(floor) * distances;
      const Number cross_entropy = linear_loss(sums[0].log_sum(), q_sum, dot, label);
      const Number loss = formula.loss(cross_entropy, divergence, clamped) + nothing;
      loss_sum = loss_sum + labels.counted(loss);
      if (!writes) continue;

      const Number scale = row_scales<R, Number>(problem, labels);
      for (int k = 0; k < splits; ++k) {
        const typename Writer::Row dz = grad[k].row(k * samples + sample);
        const R* p_row = probabilities + k * width;
        const R* slope_row = slopes + k * width;
        const Number slope_sum = divergences[k].mean() + nothing;
        const Number q_all = k == 0 ? q_sum + label.share : Number(0);
        const typename Formula::template Gradient<Factor> gradient(formula.factor, slope_sum, scale, q_all,
                                                                   k == 0 ? floor : 0);
        const auto values = [&](int64_t at, auto) __attribute__((always_inline)) {
          return gradient.value(load(p_row + at, Full{}), load(slope_row + at, Full{}));
        };
        if (k == 0) {
          const Number of_label =
              LinearGradient<Factor>::label(sums[0], q_all, label.share + Number(floor), label.e, scale) +
              gradient.label(labels.of(p_row), labels.of(slope_row));
          grad[k].write(dz, labels, rounded<Factor>(of_label), values);
        } else {
          grad[k].write(dz, labels, values);
        }
      }
    }
    for (int k = 0; k < splits; ++k) grad[k].finish();
    return Lanes::total(loss_sum);
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
