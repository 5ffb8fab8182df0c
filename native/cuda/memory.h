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

  /** What is put into this queue from now on begins after all that the other one was given so far. */
  void wait_for(const Queue& other);
  void synchronize();

  /** Another queue of the device, for work beside this one's. */
  Queue& twin();

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
  size_t piece_at(size_t begin, size_t bytes) const;

  const int device_;
  const Stream stream_;
  std::mutex mutex_;  // of what follows
  Stage stages_[2];
  std::shared_ptr<Queue> twin_;
};

class Launched;

/** Device memory that JavaScript holds. It knows which queues have work on it: other queues wait for that by
 * themselves. */
class DeviceBlock {
 public:
  DeviceBlock(std::shared_ptr<Queue> home, size_t bytes);
  ~DeviceBlock();
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  int device() const { return home_->device(); }
  const std::shared_ptr<Queue>& home() const { return home_; }

  enum class Use { reads, writes };
  /** To be called before a queue is given work that uses this memory. */
  void use_in(const std::shared_ptr<Queue>& queue, Use use);

  /** The call whose loss this is, until that was found to be right. */
  std::shared_ptr<Launched> launched;

 private:
  const std::shared_ptr<Queue> home_;
  const size_t bytes_;
  void* const data_;
  std::shared_ptr<Queue> writer_;
  std::vector<std::shared_ptr<Queue>> readers_;  // since it was written, but the writer
};

}  // namespace surprisal
