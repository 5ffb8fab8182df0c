#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace surprisal {

/** What a function of CUDA's answered, for an Error with the code ERR_CUDA. */
struct CudaError : std::runtime_error {
  explicit CudaError(cudaError_t error)
      : std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")"),
        error(error) {}
  cudaError_t error;
};

/** Throws for anything but success; std::bad_alloc where the device has no memory left. */
inline void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // The next call begins without it.
  if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
  throw CudaError(error);
}

}  // namespace surprisal
