#pragma once

// Driver of losses linear in log softmax, a few rows at a time: a pass for each row's maximum and one for its
// exponentials, which are kept in scratch; then the rows' losses, whose long chains of operations overlap; then a pass
// a row that scales the exponentials into the gradient.

#include "../loss/cross_entropy.h"
#include "softmax_pass.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class T, class Formula>
struct SoftmaxLinear {
  using R = Compute<T>;
  using V = Vec<R>;

  static size_t scratch(const Evaluation& call) {
    return RowReader<T>::scratch(call) + RowWriter<T>::scratch(call) + DenseReader<R>::scratch(call) +
           group_size(call) * Arena::room<R>(padded<T>(call.classes)) +
           Arena::room<R>(stretch_maxima_size<R>(call.classes));
  }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    const bool weighted = call.weight != nullptr, smoothed = formula.floor != 0;
    if (call.dense != nullptr) {
      return weighted || smoothed ? with_grad<Spread::mixed>(problem, block, formula)
                                  : with_grad<Spread::dense>(problem, block, formula);
    }
    if (!smoothed) return with_grad<Spread::none>(problem, block, formula);
    return weighted ? with_grad<Spread::weighted>(problem, block, formula)
                    : with_grad<Spread::uniform>(problem, block, formula);
  }

 private:
  static constexpr int kMostRows = 16;

  /** Rows whose exponentials stay in the first cache together. */
  static int group_size(const Evaluation& call) {
    constexpr int64_t kBytes = 4096;
    const int64_t rows = kBytes / (call.classes * static_cast<int64_t>(sizeof(R)));
    return static_cast<int>(rows < 1 ? 1 : rows > kMostRows ? kMostRows : rows);
  }

  /** The part of the target view that is spread over classes. */
  template <Spread spread>
  struct SpreadTarget {
    Split<R> floor, mass;
    const R* weight;

    template <class Lanes>
    SURPRISAL_FN Parts<V> at(const R* dense, int64_t c, Lanes lanes) const {
      constexpr bool weighs = spread == Spread::weighted || spread == Spread::mixed;
      const V w = weighs && weight != nullptr ? load(weight + c, lanes) : V(1);
      return spread_target<spread>(floor, mass, w, is_dense(spread) ? load(dense + c, lanes) : V(0));
    }
  };

  /** A row between its passes. */
  struct Row {
    int64_t number;
    int64_t y;
    RowSums sums;
    double q_sum, dot;  // Σ q and Σ q·(m − z) of the spread target
    Label label;
    T* dz;
    const R* dense;
  };

  template <Spread spread>
  static double with_grad(const Problem& problem, Block block, const Formula& formula) {
    return problem.call.grad != nullptr ? rows<spread, true>(problem, block, formula)
                                        : rows<spread, false>(problem, block, formula);
  }

  template <Spread spread, bool kGrad>
  static double rows(const Problem& problem, Block block, const Formula& formula) {
    const Evaluation& call = problem.call;
    const int64_t classes = call.classes;
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    RowReader<T> input(call, block, arena);
    RowWriter<T> grad(problem, block, arena);
    DenseReader<R> dense(call, arena);
    // Rows that share a buffer, a tile or a converted target, can't wait for each other.
    const int most = (is_dense(spread) && !dense.direct()) || !grad.direct() ? 1 : group_size(call);
    R* exponentials[kMostRows];
    for (int i = 0; i < group_size(call); ++i) exponentials[i] = arena.take<R>(padded<T>(classes));
    R* stretch_maxima = arena.take<R>(stretch_maxima_size<R>(classes));
    const SpreadTarget<spread> target = {Split<R>(formula.floor), Split<R>(formula.mass),
                                         static_cast<const R*>(call.weight)};
    Row group[kMostRows];
    double loss_sum = 0;
    for (int64_t next = block.begin; next < block.end;) {
      int count = 0;
      for (; count < most && next < block.end; ++next) {
        const int64_t y = call.indices != nullptr ? read_index(call, next) : -1;
        if (call.indices != nullptr && is_ignored(call, y)) {
          put_row_loss<R>(call, next, 0);
          if constexpr (kGrad) fill_zero(grad.row(next), classes);
          continue;
        }
        Row& row = group[count];
        row.number = next;
        row.y = y;
        if constexpr (is_dense(spread)) row.dense = dense.row(next, y);
        if constexpr (kGrad) row.dz = grad.row(next);
        pass<spread, kGrad>(call, formula, input, grad, target, row, exponentials[count], stretch_maxima);
        ++count;
      }
      for (int i = 0; i < count; ++i) {
        const Row& row = group[i];
        double loss = linear_loss(row.sums, row.q_sum, row.dot, row.label);
        if (call.constants != nullptr) loss += call.constants[row.y];
        loss_sum += loss;
        put_row_loss<R>(call, row.number, loss);
      }
      if constexpr (kGrad) {
        for (int i = 0; i < count; ++i) write<spread>(problem, formula, grad, target, group[i], exponentials[i]);
      }
    }
    grad.finish();
    return loss_sum;
  }

  template <Spread spread, bool kGrad>
  SURPRISAL_FN static void pass(const Evaluation& call, const Formula& formula, RowReader<T>& input,
                                const RowWriter<T>& grad, const SpreadTarget<spread>& target, Row& row, R* exponentials,
                                R* stretch_maxima) {
    const int64_t classes = call.classes;
    const T* z = input.row(row.number);
    // Of a spread target Σ q·(m − z), whose factor comes last where q is uniform. The heads of q are summed in double.
    constexpr int kTerms = spread == Spread::none ? 0 : spread == Spread::uniform || spread == Spread::dense ? 1 : 2;
    Sum<V> q_heads;
    if constexpr (kGrad) grad.prepare_ends(row.dz);
    const auto each = [&](int64_t c, auto lanes, Shifted<V> shifted) __attribute__((always_inline)) {
      if constexpr (kGrad) {
        store(exponentials + c, shifted.e, Full{});
        grad.prepare(row.dz, c);
      }
      Terms<V, kTerms> terms;
      if constexpr (spread == Spread::uniform) terms.term[0] = inside(lanes, -shifted.d);
      if constexpr (spread != Spread::none && spread != Spread::uniform) {
        const Parts<V> q = target.at(row.dense, c, lanes);
        const V head = inside(lanes, q.head);
        q_heads.add(head);
        terms.term[0] = head * distance(head, shifted.d);
        if constexpr (kTerms > 1) terms.term[1] = inside(lanes, q.tail);
      }
      return terms;
    };
    const auto [sums, terms] = softmax_pass<kTerms>(z, input.next(row.number), classes, stretch_maxima, each);
    row.sums = sums;
    row.q_sum = row.dot = 0;
    if constexpr (spread == Spread::uniform) {
      row.q_sum = formula.floor * static_cast<double>(classes);
      row.dot = formula.floor * terms.sum[0].total();
    } else if constexpr (spread != Spread::none) {
      row.q_sum = q_heads.total();
      if constexpr (kTerms > 1) row.q_sum += terms.sum[1].total();
      row.dot = terms.sum[0].total();
    }
    row.label = {0, 0, 0};
    if constexpr (!is_dense(spread)) {
      const double d = static_cast<double>(load_one(z + row.y)) - sums.max;
      row.label = {class_weight<R>(call, row.y) * formula.mass, d, kGrad ? exponentials[row.y] : 0};
    }
  }

  template <Spread spread>
  SURPRISAL_FN static void write(const Problem& problem, const Formula& formula, const RowWriter<T>& grad,
                                 const SpreadTarget<spread>& target, const Row& row, const R* exponentials) {
    const double scale = row_scale<R>(problem, row.number);
    const double q_all = row.q_sum + row.label.share;
    const LinearGradient<R> gradient(row.sums, q_all, scale);
    const auto slopes = [&](int64_t c, auto lanes) __attribute__((always_inline)) {
      return gradient.template value<spread>(load(exponentials + c, Full{}), target.at(row.dense, c, lanes));
    };
    if constexpr (is_dense(spread)) {
      grad.write(row.dz, slopes);
    } else {
      const double own_floor = formula.floor * (spread == Spread::weighted ? class_weight<R>(problem.call, row.y) : 1);
      const double slope = LinearGradient<R>::label(row.sums, q_all, row.label.share + own_floor, row.label.e, scale);
      grad.write(row.dz, {row.y, static_cast<R>(slope)}, slopes);
    }
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
