#include "plan.h"

#include <algorithm>
#include <stdexcept>

#include "launch_shape.h"
#include "scratch.h"

namespace surprisal {
namespace {

int64_t round_up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

int threads_for(int64_t classes, int elements) {
  return static_cast<int>(round_up((classes + elements - 1) / elements, kWarp));
}

/** Completes a plan whose threads, rows and slices are known. */
struct Fitting {
  int64_t classes;
  int element_bytes;
  const DeviceLimits& limits;
  const RowNeeds& needs;

  bool fits(RowPlan& plan) const {
    const int step = plan.team * (kPackBytes / element_bytes);
    const int64_t narrowest = classes - static_cast<int64_t>(plan.cluster - 1) * plan.slice;
    plan.runs = (plan.slice + step - 1) / step;
    plan.full_runs = plan.driver == RowDriver::two_pass ? 0 : static_cast<int>(narrowest / step);
    plan.all_rows = needs.all_rows;
    plan.tiles = (needs.all_rows + plan.rows - 1) / plan.rows;
    plan.staged = needs.staged;
    // A slice, placed as its address lies beside multiples of 16.
    plan.row_bytes =
        static_cast<int>(round_up(static_cast<int64_t>(plan.slice) * element_bytes, kPackBytes)) + kPackBytes;
    const int64_t staging = static_cast<int64_t>(plan.rows) * plan.row_bytes;
    const int64_t records =
        round_up(static_cast<int64_t>(plan.rows) * static_cast<int64_t>(sizeof(LossRecord)), kPackBytes);
    const int64_t own = needs.bytes + needs.bytes_per_class * plan.slice;
    plan.own_place = static_cast<int>(std::max(needs.staged ? staging : 0, records));
    plan.shared_bytes = static_cast<int>(plan.own_place + own);
    // With room to stage in any case: whether a row fits must not depend on where it stands.
    return std::max(staging, records) + own + static_cast<int64_t>(sizeof(Scratch)) <= limits.shared_bytes;
  }
};

}  // namespace

RowPlan plan_rows(int64_t classes, int element_bytes, int compute_bytes, const DeviceLimits& limits,
                  const RowNeeds& needs) {
  const int elements = needs.register_bytes / compute_bytes;  // of a thread
  const Fitting fitting = {classes, element_bytes, limits, needs};
  RowPlan plan;
  if (classes <= kWarp * elements) {
    plan.team = 1;
    while (plan.team * elements < classes) plan.team *= 2;
    plan.threads = kLanesThreads;
    plan.rows = plan.threads / plan.team;
    plan.slice = static_cast<int>(classes);
    if (fitting.fits(plan)) return plan;
  }

  plan.rows = 1;
  // Several blocks at once keep a multiprocessor busier than a large one, whose threads wait for one another.
  for (const int threads : {needs.threads / 2, needs.threads}) {
    for (int cluster = 1; cluster <= limits.cluster; cluster *= 2) {
      const int64_t slice = round_up((classes + cluster - 1) / cluster, kWarp);
      plan.driver = cluster == 1 ? RowDriver::block : RowDriver::cluster;
      plan.cluster = cluster;
      if (slice > static_cast<int64_t>(threads) * elements) continue;
      plan.slice = static_cast<int>(cluster == 1 ? classes : slice);
      plan.threads = plan.team = threads_for(slice, elements);
      if (fitting.fits(plan)) return plan;
    }
  }
  return plan_passes(classes, element_bytes, compute_bytes, limits, needs);
}

RowPlan plan_passes(int64_t classes, int element_bytes, int compute_bytes, const DeviceLimits& limits,
                    const RowNeeds& needs) {
  const int elements = kPassBytes / compute_bytes;
  RowPlan plan;
  plan.driver = RowDriver::two_pass;
  plan.slice = kPassThreads * elements;
  // Rows that are short take no more than they have.
  while (plan.slice / 2 >= classes && plan.slice > kWarp * elements) plan.slice /= 2;
  for (; plan.slice > 0; plan.slice /= 2) {
    plan.threads = plan.team = threads_for(plan.slice, elements);
    if (Fitting{classes, element_bytes, limits, needs}.fits(plan)) return plan;
  }
  throw std::length_error("a group of rows does not fit in the device's shared memory");
}

}  // namespace surprisal
