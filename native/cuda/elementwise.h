#pragma once

// Driver of losses that are a sum over elements: each thread takes 16 bytes of logits at a time, all of a call's rows
// in one run. Where classes are not side by side, elements are taken in the order of memory, one by one.

#include "../loss/loss.h"
#include "../loss/math.h"
#include "launches.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

inline constexpr int kElementThreads = 256;
/** Elements of a block, for every dtype: their losses add up in one order. */
inline constexpr int64_t kBlockElements = 4096;

/** Whether n elements from here on can be had by 16-byte accesses. */
template <int n, class S>
SURPRISAL_DEVICE bool in_packs(const S* at) {
  return n * sizeof(S) % kPackBytes == 0 && reinterpret_cast<uintptr_t>(at) % kPackBytes == 0;
}

/** n neighbouring elements in the compute type R. */
template <int n, class R, class S>
SURPRISAL_DEVICE void load_run(const S* from, R (&values)[n]) {
  struct alignas(kPackBytes) Pack {
    S elements[kPack<S>];
  };
  if (in_packs<n>(from)) {
    SURPRISAL_UNROLL
    for (int i = 0; i < n; i += kPack<S>) {
      const Pack pack = load_pack<Pack>(from + i);
      SURPRISAL_UNROLL
      for (int k = 0; k < kPack<S> && i + k < n; ++k) values[i + k] = static_cast<R>(widen(pack.elements[k]));
    }
    return;
  }
  SURPRISAL_UNROLL
  for (int i = 0; i < n; ++i) values[i] = static_cast<R>(widen(load_global(from + i)));
}

template <int n, class R, class S>
SURPRISAL_DEVICE void store_run(S* to, const R (&values)[n]) {
  struct alignas(kPackBytes) Pack {
    S elements[kPack<S>];
  };
  if (in_packs<n>(to)) {
    SURPRISAL_UNROLL
    for (int i = 0; i < n; i += kPack<S>) {
      Pack pack;
      SURPRISAL_UNROLL
      for (int k = 0; k < kPack<S> && i + k < n; ++k) pack.elements[k] = stored<S>(values[i + k]);
      store_pack(to + i, pack);
    }
    return;
  }
  SURPRISAL_UNROLL
  for (int i = 0; i < n; ++i) store_global(to + i, stored<S>(values[i]));
}

/** Whether a formula's positives may have a factor. A requires-expression in a function is too much for nvcc. */
template <class Formula, class = void>
inline constexpr bool kHasPosWeight = false;
template <class Formula>
inline constexpr bool kHasPosWeight<Formula, std::void_t<decltype(Formula::has_pos_weight)>> = true;

template <class T, class Formula, bool kGrad, bool kPosWeight>
struct Elementwise {
  using R = Compute<T>;
  static constexpr int most_threads = kElementThreads;
  /** Elements that a thread has at once. */
  static constexpr int kRun = kPack<T>;
  /** Values that an element's passes leave. */
  static constexpr int kParts = Formula::parts(Formula::passes, kGrad);

  Problem problem;
  Formula formula;
  bool one_run;  // classes and rows follow one another without gaps, in all that has the input's shape

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    auto* scratch = reinterpret_cast<Scratch*>(dynamic_shared());
    const int64_t all = call.rows() * call.classes, first = block_index() * kBlockElements;
    const int64_t last = first + kBlockElements < all ? first + kBlockElements : all;
    const double scale = call.grad_output / denominator(problem);
    double sum[1] = {0};
    SURPRISAL_NO_UNROLL
    for (int64_t i = first + thread_index() * kRun; i < last; i += thread_count() * kRun) {
      if (one_run && i + kRun <= last) {
        sum[0] += run(i, scale);
      } else {
        SURPRISAL_NO_UNROLL
        for (int64_t k = i; k < last && k < i + kRun; ++k) sum[0] += one(k, scale);
      }
    }
    Team(thread_count(), 1, scratch).sum(sum);
    sync_block();
    add_loss(problem, block_count(), block_index(), sum[0], scratch);
  }

 private:
  /** Where an element stands. */
  struct Place {
    int64_t row, c;
  };

  /** Element i of the call, in the order of memory. */
  SURPRISAL_DEVICE Place place_of(int64_t i) const {
    const Evaluation& call = problem.call;
    if (call.inner == 1) return {i / call.classes, i % call.classes};
    const int64_t o = i / (call.inner * call.classes), within = i % (call.inner * call.classes);
    return {o * call.inner + within % call.inner, within / call.inner};
  }

  SURPRISAL_DEVICE static R factor(const void* values, int64_t row_stride, int64_t class_stride, Place at) {
    if (values == nullptr) return 1;
    return load_global(static_cast<const R*>(values) + at.row * row_stride + at.c * class_stride);
  }

  /** The loss and the slope of an element from its logit and, where the target is dense, its target. */
  SURPRISAL_DEVICE R element(Place at, const RowLabel& label, R x, R given, R& grad) const {
    const Evaluation& call = problem.call;
    R y, y_tail = 0;
    if (call.dense != nullptr) {
      y = formula.target(given);
    } else {
      const Split<R> t(at.c == label.y ? formula.on : formula.off);
      y = t.head;
      y_tail = t.tail;
    }
    const R w = factor(call.weight, call.weight_row_stride, call.weight_class_stride, at);
    R u = 1, loss;
    if constexpr (kPosWeight) u = factor(call.pos_weight, call.pos_weight_row_stride, call.pos_weight_class_stride, at);
    R part[kParts > 0 ? kParts : 1];
    if constexpr (Formula::passes > 0) formula.template prepare<0, kGrad>(x, y, part);
    if constexpr (Formula::passes > 1) formula.template prepare<1, kGrad>(x, y, part);
    formula.template evaluate<kGrad, kPosWeight>(part, x, y, y_tail, u, loss, grad);
    if constexpr (kGrad) grad = label.state == RowState::counts ? grad * w : R(0);
    return label.state == RowState::bad ? static_cast<R>(NAN) : loss * w;
  }

  SURPRISAL_DEVICE RowLabel label_of(Place at) const {
    const RowLabel label = read_label(problem.call, at.row);
    if (label.state == RowState::bad) report_bad_label(problem, at.row);
    return label;
  }

  SURPRISAL_DEVICE double one(int64_t i, double scale) const {
    const Evaluation& call = problem.call;
    const Place at = place_of(i);
    const auto offset = [&](const Strides& strides) {
      return row_offset(call, strides, at.row) + at.c * strides.classes;
    };
    const R x = widen(load_global(static_cast<const T*>(call.input) + offset(call.input_strides)));
    R given = 0, grad;
    if (call.dense != nullptr) {
      with_dense<T>(call.dense_dtype, [&](auto storage) {
        const auto* from = static_cast<const decltype(storage)*>(call.dense);
        given = static_cast<R>(widen(load_global(from + offset(call.dense_strides))));
      });
    }
    const R loss = element(at, label_of(at), x, given, grad);
    const int64_t out = at.row * call.classes + at.c;
    if (call.reduction == Reduction::none) store_global(static_cast<R*>(call.output) + out, loss);
    if (kGrad && call.grad != nullptr) {
      const auto* each = static_cast<const R*>(call.grad_outputs);
      const R own = static_cast<R>(scale) * (each != nullptr ? load_global(each + out) : R(1));
      store_global(static_cast<T*>(call.grad) + offset(call.grad_strides), stored<T>(grad * own));
    }
    return static_cast<double>(loss);
  }

  SURPRISAL_DEVICE double run(int64_t i, double scale) const {
    const Evaluation& call = problem.call;
    R x[kRun], given[kRun] = {}, losses[kRun], grads[kRun];
    load_run(static_cast<const T*>(call.input) + i, x);
    if (call.dense != nullptr) {
      with_dense<T>(call.dense_dtype,
                    [&](auto storage) { load_run(static_cast<const decltype(storage)*>(call.dense) + i, given); });
    }
    Place at = place_of(i);
    RowLabel label = label_of(at);
    SURPRISAL_UNROLL
    for (int k = 0; k < kRun; ++k) {
      losses[k] = element(at, label, x[k], given[k], grads[k]);
      if (++at.c < call.classes || k + 1 == kRun) continue;
      at = {at.row + 1, 0};
      label = label_of(at);
    }
    if (call.reduction == Reduction::none) store_run(static_cast<R*>(call.output) + i, losses);
    if (kGrad && call.grad != nullptr) {
      R own[kRun];
      if (call.grad_outputs != nullptr) load_run(static_cast<const R*>(call.grad_outputs) + i, own);
      SURPRISAL_UNROLL
      for (int k = 0; k < kRun; ++k) {
        grads[k] = grads[k] * (static_cast<R>(scale) * (call.grad_outputs != nullptr ? own[k] : R(1)));
      }
      store_run(static_cast<T*>(call.grad) + i, grads);
    }
    double sum = 0;
    SURPRISAL_UNROLL
    for (int k = 0; k < kRun; ++k) sum += static_cast<double>(losses[k]);
    return sum;
  }
};

/** Their launches. */
template <class T, class Formula>
struct ElementwiseJobs {
  static int64_t parts(const Evaluation& call, const DeviceLimits&) {
    return (call.rows() * call.classes + kBlockElements - 1) / kBlockElements;
  }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    const auto follows = [&](const void* data, const Strides& strides) {
      return data == nullptr || (strides.classes == 1 && (call.outer == 1 || strides.outer == call.classes));
    };
    const bool one_run = call.inner == 1 && follows(call.input, call.input_strides) &&
                         follows(call.grad, call.grad_strides) && follows(call.dense, call.dense_strides);
    const LaunchShape shape = {parts(call, limits), kElementThreads, 1, sizeof(Scratch)};
    const auto run = [&](auto grad, auto pos_weight) {
      using Job = Elementwise<T, Formula, grad.value, pos_weight.value>;
      surprisal::launch(Job{problem, formula, one_run}, shape, stream);
    };
    if constexpr (kHasPosWeight<Formula>) {
      with_bool(call.grad != nullptr,
                [&](auto grad) { with_bool(call.pos_weight != nullptr, [&](auto weighs) { run(grad, weighs); }); });
    } else {
      // Large, and seldom asked for the loss alone: one kernel for both.
      run(std::true_type{}, std::false_type{});
    }
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
