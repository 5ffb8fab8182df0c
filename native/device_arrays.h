#pragma once

// A GPU's memory, streams and events as JavaScript's objects. A build without CUDA has none of them.

#include <napi.h>

#include <functional>
#include <memory>
#include <span>

#include "arguments.h"
#include "backend.h"

namespace surprisal {

/** Memory of a device's array, none of any other value. Throws a TypeError for one that was given back. */
ArrayView find_device_array(Napi::Env env, napi_value value);

/**
 * Gives a call of these arguments, whose input is a device's memory, to its device, and waits for nothing. What is
 * returned waits until its loss is known, on any thread, and throws CodedError where a label was out of range.
 */
std::function<void()> launch_on_device(Napi::Env env, std::span<const napi_value> arguments, Evaluation& call);

/** Sets the queue of a call on a device; what is returned keeps it. */
std::shared_ptr<void> choose_queue(Napi::Env env, std::span<const napi_value> arguments, Evaluation& call);

/** Adds what binding.d.ts says of devices' memory to the exports. */
void export_device_arrays(Napi::Env env, Napi::Object exports);

}  // namespace surprisal
