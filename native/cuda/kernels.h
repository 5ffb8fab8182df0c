#pragma once

// The kernels, as the backend calls them: kernels.cu has one entry a loss.

#include "../backend.h"
#include "plan.h"
#include "problem.h"

namespace surprisal {

/** What one loss needs to be run on a device. */
struct LossJobs {
  LossInfo info;
  /** Puts its kernels for a dtype into a stream. */
  void (*launch[kFloatDTypeCount])(const Problem&, const DeviceLimits&, Stream);
  /** Blocks whose parts of the loss are added up. */
  int64_t (*parts[kFloatDTypeCount])(const Evaluation&, const DeviceLimits&);
  /** What `mean` divides by, as far as the host knows it; 0: Σ weight[y] over the rows that count. */
  double (*divisor)(const Evaluation&);
};

int loss_count();
const LossJobs& loss_jobs(int loss);

/** Puts the sum of the labels' weights into a stream. `parts` of them are needed. */
void launch_label_weights(const Problem&, Stream);
int64_t label_parts(int64_t rows);

}  // namespace surprisal
