#include "devices.h"

#include <cstdlib>

#ifdef SURPRISAL_CUDA
#include "cuda/cuda.h"
#include "cuda/runtime.h"
#else
#include "device_arrays.h"
#endif

namespace surprisal {

const CudaDevices& cuda_devices() {
#ifdef SURPRISAL_CUDA
  static const auto* found = new CudaDevices(find_devices());
#else
  static const auto* found = new CudaDevices{
      {}, "this build has no CUDA backend; build from source where CMake finds nvcc (see SURPRISAL_CUDA in README)"};
#endif
  return *found;
}

const Backend& backend_of(int device) {
#ifdef SURPRISAL_CUDA
  // So that every suite tests the kernels, whatever device its calls ask for.
  static const bool all = std::getenv("SURPRISAL_TEST_ON_CUDA") != nullptr;
  if (all && !cuda_devices().devices.empty()) return cuda_backend();
#endif
  if (device == kCpu) return cpu_backend();
#ifdef SURPRISAL_CUDA
  if (device <= static_cast<int>(cuda_devices().devices.size())) return cuda_backend();
#endif
  throw DeviceError("there is no GPU " + std::to_string(device - 1));
}

#ifndef SURPRISAL_CUDA
// No value stands for what a build without CUDA does not have.
ArrayView find_device_array(Napi::Env, napi_value) { return {}; }
std::shared_ptr<void> choose_queue(Napi::Env, std::span<const napi_value>, Evaluation&) { return nullptr; }
std::function<void()> launch_on_device(Napi::Env, std::span<const napi_value>, Evaluation&) { return nullptr; }
void export_device_arrays(Napi::Env, Napi::Object) {}
#endif

}  // namespace surprisal
