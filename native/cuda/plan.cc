#include "plan.h"

#include <stdexcept>
#include <string>

#include "launch_shape.h"
#include "scratch.h"

namespace surprisal {
namespace {

int64_t round_up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

/** A slice in shared memory, placed as its address lies beside multiples of 16. */
int64_t bytes_of_slice(int64_t classes, int element_bytes) { return round_up(classes * element_bytes, 16) + 16; }

int threads_for(int64_t classes, int elements) {
  return static_cast<int>(round_up((classes + elements - 1) / elements, kWarp));
}

}  // namespace

RowPlan plan_rows(int64_t classes, int element_bytes, int compute_bytes, const DeviceLimits& limits,
                  const RowMemory& memory) {
  const int elements = kRegisterBytes / compute_bytes;  // of a thread
  RowPlan plan;
  const auto fits = [&] {
    plan.row_bytes = static_cast<int>(bytes_of_slice(plan.slice, element_bytes));
    const int64_t unit = static_cast<int64_t>(sizeof(RowHead)) + memory.rows * plan.row_bytes + memory.bytes +
                         memory.bytes_per_class * plan.slice;
    const int64_t bytes = plan.rows * unit;
    plan.shared_bytes = static_cast<int>(bytes);
    return bytes + static_cast<int64_t>(sizeof(Scratch)) <= limits.shared_bytes;
  };

  if (classes <= kWarp * elements) {
    plan.team = 1;
    while (plan.team * elements < classes) plan.team *= 2;
    plan.threads = kLanesThreads;
    plan.rows = plan.threads / plan.team;
    plan.slice = static_cast<int>(classes);
    if (fits()) return plan;
  }

  plan.rows = 1;
  for (int cluster = 1; cluster <= limits.cluster; cluster *= 2) {
    const int64_t slice = round_up((classes + cluster - 1) / cluster, kWarp);
    plan.driver = cluster == 1 ? RowDriver::block : RowDriver::cluster;
    plan.cluster = cluster;
    if (slice > int64_t{kRowThreads} * elements) continue;
    plan.slice = static_cast<int>(slice);
    plan.threads = plan.team = threads_for(slice, elements);
    if (fits()) return plan;
  }

  plan.driver = RowDriver::two_pass;
  plan.cluster = 1;
  for (plan.slice = kPassThreads * elements; plan.slice > 0; plan.slice /= 2) {
    plan.threads = plan.team = threads_for(plan.slice, elements);
    if (fits()) return plan;
  }
  throw std::length_error("a group of " + std::to_string(memory.rows) +
                          " rows does not fit in the device's shared memory");
}

}  // namespace surprisal
