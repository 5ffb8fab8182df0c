#pragma once

// Driver of losses that are a sum over elements, a segment at a time: a part of a row, or as many short rows as fit.
// A segment's elements lie side by side, in the caller's arrays where those do, else in scratch, so that sums are
// always taken in the same order. The formula's passes go over a segment one after the other, and what they leave stays
// in the first cache: each has short chains of operations, of which a processor overlaps those of several vectors.
//
// Gradients are not written past the caches: an element takes longer to compute than to fetch and write.

#include "../loss/loss.h"
#include "rows.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class T, class Formula>
struct Elementwise {
  using R = Compute<T>;
  using V = Vec<R>;

  static size_t scratch(const Evaluation& call) {
    return RowReader<T>::scratch(call) + RowWriter<T>::scratch(call) + DenseReader<R>::scratch(call) +
           2 * Arena::room<T>(kSegment) + 3 * Arena::room<R>(kSegment) + Arena::room<R>(kKept * kPitch);
  }

  static double run(const Problem& problem, Block block) {
    if constexpr (requires { Formula::has_pos_weight; }) {
      if (problem.call.pos_weight != nullptr) return with_grad<true>(problem, block);
    }
    return with_grad<false>(problem, block);
  }

 private:
  /** Elements of a segment: they and what is kept of them stay in the first cache. */
  static constexpr int64_t kSegment = 512;
  /** Elements from one kept part to the next: no power of two, whose multiples share the cache's few ways. */
  static constexpr int64_t kPitch = kSegment + 4 * V::size;
  /**
   * Rows below this many classes share segments: they leave many lanes empty. There losses are summed in double one by
   * one, so that equal rows add up to a multiple of their loss wherever they stand.
   */
  static constexpr int64_t kFewClasses = 64;
  /** Parts of an element that are kept between passes. */
  static constexpr int kKept = Formula::parts(Formula::passes, true);

  /** Factors of a segment's elements: one each, or one for all. */
  struct Factor {
    const R* values = nullptr;
    bool each = true;

    template <class Lanes>
    SURPRISAL_FN V at(int64_t i, Lanes lanes) const {
      return each ? load(values + i, lanes) : V(*values);
    }
  };

  struct Segment {
    int64_t count;
    int64_t stretch;  // elements whose losses are summed in the compute type before they are added to a sum in double
    const T* x;
    const R* y;  // targets, or 1 for labels and 0 for other classes
    Factor weight, pos_weight;
    const R* grad_output;
    R* losses;  // null: they are not wanted
    T* grad;
  };

  /** Where the factors of rows stand. */
  struct Factors {
    const R* values;
    int64_t row_stride, class_stride;

    Factors(const void* data, int64_t row_stride, int64_t class_stride)
        : values(static_cast<const R*>(data)), row_stride(row_stride), class_stride(class_stride) {}

    /** Those of a part of a row. */
    Factor part(int64_t row, int64_t c) const {
      if (values == nullptr) return {};
      return {values + row * row_stride + c * class_stride, class_stride != 0};
    }

    /** Those of several rows, side by side. */
    Factor rows(int64_t row, int64_t count, int64_t classes, R* room) const {
      if (values == nullptr) return {};
      if (row_stride == classes && class_stride == 1) return {values + row * row_stride, true};
      for (int64_t i = 0; i < count; ++i) {
        const R* from = values + (row + i) * row_stride;
        for (int64_t c = 0; c < classes; ++c) room[i * classes + c] = from[c * class_stride];
      }
      return {room, true};
    }
  };

  template <bool kPosWeight>
  static double with_grad(const Problem& problem, Block block) {
    return problem.call.grad != nullptr ? rows<kPosWeight, true>(problem, block)
                                        : rows<kPosWeight, false>(problem, block);
  }

  template <bool kPosWeight, bool kGrad>
  static double rows(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    const int64_t classes = call.classes;
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    RowReader<T> input(call, block, arena);
    RowWriter<T> grad(problem, block, arena);
    DenseReader<R> dense(call, block, arena);
    T* x_room = arena.take<T>(kSegment);
    T* grad_room = arena.take<T>(kSegment);
    R* y_room = arena.take<R>(kSegment);
    R* weight_room = arena.take<R>(kSegment);
    R* pos_weight_room = arena.take<R>(kSegment);
    R* kept = arena.take<R>(kKept * kPitch);
    const bool indexed = call.dense == nullptr;
    if (indexed) fill_zero(y_room, kSegment);
    const Factors weight(call.weight, call.weight_row_stride, call.weight_class_stride);
    const Factors pos_weight(call.pos_weight, call.pos_weight_row_stride, call.pos_weight_class_stride);
    const auto* grad_outputs = static_cast<const R*>(call.grad_outputs);
    R* losses = call.reduction == Reduction::none ? static_cast<R*>(call.output) : nullptr;
    const Formula formula(call.parameters, classes);
    Sum<V> loss_sum;

    if (classes < kFewClasses) {
      const int64_t together = kSegment / classes;
      for (int64_t row = block.begin; row < block.end; row += together) {
        const int64_t count = row + together < block.end ? together : block.end - row;
        const int64_t first = row * classes;
        Segment segment;
        segment.count = count * classes;
        segment.stretch = V::size;
        segment.x = side_by_side(call, call.input_strides, count)
                        ? input.row(row)
                        : gather(x_room, row, count, classes, [&](int64_t r) { return input.row(r); });
        if (indexed) {
          segment.y = y_room;
          for (int64_t i = 0; i < count; ++i) y_room[i * classes + read_index(call, row + i)] = 1;
        } else {
          segment.y = dense.direct() && side_by_side(call, call.dense_strides, count)
                          ? dense.row(row)
                          : gather(y_room, row, count, classes, [&](int64_t r) { return dense.row(r); });
        }
        segment.weight = weight.rows(row, count, classes, weight_room);
        if constexpr (kPosWeight) segment.pos_weight = pos_weight.rows(row, count, classes, pos_weight_room);
        segment.grad_output = grad_outputs == nullptr ? nullptr : grad_outputs + first;
        segment.losses = losses == nullptr ? nullptr : losses + first;
        const bool scattered = kGrad && !side_by_side(call, call.grad_strides, count);
        if constexpr (kGrad) segment.grad = scattered ? grad_room : grad.row(row);
        run_segment<kPosWeight, kGrad>(problem, formula, segment, kept, loss_sum);
        if (indexed) fill_zero(y_room, segment.count);
        if (scattered) {
          for (int64_t i = 0; i < count; ++i) {
            memcpy(static_cast<void*>(grad.row(row + i)), grad_room + i * classes, classes * sizeof(T));
          }
        }
      }
    } else {
      for (int64_t row = block.begin; row < block.end; ++row) {
        const T* x = input.row(row);
        const int64_t index = indexed ? read_index(call, row) : -1;
        T* dx = nullptr;
        if constexpr (kGrad) dx = grad.row(row);
        for (int64_t c = 0; c < classes; c += kSegment) {
          const int64_t first = row * classes + c;
          Segment segment;
          segment.count = c + kSegment < classes ? kSegment : classes - c;
          segment.stretch = kStretch * V::size;
          segment.x = x + c;
          segment.y = indexed ? y_room : dense.part(row, c, segment.count);
          const bool has_label = index >= c && index < c + segment.count;
          if (has_label) y_room[index - c] = 1;
          segment.weight = weight.part(row, c);
          if constexpr (kPosWeight) segment.pos_weight = pos_weight.part(row, c);
          segment.grad_output = grad_outputs == nullptr ? nullptr : grad_outputs + first;
          segment.losses = losses == nullptr ? nullptr : losses + first;
          if constexpr (kGrad) segment.grad = dx + c;
          run_segment<kPosWeight, kGrad>(problem, formula, segment, kept, loss_sum);
          if (has_label) y_room[index - c] = 0;
        }
      }
    }
    grad.finish();
    return loss_sum.total();
  }

  /** Whether so many rows lie one after the other. */
  static bool side_by_side(const Evaluation& call, const Strides& strides, int64_t rows) {
    return strides.classes == 1 && (rows == 1 || (call.inner == 1 && strides.outer == call.classes));
  }

  template <class E, class F>
  static const E* gather(E* room, int64_t row, int64_t count, int64_t classes, F&& row_at) {
    for (int64_t i = 0; i < count; ++i) {
      memcpy(static_cast<void*>(room + i * classes), row_at(row + i), classes * sizeof(E));
    }
    return room;
  }

  /** Calls f(i, lanes) over [begin, end): one copy of f a kind of lanes. */
  template <class F>
  SURPRISAL_FN static void for_each(int64_t begin, int64_t end, F&& f) {
    int64_t i = begin;
#pragma GCC unroll 1
    for (; i + V::size <= end; i += V::size) f(i, Full{});
    if (i < end) f(i, Partial{static_cast<int>(end - i)});
  }

  /** A pass before the last. */
  template <int pass, bool kGrad, class Target>
  SURPRISAL_FN static void prepare(const Formula& formula, const Segment& s, R* kept, Target&& target) {
    constexpr int begin = Formula::parts(pass, kGrad), end = Formula::parts(pass + 1, kGrad);
    for_each(0, s.count, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
      V part[end], y_tail;
      for (int k = 0; k < begin; ++k) part[k] = load(kept + k * kPitch + i, Full{});
      const V y = target(i, lanes, y_tail);
      formula.template prepare<pass, kGrad>(load(s.x + i, lanes), y, part);
      for (int k = begin; k < end; ++k) store(kept + k * kPitch + i, part[k], Full{});
    });
  }

  template <bool kPosWeight, bool kGrad>
  static __attribute__((noinline)) void run_segment(const Problem& problem, const Formula& shared,
                                                    const Segment& segment, R* kept, Sum<V>& loss_sum) {
    // Copies of its own: what is written might be anywhere.
    const Formula formula = shared;
    const Segment s = segment;
    const bool indexed = problem.call.dense == nullptr;
    const V scale(static_cast<R>(problem.grad_scale));
    const Split<R> on(formula.on), off(formula.off);
    const auto target = [&](int64_t i, auto lanes, V& tail) __attribute__((always_inline)) {
      const V y = load(s.y + i, lanes);
      tail = V(0);
      if (!indexed) return formula.target(y);
      const auto is_label = y == V(1);
      tail = select(is_label, V(on.tail), V(off.tail));
      return select(is_label, V(on.head), V(off.head));
    };
    if constexpr (Formula::passes > 0) prepare<0, kGrad>(formula, s, kept, target);
    if constexpr (Formula::passes > 1) prepare<1, kGrad>(formula, s, kept, target);
    static_assert(Formula::passes <= 2);

    const auto element = [&](int64_t i, auto lanes) __attribute__((always_inline)) {
      V part[kKept + 1];
      for (int k = 0; k < Formula::parts(Formula::passes, kGrad); ++k) {
        part[k] = load(kept + k * kPitch + i, Full{});
      }
      V u(1), y_tail, loss, g;
      const V y = target(i, lanes, y_tail);
      if constexpr (kPosWeight) u = s.pos_weight.at(i, lanes);
      formula.template evaluate<kGrad, kPosWeight>(part, load(s.x + i, lanes), y, y_tail, u, loss, g);
      if (s.weight.values != nullptr) {
        const V w = s.weight.at(i, lanes);
        loss = loss * w;
        if constexpr (kGrad) g = g * w;
      }
      if (s.losses != nullptr) store(s.losses + i, loss, lanes);
      if constexpr (kGrad) {
        V factor = scale;
        if (s.grad_output != nullptr) factor = factor * load(s.grad_output + i, lanes);
        store(s.grad + i, g * factor, lanes);
      }
      return inside(lanes, loss);
    };
    Sum<V> sum = loss_sum;
    for (int64_t begin = 0; begin < s.count; begin += s.stretch) {
      V stretch(0);
      const int64_t end = begin + s.stretch < s.count ? begin + s.stretch : s.count;
      for_each(begin, end,
               [&](int64_t i, auto lanes) __attribute__((always_inline)) { stretch = stretch + element(i, lanes); });
      sum.add(stretch);
    }
    loss_sum = sum;
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
