// All kernels of one dtype: a driver for each registered loss. CMake compiles this file once for each, with
// SURPRISAL_DTYPE as its name.

#include <iterator>
#include <type_traits>
#include <utility>

#include "../loss/registry.h"
#include "convert.h"
#include "elementwise.h"
#include "gather.h"
#include "kernels.h"
#include "labels.h"
#include "row_group.h"
#include "row_map.h"
#include "softmax_coupled.h"
#include "softmax_linear.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {
namespace {

template <Kind kind, class T, class Formula>
struct JobsOf;
template <class T, class Formula>
struct JobsOf<Kind::softmax_linear, T, Formula> : SoftmaxLinearJobs<T, Formula> {};
template <class T, class Formula>
struct JobsOf<Kind::softmax_coupled, T, Formula> : SoftmaxCoupledJobs<T, Formula> {};
template <class T, class Formula>
struct JobsOf<Kind::row_group, T, Formula> : RowGroupJobs<T, Formula> {};
template <class T, class Formula>
struct JobsOf<Kind::elementwise, T, Formula> : ElementwiseJobs<T, Formula> {};
template <class T, class Formula>
struct JobsOf<Kind::gather, T, Formula> : GatherJobs<T, Formula> {};
template <class T, class Formula>
struct JobsOf<Kind::row_map, T, Formula> : RowMapJobs<T, Formula> {};

struct StorageTypes {
  using float32 = float;
  using float64 = double;
  using float16 = Float16;
  using bfloat16 = BFloat16;
};
using T = StorageTypes::SURPRISAL_DTYPE;
using R = Compute<T>;

template <int index>
using Formula = typename Registered<index>::template Formula<R>;
template <int index>
using Jobs = JobsOf<Formula<index>::kind, T, Formula<index>>;

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

/** Names of a formula's parameters, of which it may have none. A requires-expression in a function is too much for
 * nvcc. */
template <class F, class = void>
struct Parameters {
  static constexpr const char* const* names = nullptr;
  static constexpr int count = 0;
};
template <class F>
struct Parameters<F, std::void_t<decltype(F::parameters)>> {
  static constexpr const char* const* names = F::parameters;
  static constexpr int count = static_cast<int>(std::size(F::parameters));
};

template <class F>
constexpr LossInfo info() {
  return {F::name, kKindNames[static_cast<int>(F::kind)], Parameters<F>::names, Parameters<F>::count};
}

template <int index>
constexpr LossJobs jobs() {
  return {info<Formula<index>>(), Jobs<index>::launch, Jobs<index>::parts, divisor<Formula<index>>};
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

// Static, as nvcc names an unnamed namespace after the file, which is the same for every dtype.
static void launch_label_weights(const Problem& problem, Stream stream) {
  launch(LabelWeights<R>{problem}, {label_parts(problem.call.rows()), kLabelThreads, 1, sizeof(Scratch)}, stream);
}

#define SURPRISAL_JOIN_NAMES(a, b) a##b
#define SURPRISAL_JOIN(a, b) SURPRISAL_JOIN_NAMES(a, b)

}  // namespace
}  // namespace SURPRISAL_TARGET

const DTypeJobs& SURPRISAL_JOIN(SURPRISAL_DTYPE, _jobs)() {
  namespace own = SURPRISAL_TARGET;
  static constexpr DTypeJobs jobs = {own::kLossCount, own::kTable.losses, own::launch_label_weights,
                                     launch_convert<own::R>};
  return jobs;
}

}  // namespace surprisal
