#pragma once

// Streams and memory of devices as JavaScript holds them: longer than a call.

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime.h"

namespace surprisal {

/** A stream of a device. Whatever was put into it keeps it. */
class Queue : public std::enable_shared_from_this<Queue> {
 public:
  explicit Queue(int device);
  ~Queue();

  /** The device's number among GPUs. */
  int device() const { return device_; }
  Stream stream() const { return stream_; }
  const DeviceLimits& limits() const { return limits_; }

  /** What is put into this queue from now on begins after all that the other one was given so far. */
  void wait_for(const Queue& other);
  void synchronize();

  /** Another queue of the device, for work beside this one's. */
  Queue& twin();

  /** A place on the device for what a call leaves, zeros so far. */
  std::shared_ptr<Outcome> take_outcome();
  /**
   * Calls f, which puts a call into this queue, with a workspace of so many bytes: the next call may have the same.
   */
  template <class F>
  void with_workspace(size_t bytes, F&& f) {
    constexpr size_t kMostKept = size_t{4} << 20;
    if (bytes > kMostKept) {
      const DeviceMemory memory(bytes, stream_);
      zero_device(memory.get(), kTicketBytes, stream_);
      return f(memory.get());
    }
    std::lock_guard lock(mutex_);
    f(workspace_of(bytes));
  }

  /** Copies to the device; the host's memory was read when it returns. */
  void upload(void* device, const void* host, size_t bytes);
  /** Copies to the host, and waits until it is there. */
  void download(void* host, const void* device, size_t bytes);

 private:
  /**
   * Pinned memory by which large copies go, a piece in each of two buffers: while one is on its way the host copies the
   * other.
   */
  struct Stage {
    std::byte* data = nullptr;
    Event done = nullptr;
  };

  void make_stages();
  void* workspace_of(size_t bytes);
  size_t piece_at(size_t begin, size_t bytes) const;

  const int device_;
  const Stream stream_;
  const DeviceLimits limits_;
  std::mutex mutex_;  // of what follows
  Stage stages_[2];
  std::shared_ptr<Queue> twin_;
  std::shared_ptr<DeviceMemory> outcomes_;  // of many calls
  int outcomes_taken_ = 0;
  DeviceMemory workspace_;
  size_t workspace_bytes_ = 0;
};

class Launched;

/** Whose a block's memory is. */
enum class Ownership : uint8_t {
  pool,       // the pool's, in the order of the home queue
  shareable,  // its own, with a handle
  opened,     // another process's
  borrowed,   // somebody's in this process
};

/** Device memory that JavaScript holds. It knows which queues have work on it: other queues wait for that by
 * themselves. */
class DeviceBlock {
 public:
  /** Memory of the pool. */
  DeviceBlock(std::shared_ptr<Queue> home, size_t bytes);
  /** What is `bytes` long from `offset` on in memory that is there, and on which nothing is at work. */
  DeviceBlock(std::shared_ptr<Queue> home, Ownership ownership, void* base, size_t offset, size_t bytes);
  ~DeviceBlock();
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;

  void* data() const { return static_cast<std::byte*>(base_) + offset_; }
  size_t bytes() const { return bytes_; }
  int device() const { return home_->device(); }
  const std::shared_ptr<Queue>& home() const { return home_; }

  enum class Use { reads, writes };
  /** To be called before a queue is given work that uses this memory. */
  void use_in(const std::shared_ptr<Queue>& queue, Use use);

  /**
   * A handle for other processes, once all work on this memory is done. The first time the contents move to memory that
   * has one. Throws DeviceError for memory that is not the block's own.
   */
  MemoryHandle share();

  /** The call whose loss this is, until that was found to be right. */
  std::shared_ptr<Launched> launched;

 private:
  void wait_for_users();

  const std::shared_ptr<Queue> home_;
  Ownership ownership_;
  const size_t offset_, bytes_;
  void* base_;
  std::shared_ptr<Queue> writer_;
  std::vector<std::shared_ptr<Queue>> readers_;  // since it was written, but the writer
};

}  // namespace surprisal
