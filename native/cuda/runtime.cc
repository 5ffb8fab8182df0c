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

void use_device(int device) { check(cudaSetDevice(device)); }

CudaDevices find_devices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {
    return {{},
            "no NVIDIA driver for CUDA " + std::to_string(CUDART_VERSION / 1000) +
                " was found; install one, or update it (nvidia-smi shows what is there)"};
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    return {{}, "the NVIDIA driver finds no GPU; CUDA_VISIBLE_DEVICES may hide it"};
  }
  if (error != cudaSuccess) return {{}, describe(error)};
  CudaDevices found;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, i));
    found.devices.push_back({properties.name, static_cast<double>(properties.totalGlobalMem),
                             std::to_string(properties.major) + "." + std::to_string(properties.minor)});
  }
  return found;
}

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
