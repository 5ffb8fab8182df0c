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
    return larger(a, b);
  }
};

class Team {
 public:
  const int size;     // threads of this block
  const int cluster;  // blocks
  const int rank;     // among these threads
  const int number;   // of the block's teams

  SURPRISAL_DEVICE Team(int size, int cluster, Scratch* scratch)
      : size(size),
        cluster(cluster),
        // Teams that are not the block are powers of two.
        rank(size >= thread_count() ? thread_index() : thread_index() & (size - 1)),
        number(size >= thread_count() ? 0 : thread_index() / size),
        scratch_(scratch) {}

  SURPRISAL_DEVICE Scratch* scratch() const { return scratch_; }

  /** The largest of what the threads have, none of it NaN, of n numbers each. All threads of the block call it. */
  template <class R, int n>
  SURPRISAL_DEVICE void maximum(R (&x)[n]) {
    reduce(x, -static_cast<R>(INFINITY), Larger{});
  }

  /** Each thread's terms become the sums over all. All threads of the block call it. */
  template <int n>
  SURPRISAL_DEVICE void sum(double (&terms)[n]) {
    reduce(terms, 0.0, Add{});
  }

  /** The same among the lanes of a warp. */
  template <int n>
  SURPRISAL_DEVICE static void sum_of_warp(double (&terms)[n]) {
    across_lanes<kWarp>(terms, Add{});
  }

 private:
  using Parts = double[kMostParts];

  template <class V, int n, class Combine>
  SURPRISAL_DEVICE void reduce(V (&x)[n], V nothing, Combine combine) {
    static_assert(n <= kMostTerms);
    if (size >= kWarp) {
      across_lanes<kWarp>(x, combine);
    } else {
      SURPRISAL_NO_UNROLL
      for (int bits = size / 2; bits > 0; bits /= 2) with_neighbours(x, bits, combine);
    }
    if (size <= kWarp) return;
    const auto take = [&](const Parts* parts, int count) {
      const int place = thread_index() % kMostParts;
      SURPRISAL_UNROLL
      for (int i = 0; i < n; ++i) x[i] = place < count ? static_cast<V>(parts[i][place]) : nothing;
      across_lanes<kMostParts>(x, combine);
    };
    take(share_in_block(x), size / kWarp);
    if (kHasClusters && cluster > 1) take(share_in_cluster(x), cluster);
  }

  /** Puts what the warps have where all threads of the block see it. */
  template <class V, int n>
  SURPRISAL_DEVICE const Parts* share_in_block(const V (&x)[n]) {
    // The threads that still read the other buffer have not passed this one's barrier.
    turn_ ^= 1;
    if (thread_index() % kWarp == 0) {
      for (int i = 0; i < n; ++i) scratch_->warps[turn_][i][thread_index() / kWarp] = x[i];
    }
    sync_block();
    return scratch_->warps[turn_];
  }

  /**
   * Each block of a cluster sends what it has to all. A block that is at the next exchange has read what came in the
   * last one, so that two buffers are enough; and none ends before all has come that is sent to it.
   */
  template <class V, int n>
  SURPRISAL_DEVICE const Parts* share_in_cluster(const V (&x)[n]) {
    if (exchanges_ == 0) await_cluster();
    const int turn = exchanges_++ % 2, own = block_in_cluster(), peer = thread_index();
    MailBarrier* exchanged = &scratch_->exchanged;
    if (peer == 0) expect_mail(exchanged, cluster * n * static_cast<int>(sizeof(double)));
    if (peer < cluster) {
      for (int i = 0; i < n; ++i) {
        send_to_block(&scratch_->blocks[turn][i][own], peer, static_cast<double>(x[i]), exchanged);
      }
    }
    wait_for_mail(exchanged, turn);
    return scratch_->blocks[turn];
  }

  template <class V, int n, class Combine>
  SURPRISAL_DEVICE static void with_neighbours(V (&x)[n], int bits, Combine combine) {
    SURPRISAL_UNROLL
    for (int i = 0; i < n; ++i) x[i] = combine(x[i], shuffle_xor(x[i], bits));
  }
  /** In pairs, pairs of pairs and so on: all lanes get the same, as both sides of a pair add the same two. */
  template <int lanes, class V, int n, class Combine>
  SURPRISAL_DEVICE static void across_lanes(V (&x)[n], Combine combine) {
    SURPRISAL_UNROLL
    for (int bits = lanes / 2; bits > 0; bits /= 2) with_neighbours(x, bits, combine);
  }

  Scratch* scratch_;
  int turn_ = 0, exchanges_ = 0;
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
