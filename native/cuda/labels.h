#pragma once

// Σ weight[y] over the rows whose labels count: what a weighted mean divides by, before the logits are read. And
// whether they are all in range.

#include "kernels.h"
#include "rows.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

inline constexpr int kLabelThreads = 256;

template <class R>
struct LabelWeights {
  static constexpr int most_threads = kLabelThreads;

  Problem problem;

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    auto* scratch = reinterpret_cast<Scratch*>(dynamic_shared());
    const int64_t first = block_index() * kLabelsPerBlock;
    const int64_t last = first + kLabelsPerBlock < call.rows() ? first + kLabelsPerBlock : call.rows();
    double sum[1] = {0};
    let_next_begin();
    SURPRISAL_UNROLL
    for (int i = 0; i < kLabelsPerBlock / kLabelThreads; ++i) {
      const int64_t row = first + i * kLabelThreads + thread_index();
      if (row >= last) break;
      const RowLabel label = read_label(call, row);
      if (label.state == RowState::bad) report_bad_label(problem, row);
      if (label.state == RowState::counts) sum[0] += class_weight<R>(call, label.y);
    }
    Team(thread_count(), 1, scratch).sum(sum);
    if (thread_index() >= kWarp) return;
    Outcome* outcome = problem.outcome;
    double sums[2] = {sum[0], 0};
    const bool is_last =
        add_parts(problem.parts, 1, block_index(), block_count(), sums, problem.group_tickets, &outcome->label_tickets);
    if (is_last && thread_index() == 0) store_global(&outcome->weights, sums[0]);
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
