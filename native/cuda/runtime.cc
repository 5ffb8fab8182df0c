// The CUDA runtime.

#include "runtime.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>

#include "error.h"

namespace surprisal {
namespace {

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device));
  return device;
}

/** The pool of a device, which keeps what it was given back: memory from the system takes a millisecond. */
cudaMemPool_t make_pool(int device) {
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  check(cudaMemPoolCreate(&pool, &properties));
  uint64_t all = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all));
  return pool;
}

cudaMemPool_t pool_of(int device) {
  // For as long as the process: no destructor may call CUDA when that ends.
  static auto* pools = new std::unordered_map<int, cudaMemPool_t>();
  static auto* mutex = new std::mutex();
  std::lock_guard lock(*mutex);
  const auto found = pools->find(device);
  return found != pools->end() ? found->second : pools->emplace(device, make_pool(device)).first->second;
}

}  // namespace

void* allocate_device(size_t bytes, Stream stream) {
  const cudaMemPool_t pool = pool_of(current_device());
  void* data = nullptr;
  cudaError_t error = cudaMallocFromPoolAsync(&data, bytes, pool, stream);
  if (error == cudaErrorMemoryAllocation) {
    // What was freed in other streams, or lies in pieces, goes back to the system first.
    cudaGetLastError();
    check(cudaDeviceSynchronize());
    check(cudaMemPoolTrimTo(pool, 0));
    error = cudaMallocFromPoolAsync(&data, bytes, pool, stream);
  }
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw_out_of_memory(bytes);
  }
  check(error);
  return data;
}

void free_device(void* data, Stream stream) noexcept { cudaFreeAsync(data, stream); }

void copy_to_device(void* device, const void* host, size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream));
}

void copy_to_host(void* host, const void* device, size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream));
}

void copy_on_device(void* to, const void* from, size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
}

void zero_device(void* device, size_t bytes, Stream stream) { check(cudaMemsetAsync(device, 0, bytes, stream)); }

void synchronize(Stream stream) { check(cudaStreamSynchronize(stream)); }

Stream create_stream() {
  Stream stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void destroy_stream(Stream stream) noexcept { cudaStreamDestroy(stream); }

void* allocate_shareable(size_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw_out_of_memory(bytes);
  }
  check(error);
  return data;
}

void free_shareable(void* data) noexcept { cudaFree(data); }

MemoryHandle export_memory(void* shareable) {
  static_assert(sizeof(MemoryHandle) == sizeof(cudaIpcMemHandle_t));
  cudaIpcMemHandle_t handle;
  check(cudaIpcGetMemHandle(&handle, shareable));
  MemoryHandle result;
  std::memcpy(result.bytes, &handle, sizeof(handle));
  return result;
}

void* open_memory(const MemoryHandle& from) {
  cudaIpcMemHandle_t handle;
  std::memcpy(&handle, from.bytes, sizeof(handle));
  void* data = nullptr;
  check(cudaIpcOpenMemHandle(&data, handle, cudaIpcMemLazyEnablePeerAccess));
  return data;
}

void close_memory(void* data) noexcept { cudaIpcCloseMemHandle(data); }

void* allocate_pinned(size_t bytes) {
  void* data = nullptr;
  check(cudaMallocHost(&data, bytes));
  return data;
}

void free_pinned(void* data) noexcept { cudaFreeHost(data); }

Event create_event() {
  Event event = nullptr;
  // Whoever waits for one sleeps: it may be for long, and JavaScript's threads have better to do.
  check(cudaEventCreateWithFlags(&event, cudaEventBlockingSync));
  return event;
}

void destroy_event(Event event) noexcept { cudaEventDestroy(event); }

void record(Event event, Stream stream) { check(cudaEventRecord(event, stream)); }

void wait(Stream stream, Event event) { check(cudaStreamWaitEvent(stream, event, 0)); }

void synchronize(Event event) { check(cudaEventSynchronize(event)); }

bool has_come(Event event) {
  const cudaError_t answer = cudaEventQuery(event);
  if (answer == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check(answer);
  return true;
}

double elapsed(Event from, Event to) {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, from, to));
  return milliseconds;
}

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
  const int device = current_device();
  int major = 0;
  DeviceLimits limits;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  check(cudaDeviceGetAttribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  limits.device = device;
  // 9.0 and 10.x take clusters of 16 blocks where a kernel asks for them, those of desktops 8.
  limits.cluster = major < kHopper ? 1 : major < kHopper + 2 ? kLargestCluster : kPortableCluster;
  return limits;
}

}  // namespace surprisal
