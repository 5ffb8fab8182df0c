#pragma once

// What every job of a call is given, and what it leaves on the device for whoever reads the loss.

#include "../backend.h"

struct CUstream_st;
struct CUevent_st;

namespace surprisal {

using Stream = CUstream_st*;
using Event = CUevent_st*;

/** What a call leaves on the device. It begins as zeros. */
struct Outcome {
  double value;        // the reduced loss
  double weights;      // Σ weight[y] over the rows that count
  uint64_t bad_label;  // 0, or the complement of the first row whose label is out of range
  uint32_t label_tickets, loss_tickets;
};

/** An evaluation whose pointers are the device's. */
struct Problem {
  Evaluation call;
  double divisor = 1;  // of the loss, 0: the outcome's weights
  Outcome* outcome = nullptr;
  double* parts = nullptr;  // of sums, one a block
};

}  // namespace surprisal
