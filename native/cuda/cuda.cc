// The CUDA backend.

#include "cuda.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

#include "kernels.h"
#include "launch_shape.h"
#include "runtime.h"

namespace surprisal {
namespace {

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

int64_t parts_of(const Evaluation& call, const DeviceLimits& limits) {
  const int64_t parts = loss_jobs(call).parts(call, limits);
  return std::max(parts, call.indices != nullptr ? label_parts(call.rows()) : 0);
}

double divisor_of(const Evaluation& call) {
  if (call.reduction != Reduction::mean) return 1;
  return call.divisor != 0 ? call.divisor : loss_jobs(call).divisor(call);
}

size_t element_bytes(DType dtype) { return static_cast<size_t>(kDTypeSizes[static_cast<int>(dtype)]); }

DType compute_dtype(const Evaluation& call) { return call.dtype == DType::float64 ? DType::float64 : DType::float32; }

size_t extent(int64_t outer, int64_t inner, int64_t classes, const Strides& strides) {
  return static_cast<size_t>((outer - 1) * strides.outer + (inner - 1) * strides.inner +
                             (classes - 1) * strides.classes + 1);
}

/** Elements that a dense target reaches. */
size_t dense_extent(const Evaluation& call) {
  if (call.dense_by_index) return extent(call.classes, 1, call.classes, call.dense_strides);
  return extent(call.outer, call.inner, call.classes, call.dense_strides);
}

/** Kernels read dense targets in the logits' dtype and in what these are computed in. */
bool converts_dense(const Evaluation& call) {
  return call.dense != nullptr && call.dense_dtype != call.dtype && call.dense_dtype != compute_dtype(call);
}

/** Bytes of a workspace up to the end of its parts of sums. */
size_t parts_end(const Evaluation& call, const DeviceLimits& limits) {
  const size_t bytes = sizeof(Outcome) + static_cast<size_t>(parts_of(call, limits)) * sizeof(double);
  return (bytes + kPackBytes - 1) / kPackBytes * kPackBytes;
}

// ------------------------------------------------------------------------------------------------ from host memory

/** A call's arrays on the device. */
class DeviceArrays {
 public:
  DeviceArrays(const Evaluation& host, Stream stream) : host_(host), stream_(stream), call(host) {
    const size_t compute = element_bytes(compute_dtype(host));
    const bool elementwise = std::string_view(loss_jobs(host).info.kind) == "elementwise";
    const int64_t units = elementwise ? host.rows() * host.classes : host.rows();
    const size_t outputs = static_cast<size_t>(host.reduction == Reduction::none ? units : 1);
    const auto factor = [&](int64_t row_stride, int64_t class_stride) {
      return static_cast<size_t>((host.rows() - 1) * row_stride + (host.classes - 1) * class_stride + 1) * compute;
    };
    input_bytes_ = extent(host.outer, host.inner, host.classes, host.input_strides) * element_bytes(host.dtype);
    grad_bytes_ = extent(host.outer, host.inner, host.classes, host.grad_strides) * element_bytes(host.dtype);
    output_bytes_ = outputs * compute;
    call.input = upload(host.input, input_bytes_);
    call.indices = upload(host.indices, label_count() * element_bytes(host.indices_dtype));
    call.dense = upload(host.dense, dense_extent(host) * element_bytes(host.dense_dtype));
    call.constants = static_cast<const double*>(upload(host.constants, host.classes * sizeof(double)));
    call.weight = upload(host.weight, factor(host.weight_row_stride, host.weight_class_stride));
    call.pos_weight = upload(host.pos_weight, factor(host.pos_weight_row_stride, host.pos_weight_class_stride));
    call.grad_outputs = upload(host.grad_outputs, outputs * compute);
    if (host.output != nullptr) call.output = place(output_bytes_);
    if (host.grad == host.input && host.grad != nullptr) {
      call.grad = const_cast<void*>(call.input);
    } else if (host.grad != nullptr) {
      // What lies between its elements comes back as it was.
      const bool gaps = grad_bytes_ != static_cast<size_t>(host.rows() * host.classes) * element_bytes(host.dtype);
      call.grad = gaps ? const_cast<void*>(upload(host.grad, grad_bytes_)) : place(grad_bytes_);
    }
  }

  void download() const {
    if (host_.output != nullptr) copy_to_host(host_.output, call.output, output_bytes_, stream_);
    if (host_.grad != nullptr) copy_to_host(host_.grad, call.grad, grad_bytes_, stream_);
  }

 private:
  size_t label_count() const {
    const bool grouped = std::string_view(loss_jobs(host_).info.kind) == "row_group";
    return static_cast<size_t>(grouped ? host_.rows() / static_cast<int64_t>(host_.parameters[0]) : host_.rows());
  }
  void* place(size_t bytes) {
    memory_.emplace_back(bytes, stream_);
    return memory_.back().get();
  }
  const void* upload(const void* data, size_t bytes) {
    if (data == nullptr) return nullptr;
    void* device = place(bytes);
    copy_to_device(device, data, bytes, stream_);
    return device;
  }

  const Evaluation& host_;
  Stream stream_;
  std::vector<DeviceMemory> memory_;
  size_t input_bytes_, grad_bytes_, output_bytes_;

 public:
  Evaluation call;
};

double evaluate(const Evaluation& call) {
  const Stream stream = nullptr;
  use_device(std::max(call.device - 1, 0));
  const DeviceLimits limits = device_limits();
  DeviceArrays arrays(call, stream);
  const DeviceMemory workspace(workspace_bytes(call, limits), stream);
  enqueue(arrays.call, limits, workspace.get(), stream);
  Outcome outcome;
  copy_to_host(&outcome, workspace.get(), sizeof(outcome), stream);
  synchronize(stream);
  check_labels(call, outcome);
  arrays.download();
  synchronize(stream);
  return call.reduction == Reduction::none ? 0 : outcome.value;
}

/** One stage of one part. */
class CudaComputation final : public Computation {
 public:
  explicit CudaComputation(const Evaluation& call) : call_(call) {}
  int64_t next_stage() override { return begun_ ? 0 : begun_ = 1; }
  void run_part(int64_t) override { value_ = evaluate(call_); }
  double value() const override { return value_; }

 private:
  const Evaluation& call_;
  int64_t begun_ = 0;
  double value_ = 0;
};

std::unique_ptr<Computation> compute(Evaluation& call) { return std::make_unique<CudaComputation>(call); }

std::vector<LossInfo> loss_infos() {
  std::vector<LossInfo> infos;
  const DTypeJobs& jobs = float32_jobs();
  for (int i = 0; i < jobs.loss_count; ++i) infos.push_back(jobs.losses[i].info);
  return infos;
}

}  // namespace

size_t workspace_bytes(const Evaluation& call, const DeviceLimits& limits) {
  return parts_end(call, limits) + (converts_dense(call) ? dense_extent(call) * element_bytes(compute_dtype(call)) : 0);
}

void enqueue(const Evaluation& call, const DeviceLimits& limits, void* workspace, Stream stream) {
  const DTypeJobs& jobs = jobs_of(call.dtype);
  auto* outcome = static_cast<Outcome*>(workspace);
  Problem problem = {call, divisor_of(call), outcome, reinterpret_cast<double*>(outcome + 1)};
  zero_device(outcome, sizeof(Outcome), stream);
  if (problem.divisor == 0) jobs.launch_label_weights(problem, stream);
  if (converts_dense(call)) {
    std::byte* converted = static_cast<std::byte*>(workspace) + parts_end(call, limits);
    jobs.launch_convert(call.dense, call.dense_dtype, converted, static_cast<int64_t>(dense_extent(call)), stream);
    problem.call.dense = converted;
    problem.call.dense_dtype = compute_dtype(call);
  }
  loss_jobs(call).launch(problem, limits, stream);
}

void check_labels(const Evaluation& call, const Outcome& outcome) {
  if (outcome.bad_label == 0) return;
  throw_bad_label(call, static_cast<int64_t>(~outcome.bad_label));
}

const Backend& cuda_backend() {
  static const auto* infos = new std::vector<LossInfo>(loss_infos());
  static const Backend backend{static_cast<int>(infos->size()), infos->data(),        evaluate, compute,
                               cpu_backend().negative_entropy,  cpu_backend().convert};
  return backend;
}

}  // namespace surprisal
