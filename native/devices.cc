#include "devices.h"

#ifdef SURPRISAL_CUDA
#include "cuda/cuda.h"
#include "cuda/runtime.h"
#endif

namespace surprisal {

const CudaDevices& cuda_devices() {
#ifdef SURPRISAL_CUDA
  static const auto* found = new CudaDevices(find_devices());
#else
  static const auto* found = new CudaDevices{
      {},
      "this build has no CUDA backend; build from source with nvcc installed and the CMake option SURPRISAL_CUDA on"};
#endif
  return *found;
}

const Backend& backend_of(int device) {
#ifdef SURPRISAL_CUDA_EMULATED
  // Everything runs on the kernels: what the CPU computes is tested without them.
  (void)device;
  return cuda_backend();
#else
  if (device == kCpu) return cpu_backend();
#ifdef SURPRISAL_CUDA
  if (device <= static_cast<int>(cuda_devices().devices.size())) return cuda_backend();
#endif
  throw DeviceError("there is no GPU " + std::to_string(device - 1));
#endif
}

}  // namespace surprisal
