#pragma once

// What the drivers ask of a row beside its logits, and what they say of it: its label, its gradient's scale, its loss.

#include "problem.h"
#include "row_tile.h"
#include "team.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

SURPRISAL_DEVICE double denominator(const Problem& problem) {
  return problem.divisor != 0 ? problem.divisor : load_global(&problem.outcome->weights);
}

/** Offset of a row's first class. */
SURPRISAL_DEVICE int64_t row_offset(const Evaluation& call, const Strides& strides, int64_t row) {
  return call.inner == 1 ? row * strides.outer : RowPlaces(call.inner, row).offset(strides);
}

/** The class index of a row. */
SURPRISAL_DEVICE int64_t read_index(const Evaluation& call, int64_t row) {
  const auto at = [&](auto type) -> int64_t {
    return static_cast<int64_t>(load_global(static_cast<const decltype(type)*>(call.indices) + row));
  };
  switch (call.indices_dtype) {
    case DType::int8:
      return at(int8_t{});
    case DType::uint8:
    case DType::boolean:
      return at(uint8_t{});
    case DType::int16:
      return at(int16_t{});
    case DType::uint16:
      return at(uint16_t{});
    case DType::int32:
      return at(int32_t{});
    case DType::uint32:
      return at(uint32_t{});
    default:  // int64, and uint64, whose upper half reads as negative and is out of range either way
      return at(int64_t{});
  }
}

/** A row's label, 0 where it has none that it counts by. */
struct RowLabel {
  RowState state = RowState::counts;
  int64_t y = 0;
};

/** Reads the label of a row, where the call has any. */
SURPRISAL_DEVICE RowLabel read_label(const Evaluation& call, int64_t row) {
  if (call.indices == nullptr) return {};
  const int64_t y = read_index(call, row);
  if (call.has_ignore_index && y == call.ignore_index) return {RowState::ignored, 0};
  if (y < 0 || y >= call.classes) return {RowState::bad, 0};
  return {RowState::counts, y};
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
  const double scale = problem.call.grad_output / denominator(problem);
  const auto* each = static_cast<const R*>(problem.call.grad_outputs);
  return each == nullptr ? scale : scale * static_cast<double>(load_global(each + row));
}

/** What belongs to a row; tells of a label that is out of range. */
template <class R>
SURPRISAL_DEVICE RowHead read_head(const Problem& problem, int64_t row) {
  const RowLabel label = read_label(problem.call, row);
  if (label.state == RowState::bad) report_bad_label(problem, row);
  return {label.y, class_weight<R>(problem.call, label.y),
          problem.call.grad != nullptr ? row_scale<R>(problem, row) : 0, 0, label.state};
}

/** Puts a row's loss where reduction 'none' wants it. */
template <class R>
SURPRISAL_DEVICE void put_row_loss(const Evaluation& call, int64_t row, double loss) {
  if (call.reduction == Reduction::none) store_global(static_cast<R*>(call.output) + row, static_cast<R>(loss));
}

/** Of parts that others have put there, in their order; the block's first thread has it. */
SURPRISAL_RARE double sum_of_parts(const double* parts, int64_t count, Scratch* scratch) {
  double sum[1] = {0};
  SURPRISAL_NO_UNROLL
  for (int64_t k = thread_index(); k < count; k += thread_count()) sum[0] += load_global(parts + k);
  Team(thread_count(), 1, scratch).sum(sum);
  return sum[0];
}

/**
 * Puts part `i` of `count` parts of a sum in its place. The last block to come adds them all up, in their order, and
 * hands the sum to `finish`. All threads of a block call it, with no other at work on the scratch.
 */
template <class Finish>
SURPRISAL_DEVICE void add_part(double* parts, int64_t count, uint32_t* tickets, int64_t i, double part,
                               Scratch* scratch, Finish finish) {
  if (thread_index() == 0) {
    store_global(parts + i, part);
    fence();
    scratch->is_last = take_ticket(tickets) == static_cast<uint32_t>(count - 1);
  }
  sync_block();
  if (!scratch->is_last) return;
  fence();
  const double sum = sum_of_parts(parts, count, scratch);
  if (thread_index() == 0) finish(sum);
}

/** Adds up the losses of a call's tiles. All threads of the block that has part `i` call it. */
SURPRISAL_DEVICE void add_loss(const Problem& problem, int64_t count, int64_t i, double part, Scratch* scratch) {
  if (problem.call.reduction == Reduction::none) return;
  Outcome* outcome = problem.outcome;
  add_part(problem.parts, count, &outcome->loss_tickets, i, part, scratch, [&](double sum) {
    const double loss = sum / denominator(problem);
    store_global(&outcome->value, loss);
    void* output = problem.call.output;
    if (output == nullptr) return;
    if (problem.call.dtype == DType::float64) {
      store_global(static_cast<double*>(output), loss);
    } else {
      store_global(static_cast<float*>(output), static_cast<float>(loss));
    }
  });
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
