#pragma once

// What a thread has of a row: which classes, where they stand, and what belongs to the row. A row's threads are some
// lanes of a warp, a block, or the blocks of a cluster; classes are dealt to them by their number alone, so that a row
// is computed in the same way wherever it stands.

#include "../loss/cross_entropy.h"
#include "packs.h"
#include "plan.h"
#include "rows.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Elements of a row that a thread holds in so many bytes of registers. */
template <class R, int bytes>
inline constexpr int kElements = bytes / static_cast<int>(sizeof(R));

/** The most threads of a block that holds a row: in double they need more registers each. */
template <class R>
inline constexpr int kThreadsOfRow = sizeof(R) == 8 ? 384 : kRowThreads;

/** A thread's part of the row that it works on. */
template <class T>
class RowPart {
 public:
  using R = Compute<T>;
  /** Elements of neighbouring classes that a thread has. */
  static constexpr int kRun = kPack<T>;

  const Problem& problem;
  const Evaluation& call;
  const RowPlan& plan;
  Team team;

  int64_t row;    // this thread's, of the call's or of its groups of rows
  bool exists;    // past the last row threads only keep their warps whole
  int64_t begin;  // the block's first class of it
  int width;      // and how many there are
  RowLabel label;

  SURPRISAL_DEVICE RowPart(const Problem& problem, const RowPlan& plan)
      : problem(problem),
        call(problem.call),
        plan(plan),
        team(plan.team, plan.cluster, reinterpret_cast<Scratch*>(dynamic_shared())),
        row(static_cast<int64_t>(cluster_index()) * plan.rows + team.number),
        exists(row < plan.all_rows) {
    move_to(plan.cluster == 1 ? 0 : static_cast<int64_t>(block_in_cluster()) * plan.slice);
    if (kHasClusters && plan.cluster > 1) {
      if (thread_index() == 0) init_mail(&team.scratch()->exchanged);
      greet_cluster();
    }
    if (call.indices != nullptr && exists) index_ = read_index(call, row, leads_warp());
  }

  /** Learns the row's label, which takes a way to memory: better once the logits are on theirs. */
  SURPRISAL_DEVICE void find_label() {
    if (!exists) return;
    label = label_of(call, index_);
    if (label.state == RowState::bad && leads()) report_bad_label(problem, row);
  }

  /** What the driver keeps in shared memory. */
  SURPRISAL_DEVICE std::byte* own_shared() const {
    return reinterpret_cast<std::byte*>(team.scratch() + 1) + plan.own_place;
  }

  /** Goes on to the classes from `c` on, as many as a block has. */
  SURPRISAL_DEVICE void move_to(int64_t c) {
    begin = c;
    width = static_cast<int>(call.classes - c < plan.slice ? call.classes - c : plan.slice);
  }

  /** Calls f for each part of a row that does not fit, one after the other. */
  template <class F>
  SURPRISAL_DEVICE void for_each_slice(F&& f) {
    SURPRISAL_NO_UNROLL
    for (int64_t c = 0; c < call.classes; c += plan.slice) {
      move_to(c);
      f();
    }
  }

  SURPRISAL_DEVICE bool counts() const { return label.state == RowState::counts; }
  /** The weight of its label, and what the row's gradient is multiplied by. */
  SURPRISAL_DEVICE double weight() const { return class_weight<R>(call, label.y); }
  SURPRISAL_DEVICE double scale() const { return exists ? row_scale<R>(problem, row) : 0; }

  /** Of the threads of a warp that work on one row, this is the first. */
  SURPRISAL_DEVICE bool leads_warp() const { return team.rank % kWarp == 0; }
  /** Of all that work on it. */
  SURPRISAL_DEVICE bool leads() const { return team.rank == 0 && block_in_cluster() == 0; }

  // This thread has runs of neighbouring classes: run k begins at place_of_run(k), in the block's part of the row.

  SURPRISAL_DEVICE int place_of_run(int k) const { return (team.rank + k * team.size) * kRun; }
  /** Place of this thread's element j, and whether there is one. */
  SURPRISAL_DEVICE int place_of_element(int j) const { return place_of_run(j / kRun) + j % kRun; }
  SURPRISAL_DEVICE bool has(int j) const { return exists && place_of_element(j) < width; }

  /** Place of the label in the block's part of the row; −1 where it is in another's, or the row does not count. */
  SURPRISAL_DEVICE int label_place() const {
    const bool is = exists && counts() && label.y >= begin && label.y < begin + width;
    return is ? static_cast<int>(label.y - begin) : -1;
  }
  /** Whether this very thread has a place of the row. */
  SURPRISAL_DEVICE bool owns(int at) const {
    if (at < 0) return false;
    const int run = at / kRun;
    return (team.size > kWarp ? run % team.size : run & (team.size - 1)) == team.rank;
  }

  /** Where the row's classes begin in a tensor of the call's shape, `origin` rows further on. */
  template <class S>
  SURPRISAL_DEVICE S* start(S* tensor, const Strides& strides, int64_t origin = 0) const {
    return tensor + row_offset(call.inner, strides, origin + row);
  }
  SURPRISAL_DEVICE const T* logits(int64_t origin = 0) const {
    return start(static_cast<const T*>(call.input), call.input_strides, origin);
  }
  /** The logit of the row's label, which all its threads may ask for. */
  SURPRISAL_DEVICE R label_logit() const {
    if (!exists) return 0;
    return widen(load_broadcast(logits() + label.y * call.input_strides.classes, leads_warp()));
  }

  /** This thread's elements of a row that begins at `from`, its classes so far apart; `fill` past its end. */
  template <class S, int n>
  SURPRISAL_DEVICE void load(const S* from, int64_t class_stride, R (&values)[n], R fill) const {
    from += begin * class_stride;
    if (exists && class_stride == 1 && misalignment(from) == 0 && width % kRun == 0) {
      SURPRISAL_UNROLL
      for (int k = 0; k < n / kRun; ++k) {
        if (k < plan.full_runs || place_of_run(k) < width) {
          load_packs<kRun>(from + place_of_run(k), values + k * kRun);
        } else {
          SURPRISAL_UNROLL
          for (int i = 0; i < kRun; ++i) values[k * kRun + i] = fill;
        }
      }
    } else {
      SURPRISAL_UNROLL
      for (int k = 0; k < n / kRun; ++k) {
        const S* element = from + place_of_run(k) * class_stride;
        const int left = exists ? width - place_of_run(k) : 0;
        SURPRISAL_UNROLL
        for (int i = 0; i < kRun; ++i, element += class_stride) {
          values[k * kRun + i] = i < left ? static_cast<R>(widen(load_global(element))) : fill;
        }
      }
    }
  }
  template <int n>
  SURPRISAL_DEVICE void load_logits(R (&values)[n], int64_t origin = 0) const {
    load(logits(origin), call.input_strides.classes, values, -static_cast<R>(INFINITY));
  }
  /** Those of its dense target: the row's own, or its class index's. */
  template <int n>
  SURPRISAL_DEVICE void load_dense(R (&values)[n]) const {
    with_dense<T>(call.dense_dtype, [&](auto storage) {
      const auto* dense = static_cast<const decltype(storage)*>(call.dense);
      const auto* from =
          call.dense_by_index ? dense + label.y * call.dense_strides.outer : start(dense, call.dense_strides);
      load(from, call.dense_strides.classes, values, R(0));
    });
  }

  /** A place of a row with a value of its own, beside those that the threads hold. −1: this thread has none. */
  struct Own {
    int place = -1;
    R value = 0;
  };

  /** Writes this thread's values to the gradient's row, `origin` rows further on. All threads of the block call it. */
  template <int n>
  SURPRISAL_DEVICE void write(const R (&values)[n], const Own& own, int64_t origin = 0) const {
    const int64_t stride = call.grad_strides.classes;
    T* to = start(static_cast<T*>(call.grad), call.grad_strides, origin) + begin * stride;
    // Places are made anew: kept from where the row was read they would take as many registers as its values.
    const int first = opaque(team.rank) * kRun, step = team.size * kRun;
    if (plan.staged) {
      const Staging<T> staging(reinterpret_cast<std::byte*>(team.scratch() + 1), plan.row_bytes);
      T* shared = staging.row(team.number, to);
      SURPRISAL_UNROLL
      for (int j = 0; j < n; ++j) {
        const int at = first + j / kRun * step + j % kRun;
        if (exists && at < width) shared[at] = stored<T>(values[j]);
      }
      if (own.place >= 0) shared[own.place] = stored<T>(own.value);
      sync_block();
      SURPRISAL_NO_UNROLL
      for (int i = 0; i < plan.rows; ++i) {
        const int64_t each = row - team.number + i;
        if (each >= plan.all_rows) break;
        T* its = static_cast<T*>(call.grad) + row_offset(call.inner, call.grad_strides, origin + each) + begin * stride;
        staging.store(i, its, width, stride);
      }
      sync_block();
      return;
    }
    if (!exists) return;
    SURPRISAL_UNROLL
    for (int k = 0; k < n / kRun; ++k) {
      const int at = first + k * step;
      if (k < plan.full_runs || at < width) store_packs<kRun>(to + at, values + k * kRun);
    }
    if (own.place >= 0) store_global(to + own.place, stored<T>(own.value));
  }

  /**
   * Puts the loss of the row, whose parts its first thread has, where it belongs, and adds it to the call's. All
   * threads of the block call it, last of all.
   */
  SURPRISAL_DEVICE void put_loss(const LinearLoss& parts) const {
    if (block_in_cluster() != 0) return;
    // Of several rows a lane has one each: their logarithms are taken together.
    LossRecord record = {parts.rest, parts.mass, parts.dot, label.y, label.state};
    LossRecord* records = reinterpret_cast<LossRecord*>(team.scratch() + 1);
    if (plan.rows > 1) {
      if (team.rank == 0) records[team.number] = record;
      sync_block();
    }
    if (thread_index() >= kWarp) return;
    double sums[2] = {0, 0};
    SURPRISAL_NO_UNROLL
    for (int i = thread_index(); i < plan.rows; i += kWarp) {
      const int64_t each = row - team.number + i;
      if (each >= plan.all_rows) break;
      if (plan.rows > 1) record = records[i];
      put_row(record, each, sums);
    }
    if (plan.rows > 1) Team::sum_of_warp(sums);
    add_loss(problem, cluster_index(), plan.tiles, sums[0], sums[1]);
  }

 private:
  /** Puts one row's loss, and adds it to the block's; with the weight of its label, where these are to be added up. */
  SURPRISAL_DEVICE void put_row(const LossRecord& of, int64_t row, double (&sums)[2]) const {
    LinearLoss parts;
    parts.rest = of.rest;
    parts.mass = of.mass;
    parts.dot = of.dot;
    const double loss = loss_of(of.state, parts.value());
    put_row_loss<R>(call, row, loss);
    sums[0] += loss;
    const bool weighs = problem.weighs_labels && of.state == RowState::counts;
    if (weighs) sums[1] += class_weight<R>(call, of.y);
  }

  int64_t index_ = 0;
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
