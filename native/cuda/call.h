#pragma once

// What a call asks of a device: its kernels, what its loss is divided by, and how far its arrays reach.

#include "kernels.h"

namespace surprisal {

const DTypeJobs& jobs_of(DType dtype);
const LossJobs& loss_jobs(const Evaluation& call);

/** Whether the loss has a value an element, and not a row. */
bool is_elementwise(const Evaluation& call);
/** Rows of a sample: 1, or the splits of a loss over groups of rows. */
int64_t group_of(const Evaluation& call);

/** What the loss is divided by; 0: Σ weight[y] over the rows that count. */
double divisor_of(const Evaluation& call);

size_t element_bytes(DType dtype);
DType compute_dtype(const Evaluation& call);

/** Elements from the first to the last of outer × inner × classes ones. */
size_t extent(int64_t outer, int64_t inner, int64_t classes, const Strides& strides);
/** Elements that a dense target reaches. */
size_t dense_extent(const Evaluation& call);

}  // namespace surprisal
