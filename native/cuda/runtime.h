#pragma once

// Memory, streams and events of the current device: CUDA's runtime in runtime.cc, the emulator's in test/cuda_emulator.
// All throw DeviceError, or CodedError of ERR_OUT_OF_MEMORY where the device's memory does not suffice.

#include <cstddef>
#include <utility>

#include "../devices.h"
#include "plan.h"
#include "problem.h"

namespace surprisal {

/** Bytes of device memory, from a pool that gives them out and takes them back in a stream's order. */
void* allocate_device(size_t bytes, Stream);
void free_device(void*, Stream) noexcept;

void copy_to_device(void* device, const void* host, size_t bytes, Stream);
void copy_to_host(void* host, const void* device, size_t bytes, Stream);
/** Between places on devices, of which each may be another one. */
void copy_on_device(void* to, const void* from, size_t bytes, Stream);
void zero_device(void* device, size_t bytes, Stream);
void synchronize(Stream);

Stream create_stream();
void destroy_stream(Stream) noexcept;

/** What another process opens a device's memory by. */
struct MemoryHandle {
  unsigned char bytes[64];
};

/** Memory of the current device that has a handle. Freeing it waits for the device. */
void* allocate_shareable(size_t bytes);
void free_shareable(void*) noexcept;
MemoryHandle export_memory(void* shareable);
/** Another process's memory, as long as that has not freed it. Throws DeviceError, for a handle of one's own too. */
void* open_memory(const MemoryHandle&);
void close_memory(void*) noexcept;

/** Host memory that copies to and from a device need no detour for. */
void* allocate_pinned(size_t bytes);
void free_pinned(void*) noexcept;

/** A point in a stream. */
Event create_event();
void destroy_event(Event) noexcept;
/** Moves an event to the end of what a stream was given. */
void record(Event, Stream);
/** What a stream is given from now on waits for the event. */
void wait(Stream, Event);
void synchronize(Event);
/** Whether the stream has come to the event. */
bool has_come(Event);
/** Milliseconds from one event to another, both of which have come. */
double elapsed(Event from, Event to);

/** Work that this thread asks for from now on goes to this GPU. */
void use_device(int device);

/** Of the device in use. */
DeviceLimits device_limits();

CudaDevices find_devices();

/** That a device has no memory left for so many bytes. */
[[noreturn]] void throw_out_of_memory(size_t bytes);

/** Device memory that goes back to the pool with it. */
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(size_t bytes, Stream stream) : stream_(stream), data_(allocate_device(bytes, stream)) {}
  DeviceMemory(DeviceMemory&& other) noexcept : stream_(other.stream_), data_(other.data_) { other.data_ = nullptr; }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(stream_, other.stream_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~DeviceMemory() {
    if (data_ != nullptr) free_device(data_, stream_);
  }

  void* get() const { return data_; }

 private:
  Stream stream_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace surprisal
