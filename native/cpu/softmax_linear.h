#pragma once

// Driver of losses linear in log softmax, a few units of rows at a time, so that the long chains of operations that
// begin and end each pass of a row overlap with those of the others: a pass for each row's exponentials, which are kept
// in scratch; then the rows' losses; then a pass that scales the exponentials into the gradient. That of a long row
// waits for the next one's exponentials: those keep the processor busy, the gradient the memory.

#include "../loss/cross_entropy.h"
#include "lanes.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class Lanes, class Formula>
struct SoftmaxLinear {
  using T = typename Lanes::Stored;
  using R = typename Lanes::R;
  using V = typename Lanes::V;
  using Number = typename Lanes::Number;
  using Factor = typename Lanes::Factor;
  using Reader = typename Lanes::Reader;
  using Writer = typename Lanes::Writer;
  using Labels = typename Lanes::Labels;

  static size_t scratch(const Evaluation& call) {
    const int units = group_size(call);
    return Lanes::scratch(call, units) + Reader::scratch(call, units) + Writer::scratch(call) +
           Lanes::Targets::scratch(call, units) + buffers(call) * Arena::room<R>(padded<T>(Lanes::extent(call)));
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
  static constexpr int kMostUnits = 16;

  /** Units whose logits, exponentials and targets stay in the first cache together; and fewer of tiles. */
  static int group_size(const Evaluation& call) {
    const int64_t rows = 1 + (call.grad != nullptr ? 1 : 0) + (call.dense != nullptr ? 1 : 0);
    const int64_t bytes = Lanes::kRows > 1 ? 4096 : 16384 / rows;
    const int64_t units = bytes / (Lanes::extent(call) * static_cast<int64_t>(sizeof(R)));
    return static_cast<int>(units < 1 ? 1 : units > kMostUnits ? kMostUnits : units);
  }

  /** Rows of exponentials: of a group, or of a unit and of the one before it, whose gradient waits. */
  static int buffers(const Evaluation& call) { return group_size(call) > 1 ? group_size(call) : 2; }

  /** The part of the target view that is spread over classes. */
  template <Spread spread>
  struct SpreadTarget {
    Split<R> floor, mass;
    const R* weight;

    template <class Within>
    SURPRISAL_FN Parts<V> at(const R* dense, int64_t position, Within within) const {
      constexpr bool weighs = spread == Spread::weighted || spread == Spread::mixed;
      const V w = weighs && weight != nullptr ? Lanes::per_class(weight, position, within) : V(1);
      return spread_target<spread>(floor, mass, w, is_dense(spread) ? load(dense + position, within) : V(0));
    }
  };

  /** The gradient of a unit, but for its label's. */
  template <Spread spread>
  struct Slopes {
    LinearGradient<Factor> gradient;
    SpreadTarget<spread> target;
    const R *dense, *exponentials;

    template <class Within>
    SURPRISAL_FN V operator()(int64_t at, Within within) const {
      return gradient.template value<spread>(load(exponentials + at, Full{}), target.at(dense, at, within));
    }
  };

  /** What becomes of a unit: its loss alone, its gradient at once, or its gradient while the next unit is computed. */
  enum class Gradient : uint8_t { none, at_once, in_turn };

  /** A gradient that waits for the next unit. */
  template <Spread spread, Gradient kind>
  struct Waiting {};
  template <Spread spread>
  struct Waiting<spread, Gradient::in_turn> : Writer::template Progress<Slopes<spread>> {};

  /** Whether gradients can wait: that is code of its own, which only the common cases are worth. */
  template <Spread spread>
  static constexpr bool kCanWait =
      Writer::kInSteps && sizeof(R) == 4 && V::size > 4 && (spread == Spread::none || spread == Spread::uniform);

  /** Whether there is code for each kind. Rare targets go without a forward pass of their own: it asks what to write.
   */
  template <Spread spread>
  static constexpr bool kKnowsGradient = spread != Spread::weighted && spread != Spread::mixed;

  /** A gradient that goes to memory, of a row alone, waits. In a cache there is nothing to wait for. */
  static bool is_in_turn(const Problem& problem) {
    return problem.streams && group_size(problem.call) == 1 && problem.call.grad_strides.classes == 1;
  }

  /**
   * Whether a row's maximum is to be known before its pass: a target that is spread unevenly may have nearly all of it
   * there, where nothing is to be added to the loss.
   */
  template <Spread spread>
  static constexpr bool kNeedsMaximum = spread != Spread::none && spread != Spread::uniform;

  /** Sums of a pass: of a spread target Σ q·(m − z), whose factor comes last where q is uniform; and the q's tails. */
  template <Spread spread>
  static constexpr int kTerms = spread == Spread::none                                 ? 0
                                : spread == Spread::uniform || spread == Spread::dense ? 1
                                                                                       : 2;

  /** A unit between its passes. */
  template <Spread spread>
  struct Unit {
    Labels labels;
    typename Reader::Row z;
    std::conditional_t<kNeedsMaximum<spread>, typename Lanes::Maxima, typename Lanes::Reference> reference;
    typename Lanes::template Collected<kTerms<spread>> collected;
    RowSums<Number> sums;
    Number q_sum, dot;  // Σ q and Σ q·(m − z) of the spread target
    Label<Number> label;
    typename Writer::Row dz;
    const R* dense;
  };

  template <Spread spread>
  static double with_grad(const Problem& problem, Block block, const Formula& formula) {
    if constexpr (kKnowsGradient<spread>) {
      if (problem.call.grad == nullptr) return rows<spread, Gradient::none>(problem, block, formula);
    }
    if constexpr (kCanWait<spread>) {
      if (is_in_turn(problem)) return rows<spread, Gradient::in_turn>(problem, block, formula);
    }
    return rows<spread, Gradient::at_once>(problem, block, formula);
  }

  template <Spread spread, Gradient kind>
  static double rows(const Problem& problem, Block block, const Formula& formula) {
    const Evaluation& call = problem.call;
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    const int units = group_size(call);
    const Lanes lanes(call, units, arena);
    Reader input(call, block, arena, units);
    Writer grad(problem, block, arena);
    typename Lanes::Targets targets(call, block, arena, units);
    const int most = grad.holds_many() && (!is_dense(spread) || targets.holds_many()) ? units : 1;
    const bool writes = kind != Gradient::none && (kKnowsGradient<spread> || call.grad != nullptr);
    R* exponentials[kMostUnits];
    for (int i = 0; i < buffers(call); ++i) exponentials[i] = arena.take<R>(padded<T>(Lanes::extent(call)));
    Waiting<spread, kind> waiting;
    const SpreadTarget<spread> target = {Split<R>(formula.floor), Split<R>(formula.mass),
                                         static_cast<const R*>(call.weight)};
    Unit<spread> group[kMostUnits];
    Number loss_sum(0);
    for (int64_t next = block.begin; next < block.end;) {
      int count = 0;
      for (; count < most && next < block.end; next += Lanes::kRows) {
        Unit<spread>& unit = group[count];
        unit.labels = Labels(call, block, next);
        if (!unit.labels.any()) {
          put_row_losses<R>(call, unit.labels, Number(0));
          if (writes) grad.clear(grad.row(next));
          continue;
        }
        if constexpr (is_dense(spread)) unit.dense = targets.row(next, unit.labels, count);
        if (writes) unit.dz = grad.row(next);
        unit.z = input.row(next, count);
        if constexpr (kNeedsMaximum<spread>) {
          unit.reference = lanes.maxima(unit.z, count);
        } else {
          unit.reference = lanes.reference(unit.z);
        }
        ++count;
      }
      for (int i = 0; i < count; ++i) {
        input.expect(next + i * Lanes::kRows);
        if constexpr (is_dense(spread)) targets.expect(next + i * Lanes::kRows);
        pass<spread, kind>(lanes, input, targets, grad, writes, target, group[i], exponentials[i], waiting);
      }
      for (int i = 0; i < count; ++i) conclude<spread, kind>(call, formula, lanes, group[i], exponentials[i]);
      Number log_sums[kMostUnits];
      take_log_sums(group, count, log_sums);
      for (int i = 0; i < count; ++i) {
        const Unit<spread>& unit = group[i];
        Number loss = linear_loss(log_sums[i], unit.q_sum, unit.dot, unit.label);
        if (call.constants != nullptr) {
          loss = loss + unit.labels.each([&](int64_t, int64_t y) { return call.constants[y]; });
        }
        loss = unit.labels.counted(loss);
        loss_sum = loss_sum + loss;
        put_row_losses<R>(call, unit.labels, loss);
      }
      if (writes) {
        for (int i = 0; i < count; ++i) {
          write<spread, kind>(problem, formula, grad, target, group[i], exponentials[i], waiting);
        }
        if constexpr (kind == Gradient::in_turn) std::swap(exponentials[0], exponentials[1]);
      }
    }
    if constexpr (kind == Gradient::in_turn) waiting.finish();
    grad.finish();
    return Lanes::total(loss_sum);
  }

  /** log S of each unit. The chain of operations is long, so several numbers go through it at once. */
  template <Spread spread>
  static void take_log_sums(const Unit<spread>* group, int count, Number* log_sums) {
    using D = Vec<double>;
    int i = 0;
    if constexpr (std::is_same_v<Number, double>) {
      for (; count - i > 1; i += D::size) {
        double rest[D::size] = {};
        for (int j = 0; j < D::size && i + j < count; ++j) rest[j] = group[i + j].sums.rest;
        store(log_sums + i, log_sum_of(load(rest, Full{})), Full{});
      }
    }
    for (; i < count; ++i) log_sums[i] = group[i].sums.log_sum();
  }

  static Number class_weights(const Evaluation& call, const Labels& labels) {
    if (call.weight == nullptr) return Number(1);
    return labels.each([&](int64_t, int64_t y) { return class_weight<R>(call, y); });
  }

  template <Spread spread, Gradient kind>
  SURPRISAL_FN static void pass(const Lanes& lanes, const Reader& input, const typename Lanes::Targets& targets,
                                const Writer& grad, bool writes, const SpreadTarget<spread>& target, Unit<spread>& unit,
                                R* exponentials, Waiting<spread, kind>& last) {
    constexpr bool kGrad = kind != Gradient::none;
    Sum<V> q_heads;  // summed in double
    if (writes) grad.prepare_ends(unit.dz);
    Waiting<spread, kind> waiting = last;  // in registers
    const bool fetches_targets = lanes.fetches_soon(kGrad);
    const auto ahead = [&] {
      if constexpr (is_dense(spread)) {
        return targets.ahead(unit.dense);
      } else {
        return nullptr;
      }
    }();
    const auto each = [&](int64_t at, auto within, V d) __attribute__((always_inline)) {
      if (writes) {
        grad.prepare(unit.dz, at);
        if constexpr (kind == Gradient::in_turn) waiting.step();
      }
      Terms<V, kTerms<spread>> terms;
      if constexpr (spread == Spread::uniform) terms.term[0] = inside(within, -d);
      if constexpr (kNeedsMaximum<spread>) {
        if constexpr (is_dense(spread)) {
          if (fetches_targets) ahead.fetch(at);
        }
        const Parts<V> q = target.at(unit.dense, at, within);
        const V head = inside(within, q.head);
        q_heads.add(head);
        terms.term[0] = head * distance(head, d);
        if constexpr (kTerms<spread> > 1) terms.term[1] = inside(within, q.tail);
      }
      return terms;
    };
    const auto kept = [&] {
      if constexpr (kGrad) {
        return exponentials;
      } else {
        return nullptr;
      }
    }();
    if constexpr (kNeedsMaximum<spread>) {
      constexpr bool kTails = kTerms<spread> > 1;
      const auto [row, terms, maxima] = lanes.template softmax_pass<kTerms<spread>>(
          input, unit.z, unit.reference, kept,
          [&](int64_t at, auto within, Shifted<V> x, V, auto)
              __attribute__((always_inline)) { return each(at, within, x.d); },
          [&](const Rise& rise, Sum<V>* terms) __attribute__((always_inline)) {
            double q_sum = q_heads.total();
            if constexpr (kTails) q_sum += terms[1].total();
            terms[0].add_number(rise.distances(q_sum));
          });
      unit.sums = row;
      unit.q_sum = Lanes::total(q_heads);
      if constexpr (kTails) unit.q_sum = unit.q_sum + Lanes::total(terms.sum[1]);
      unit.dot = Lanes::total(terms.sum[0]);
    } else {
      unit.collected = lanes.template single_pass<kTerms<spread>>(input, unit.z, unit.reference, kept, each);
    }
    if constexpr (kind == Gradient::in_turn) {
      waiting.finish();
      last = waiting;
    }
  }

  /** From a unit's pass to its numbers. */
  template <Spread spread, Gradient kind>
  SURPRISAL_FN static void conclude(const Evaluation& call, [[maybe_unused]] const Formula& formula,
                                    [[maybe_unused]] const Lanes& lanes, Unit<spread>& unit, const R* exponentials) {
    if constexpr (!kNeedsMaximum<spread>) {
      const auto& [row, terms, maximum_above] =
          lanes.template conclude<kTerms<spread>>(unit.reference, unit.collected, unit.z);
      unit.sums = row;
      unit.q_sum = unit.dot = Number(0);
      if constexpr (spread == Spread::uniform) {
        unit.q_sum = Number(formula.floor * static_cast<double>(call.classes));
        unit.dot = Number(formula.floor) * Lanes::total(terms.sum[0]) + unit.q_sum * maximum_above;
      }
    }
    unit.label = {Number(0), Number(0), Number(0)};
    if constexpr (!is_dense(spread)) {
      unit.label = {class_weights(call, unit.labels) * Number(formula.mass), unit.labels.of(unit.z) - unit.sums.max,
                    kind != Gradient::none ? unit.labels.of(exponentials) : Number(0)};
    }
  }

  template <Spread spread, Gradient kind>
  SURPRISAL_FN static void write(const Problem& problem, const Formula& formula, const Writer& grad,
                                 const SpreadTarget<spread>& target, const Unit<spread>& unit, const R* exponentials,
                                 Waiting<spread, kind>& waiting) {
    const Number scale = row_scales<R, Number>(problem, unit.labels);
    const Number q_all = unit.q_sum + unit.label.share;
    const Slopes<spread> slopes = {{unit.sums, q_all, scale}, target, unit.dense, exponentials};
    if constexpr (is_dense(spread)) {
      grad.write(unit.dz, unit.labels, slopes);
    } else {
      Number own_floor(formula.floor);
      if constexpr (spread == Spread::weighted) own_floor = own_floor * class_weights(problem.call, unit.labels);
      const Number slope =
          LinearGradient<Factor>::label(unit.sums, q_all, unit.label.share + own_floor, unit.label.e, scale);
      if constexpr (kind == Gradient::in_turn) {
        waiting = {{grad, unit.dz, slopes, unit.labels.index(), rounded<Factor>(slope)}};
      } else {
        grad.write(unit.dz, unit.labels, rounded<Factor>(slope), slopes);
      }
    }
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
