#pragma once

// From a call to its kernel: which driver a row of its length takes, and what is compiled in for it.

#include <type_traits>

#include "row_pass.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Whether losses alone have kernels of their own. In double, seldom asked for, those with a gradient leave it out. */
template <class R>
inline constexpr bool kHasForward = sizeof(R) == 4;

/** Whether all rows of a tensor of the call's shape can be had in accesses of 16 bytes. */
template <class T>
bool is_in_packs(const Evaluation& call, const void* tensor, const Strides& strides) {
  const auto divides = [](int64_t bytes) { return bytes % kPackBytes == 0; };
  const auto step = [&](int64_t stride, int64_t count) {
    return count == 1 || divides(stride * static_cast<int64_t>(sizeof(T)));
  };
  return strides.classes == 1 && call.classes % kPack<T> == 0 && divides(reinterpret_cast<intptr_t>(tensor)) &&
         step(strides.outer, call.outer) && step(strides.inner, call.inner);
}

/** What a driver keeps of a row, or of each row of a group. */
template <class T>
RowNeeds needs_of(const Evaluation& call, int register_bytes, int group = 1) {
  RowNeeds needs;
  needs.all_rows = call.rows() / group;
  needs.register_bytes = register_bytes;
  needs.threads = kThreadsOfRow<Compute<T>>;
  needs.staged = call.grad != nullptr && !is_in_packs<T>(call, call.grad, call.grad_strides);
  return needs;
}

template <class T>
RowPlan plan_of(const Evaluation& call, const DeviceLimits& limits, int register_bytes) {
  return plan_rows(call.classes, sizeof(T), sizeof(Compute<T>), limits, needs_of<T>(call, register_bytes));
}

inline LaunchShape shape_of(const RowPlan& plan, const Problem& problem, const DeviceLimits& limits) {
  LaunchShape shape;
  shape.blocks = plan.tiles * plan.cluster;
  shape.threads = plan.threads;
  shape.cluster = plan.cluster;
  shape.shared_bytes = static_cast<int>(sizeof(Scratch)) + plan.shared_bytes;
  shape.device = limits.device;
  shape.overlaps = problem.divisor == 0 && !problem.weighs_labels;
  return shape;
}

/** Calls f with std::true_type or std::false_type. */
template <class F>
void with_bool(bool value, F&& f) {
  if (value) {
    f(std::true_type{});
  } else {
    f(std::false_type{});
  }
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
