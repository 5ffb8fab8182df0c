// native/cuda/runtime.h on the emulator, whose device is this machine's memory: each array of exactly its size on the
// heap, poisoned with NaN.

#include "../../native/cuda/runtime.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace surprisal {
namespace {

thread_local DeviceLimits limits = {227 * 1024, 16};

}  // namespace

void* allocate_device(size_t bytes, Stream) {
  void* data = std::malloc(bytes);
  if (data == nullptr) throw std::bad_alloc();
  std::memset(data, 0xff, bytes);
  return data;
}

void free_device(void* data, Stream) noexcept { std::free(data); }
void copy_to_device(void* device, const void* host, size_t bytes, Stream) { std::memcpy(device, host, bytes); }
void copy_to_host(void* host, const void* device, size_t bytes, Stream) { std::memcpy(host, device, bytes); }
void zero_device(void* device, size_t bytes, Stream) { std::memset(device, 0, bytes); }
void synchronize(Stream) {}

void use_device(int) {}
DeviceLimits device_limits() { return limits; }

CudaDevices find_devices() { return {{{"emulated", 0, "9.0"}}, {}}; }

namespace emulator {
void set_limits(const DeviceLimits& asked) { limits = asked; }
}  // namespace emulator

}  // namespace surprisal
