#pragma once

#include "../backend.h"
#include "plan.h"
#include "problem.h"

namespace surprisal {

/** What runs calls on the current device. Its `evaluate` takes arrays in host memory, and brings them there and back.
 */
const Backend& cuda_backend();

/** Bytes that `enqueue` works in, its outcome first. */
size_t workspace_bytes(const Evaluation& call, const DeviceLimits& limits);

/**
 * Puts a call whose pointers are the device's into a stream, and waits for nothing. Its outcome stands at the beginning
 * of the workspace once the stream has come to it.
 */
void enqueue(const Evaluation& call, const DeviceLimits& limits, void* workspace, Stream stream);

/** Throws what the outcome of a call says of its labels, which are in host memory. */
void check_labels(const Evaluation& call, const Outcome& outcome);

}  // namespace surprisal
