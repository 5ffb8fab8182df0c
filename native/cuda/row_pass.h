#pragma once

// What the drivers of rows share: which rows a block has, which classes of a row a thread has, and the pass over them
// for the sums of softmax.

#include "../loss/softmax.h"
#include "row_tile.h"
#include "rows.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Elements of a row that a thread holds in registers. */
template <class R>
inline constexpr int kElements = kRegisterBytes / static_cast<int>(sizeof(R));

template <class R>
using Held = R[kElements<R>];

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

/** A block's rows, of which this thread works on one. */
template <class T>
class RowBlock {
 public:
  const Evaluation& call;
  const RowPlan& plan;
  Scratch* scratch;
  Team team;
  int64_t part;   // the block's, or its cluster's, among all
  int64_t first;  // row
  int count;      // rows
  int64_t row;    // this thread's
  bool exists;    // past the last row threads only keep their warps whole
  int64_t begin;  // classes of the block
  int width;
  RowTile<T> tile;

  /** Of so many rows in all. */
  SURPRISAL_DEVICE RowBlock(const Evaluation& call, const RowPlan& plan, int64_t rows)
      : call(call),
        plan(plan),
        scratch(reinterpret_cast<Scratch*>(dynamic_shared())),
        team(plan.team, plan.cluster, scratch),
        part(plan.cluster == 1 ? block_index() : block_index() / plan.cluster),
        first(part * plan.rows),
        count(static_cast<int>(rows - first < plan.rows ? rows - first : plan.rows)),
        row(first + team.number),
        exists(team.number < count),
        tile(call, plan, shared_rows(), first, count) {
    move_to(static_cast<int64_t>(team.block) * plan.slice);
  }

  SURPRISAL_DEVICE RowHead* heads() const { return reinterpret_cast<RowHead*>(scratch + 1); }
  SURPRISAL_DEVICE T* shared_rows() const { return reinterpret_cast<T*>(heads() + plan.rows); }

  /** Reads what belongs to the rows beside their logits; there after the block's next barrier. */
  SURPRISAL_DEVICE void read_heads(const Problem& problem) const {
    if (team.rank != 0) return;
    heads()[team.number] = exists ? read_head<Compute<T>>(problem, row) : RowHead{};
  }
  SURPRISAL_DEVICE const RowHead& head() const { return heads()[team.number]; }

  /** Goes on to the classes from `c` on, as many as fit. */
  SURPRISAL_DEVICE void move_to(int64_t c) {
    begin = c;
    width = static_cast<int>(call.classes - c < plan.slice ? call.classes - c : plan.slice);
  }

  /** A tensor's rows into shared memory. */
  SURPRISAL_DEVICE void load(const T* tensor, const Strides& strides) const {
    tile.load(tensor, strides, begin, width);
    wait_for_copies();
    sync_block();
  }

  /** The rows that the threads have written into shared memory, into a tensor. */
  SURPRISAL_DEVICE void store(T* tensor, const Strides& strides) const {
    sync_block();
    tile.store(tensor, strides, begin, width);
  }

  /**
   * Calls f with this thread's logits for each tile of a row that does not fit. The tile was read by all threads then,
   * so that something else may take its place in shared memory.
   */
  template <class F>
  SURPRISAL_DEVICE void for_each_tile(const T* tensor, const Strides& strides, F&& f) {
    SURPRISAL_NO_UNROLL
    for (int64_t c = 0; c < call.classes; c += plan.slice) {
      move_to(c);
      load(tensor, strides);
      Held<Compute<T>> values;
      read(shared_row(tensor, strides), values, -static_cast<Compute<T>>(INFINITY));
      sync_block();
      f(values);
    }
  }

  /** This thread's row of a tensor in shared memory; its element i is class begin + i. */
  SURPRISAL_DEVICE T* shared_row(const T* tensor, const Strides& strides) const {
    return tile.row(tensor, strides, team.number, begin);
  }

  /** A class of this thread's row in global memory. */
  SURPRISAL_DEVICE const T* global(const T* tensor, const Strides& strides, int64_t c) const {
    return tile.global(tensor, strides, team.number, c);
  }

  /** Place of this thread's element j in the row, and whether there is one. */
  SURPRISAL_DEVICE int place(int j) const { return team.rank + j * team.size; }
  SURPRISAL_DEVICE bool has(int i) const { return exists && i < width; }

  /** Place of a class in the row, where this block holds it; −1 else. */
  SURPRISAL_DEVICE int place_of(int64_t c) const {
    return exists && c >= begin && c < begin + width ? static_cast<int>(c - begin) : -1;
  }
  /** Whether this very thread has it. */
  SURPRISAL_DEVICE bool owns(int i) const { return i >= 0 && i % team.size == team.rank; }

  /** Calls f(j, i) for the places i of this thread. */
  template <class F>
  SURPRISAL_DEVICE void for_each(F&& f) const {
    // Places and addresses are made anew: kept from an earlier loop they would take as many registers as the row.
    const int first_place = opaque(team.rank);
    SURPRISAL_UNROLL
    for (int j = 0; j < kElements<Compute<T>>; ++j) {
      const int i = first_place + j * team.size;
      if (has(i)) f(j, i);
    }
  }

  /** A place of a row with a value of its own. It is known before the others are written: they need the registers. */
  struct Own {
    int place = -1;  // −1: this thread has none
    T value = {};
  };

  /** Writes f(j, i) to this thread's places i of a row in shared memory; 0 where the row does not count. */
  template <class F>
  SURPRISAL_DEVICE void write(T* shared_row, const Own& own, F&& f) const {
    const bool counts = head().state == RowState::counts;
    for_each([&](int j, int i) { shared_row[i] = stored<T>(counts ? f(j, i) : Compute<T>(0)); });
    if (own.place >= 0) shared_row[own.place] = own.value;
  }

  /** The label's place, where this thread has it and its row counts, with the value that `slope()` gives, in double. */
  template <class F>
  SURPRISAL_DEVICE Own own_label(F&& slope) const {
    const int label = place_of(head().y);
    if (head().state != RowState::counts || !owns(label)) return {};
    return {label, stored<T>(static_cast<Compute<T>>(slope()))};
  }

  /** This thread's elements of its row in shared memory; `fill` past the row's end. */
  SURPRISAL_DEVICE void read(const T* shared_row, Held<Compute<T>>& values, Compute<T> fill) const {
    SURPRISAL_UNROLL
    for (int j = 0; j < kElements<Compute<T>>; ++j) {
      values[j] = has(place(j)) ? widen(shared_row[place(j)]) : fill;
    }
  }

  /** A dense target's elements of this thread: of the row, or of its class index. */
  SURPRISAL_DEVICE void read_dense(int64_t y, Held<Compute<T>>& values) const {
    const Strides& strides = call.dense_strides;
    const int64_t row_at =
        call.dense_by_index ? y * strides.outer : RowPlaces(call.inner, first).offset(strides, team.number);
    with_dense<T>(call.dense_dtype, [&](auto storage) {
      const auto* from = static_cast<const decltype(storage)*>(call.dense) + row_at + begin * strides.classes;
      SURPRISAL_UNROLL
      for (int j = 0; j < kElements<Compute<T>>; ++j) {
        values[j] = 0;
        if (has(place(j))) values[j] = widen(load_global(from + place(j) * strides.classes));
      }
    });
  }

  /**
   * Puts a row's loss where it belongs, and adds it to the call's. The first thread of a team has it; of a cluster,
   * that of the block that leads.
   */
  SURPRISAL_DEVICE void put_loss(const Problem& problem, int64_t rows, bool leads, double loss) const {
    if (exists && leads && team.rank == 0) {
      loss = loss_of(head().state, loss);
      put_row_loss<Compute<T>>(call, row, loss);
      heads()[team.number].loss = loss;
    }
    if (call.reduction == Reduction::none || (plan.cluster > 1 && !leads)) return;
    sync_block();
    double sum[1] = {thread_index() < count ? heads()[thread_index()].loss : 0};
    if (count > 1) {
      Team(thread_count(), 1, scratch).sum(sum);
      sync_block();
    }
    add_loss(problem, plan.tiles(rows), part, sum[0], scratch);
  }
};

/** What a driver without terms of its own gives for an element. */
struct NoTerms {
  template <class R>
  SURPRISAL_DEVICE Terms<R, 0> operator()(int, Shifted<R>) const {
    return {};
  }
};

/** Sums of a row, and of n more terms that a driver asked for. */
template <int n>
struct PassSums {
  RowSums<> row;
  double terms[n > 0 ? n : 1];
};

/**
 * One exponential an element, of a row that the team's threads hold: its sums, and those of the n terms that
 * `each(j, shifted)` gives of an element. Elements past the row's end are −∞.
 */
template <int n, class R, class Each>
SURPRISAL_DEVICE PassSums<n> softmax_pass(Team& team, const Held<R>& z, Held<R>& e, Each&& each) {
  R largest = -static_cast<R>(INFINITY);
  SURPRISAL_UNROLL
  for (int j = 0; j < kElements<R>; ++j) largest = maximum(z[j], largest);
  const R max = team.maximum(largest);
  const ExponentialBelow<R> exponential(max);
  int maxima = 0;
  const auto terms = sum_in_pairs<kElements<R>>([&](int j) {
    maxima += z[j] == max;
    e[j] = exponential(z[j]);
    const Terms<R, n> others = each(j, Shifted<R>{exponential.difference(z[j]), e[j]});
    Terms<R, n + 1> all;
    all.term[0] = rest_term(z[j], max, e[j]);
    for (int i = 0; i < n; ++i) all.term[i + 1] = others.term[i];
    return all;
  });
  double sums[n + 2] = {static_cast<double>(maxima)};
  for (int i = 0; i <= n; ++i) sums[i + 1] = static_cast<double>(terms.term[i]);
  team.sum(sums);
  PassSums<n> result = {RowSums<>(static_cast<double>(max), sums[1], sums[0]), {}};
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
  template <class Each>
  SURPRISAL_DEVICE void add(const Held<R>& z, Each&& each) {
    R largest = max;
    SURPRISAL_UNROLL
    for (int j = 0; j < kElements<R>; ++j) largest = maximum(z[j], largest);
    raise(largest);
    const R m = base();
    const ExponentialBelow<R> exponential(m);
    int count = 0;
    const auto terms = sum_in_pairs<kElements<R>>([&](int j) {
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
    raise(team.maximum(max));
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
