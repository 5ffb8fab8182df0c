// The CUDA runtime.

#include "runtime.h"

#include <cuda_runtime_api.h>

#include "error.h"

namespace surprisal {

void* allocate_device(size_t bytes, Stream stream) {
  void* data = nullptr;
  check(cudaMallocAsync(&data, bytes, stream));
  return data;
}

void free_device(void* data, Stream stream) noexcept { cudaFreeAsync(data, stream); }

void copy_to_device(void* device, const void* host, size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream));
}

void copy_to_host(void* host, const void* device, size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream));
}

void zero_device(void* device, size_t bytes, Stream stream) { check(cudaMemsetAsync(device, 0, bytes, stream)); }

void synchronize(Stream stream) { check(cudaStreamSynchronize(stream)); }

DeviceLimits device_limits() {
  constexpr int kHopper = 9, kLargestCluster = 16, kPortableCluster = 8;
  int device = 0, major = 0;
  DeviceLimits limits;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  check(cudaDeviceGetAttribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  // 9.0 and 10.x take clusters of 16 blocks where a kernel asks for them, those of desktops 8.
  limits.cluster = major < kHopper ? 1 : major < kHopper + 2 ? kLargestCluster : kPortableCluster;
  return limits;
}

}  // namespace surprisal
