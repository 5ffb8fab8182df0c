#pragma once

// Driver of losses that are a sum over elements: each thread takes 16 bytes of logits at a time, and all of a call's
// rows are one run. Where elements are not side by side, they are taken in the order of memory, one by one.

#include "../loss/loss.h"
#include "../loss/math.h"
#include "launches.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

inline constexpr int kElementThreads = 256;
/** Runs that a thread takes one after the other, at most: fewer where that would leave too few blocks. */
inline constexpr int64_t kMostRuns = 8, kEnoughBlocks = 1024;

/** Whether a formula's positives may have a factor. A requires-expression in a function is too much for nvcc. */
template <class Formula, class = void>
inline constexpr bool kHasPosWeight = false;
template <class Formula>
inline constexpr bool kHasPosWeight<Formula, std::void_t<decltype(Formula::has_pos_weight)>> = true;

template <class T, class Formula, bool kGrad, bool kPosWeight>
struct Elementwise {
  using R = Compute<T>;
  static constexpr int most_threads = kElementThreads;
  /** What memory sends is waited for in other warps: in as many blocks as there is room for without spilling. */
  static constexpr bool kIsLarge = sizeof(R) == 8 || kPosWeight || (sizeof(T) == 2 && Formula::passes > 1);
  static constexpr int kBlocks = sizeof(T) == 2 ? (kPosWeight ? 1 : kIsLarge ? 2 : 3) : kIsLarge ? 2 : 4;
  static constexpr int threads_of_registers = kBlocks * kElementThreads;
  /** Elements that a thread has at once. */
  static constexpr int kRun = kPack<T>;
  /** Values that an element's passes leave. */
  static constexpr int kParts = Formula::parts(Formula::passes, kGrad);

  Problem problem;
  Formula formula;
  int64_t of_block;  // elements
  bool
      in_runs;  // elements follow one another without gaps, at multiples of 16 bytes, in all that has the input's shape

  SURPRISAL_DEVICE void operator()() const {
    const Evaluation& call = problem.call;
    auto* scratch = reinterpret_cast<Scratch*>(dynamic_shared());
    const int64_t all = call.rows() * call.classes;
    int64_t first = block_index() * of_block;
    const int64_t last = first + of_block < all ? first + of_block : all;
    const double scale = problem.scale;
    double sum[1] = {0};
    if (in_runs && call.classes >= kRun) {
      sum[0] = runs(first, last, scale);
      first = last / kRun * kRun;  // What is left is less than a run.
    }
    SURPRISAL_NO_UNROLL
    for (int64_t i = first + thread_index(); i < last; i += thread_count()) sum[0] += one(i, scale);
    Team(thread_count(), 1, scratch).sum(sum);
    if (thread_index() >= kWarp) return;
    double sums[2] = {sum[0], 0};
    add_loss(problem, block_index(), block_count(), sums[0], sums[1]);
  }

 private:
  /** Where an element stands. */
  struct Place {
    int64_t row, c;
  };

  /** Element i of the call, in the order of memory. */
  SURPRISAL_DEVICE Place place_of(int64_t i) const {
    const Evaluation& call = problem.call;
    if (call.inner == 1) {
      const int64_t row = quotient(i, call.classes);
      return {row, i - row * call.classes};
    }
    const int64_t o = quotient(i, call.inner * call.classes), within = i - o * call.inner * call.classes;
    const int64_t c = quotient(within, call.inner);
    return {o * call.inner + (within - c * call.inner), c};
  }

  SURPRISAL_DEVICE static R factor(const void* values, int64_t row_stride, int64_t class_stride, Place at) {
    if (values == nullptr) return 1;
    return load_global(static_cast<const R*>(values) + at.row * row_stride + at.c * class_stride);
  }
  SURPRISAL_DEVICE R weight(Place at) const {
    const Evaluation& call = problem.call;
    return factor(call.weight, call.weight_row_stride, call.weight_class_stride, at);
  }
  SURPRISAL_DEVICE R pos_weight(Place at) const {
    const Evaluation& call = problem.call;
    return factor(call.pos_weight, call.pos_weight_row_stride, call.pos_weight_class_stride, at);
  }

  /** The loss and the slope of an element of target y, whose positives weigh u. */
  SURPRISAL_DEVICE R element(R x, R y, R y_tail, R u, R& grad) const {
    R part[kParts > 0 ? kParts : 1], loss;
    if constexpr (Formula::passes > 0) formula.template prepare<0, kGrad>(x, y, part);
    if constexpr (Formula::passes > 1) formula.template prepare<1, kGrad>(x, y, part);
    formula.template evaluate<kGrad, kPosWeight>(part, x, y, y_tail, u, loss, grad);
    return loss;
  }

  /** Element i, wherever it stands. */
  SURPRISAL_DEVICE double one(int64_t i, double scale) const {
    const Evaluation& call = problem.call;
    const Place at = place_of(i);
    const auto offset = [&](const Strides& strides) {
      return row_offset(call.inner, strides, at.row) + at.c * strides.classes;
    };
    const R x = widen(load_global(static_cast<const T*>(call.input) + offset(call.input_strides)));
    RowLabel label;
    R y = 0, y_tail = 0;
    if (call.dense != nullptr) {
      with_dense<T>(call.dense_dtype, [&](auto storage) {
        const auto* from = static_cast<const decltype(storage)*>(call.dense);
        y = formula.target(static_cast<R>(widen(load_global(from + offset(call.dense_strides)))));
      });
    } else {
      label = read_label(call, at.row);
      if (label.state == RowState::bad) report_bad_label(problem, at.row);
      const Split<R> target(at.c == label.y ? formula.on : formula.off);
      y = target.head;
      y_tail = target.tail;
    }
    const R w = weight(at);
    R grad = 0;
    R loss = element(x, y, y_tail, kPosWeight ? pos_weight(at) : R(1), grad) * w;
    if (label.state == RowState::bad) loss = static_cast<R>(NAN);
    const int64_t out = at.row * call.classes + at.c;
    if (call.reduction == Reduction::none) store_global(static_cast<R*>(call.output) + out, loss);
    if (kGrad && call.grad != nullptr) {
      const auto* each = static_cast<const R*>(call.grad_outputs);
      const R own = static_cast<R>(scale) * (each != nullptr ? load_global(each + out) : R(1));
      grad = label.state == RowState::counts ? grad * w * own : R(0);
      store_global(static_cast<T*>(call.grad) + offset(call.grad_strides), stored<T>(grad));
    }
    return static_cast<double>(loss);
  }

  SURPRISAL_DEVICE bool in_range(int64_t label) const {
    return static_cast<uint64_t>(label) < static_cast<uint64_t>(problem.call.classes);
  }

  /** Bit i of a run, where the label is there and the row has the elements from `first` until `end`. */
  SURPRISAL_DEVICE static unsigned bit_of(int64_t i, int first, int end) {
    return i >= first && i < end ? 1u << static_cast<int>(i) : 0u;
  }
  SURPRISAL_DEVICE static bool is_hit(unsigned hits, int k) { return (hits >> k & 1) != 0; }

  /** A run as it comes by 16 bytes: of logits, or of a dense target that may be wider. */
  template <int packs>
  struct Raw {
    Pack<R> pack[packs];

    SURPRISAL_DEVICE void load(const void* from, int64_t i, bool is_wide) {
      const auto* bytes =
          static_cast<const std::byte*>(from) + i * static_cast<int64_t>(is_wide ? sizeof(R) : sizeof(T));
      SURPRISAL_UNROLL
      for (int k = 0; k < packs; ++k) {
        if (k == 0 || is_wide) pack[k] = load_pack<Pack<R>>(bytes + k * kPackBytes);
      }
    }
    SURPRISAL_DEVICE void widen_to(R (&values)[kRun], bool is_wide) const {
      if (is_wide) {
        SURPRISAL_UNROLL
        for (int k = 0; k < packs * kPack<R>; ++k) values[k] = pack[k / kPack<R>].elements[k % kPack<R>];
      } else {
        Pack<T> narrow;
        memcpy(&narrow, &pack[0], sizeof(narrow));
        SURPRISAL_UNROLL
        for (int k = 0; k < kRun; ++k) values[k] = widen(narrow.elements[k]);
      }
    }
  };

  /** This thread's runs among the elements from `begin` until `end`, of which the next is on its way while one is
   * worked at. */
  SURPRISAL_DEVICE double runs(int64_t begin, int64_t end, double scale) const {
    const int64_t first = begin + static_cast<int64_t>(thread_index()) * kRun;
    const int64_t step = static_cast<int64_t>(thread_count()) * kRun;
    const Evaluation& call = problem.call;
    const bool is_dense = call.dense != nullptr;
    const bool has_factors = call.weight != nullptr || kPosWeight;
    // Rows and classes from a run to the next.
    Place at = {}, stride = {};
    if (!is_dense || has_factors) {
      at = place_of(first);
      stride = step < call.classes ? Place{0, step} : place_of(step);
    }
    const Split<R> on(formula.on), off(formula.off);
    const bool is_wide = sizeof(T) < sizeof(R) && call.dense_dtype != call.dtype;
    Raw<1> raw, next_raw;
    Raw<sizeof(R) / sizeof(T)> given, next_given;
    const auto load = [&](int64_t i) {
      if (i + kRun > end) return;
      next_raw.load(call.input, i, false);
      if (is_dense) next_given.load(call.dense, i, is_wide);
    };
    double sum = 0;
    load(first);
    SURPRISAL_NO_UNROLL
    for (int64_t i = first; i + kRun <= end; i += step) {
      raw = next_raw;
      given = next_given;
      load(i + step);
      // The run may go on in the next row, from its element `crossing` on.
      const int crossing = static_cast<int>(call.classes - at.c < kRun ? call.classes - at.c : kRun);
      const bool crosses = crossing < kRun;
      int64_t label = 0, next_label = 0;
      R x[kRun], y[kRun], losses[kRun], grads[kRun];
      raw.widen_to(x, false);
      unsigned hits = 0;  // a bit an element
      if (is_dense) {
        given.widen_to(y, is_wide);
        SURPRISAL_UNROLL
        for (int k = 0; k < kRun; ++k) y[k] = formula.target(y[k]);
      } else {
        label = next_label = read_index(call, at.row);
        if (crosses) next_label = read_index(call, at.row + 1);
        hits = bit_of(label - at.c, 0, crossing) | bit_of(next_label + crossing, crossing, kRun);
        SURPRISAL_UNROLL
        for (int k = 0; k < kRun; ++k) y[k] = is_hit(hits, k) ? on.head : off.head;
      }
      const auto place = [&](int k) {
        return k < crossing ? Place{at.row, at.c + k} : Place{at.row + 1, at.c + k - call.classes};
      };
      SURPRISAL_UNROLL
      for (int k = 0; k < kRun; ++k) {
        const R y_tail = is_dense ? R(0) : is_hit(hits, k) ? on.tail : off.tail;
        losses[k] = element(x[k], y[k], y_tail, kPosWeight ? pos_weight(place(k)) : R(1), grads[k]);
      }
      if (call.weight != nullptr) {
        SURPRISAL_UNROLL
        for (int k = 0; k < kRun; ++k) {
          const R w = weight(place(k));
          losses[k] = losses[k] * w;
          grads[k] = grads[k] * w;
        }
      }
      const bool ordinary = in_range(label) && in_range(next_label);
      if (!ordinary) {
        const RowState here = label_of(call, label).state, next = label_of(call, next_label).state;
        SURPRISAL_UNROLL
        for (int k = 0; k < kRun; ++k) {
          const RowState state = k < crossing ? here : next;
          if (state == RowState::bad) {
            report_bad_label(problem, at.row + (k < crossing ? 0 : 1));
            losses[k] = static_cast<R>(NAN);
          }
          if (state != RowState::counts) grads[k] = 0;
        }
      }
      if (call.reduction == Reduction::none) store_packs<kRun>(static_cast<R*>(call.output) + i, losses);
      if (kGrad && call.grad != nullptr) {
        R own[kRun];
        if (call.grad_outputs != nullptr) load_packs<kRun>(static_cast<const R*>(call.grad_outputs) + i, own);
        SURPRISAL_UNROLL
        for (int k = 0; k < kRun; ++k) {
          grads[k] = grads[k] * (static_cast<R>(scale) * (call.grad_outputs != nullptr ? own[k] : R(1)));
        }
        store_packs<kRun>(static_cast<T*>(call.grad) + i, grads);
      }
      // Losses of both signs may cancel.
      sum += sum_in_pairs<kRun>([&](int k) { return static_cast<double>(losses[k]); });
      at.row += stride.row;
      at.c += stride.c;
      if (at.c >= call.classes) {
        at.c -= call.classes;
        ++at.row;
      }
    }
    return sum;
  }
};

/** Their launches. */
template <class T, class Formula>
struct ElementwiseJobs {
  static constexpr int kRun = kPack<T>;

  /** Elements of a block: a function of their number alone. */
  static int64_t of_block(const Evaluation& call) {
    constexpr int64_t kAtOnce = static_cast<int64_t>(kElementThreads) * kRun;
    const int64_t runs = call.rows() * call.classes / (kEnoughBlocks * kAtOnce);
    return kAtOnce * (runs < 1 ? 1 : runs < kMostRuns ? runs : kMostRuns);
  }

  static int64_t parts(const Evaluation& call, const DeviceLimits&) {
    return (call.rows() * call.classes - 1) / of_block(call) + 1;
  }

  static void launch(const Problem& problem, const DeviceLimits& limits, Stream stream) {
    const Evaluation& call = problem.call;
    const Formula formula(call.parameters, call.classes);
    const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % kPackBytes == 0; };
    const auto follows = [&](const void* data, const Strides& strides) {
      const bool gapless = strides.classes == 1 && (call.outer == 1 || strides.outer == call.classes);
      return data == nullptr || (gapless && aligned(data));
    };
    const bool in_runs = call.inner == 1 && follows(call.input, call.input_strides) &&
                         follows(call.grad, call.grad_strides) && follows(call.dense, call.dense_strides) &&
                         aligned(call.output) && aligned(call.grad_outputs);
    LaunchShape shape;
    shape.blocks = parts(call, limits);
    shape.threads = kElementThreads;
    shape.shared_bytes = sizeof(Scratch);
    shape.device = limits.device;
    const auto run = [&](auto grad, auto pos_weight) {
      using Job = Elementwise<T, Formula, grad.value, pos_weight.value>;
      surprisal::launch(Job{problem, formula, of_block(call), in_runs}, shape, stream);
    };
    if constexpr (kHasPosWeight<Formula>) {
      if (call.pos_weight != nullptr) return run(std::true_type{}, std::true_type{});
    }
    if constexpr (kHasPosWeight<Formula> && kHasForward<Compute<T>>) {
      with_bool(call.grad != nullptr, [&](auto grad) { run(grad, std::false_type{}); });
    } else {
      run(std::true_type{}, std::false_type{});
    }
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
