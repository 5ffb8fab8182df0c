#pragma once

// Memory and streams of the current device: CUDA's runtime in runtime.cc, the emulator's in test/cuda_emulator. All
// throw DeviceError, or std::bad_alloc where the device's memory does not suffice.

#include <cstddef>

#include "../devices.h"
#include "plan.h"
#include "problem.h"

namespace surprisal {

/** Bytes of device memory, from a pool that gives them out and takes them back in a stream's order. */
void* allocate_device(size_t bytes, Stream);
void free_device(void*, Stream) noexcept;

void copy_to_device(void* device, const void* host, size_t bytes, Stream);
void copy_to_host(void* host, const void* device, size_t bytes, Stream);
void zero_device(void* device, size_t bytes, Stream);
void synchronize(Stream);

/** Work that this thread asks for from now on goes to this GPU. */
void use_device(int device);

/** Of the device in use. */
DeviceLimits device_limits();

CudaDevices find_devices();

/** Device memory that goes back to the pool with it. */
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(size_t bytes, Stream stream) : stream_(stream), data_(allocate_device(bytes, stream)) {}
  DeviceMemory(DeviceMemory&& other) noexcept : stream_(other.stream_), data_(other.data_) { other.data_ = nullptr; }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    free();
    stream_ = other.stream_;
    data_ = other.data_;
    other.data_ = nullptr;
    return *this;
  }
  ~DeviceMemory() { free(); }

  void* get() const { return data_; }

 private:
  void free() noexcept {
    if (data_ != nullptr) free_device(data_, stream_);
  }

  Stream stream_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace surprisal
