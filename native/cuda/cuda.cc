// The CUDA backend.

#include "cuda.h"

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

#include "call.h"
#include "host_call.h"
#include "launch_shape.h"

namespace surprisal {
namespace {

/** Whether the loss's own kernel adds up the weights of labels, which nothing waits for. */
bool weighs_labels(const Evaluation& call) {
  return call.grad == nullptr && loss_jobs(call).weighs_labels && call.reduction == Reduction::mean &&
         divisor_of(call) == 0;
}

/** Numbers of a sum's parts. */
int64_t parts_size(const Evaluation& call, const DeviceLimits& limits) {
  const int64_t own = Grouping(loss_jobs(call).parts(call, limits)).size();
  return call.indices == nullptr ? own : std::max(own, Grouping(label_parts(call.rows())).size());
}

/** Kernels read dense targets in the logits' dtype and in what these are computed in. */
bool converts_dense(const Evaluation& call) {
  return call.dense != nullptr && call.dense_dtype != call.dtype && call.dense_dtype != compute_dtype(call);
}

/** Bytes of a workspace up to the end of its parts of sums. */
size_t parts_end(const Evaluation& call, const DeviceLimits& limits) {
  const int64_t sums = weighs_labels(call) ? 2 : 1;
  const size_t bytes = kTicketBytes + static_cast<size_t>(sums * parts_size(call, limits)) * sizeof(double);
  return (bytes + kPackBytes - 1) / kPackBytes * kPackBytes;
}

/** One stage of one part. */
class CudaComputation final : public Computation {
 public:
  explicit CudaComputation(const Evaluation& call) : call_(call) {}
  int64_t next_stage() override { return begun_ ? 0 : begun_ = 1; }
  void run_part(int64_t) override { value_ = evaluate_from_host(call_); }
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

void enqueue(const Evaluation& call, const DeviceLimits& limits, Outcome* outcome, void* workspace, Stream stream) {
  const DTypeJobs& jobs = jobs_of(call.dtype);
  Problem problem;
  problem.call = call;
  problem.divisor = divisor_of(call);
  problem.scale = problem.divisor != 0 ? call.grad_output / problem.divisor : 0;
  problem.outcome = outcome;
  problem.group_tickets = static_cast<uint32_t*>(workspace);
  problem.parts = reinterpret_cast<double*>(static_cast<std::byte*>(workspace) + kTicketBytes);
  problem.weighs_labels = weighs_labels(call);
  if (problem.divisor == 0 && !problem.weighs_labels) jobs.launch_label_weights(problem, stream);
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

/** Brings the arrays of a call that the host has to the device, and makes memory there for those of its results. */
Evaluation Launched::take_arrays() {
  Evaluation call = host_;
  const size_t compute = element_bytes(compute_dtype(host_));
  const auto count = [](int64_t n) { return static_cast<size_t>(n); };
  const int64_t units = is_elementwise(host_) ? host_.rows() * host_.classes : host_.rows();
  const int64_t labels = host_.rows() / group_of(host_);
  const size_t outputs = host_.reduction == Reduction::none ? count(units) : 1;
  const auto factor = [&](int64_t row_stride, int64_t class_stride) {
    return count((host_.rows() - 1) * row_stride + (host_.classes - 1) * class_stride + 1) * compute;
  };
  const auto bring = [&](auto& data, bool resident, size_t bytes) {
    if (data == nullptr || resident) return;
    void* memory = place(bytes);
    queue_->upload(memory, data, bytes);
    data = static_cast<std::remove_reference_t<decltype(data)>>(memory);
  };
  const Resident& has = host_.resident;
  if (call.indices != nullptr) {
    label_bytes_ = count(labels) * element_bytes(host_.indices_dtype);
    bring(call.indices, has.indices, label_bytes_);
  }
  if (!has.input) {
    void* memory = place_rows(call.input_strides);
    upload_rows(memory, host_.input, runs_of(host_.input_strides));
    call.input = memory;
  }
  if (call.dense != nullptr) bring(call.dense, has.dense, dense_extent(host_) * element_bytes(host_.dense_dtype));
  bring(call.constants, has.constants, count(host_.classes) * sizeof(double));
  bring(call.weight, has.weight, factor(host_.weight_row_stride, host_.weight_class_stride));
  bring(call.pos_weight, has.pos_weight, factor(host_.pos_weight_row_stride, host_.pos_weight_class_stride));
  bring(call.grad_outputs, has.grad_outputs, outputs * compute);
  if (call.output != nullptr && !has.output) call.output = place(output_bytes_ = outputs * compute);
  if (call.grad != nullptr && !has.grad) {
    writes_grad_ = true;
    if (host_.grad == host_.input) {
      call.grad = const_cast<void*>(call.input);
      call.grad_strides = call.input_strides;
    } else {
      call.grad = place_rows(call.grad_strides);
      // What lies between its elements comes back as it was.
      const Runs runs = runs_of(host_.grad_strides);
      if (runs.count * runs.length != host_.rows() * host_.classes) upload_rows(call.grad, host_.grad, runs);
    }
  }
  return call;
}

/** The runs that a tensor of the call's shape is copied in: few runs far apart one by one, all at once else. */
Launched::Runs Launched::runs_of(const Strides& strides) const {
  constexpr int64_t kMostRuns = 64;
  const auto run = static_cast<int64_t>(extent(1, host_.inner, host_.classes, strides));
  const auto step = strides.outer * static_cast<int64_t>(element_bytes(host_.dtype));
  if (host_.outer > 1 && host_.outer <= kMostRuns && strides.outer > run) return {host_.outer, run, step};
  return {1, static_cast<int64_t>(extent(host_.outer, host_.inner, host_.classes, strides)), step};
}

/** Memory for a tensor of the call's shape; `strides` become those that it has there. */
void* Launched::place_rows(Strides& strides) {
  const Runs runs = runs_of(strides);
  if (runs.count > 1) strides.outer = runs.length;
  return place(static_cast<size_t>(runs.count * runs.length) * element_bytes(host_.dtype));
}

void Launched::upload_rows(void* device, const void* host, const Runs& runs) {
  const size_t bytes = static_cast<size_t>(runs.length) * element_bytes(host_.dtype);
  for (int64_t i = 0; i < runs.count; ++i) {
    queue_->upload(static_cast<std::byte*>(device) + i * bytes, static_cast<const std::byte*>(host) + i * runs.step,
                   bytes);
  }
}

void* Launched::place(size_t bytes) { return arrays_.emplace_back(bytes, queue_->stream()).get(); }

Launched::Launched(const Evaluation& call, Queue& queue) : queue_(queue.shared_from_this()), host_(call) {
  use_device(queue.device());
  const DeviceLimits& limits = queue.limits();
  device_ = take_arrays();
  outcome_ = queue.take_outcome();
  queue.with_workspace(workspace_bytes(device_, limits),
                       [&](void* workspace) { enqueue(device_, limits, outcome_.get(), workspace, queue.stream()); });
  // In the stream's order: the kernels have them until they end. The labels, which came first, may be asked for again.
  const bool has_results = call.resident.input;
  if (has_results) arrays_.erase(arrays_.begin() + (label_bytes_ > 0 && !call.resident.indices), arrays_.end());
}

double Launched::value() {
  Outcome outcome;
  queue_->download(&outcome, outcome_.get(), sizeof(outcome));
  if (outcome.bad_label != 0) {
    std::vector<std::byte> labels(label_bytes_);
    queue_->download(labels.data(), device_.indices, label_bytes_);
    Evaluation call = host_;
    call.indices = labels.data();
    check_labels(call, outcome);
  }
  return host_.reduction == Reduction::none ? 0 : outcome.value;
}

void Launched::download() {
  if (output_bytes_ > 0) queue_->download(host_.output, device_.output, output_bytes_);
  if (!writes_grad_) return;
  const Runs runs = runs_of(host_.grad_strides);
  const size_t bytes = static_cast<size_t>(runs.length) * element_bytes(host_.dtype);
  for (int64_t i = 0; i < runs.count; ++i) {
    queue_->download(static_cast<std::byte*>(host_.grad) + i * runs.step,
                     static_cast<const std::byte*>(device_.grad) + i * bytes, bytes);
  }
}

const Backend& cuda_backend() {
  static const auto* infos = new std::vector<LossInfo>(loss_infos());
  static const Backend backend{static_cast<int>(infos->size()), infos->data(),        evaluate_from_host, compute,
                               cpu_backend().negative_entropy,  cpu_backend().convert};
  return backend;
}

}  // namespace surprisal
