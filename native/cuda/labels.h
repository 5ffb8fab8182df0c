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
    SURPRISAL_NO_UNROLL
    for (int64_t row = first + thread_index(); row < last; row += thread_count()) {
      const RowLabel label = read_label(call, row);
      if (label.state == RowState::bad) report_bad_label(problem, row);
      if (label.state == RowState::counts) sum[0] += class_weight<R>(call, label.y);
    }
    Team(thread_count(), 1, scratch).sum(sum);
    sync_block();
    Outcome* outcome = problem.outcome;
    add_part(problem.parts, block_count(), &outcome->label_tickets, block_index(), sum[0], scratch,
             [&](double total) { store_global(&outcome->weights, total); });
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
