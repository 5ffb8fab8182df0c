#pragma once

#include <cstdint>

namespace surprisal {

enum class RowState : uint8_t { counts, ignored, bad };

/** Sums that are taken across a row's threads at once. */
inline constexpr int kMostTerms = 6;

/** Warps of a row's block, and blocks of a cluster, at most. */
inline constexpr int kMostParts = 16;

/** What belongs to a row beside its logits. One of its threads reads it for all. */
struct alignas(16) RowHead {
  int64_t y = 0;      // its label, 0 where it has none that it counts by
  double weight = 1;  // of its label
  double scale = 0;   // of its gradient
  double loss = 0;    // once it is known
  RowState state = RowState::counts;
};

/** The most rows of a block. */
inline constexpr int kMostRows = 128;

/** What every job has at the beginning of its shared memory. */
struct alignas(16) Scratch {
  /** Two of each, which neighbouring reductions use in turn. */
  double warps[2][kMostTerms][kMostParts];
  double blocks[2][kMostTerms];
  int32_t is_last;
};

}  // namespace surprisal
