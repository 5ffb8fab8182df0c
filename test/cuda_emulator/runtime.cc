// native/cuda/runtime.h on the emulator, whose device is this machine's memory: each array of exactly its size on the
// heap, poisoned with NaN. Everything is done where it is asked for, so that streams and events have nothing to wait
// for; how often the host waits is counted.

#include "../../native/cuda/runtime.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>

#include "emulator.h"

struct CUstream_st {};
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
};

namespace surprisal {
namespace {

thread_local DeviceLimits limits = {227 * 1024, 16};

std::atomic<int64_t> waits{0};

/** What is allocated, and how large it is. */
struct Memory {
  std::mutex mutex;
  std::unordered_map<void*, size_t> sizes;
  size_t used = 0;
};
Memory& memory() {
  static auto* memory = new Memory();
  return *memory;
}

/** Bytes that the device has: SURPRISAL_EMULATED_MEMORY, 1 GiB without it. */
size_t capacity() {
  static const char* const asked = std::getenv("SURPRISAL_EMULATED_MEMORY");
  static const size_t bytes = asked != nullptr ? std::stoull(asked) : size_t{1} << 30;
  return bytes;
}

}  // namespace

void* allocate_device(size_t bytes, Stream) {
  std::lock_guard lock(memory().mutex);
  if (bytes > capacity() - memory().used) throw_out_of_memory(bytes);
  void* data = std::malloc(bytes);
  if (data == nullptr) throw_out_of_memory(bytes);
  std::memset(data, 0xff, bytes);
  memory().sizes.emplace(data, bytes);
  memory().used += bytes;
  return data;
}

void free_device(void* data, Stream) noexcept {
  std::lock_guard lock(memory().mutex);
  const auto found = memory().sizes.find(data);
  memory().used -= found->second;
  memory().sizes.erase(found);
  std::free(data);
}

void copy_to_device(void* device, const void* host, size_t bytes, Stream) { std::memcpy(device, host, bytes); }
void copy_to_host(void* host, const void* device, size_t bytes, Stream) { std::memcpy(host, device, bytes); }
void copy_on_device(void* to, const void* from, size_t bytes, Stream) { std::memcpy(to, from, bytes); }
void zero_device(void* device, size_t bytes, Stream) { std::memset(device, 0, bytes); }
void synchronize(Stream) { ++waits; }

Stream create_stream() { return new CUstream_st(); }
void destroy_stream(Stream stream) noexcept { delete stream; }

// Shareable memory is the system's, whose name is the handle: processes on the emulator exchange it as on a GPU.

namespace {

struct Mapping {
  std::string name;  // of one's own, empty of another's
  size_t bytes;
};

std::unordered_map<void*, Mapping>& mappings() {
  static auto* mappings = new std::unordered_map<void*, Mapping>();
  return *mappings;
}

void* map(const std::string& name, int flags, size_t bytes) {
  const int file = shm_open(name.c_str(), flags, 0600);
  if (file < 0) throw DeviceError("emulator: there is no memory of this handle");
  if (bytes > 0 && ftruncate(file, static_cast<off_t>(bytes)) != 0) throw_out_of_memory(bytes);
  struct stat status;
  fstat(file, &status);
  const auto size = static_cast<size_t>(status.st_size);
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (data == MAP_FAILED) throw_out_of_memory(size);
  std::lock_guard lock(memory().mutex);
  mappings()[data] = {flags == O_RDWR ? "" : name, size};
  return data;
}

void unmap(void* data) noexcept {
  std::lock_guard lock(memory().mutex);
  const auto found = mappings().find(data);
  if (!found->second.name.empty()) shm_unlink(found->second.name.c_str());
  munmap(data, found->second.bytes);
  mappings().erase(found);
}

}  // namespace

void* allocate_shareable(size_t bytes) {
  static std::atomic<int> count{0};
  return map("/surprisal-" + std::to_string(getpid()) + "-" + std::to_string(count++), O_RDWR | O_CREAT | O_EXCL,
             bytes);
}
void free_shareable(void* data) noexcept { unmap(data); }

MemoryHandle export_memory(void* shareable) {
  std::lock_guard lock(memory().mutex);
  MemoryHandle handle = {};
  const std::string& name = mappings().at(shareable).name;
  std::memcpy(handle.bytes, name.data(), std::min(name.size(), sizeof(handle.bytes) - 1));
  return handle;
}

void* open_memory(const MemoryHandle& handle) {
  const auto* name = reinterpret_cast<const char*>(handle.bytes);
  if (handle.bytes[sizeof(handle.bytes) - 1] != 0) throw DeviceError("emulator: this is no handle");
  return map(name, O_RDWR, 0);
}
void close_memory(void* data) noexcept { unmap(data); }

void* allocate_pinned(size_t bytes) { return std::malloc(bytes); }
void free_pinned(void* data) noexcept { std::free(data); }

Event create_event() { return new CUevent_st(); }
void destroy_event(Event event) noexcept { delete event; }
void record(Event event, Stream) { event->time = std::chrono::steady_clock::now(); }
void wait(Stream, Event) {}
void synchronize(Event) { ++waits; }
bool has_come(Event) { return true; }
double elapsed(Event from, Event to) {
  return std::chrono::duration<double, std::milli>(to->time - from->time).count();
}

void use_device(int) {}
DeviceLimits device_limits() { return limits; }

CudaDevices find_devices() { return {{{"cuda:0 (emulated)", static_cast<double>(capacity()), "9.0"}}, {}}; }

namespace emulator {

void set_limits(const DeviceLimits& asked) { limits = asked; }
int64_t host_waits() { return waits; }
int64_t device_memory() {
  std::lock_guard lock(memory().mutex);
  return static_cast<int64_t>(memory().used);
}

}  // namespace emulator

}  // namespace surprisal
