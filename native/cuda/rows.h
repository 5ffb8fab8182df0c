#pragma once

// What the drivers ask of a row beside its logits, and what they say of it: its label, its gradient's scale, its loss.

#include "packs.h"
#include "problem.h"
#include "team.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

SURPRISAL_DEVICE double denominator(const Problem& problem) {
  return problem.divisor != 0 ? problem.divisor : load_global(&problem.outcome->weights);
}

/** A class index of one of the rarer types. */
SURPRISAL_RARE int64_t read_rare_index(const void* indices, DType dtype, int64_t row, bool first) {
  const auto at = [&](auto type) -> int64_t {
    return static_cast<int64_t>(load_broadcast(static_cast<const decltype(type)*>(indices) + row, first));
  };
  switch (dtype) {
    case DType::int8:
      return at(int8_t{});
    case DType::uint8:
    case DType::boolean:
      return at(uint8_t{});
    case DType::int16:
      return at(int16_t{});
    case DType::uint16:
      return at(uint16_t{});
    case DType::uint32:
      return at(uint32_t{});
    default:  // uint64, whose upper half reads as negative and is out of range either way
      return at(int64_t{});
  }
}

/** The class index of a row, as the first of a warp's lanes that ask for it, or as another one. */
SURPRISAL_DEVICE int64_t read_index(const Evaluation& call, int64_t row, bool first = true) {
  if (call.indices_dtype == DType::int64) {
    return load_broadcast(static_cast<const int64_t*>(call.indices) + row, first);
  }
  if (call.indices_dtype == DType::int32) {
    return load_broadcast(static_cast<const int32_t*>(call.indices) + row, first);
  }
  return read_rare_index(call.indices, call.indices_dtype, row, first);
}

/** A row's label, 0 where it has none that it counts by. */
struct RowLabel {
  RowState state = RowState::counts;
  int64_t y = 0;
};

/** What a class index says of its row, where the call has any. */
SURPRISAL_DEVICE RowLabel label_of(const Evaluation& call, int64_t y) {
  if (call.indices == nullptr) return {};
  if (call.has_ignore_index && y == call.ignore_index) return {RowState::ignored, 0};
  if (y < 0 || y >= call.classes) return {RowState::bad, 0};
  return {RowState::counts, y};
}

/** Reads the label of a row, where the call has any. */
SURPRISAL_DEVICE RowLabel read_label(const Evaluation& call, int64_t row) {
  return label_of(call, call.indices != nullptr ? read_index(call, row) : 0);
}

/** Tells whoever reads the loss of a label that is out of range. */
SURPRISAL_DEVICE void report_bad_label(const Problem& problem, int64_t row) {
  raise_to(&problem.outcome->bad_label, ~static_cast<uint64_t>(row));
}

/** The loss of a row whose label is as it is: 0 where it is ignored, NaN where it is out of range. */
SURPRISAL_DEVICE double loss_of(RowState state, double loss) {
  return state == RowState::counts ? loss : state == RowState::ignored ? 0 : static_cast<double>(NAN);
}

template <class R>
SURPRISAL_DEVICE double class_weight(const Evaluation& call, int64_t index) {
  return call.weight == nullptr ? 1 : static_cast<double>(load_global(static_cast<const R*>(call.weight) + index));
}

/** What a row's gradient is multiplied by. */
template <class R>
SURPRISAL_DEVICE double row_scale(const Problem& problem, int64_t row) {
  double scale = problem.scale;
  if (problem.divisor == 0) {
    wait_for_previous();
    scale = problem.call.grad_output / load_fresh(&problem.outcome->weights);
  }
  const auto* each = static_cast<const R*>(problem.call.grad_outputs);
  return each == nullptr ? scale : scale * static_cast<double>(load_global(each + row));
}

/** Puts a row's loss where reduction 'none' wants it. */
template <class R>
SURPRISAL_DEVICE void put_row_loss(const Evaluation& call, int64_t row, double loss) {
  if (call.reduction == Reduction::none) store_global(static_cast<R*>(call.output) + row, static_cast<R>(loss));
}

/** Of parts that others have put there, always in one order. A warp's lanes call it, and all have it. */
SURPRISAL_RARE double sum_of_parts(const double* parts, int64_t count) {
  // Several at a time, as each takes a way to memory.
  constexpr int kAtOnce = 8;
  double sums[kAtOnce] = {};
  SURPRISAL_NO_UNROLL
  for (int64_t first = thread_index(); first < count; first += kAtOnce * kWarp) {
    SURPRISAL_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t at = first + i * kWarp;
      sums[i] += at < count ? load_fresh(parts + at) : 0;
    }
  }
  double sum[1] = {0};
  SURPRISAL_UNROLL
  for (int i = 0; i < kAtOnce; ++i) sum[0] += sums[i];
  Team::sum_of_warp(sum);
  return sum[0];
}

/** Whether this is the last of so many blocks, who sees what the others have put before. Their first warps call it. */
SURPRISAL_DEVICE bool comes_last(uint32_t* tickets, int64_t blocks) {
  uint32_t ticket = 0;
  if (thread_index() == 0) {
    fence();
    ticket = take_ticket(tickets);
  }
  const bool is_last = of_first_lane(ticket) == static_cast<uint32_t>(blocks - 1);
  if (is_last) fence();
  return is_last;
}

/**
 * Adds up `n` sums, 2 at most, of which the block's first thread has the i-th of `count` parts each. The last block of
 * a group adds up the group's parts, and the last of these the groups' sums, always in one order. The blocks' first
 * warps call it: true for the one whose lanes then have the sums.
 */
SURPRISAL_DEVICE bool add_parts(double* places, int n, int64_t i, int64_t count, double (&sums)[2],
                                uint32_t* group_tickets, uint32_t* tickets) {
  const Grouping parts(count);
  const int64_t group = parts.group_of(i), first = parts.first_of(group), size = parts.size_of(group);
  const bool leads = thread_index() == 0;
  // The sums' places are one after the other.
  const auto for_each = [&](auto&& f) {
    SURPRISAL_UNROLL
    for (int k = 0; k < 2; ++k) {
      if (k < n) f(places + k * parts.size(), sums[k]);
    }
  };
  if (size > 1) {
    for_each([&](double* place, double& sum) {
      if (leads) store_global(place + i, sum);
    });
    if (!comes_last(group_tickets + group, size)) return false;
    if (leads) store_global(group_tickets + group, uint32_t{0});
    for_each([&](double* place, double& sum) { sum = sum_of_parts(place + first, size); });
  }
  if (parts.groups() > 1) {
    for_each([&](double* place, double& sum) {
      if (leads) store_global(place + count + group, sum);
    });
    if (!comes_last(tickets, parts.groups())) return false;
    for_each([&](double* place, double& sum) { sum = sum_of_parts(place + count, parts.groups()); });
  }
  return true;
}

/**
 * Adds up the losses of a call's blocks, of which this one's first thread has part i of `count`; and beside them, where
 * these are asked for, the weights of its labels. The blocks' first warps call it.
 */
SURPRISAL_DEVICE void add_loss(const Problem& problem, int64_t i, int64_t count, double loss, double weights) {
  if (problem.call.reduction == Reduction::none) return;
  Outcome* outcome = problem.outcome;
  double sums[2] = {loss, weights};
  wait_for_previous();  // It has its parts where ours go.
  const int n = problem.weighs_labels ? 2 : 1;
  if (!add_parts(problem.parts, n, i, count, sums, problem.group_tickets, &outcome->loss_tickets)) return;
  if (thread_index() != 0) return;
  loss = sums[0] / (problem.weighs_labels ? sums[1] : denominator(problem));
  store_global(&outcome->value, loss);
  void* output = problem.call.output;
  if (output == nullptr) return;
  if (problem.call.dtype == DType::float64) {
    store_global(static_cast<double*>(output), loss);
  } else {
    store_global(static_cast<float*>(output), static_cast<float>(loss));
  }
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
