#pragma once

#include <cstdint>

namespace surprisal {

/** Sums that are taken across a row's threads at once. */
inline constexpr int kMostTerms = 6;

/** Warps of a row's block, and blocks of a cluster, at most. */
inline constexpr int kMostParts = 16;

/** What every job has at the beginning of its shared memory. */
struct alignas(16) Scratch {
  /** Two of each, which neighbouring reductions use in turn. */
  double warps[2][kMostTerms][kMostParts];
  double blocks[2][kMostTerms];
  double losses[128];  // of a block's rows
  int32_t is_last;
};

}  // namespace surprisal
