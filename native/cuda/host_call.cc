#include "host_call.h"

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "call.h"
#include "cuda.h"

namespace surprisal {
namespace {

/** Bytes of a piece's logits: many to the bus, few to the device's memory. The same for all calls of a shape. */
constexpr int64_t kPieceBytes = int64_t{8} << 20;

template <class P>
void shift(P*& data, int64_t bytes) {
  using Byte = std::conditional_t<std::is_const_v<P>, const std::byte, std::byte>;
  if (data != nullptr) data = reinterpret_cast<P*>(reinterpret_cast<Byte*>(data) + bytes);
}

/** Samples of a call that stand one after the other: outer × inner rows, or the K rows of each. */
struct Pieces {
  explicit Pieces(const Evaluation& call)
      : call(call),
        group(group_of(call)),
        samples(call.outer / group),
        step(std::max<int64_t>(1, kPieceBytes / static_cast<int64_t>(sample_bytes()))) {}

  int64_t sample_bytes() const {
    return group * call.inner * call.classes * static_cast<int64_t>(element_bytes(call.dtype));
  }

  /** Whether the samples lie apart in all that is read and written. */
  bool possible() const {
    const auto apart = [&](const Strides& strides) {
      return strides.outer >= static_cast<int64_t>(extent(1, call.inner, call.classes, strides));
    };
    return step < samples && apart(call.input_strides) && (call.grad == nullptr || apart(call.grad_strides)) &&
           (group == 1 || call.inner == 1);
  }

  /** The call of samples [begin, begin + step). */
  Evaluation piece(int64_t begin) const {
    Evaluation piece = call;
    const int64_t count = std::min(step, samples - begin);
    const auto element = static_cast<int64_t>(element_bytes(call.dtype));
    const auto compute = static_cast<int64_t>(element_bytes(compute_dtype(call)));
    const int64_t row = begin * call.inner;
    shift(piece.input, begin * call.input_strides.outer * element);
    shift(piece.grad, begin * call.grad_strides.outer * element);
    shift(piece.indices, row * static_cast<int64_t>(element_bytes(call.indices_dtype)));
    if (!call.dense_by_index) {
      shift(piece.dense, begin * call.dense_strides.outer * static_cast<int64_t>(element_bytes(call.dense_dtype)));
    }
    shift(piece.weight, row * call.weight_row_stride * compute);
    shift(piece.pos_weight, row * call.pos_weight_row_stride * compute);
    const int64_t outputs = row * (is_elementwise(call) ? call.classes : 1);
    shift(piece.output, outputs * compute);
    shift(piece.grad_outputs, outputs * compute);
    piece.outer = count;
    if (group > 1) {
      // Row k of sample i is row k·samples + i: the splits take the place of the outer dimension.
      const auto split = [&](Strides& strides) { strides = {samples * strides.outer, strides.outer, strides.classes}; };
      split(piece.input_strides);
      split(piece.grad_strides);
      piece.outer = group;
      piece.inner = count;
    }
    return piece;
  }

  const Evaluation& call;
  const int64_t group, samples, step;
};

/** Checks a call's labels, and gives the sum of their weights where its loss is divided by that. */
double weigh_labels(const Evaluation& call, int64_t count, Queue& queue) {
  Evaluation labels;
  labels.outer = count;
  labels.classes = call.classes;
  labels.dtype = call.dtype;
  labels.indices_dtype = call.indices_dtype;
  labels.has_ignore_index = call.has_ignore_index;
  labels.ignore_index = call.ignore_index;
  const auto bring = [&](const void* data, size_t bytes) {
    DeviceMemory memory(bytes, queue.stream());
    queue.upload(memory.get(), data, bytes);
    return memory;
  };
  const DeviceMemory indices = bring(call.indices, static_cast<size_t>(count) * element_bytes(call.indices_dtype));
  labels.indices = indices.get();
  DeviceMemory weight;
  if (call.weight != nullptr && divisor_of(call) == 0) {
    weight = bring(call.weight, static_cast<size_t>(call.classes) * element_bytes(compute_dtype(call)));
    labels.weight = weight.get();
  }
  Problem problem;
  problem.call = labels;
  const std::shared_ptr<Outcome> outcome = queue.take_outcome();
  problem.outcome = outcome.get();
  const size_t bytes = kTicketBytes + static_cast<size_t>(Grouping(label_parts(count)).size()) * sizeof(double);
  queue.with_workspace(bytes, [&](void* workspace) {
    problem.group_tickets = static_cast<uint32_t*>(workspace);
    problem.parts = reinterpret_cast<double*>(static_cast<std::byte*>(workspace) + kTicketBytes);
    jobs_of(call.dtype).launch_label_weights(problem, queue.stream());
  });
  Outcome found;
  queue.download(&found, outcome.get(), sizeof(found));
  check_labels(call, found);
  return found.weights;
}

/** What all pieces use, on the device. Goes back once both queues have done with it, even if a piece failed. */
class Shared {
 public:
  Shared(Evaluation& call, Queue& queue) : queue_(queue) {
    const auto compute = element_bytes(compute_dtype(call));
    const auto classes = static_cast<size_t>(call.classes);
    if (call.dense_by_index) {
      bring(call.dense, call.resident.dense, dense_extent(call) * element_bytes(call.dense_dtype));
    }
    bring(call.constants, call.resident.constants, classes * sizeof(double));
    const auto factor = [&](int64_t stride) { return (stride == 0 ? 1 : (classes - 1) * stride + 1) * compute; };
    if (call.weight_row_stride == 0) bring(call.weight, call.resident.weight, factor(call.weight_class_stride));
    if (call.pos_weight_row_stride == 0) {
      bring(call.pos_weight, call.resident.pos_weight, factor(call.pos_weight_class_stride));
    }
    queue_.twin().wait_for(queue_);
  }
  ~Shared() {
    try {
      queue_.wait_for(queue_.twin());
    } catch (const std::exception&) {
      // A device that answers with errors has lost its memory anyway.
    }
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

 private:
  void bring(auto& data, bool& resident, size_t bytes) {
    if (data == nullptr) return;
    void* memory = memory_.emplace_back(bytes, queue_.stream()).get();
    queue_.upload(memory, data, bytes);
    data = static_cast<std::remove_reference_t<decltype(data)>>(memory);
    resident = true;
  }

  Queue& queue_;
  std::vector<DeviceMemory> memory_;
};

double evaluate_in_pieces(const Evaluation& whole, Queue& queue) {
  use_device(queue.device());
  Evaluation call = whole;
  const int64_t labels = call.outer / group_of(call) * call.inner;
  const double weights = call.indices != nullptr ? weigh_labels(call, labels, queue) : 0;
  if (call.reduction == Reduction::mean) {
    const double known = divisor_of(call);
    call.divisor = known != 0 ? known : weights;
  }
  const Shared shared(call, queue);
  Queue& twin = queue.twin();
  const Pieces pieces(call);
  std::unique_ptr<Launched> before;
  double sum = 0;
  const auto finish = [&] {
    if (before == nullptr) return;
    sum += before->value();
    before->download();
  };
  bool odd = false;
  for (int64_t begin = 0; begin < pieces.samples; begin += pieces.step, odd = !odd) {
    if (call.cancelled != nullptr && call.cancelled->load(std::memory_order_relaxed) != 0) throw Aborted();
    auto launched = std::make_unique<Launched>(pieces.piece(begin), odd ? twin : queue);
    finish();
    before = std::move(launched);
  }
  finish();
  return sum;
}

}  // namespace

double evaluate_from_host(const Evaluation& call) {
  std::shared_ptr<Queue> own;
  if (call.queue == nullptr) own = std::make_shared<Queue>(std::max(call.device - 1, 0));
  Queue& queue = own != nullptr ? *own : *call.queue;
  if (Pieces(call).possible()) return evaluate_in_pieces(call, queue);
  Launched launched(call, queue);
  const double value = launched.value();
  launched.download();
  return value;
}

}  // namespace surprisal
