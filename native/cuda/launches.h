#pragma once

// From a call to its kernel: which driver a row of its length takes, and what is compiled in for it.

#include <type_traits>

#include "row_pass.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class T>
RowPlan plan_of(const Evaluation& call, const DeviceLimits& limits) {
  return plan_rows(call.classes, sizeof(T), sizeof(Compute<T>), limits);
}

template <class T>
int64_t row_parts(const Evaluation& call, const DeviceLimits& limits) {
  return plan_of<T>(call, limits).tiles(call.rows());
}

inline LaunchShape shape_of(const RowPlan& plan, int64_t rows) {
  return {plan.tiles(rows) * plan.cluster, plan.threads, plan.cluster,
          static_cast<int>(sizeof(Scratch)) + plan.shared_bytes};
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
