#include "memory.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "cuda.h"

namespace surprisal {
namespace {

/** Smaller copies are staged by the driver. */
constexpr size_t kDirectBytes = size_t{64} << 10;
/** Calls whose outcomes share a block of the pool's. */
constexpr int kOutcomes = 1024;
/** A workspace grows in steps, and is enough for most calls at once. */
constexpr size_t kWorkspaceStep = size_t{64} << 10;
/** Large enough for a bus at its full speed, small enough to begin soon. */
constexpr size_t kStageBytes = size_t{4} << 20;

void* allocate_on(const Queue& queue, size_t bytes) {
  use_device(queue.device());
  return allocate_device(bytes, queue.stream());
}

Stream create_on(int device) {
  use_device(device);
  return create_stream();
}

}  // namespace

void throw_out_of_memory(size_t bytes) {
  throw CodedError("ERR_OUT_OF_MEMORY", "the device has no memory left for " + std::to_string(bytes) +
                                            " bytes; dispose() of tensors, or use smaller batches");
}

Queue::Queue(int device) : device_(device), stream_(create_on(device)), limits_(device_limits()) {}

Queue::~Queue() {
  outcomes_.reset();
  workspace_ = {};
  for (const Stage& stage : stages_) {
    if (stage.done != nullptr) destroy_event(stage.done);
    if (stage.data != nullptr) free_pinned(stage.data);
  }
  destroy_stream(stream_);
}

void Queue::wait_for(const Queue& other) {
  if (&other == this) return;
  use_device(other.device_);
  const Event event = create_event();
  try {
    record(event, other.stream_);
    use_device(device_);
    wait(stream_, event);
  } catch (...) {
    destroy_event(event);
    throw;
  }
  destroy_event(event);
}

void Queue::synchronize() {
  use_device(device_);
  surprisal::synchronize(stream_);
}

Queue& Queue::twin() {
  std::lock_guard lock(mutex_);
  if (twin_ == nullptr) twin_ = std::make_shared<Queue>(device_);
  return *twin_;
}

std::shared_ptr<Outcome> Queue::take_outcome() {
  std::lock_guard lock(mutex_);
  if (outcomes_ == nullptr || outcomes_taken_ == kOutcomes) {
    const auto bytes = kOutcomes * sizeof(Outcome);
    outcomes_ = std::make_shared<DeviceMemory>(bytes, stream_);
    outcomes_taken_ = 0;
    zero_device(outcomes_->get(), bytes, stream_);
  }
  return {outcomes_, static_cast<Outcome*>(outcomes_->get()) + outcomes_taken_++};
}

void* Queue::workspace_of(size_t bytes) {
  if (bytes > workspace_bytes_) {
    const size_t enough = (bytes + kWorkspaceStep - 1) / kWorkspaceStep * kWorkspaceStep;
    // In the stream's order: what is at work there keeps the old one until it ends.
    workspace_ = DeviceMemory(enough, stream_);
    workspace_bytes_ = enough;
    zero_device(workspace_.get(), kTicketBytes, stream_);
  }
  return workspace_.get();
}

void Queue::make_stages() {
  for (Stage& stage : stages_) {
    if (stage.done != nullptr) continue;
    if (stage.data == nullptr) stage.data = static_cast<std::byte*>(allocate_pinned(kStageBytes));
    stage.done = create_event();
    record(stage.done, stream_);
  }
}

size_t Queue::piece_at(size_t begin, size_t bytes) const { return std::min(kStageBytes, bytes - begin); }

void Queue::upload(void* device, const void* host, size_t bytes) {
  use_device(device_);
  if (bytes <= kDirectBytes) return copy_to_device(device, host, bytes, stream_);
  std::lock_guard lock(mutex_);
  make_stages();
  for (size_t begin = 0, i = 0; begin < bytes; begin += kStageBytes, ++i) {
    const Stage& stage = stages_[i % 2];
    surprisal::synchronize(stage.done);
    std::memcpy(stage.data, static_cast<const std::byte*>(host) + begin, piece_at(begin, bytes));
    copy_to_device(static_cast<std::byte*>(device) + begin, stage.data, piece_at(begin, bytes), stream_);
    record(stage.done, stream_);
  }
}

void Queue::download(void* host, const void* device, size_t bytes) {
  use_device(device_);
  if (bytes <= kDirectBytes) {
    copy_to_host(host, device, bytes, stream_);
    return surprisal::synchronize(stream_);
  }
  std::lock_guard lock(mutex_);
  make_stages();
  const auto begin_piece = [&](size_t begin, size_t i) {
    copy_to_host(stages_[i % 2].data, static_cast<const std::byte*>(device) + begin, piece_at(begin, bytes), stream_);
    record(stages_[i % 2].done, stream_);
  };
  for (const Stage& stage : stages_) surprisal::synchronize(stage.done);  // of an upload
  begin_piece(0, 0);
  for (size_t begin = 0, i = 0; begin < bytes; begin += kStageBytes, ++i) {
    if (begin + kStageBytes < bytes) begin_piece(begin + kStageBytes, i + 1);
    surprisal::synchronize(stages_[i % 2].done);
    std::memcpy(static_cast<std::byte*>(host) + begin, stages_[i % 2].data, piece_at(begin, bytes));
  }
}

DeviceBlock::DeviceBlock(std::shared_ptr<Queue> home, size_t bytes)
    : home_(std::move(home)),
      ownership_(Ownership::pool),
      offset_(0),
      bytes_(bytes),
      base_(allocate_on(*home_, bytes)),
      writer_(home_) {}

DeviceBlock::DeviceBlock(std::shared_ptr<Queue> home, Ownership ownership, void* base, size_t offset, size_t bytes)
    : home_(std::move(home)), ownership_(ownership), offset_(offset), bytes_(bytes), base_(base), writer_(home_) {}

DeviceBlock::~DeviceBlock() {
  try {
    wait_for_users();
    // Only the pool takes memory back in the order of the work.
    if (ownership_ != Ownership::pool) home_->synchronize();
  } catch (const std::exception&) {
    // A device that answers with errors has lost its memory anyway.
  }
  switch (ownership_) {
    case Ownership::pool:
      free_device(base_, home_->stream());
      break;
    case Ownership::shareable:
      free_shareable(base_);
      break;
    case Ownership::opened:
      close_memory(base_);
      break;
    case Ownership::borrowed:
      break;
  }
}

void DeviceBlock::wait_for_users() {
  home_->wait_for(*writer_);
  for (const auto& reader : readers_) home_->wait_for(*reader);
}

MemoryHandle DeviceBlock::share() {
  if (ownership_ == Ownership::opened || ownership_ == Ownership::borrowed) {
    throw DeviceError("this memory is another's, who alone can share it");
  }
  wait_for_users();
  use_device(device());
  if (ownership_ == Ownership::pool) {
    void* shareable = allocate_shareable(bytes_);
    copy_on_device(shareable, base_, bytes_, home_->stream());
    free_device(std::exchange(base_, shareable), home_->stream());
    ownership_ = Ownership::shareable;
  }
  home_->synchronize();
  return export_memory(base_);
}

void DeviceBlock::use_in(const std::shared_ptr<Queue>& queue, Use use) {
  queue->wait_for(*writer_);
  if (use == Use::writes) {
    for (const auto& reader : readers_) queue->wait_for(*reader);
    readers_.clear();
    writer_ = queue;
    launched.reset();
  } else if (queue != writer_ && std::find(readers_.begin(), readers_.end(), queue) == readers_.end()) {
    readers_.push_back(queue);
  }
}

}  // namespace surprisal
