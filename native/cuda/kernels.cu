// All kernels: a driver for each registered loss, over every floating dtype.

#include <iterator>
#include <utility>

#include "../loss/registry.h"
#include "kernels.h"
#include "labels.h"
#include "softmax_linear.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {
namespace {

template <Kind kind, class T, class Formula>
struct JobsOf {
  static constexpr void (*launch)(const Problem&, const DeviceLimits&, Stream) = nullptr;
  static constexpr int64_t (*parts)(const Evaluation&, const DeviceLimits&) = nullptr;
};
template <class T, class Formula>
struct JobsOf<Kind::softmax_linear, T, Formula> : SoftmaxLinearJobs<T, Formula> {};

template <int index, class T>
using Jobs = JobsOf<Registered<index>::template Formula<double>::kind, T,
                    typename Registered<index>::template Formula<Compute<T>>>;

/** As the CPU backend's, but of the weights of labels, which the host does not see. */
template <class F>
double divisor(const Evaluation& call) {
  const auto rows = static_cast<double>(call.rows());
  if constexpr (F::kind == Kind::row_map) {
    return 1;
  } else {
    switch (F::denominator) {
      case Denominator::weights: {
        const bool by_label = call.indices != nullptr && !call.dense_by_index;
        return by_label && (call.weight != nullptr || call.has_ignore_index) ? 0 : rows;
      }
      case Denominator::elements:
        return rows * static_cast<double>(call.classes);
      case Denominator::samples:
        return rows / call.parameters[0];
      case Denominator::rows:
        return rows;
    }
    return rows;
  }
}

template <class F>
constexpr LossInfo info() {
  constexpr auto kind = kKindNames[static_cast<int>(F::kind)];
  if constexpr (requires { F::parameters; }) {
    return {F::name, kind, F::parameters, static_cast<int>(std::size(F::parameters))};
  } else {
    return {F::name, kind, nullptr, 0};
  }
}

template <int index>
constexpr LossJobs jobs() {
  using F = typename Registered<index>::template Formula<double>;
  return {info<F>(),
          {Jobs<index, float>::launch, Jobs<index, double>::launch, Jobs<index, Float16>::launch,
           Jobs<index, BFloat16>::launch},
          {Jobs<index, float>::parts, Jobs<index, double>::parts, Jobs<index, Float16>::parts,
           Jobs<index, BFloat16>::parts},
          divisor<F>};
}

template <int... indices>
constexpr int count_present(std::integer_sequence<int, indices...>) {
  return (static_cast<int>(Registered<indices>::present) + ...);
}

using Places = std::make_integer_sequence<int, kRegistrySize>;
constexpr int kLossCount = count_present(Places{});

struct Table {
  LossJobs losses[kLossCount] = {};
};

template <int index>
constexpr void put(Table& table, int& next) {
  if constexpr (Registered<index>::present) table.losses[next++] = jobs<index>();
}

template <int... indices>
constexpr Table make_table(std::integer_sequence<int, indices...>) {
  Table table;
  int next = 0;
  (put<indices>(table, next), ...);
  return table;
}

constexpr Table kTable = make_table(Places{});

}  // namespace
}  // namespace SURPRISAL_TARGET

int loss_count() { return kLossCount; }

const LossJobs& loss_jobs(int loss) { return kTable.losses[loss]; }

int64_t label_parts(int64_t rows) { return (rows + kLabelsPerBlock - 1) / kLabelsPerBlock; }

void launch_label_weights(const Problem& problem, Stream stream) {
  const LaunchShape shape = {label_parts(problem.call.rows()), kLabelThreads, 1, sizeof(Scratch)};
  if (problem.call.dtype == DType::float64) {
    launch(LabelWeights<double>{problem}, shape, stream);
  } else {
    launch(LabelWeights<float>{problem}, shape, stream);
  }
}

}  // namespace surprisal
