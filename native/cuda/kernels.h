#pragma once

// The kernels, as the backend calls them: kernels.cu has one entry a loss.

#include "../backend.h"
#include "plan.h"
#include "problem.h"

namespace surprisal {

/** What one loss needs to be run on a device, over one dtype. */
struct LossJobs {
  LossInfo info;
  /** Puts its kernels into a stream. */
  void (*launch)(const Problem&, const DeviceLimits&, Stream);
  /** Blocks whose parts of the loss are added up. */
  int64_t (*parts)(const Evaluation&, const DeviceLimits&);
  /** Whether a pass without a gradient adds up the weights of labels beside the losses. */
  bool weighs_labels;
  /** What `mean` divides by, as far as the host knows it; 0: Σ weight[y] over the rows that count. */
  double (*divisor)(const Evaluation&);
};

/** Everything that is compiled once for each dtype. */
struct DTypeJobs {
  int loss_count;
  const LossJobs* losses;
  /** Puts the sum of the labels' weights into a stream. */
  void (*launch_label_weights)(const Problem&, Stream);
  /** Puts the conversion of so many elements to the dtype that is computed in into a stream. */
  void (*launch_convert)(const void* from, DType, void* to, int64_t count, Stream);
};

const DTypeJobs& float32_jobs();
const DTypeJobs& float64_jobs();
const DTypeJobs& float16_jobs();
const DTypeJobs& bfloat16_jobs();

/** Parts of the sum of the labels' weights: a function of the rows alone, so that it is the same everywhere. */
inline constexpr int64_t kLabelsPerBlock = 1024;
constexpr int64_t label_parts(int64_t rows) { return (rows + kLabelsPerBlock - 1) / kLabelsPerBlock; }

}  // namespace surprisal
