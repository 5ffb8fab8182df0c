#pragma once

#include <memory>
#include <vector>

#include "../backend.h"
#include "memory.h"
#include "problem.h"

namespace surprisal {

/** What runs calls on GPUs. Its `evaluate` waits, and takes arrays in host memory as in the device's. */
const Backend& cuda_backend();

/** Bytes that a call works in, until the stream has come to its end. The first kTicketBytes are zeros before and after.
 */
size_t workspace_bytes(const Evaluation& call, const DeviceLimits& limits);

/**
 * Puts a call whose arrays are all on the device into a stream, and waits for nothing. Its outcome, which begins as
 * zeros, is known once the stream has come to it.
 */
void enqueue(const Evaluation& call, const DeviceLimits& limits, Outcome* outcome, void* workspace, Stream stream);

/** Throws what the outcome of a call says of its labels, which are in host memory. */
void check_labels(const Evaluation& call, const Outcome& outcome);

/** A call that was put into a queue, and waits for nothing until its value is read. */
class Launched {
 public:
  /**
   * Brings what the host has to the device; of the arrays that are there nothing is read or waited for. Throws
   * CodedError where memory does not suffice.
   */
  Launched(const Evaluation& call, Queue& queue);

  /** Keeps an array that the call uses for as long as it may be asked for. */
  void keep(std::shared_ptr<DeviceBlock> labels) { kept_ = std::move(labels); }

  /** The loss, reduced. Waits; throws CodedError where a label was out of range. */
  double value();
  /** Results into the host's arrays. */
  void download();

 private:
  /** Runs of elements side by side, so many bytes from one to the next. */
  struct Runs {
    int64_t count, length, step;
  };

  Evaluation take_arrays();
  void* place(size_t bytes);
  Runs runs_of(const Strides& strides) const;
  void* place_rows(Strides& strides);
  void upload_rows(void* device, const void* host, const Runs& runs);

  const std::shared_ptr<Queue> queue_;
  const Evaluation host_;
  Evaluation device_;
  std::vector<DeviceMemory> arrays_;
  std::shared_ptr<Outcome> outcome_;
  std::shared_ptr<DeviceBlock> kept_;
  size_t label_bytes_ = 0, output_bytes_ = 0;
  bool writes_grad_ = false;
};

}  // namespace surprisal
