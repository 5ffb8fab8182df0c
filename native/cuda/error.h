#pragma once

#include <cuda_runtime_api.h>

#include <new>
#include <string>

#include "../backend.h"

namespace surprisal {

/** What an answer of CUDA's says, in words and by its name. */
inline std::string describe(cudaError_t error) {
  const std::string said = std::string("CUDA: ") + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")";
  if (error != cudaErrorNoKernelImageForDevice) return said;
  return said +
         ". This binary has no code for this GPU; where nvcc is installed, "
         "`npm install cmake-js node-addon-api surprisal --build-from-source` compiles it";
}

/** Throws for anything but success; std::bad_alloc where the device has no memory left. */
inline void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // The next call begins without it.
  if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
  throw DeviceError(describe(error));
}

}  // namespace surprisal
