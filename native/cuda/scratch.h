#pragma once

#include <cstdint>

#include "launch_shape.h"

namespace surprisal {

enum class RowState : uint8_t { counts, ignored, bad };

/** Sums that are taken across a row's threads at once. */
inline constexpr int kMostTerms = 8;

/** Warps of a row's block, and blocks of a cluster, at most. */
inline constexpr int kMostParts = 16;

/** What every job has at the beginning of its shared memory. */
struct alignas(kPackBytes) Scratch {
  /** Two of each, which neighbouring reductions use in turn. */
  double warps[2][kMostTerms][kMostParts];
  double blocks[2][kMostTerms][kMostParts];
  MailBarrier exchanged;
};

/** What a row's loss is made of, for another thread to make it. */
struct LossRecord {
  double rest, mass, dot;
  int64_t y;
  RowState state;
};

}  // namespace surprisal
