#pragma once

// The threads that work on one row together, and their reductions: always the same tree over the same threads, so that
// a sum does not depend on anything but the row.

#include "scratch.h"
#include "storage.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

struct Add {
  template <class V>
  SURPRISAL_DEVICE V operator()(V a, V b) const {
    return a + b;
  }
};
struct Larger {
  template <class V>
  SURPRISAL_DEVICE V operator()(V a, V b) const {
    return a > b ? a : b;
  }
};

class Team {
 public:
  int size;     // threads of this block
  int rank;     // among these
  int number;   // of the block's teams
  int cluster;  // blocks
  int block;    // among these

  SURPRISAL_DEVICE Team(int size, int cluster, Scratch* scratch)
      : size(size),
        rank(thread_index() % size),
        number(thread_index() / size),
        cluster(cluster),
        block(static_cast<int>(block_index() % cluster)),
        scratch_(scratch) {}

  /** The largest of what the threads have, none of it NaN. All threads of the block call it. */
  template <class R>
  SURPRISAL_DEVICE R maximum(R x) {
    R values[1] = {x};
    reduce(values, -static_cast<R>(INFINITY), Larger{});
    return values[0];
  }

  /** Each thread's terms become the sums over all. All threads of the block call it. */
  template <int n>
  SURPRISAL_DEVICE void sum(double (&terms)[n]) {
    if constexpr (n > 0) reduce(terms, 0.0, Add{});
  }

 private:
  template <class V, int n, class Combine>
  SURPRISAL_DEVICE void reduce(V (&x)[n], V nothing, Combine combine) {
    static_assert(n <= kMostTerms);
    across_lanes(x, size < kWarp ? size : kWarp, combine);
    if (size <= kWarp) return;
    // The threads that still read the other buffer have not passed this one's barrier.
    turn_ ^= 1;
    const int lane = thread_index() % kWarp;
    if (lane == 0) {
      for (int i = 0; i < n; ++i) scratch_->warps[turn_][i][thread_index() / kWarp] = x[i];
    }
    sync_block();
    const int place = lane % kMostParts;
    for (int i = 0; i < n; ++i) {
      x[i] = place < size / kWarp ? static_cast<V>(scratch_->warps[turn_][i][place]) : nothing;
    }
    across_lanes(x, kMostParts, combine);
    if (cluster == 1) return;
    if (thread_index() == 0) {
      for (int i = 0; i < n; ++i) scratch_->blocks[turn_][i] = x[i];
    }
    sync_cluster();
    for (int i = 0; i < n; ++i) {
      x[i] = place < cluster ? static_cast<V>(*peer_shared(&scratch_->blocks[turn_][i], place)) : nothing;
    }
    across_lanes(x, kMostParts, combine);
  }

  /** In pairs, pairs of pairs and so on: all lanes get the same, as both sides of a pair add the same two. */
  template <class V, int n, class Combine>
  SURPRISAL_DEVICE static void across_lanes(V (&x)[n], int lanes, Combine combine) {
    SURPRISAL_NO_UNROLL
    for (int bits = lanes / 2; bits > 0; bits /= 2) {
      SURPRISAL_UNROLL
      for (int i = 0; i < n; ++i) x[i] = combine(x[i], shuffle_xor(x[i], bits));
    }
  }

  Scratch* scratch_;
  int turn_ = 0;
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
