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

/** Groups of a sum's parts, at most. */
inline constexpr int64_t kMostGroups = 4096;
/** Bytes of a workspace that count the parts of groups. They are zeros, and are so again when a call has ended. */
inline constexpr size_t kTicketBytes = kMostGroups * sizeof(uint32_t);

/** The parts of a sum. So many are added up together, before the sums of these are: more where there are very many. */
struct Grouping {
  int64_t count;
  int bits = 6;  // of the number of parts of a group

  constexpr explicit Grouping(int64_t count) : count(count) {
    while (groups() > kMostGroups) ++bits;
  }
  constexpr int64_t groups() const { return ((count - 1) >> bits) + 1; }
  constexpr int64_t group_of(int64_t part) const { return part >> bits; }
  constexpr int64_t first_of(int64_t group) const { return group << bits; }
  constexpr int64_t size_of(int64_t group) const {
    const int64_t left = count - first_of(group), whole = int64_t{1} << bits;
    return left < whole ? left : whole;
  }
  /** Numbers in memory: each part, and each group's sum. */
  constexpr int64_t size() const { return count + groups(); }
};

/** An evaluation whose pointers are the device's. */
struct Problem {
  Evaluation call;
  double divisor = 1;  // of the loss, 0: the outcome's weights
  double scale = 0;    // of all gradients, where the divisor is known
  Outcome* outcome = nullptr;
  uint32_t* group_tickets = nullptr;
  double* parts = nullptr;     // of a sum, or of two
  bool weighs_labels = false;  // where the loss's own kernel is to add up Σ weight[y], too
};

}  // namespace surprisal
