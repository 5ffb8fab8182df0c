#pragma once

// The pass over a row for the sums of softmax, that the drivers share: of a row that a team's threads hold, and of one
// that comes in parts.

#include <type_traits>

#include "../loss/softmax.h"
#include "row_part.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** e^(z − m) of a row's logits: as good as the storage type of what becomes of it. */
template <class T>
using RowExponential = std::conditional_t<sizeof(T) == 2, FastExponentialBelow, ExponentialBelow<Compute<T>>>;

/** Several terms of a sum. */
template <class R, int n>
struct Terms {
  R term[n > 0 ? n : 1] = {};

  SURPRISAL_DEVICE friend Terms operator+(Terms a, const Terms& b) {
    for (int i = 0; i < n; ++i) a.term[i] = a.term[i] + b.term[i];
    return a;
  }
};

constexpr SURPRISAL_DEVICE int log2_of(int x) { return x <= 1 ? 0 : 1 + log2_of(x / 2); }

/** f(0) + f(1) + ..., count of them, in pairs, pairs of pairs and so on: equal terms add up without an error. */
template <int count, class F>
SURPRISAL_DEVICE auto sum_in_pairs(F&& f) {
  // As a binary counter does: sums[k] is of 2^k terms, added to its like as soon as there is one.
  decltype(f(0)) sums[16];
  SURPRISAL_UNROLL
  for (int j = 0; j < count; ++j) {
    auto sum = f(j);
    int k = 0;
    SURPRISAL_UNROLL
    for (; (j >> k) % 2 == 1; ++k) sum = sums[k] + sum;
    sums[k] = sum;
  }
  return sums[log2_of(count)];
}

/** The largest of n numbers, none where all are NaN. */
template <int n, class R>
SURPRISAL_DEVICE R largest_of(const R* x) {
  if constexpr (n == 1) {
    return x[0];
  } else {
    return larger(largest_of<n / 2>(x), largest_of<n / 2>(x + n / 2));
  }
}

/** What a driver without terms of its own gives for an element. */
struct NoTerms {
  template <class R>
  SURPRISAL_DEVICE Terms<R, 0> operator()(int, Shifted<R>) const {
    return {};
  }
};

/** A thread's part of a row's sums: of S as `others` and how many are at the maximum, and of n more terms. */
template <class R, int n>
struct ThreadSums {
  Terms<R, n + 1> terms;
  int maxima = 0;
};

/** The largest logits of a thread's runs, and of all of them. */
template <class R, int runs>
struct RunMaxima {
  R of_run[runs];
  R all = -static_cast<R>(INFINITY);

  template <int run, int n>
  SURPRISAL_DEVICE void find(const R (&z)[n]) {
    SURPRISAL_UNROLL
    for (int k = 0; k < runs; ++k) {
      of_run[k] = largest_of<run>(z + k * run);
      all = larger(of_run[k], all);
    }
  }
};

/**
 * One exponential an element, of logits that a thread holds and which these take the place of: their sums, and those of
 * the n terms that `each(j, shifted)` gives of an element. Elements past the row's end are −∞; of the runs from
 * `count` on there is none.
 */
template <int n, int run, class R, int elements, class Exponential, class Each>
SURPRISAL_DEVICE ThreadSums<R, n> exponentials(R (&z)[elements], const R (&maxima)[elements / run], int count, R max,
                                               const Exponential& exponential, Each&& each) {
  ThreadSums<R, n> sums;
  sums.terms = sum_in_pairs<elements / run>([&](int k) {
    if (k >= count) {
      SURPRISAL_UNROLL
      for (int i = 0; i < run; ++i) z[k * run + i] = 0;
      return Terms<R, n + 1>{};
    }
    R rest[run];
    Terms<R, n> others[run];
    SURPRISAL_UNROLL
    for (int i = 0; i < run; ++i) {
      const R e = exponential(z[k * run + i]);
      others[i] = each(k * run + i, Shifted<R>{exponential.difference(z[k * run + i]), e});
      rest[i] = e;
    }
    // Few runs have the maximum, which is counted and not added up.
    if (maxima[k] == max) {
      SURPRISAL_UNROLL
      for (int i = 0; i < run; ++i) {
        sums.maxima += z[k * run + i] == max;
        rest[i] = rest_term(z[k * run + i], max, rest[i]);
        z[k * run + i] = z[k * run + i] == max ? R(1) : rest[i];
      }
    } else {
      SURPRISAL_UNROLL
      for (int i = 0; i < run; ++i) z[k * run + i] = rest[i];
    }
    return sum_in_pairs<run>([&](int i) {
      Terms<R, n + 1> all;
      all.term[0] = rest[i];
      for (int t = 0; t < n; ++t) all.term[t + 1] = others[i].term[t];
      return all;
    });
  });
  return sums;
}

/** Sums of a row, and of n more terms that a driver asked for. */
template <int n>
struct PassSums {
  RowSums<> row;
  double terms[n > 0 ? n : 1];
};

/**
 * One exponential an element, of a row that the team's threads hold: its sums, and those of the n terms that
 * `each(j, shifted)` gives of an element.
 */
template <int n, class T, int elements, class Each>
SURPRISAL_DEVICE PassSums<n> softmax_pass(RowPart<T>& rows, Compute<T> (&z)[elements], Each&& each) {
  using R = Compute<T>;
  constexpr int kRun = RowPart<T>::kRun, kRuns = elements / kRun;
  RunMaxima<R, kRuns> maxima;
  maxima.template find<kRun>(z);
  R max[1] = {maxima.all};
  rows.team.maximum(max);
  const RowExponential<T> exponential(max[0]);
  const auto own = exponentials<n, kRun>(z, maxima.of_run, rows.plan.runs, max[0], exponential, each);
  double sums[n + 2] = {static_cast<double>(own.maxima)};
  for (int i = 0; i <= n; ++i) sums[i + 1] = static_cast<double>(own.terms.term[i]);
  rows.team.sum(sums);
  PassSums<n> result = {RowSums<>(static_cast<double>(max[0]), sums[1], sums[0]), {}};
  for (int i = 0; i < n; ++i) result.terms[i] = sums[i + 2];
  return result;
}

/**
 * Sums of the classes that a thread has seen so far, relative to the largest of these: S as `others` and how many are
 * the largest, Σ q and Σ q·(max − z).
 */
template <class R>
struct RunningSums {
  R max = -static_cast<R>(INFINITY);
  double others = 0, maxima = 0, q_sum = 0, dot = 0;

  /** What logits are taken relative to: the largest, or 0 while all of them were −∞. */
  SURPRISAL_DEVICE R base() const { return max == -static_cast<R>(INFINITY) ? R(0) : max; }

  /** From now on relative to `to`, where that is larger. */
  SURPRISAL_DEVICE void raise(R to) {
    if (!(to > max)) return;
    const double rise = static_cast<double>(to) - static_cast<double>(base());
    if (maxima > 0) others = (others + maxima) * exponential(-rise);
    maxima = 0;
    dot += rise * q_sum;
    max = to;
  }

  /** The next classes of the thread; `each(j, shifted, q_sum)` gives an element's term of `dot`, and adds to `q_sum`.
   */
  template <int n, class Each>
  SURPRISAL_DEVICE void add(const R (&z)[n], Each&& each) {
    const R largest = larger(largest_of<n>(z), max);
    raise(largest);
    const R m = base();
    const ExponentialBelow<R> exponential(m);
    int count = 0;
    const auto terms = sum_in_pairs<n>([&](int j) {
      count += z[j] == m;
      const Shifted<R> shifted = {exponential.difference(z[j]), exponential(z[j])};
      Terms<R, 2> both;
      both.term[0] = rest_term(z[j], m, shifted.e);
      both.term[1] = each(j, shifted, q_sum);
      return both;
    });
    others += static_cast<double>(terms.term[0]);
    dot += static_cast<double>(terms.term[1]);
    maxima += static_cast<double>(count);
  }

  /** The whole row's. All threads of the block call it. */
  SURPRISAL_DEVICE void finish(Team& team) {
    R largest[1] = {max};
    team.maximum(largest);
    raise(largest[0]);
    double sums[4] = {others, maxima, q_sum, dot};
    team.sum(sums);
    others = sums[0];
    maxima = sums[1];
    q_sum = sums[2];
    dot = sums[3];
  }

  SURPRISAL_DEVICE RowSums<> row() const { return RowSums<>(static_cast<double>(max), others, maxima); }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
