#pragma once

#include <napi.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "backend.h"

namespace surprisal {

/**
 * What an asynchronous call computes on while JavaScript runs on. A reference to an array keeps it from being
 * collected, but its buffer can be transferred all the same, or grow with its WebAssembly.Memory, and either may free
 * the memory.
 *
 *   held    The arrays' own memory, of which the call shares the ownership: V8's BackingStore of each buffer. Node-API
 *           has no way to it, so V8's function is looked up in the running program and tried once.
 *   copied  Copies of the arrays; when the call ends, its results are written to those that still have their memory.
 * For programs without that function: other engines, V8 with another C++ library.
 */
enum class MemoryMode { held, copied };
inline constexpr const char* kMemoryModeNames[] = {"held", "copied"};

/** The one in use: held where that works. */
MemoryMode memory_mode(Napi::Env env);
/** Changes it; false where it does not work here. For tests. */
bool use_memory_mode(Napi::Env env, MemoryMode mode);

/** Whether ArrayBuffer.prototype.transfer(newLength) frees even what is held: where V8 reallocates for it. */
bool transfer_frees_held_memory(Napi::Env env);

/**
 * The memory of a typed array, for as long as it is held: its own, or a copy that stays one where this runtime has no
 * way to hold it.
 */
std::shared_ptr<void> hold_array(Napi::Env env, napi_value array);

/** The memory of one call. It is made and destroyed on JavaScript's thread. */
class ArrayMemory {
 public:
  /** Keeps the memory of a call of these arguments, or makes it one on copies. Throws std::bad_alloc. */
  ArrayMemory(Napi::Env env, std::span<const napi_value> arguments, Evaluation& call);
  ~ArrayMemory();

  /** Writes the results of a call on copies to its arrays. */
  void write_back(Napi::Env env, const Evaluation& call) const;

 private:
  struct Result {
    size_t bytes = 0;
    Napi::ObjectReference array;
  };

  std::vector<std::shared_ptr<void>> stores_;
  std::vector<std::unique_ptr<std::byte[]>> copies_;
  Result output_, grad_;  // of a call on copies
};

}  // namespace surprisal
