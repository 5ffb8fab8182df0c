#include "call.h"

#include <string_view>

namespace surprisal {

const DTypeJobs& jobs_of(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return float64_jobs();
    case DType::float16:
      return float16_jobs();
    case DType::bfloat16:
      return bfloat16_jobs();
    default:
      return float32_jobs();
  }
}

const LossJobs& loss_jobs(const Evaluation& call) { return jobs_of(call.dtype).losses[call.loss]; }

bool is_elementwise(const Evaluation& call) { return std::string_view(loss_jobs(call).info.kind) == "elementwise"; }

int64_t group_of(const Evaluation& call) {
  const bool grouped = std::string_view(loss_jobs(call).info.kind) == "row_group";
  return grouped ? static_cast<int64_t>(call.parameters[0]) : 1;
}

double divisor_of(const Evaluation& call) {
  if (call.reduction != Reduction::mean) return 1;
  return call.divisor != 0 ? call.divisor : loss_jobs(call).divisor(call);
}

size_t element_bytes(DType dtype) { return static_cast<size_t>(element_size(dtype)); }

DType compute_dtype(const Evaluation& call) { return call.dtype == DType::float64 ? DType::float64 : DType::float32; }

size_t extent(int64_t outer, int64_t inner, int64_t classes, const Strides& strides) {
  return static_cast<size_t>((outer - 1) * strides.outer + (inner - 1) * strides.inner +
                             (classes - 1) * strides.classes + 1);
}

size_t dense_extent(const Evaluation& call) {
  if (call.dense_by_index) return extent(call.classes, 1, call.classes, call.dense_strides);
  return extent(call.outer, call.inner, call.classes, call.dense_strides);
}

}  // namespace surprisal
