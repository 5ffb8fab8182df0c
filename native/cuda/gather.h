#pragma once

// Driver of losses of the label's element alone: the others are not read.

#include "../loss/cross_entropy.h"
#include "launches.h"
#include "packs.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

inline constexpr int kGatherThreads = 256;
/** Elements of the gradient that a block fills with zeros, about. */
inline constexpr int64_t kGatherElements = 16384;

/** Zeros, by all threads of the block. */
template <class T>
SURPRISAL_DEVICE void fill_zero(T* to, int64_t count) {
  const int64_t until_aligned = (kPackBytes - misalignment(to)) % kPackBytes / static_cast<int>(sizeof(T));
  const int64_t head = until_aligned < count ? until_aligned : count;
  const int64_t packs = (count - head) / kPack<T>;
  SURPRISAL_NO_UNROLL
  for (int64_t i = thread_index(); i < packs; i += thread_count()) store_pack(to + head + i * kPack<T>, Pack<T>{});
  if (thread_index() < head) store_global(to + thread_index(), T{});
  const int64_t tail = head + packs * kPack<T> + thread_index();
  if (tail < count) store_global(to + tail, T{});
}

/** A thread a row, for as many rows as a block has. */
template <class T, class Formula>
struct Gather {
  using R = Compute<T>;
  static constexpr int most_threads = kGatherThreads;

  Problem problem;
  Formula formula;
  int rows;  // of a block

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    auto* scratch = reinterpret_cast<Scratch*>(dynamic_shared());
    const int64_t first = block_index() * rows, row = first + thread_index();
    const int64_t last = first + rows < call.rows() ? first + rows : call.rows();
    const bool exists = row < last;
    double loss[1] = {0}, slope = 0;
    RowLabel label;
    if (exists) {
      label = read_label(call, row);
      if (label.state == RowState::bad) report_bad_label(problem, row);
      const double weight = class_weight<R>(call, label.y);
      const int64_t at = row_offset(call.inner, call.input_strides, row) + label.y * call.input_strides.classes;
      const double x = static_cast<double>(widen(load_global(static_cast<const T*>(call.input) + at)));
      loss[0] = loss_of(label.state, formula.value(x, weight));
      if (call.grad != nullptr) slope = formula.slope(weight) * row_scale<R>(problem, row);
      put_row_loss<R>(call, row, loss[0]);
    }
    if (call.grad != nullptr) {
      T* grad = static_cast<T*>(call.grad);
      sync_block();  // The logits were read, where the gradient takes their place.
      fill(grad, first, last);
      sync_block();
      if (exists && label.state == RowState::counts) {
        const int64_t at = row_offset(call.inner, call.grad_strides, row) + label.y * call.grad_strides.classes;
        store_global(grad + at, stored<T>(static_cast<R>(slope)));
      }
    }
    Team(thread_count(), 1, scratch).sum(loss);
    if (thread_index() >= kWarp) return;
    double sums[2] = {loss[0], 0};
    add_loss(problem, block_index(), block_count(), sums[0], sums[1]);
  }

 private:
  SURPRISAL_DEVICE void fill(T* grad, int64_t first, int64_t last) const {
    const Evaluation& call = problem.call;
    const Strides& strides = call.grad_strides;
    if (strides.classes == 1 && call.inner == 1 && strides.outer == call.classes) {
      return fill_zero(grad + first * call.classes, (last - first) * call.classes);
    }
    if (strides.classes == 1) {
      SURPRISAL_NO_UNROLL
      for (int64_t row = first; row < last; ++row) fill_zero(grad + row_offset(call.inner, strides, row), call.classes);
      return;
    }
    const int64_t count = last - first;
    SURPRISAL_NO_UNROLL
    for (int64_t i = thread_index(); i < count * call.classes; i += thread_count()) {
      store_global(grad + row_offset(call.inner, strides, first + i % count) + i / count * strides.classes, T{});
    }
  }
};

/** Their launches. */
template <class T, class Formula>
struct GatherJobs {
  /** With a gradient as without, so that losses add up in one order. */
  static int rows_of_block(const Evaluation& call) {
    constexpr int kLeastRows = 8;
    const int64_t rows = kGatherElements / call.classes;
    return static_cast<int>(rows < kLeastRows ? kLeastRows : rows > kGatherThreads ? kGatherThreads : rows);
  }

  static int64_t parts(const Evaluation& call, const DeviceLimits&) {
    const int rows = rows_of_block(call);
    return (call.rows() + rows - 1) / rows;
  }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    const Evaluation& call = problem.call;
    LaunchShape shape;
    shape.blocks = parts(call, limits);
    shape.threads = kGatherThreads;
    shape.shared_bytes = sizeof(Scratch);
    const Gather<T, Formula> job = {problem, Formula(call.parameters, call.classes), rows_of_block(call)};
    surprisal::launch(job, shape, stream);
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
