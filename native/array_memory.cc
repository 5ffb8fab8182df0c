#include "array_memory.h"

#include <dlfcn.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>

#include "arguments.h"

namespace surprisal {
namespace {

using Store = std::shared_ptr<void>;

/** What the running program has. */
struct Program {
  /** v8::ArrayBuffer::GetBackingStore and SharedArrayBuffer's; a napi_value is the handle that they are called on. */
  Store (*store_of)(napi_value) = nullptr;
  Store (*shared_store_of)(napi_value) = nullptr;
  bool holds = false;
  bool transfer_frees = false;
};

template <class Function>
void look_up(Function& function, const char* symbol) {
  function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, symbol));
}

/**
 * Finds the functions and tries them on a buffer of our own: its store must have one owner more each time, counted as
 * this library's shared_ptr counts. Empty where the environment is ending.
 */
std::optional<Program> try_program(napi_env env) {
  Program program;
  look_up(program.store_of, "_ZN2v811ArrayBuffer15GetBackingStoreEv");
  look_up(program.shared_store_of, "_ZN2v817SharedArrayBuffer15GetBackingStoreEv");
  void* (*memory_of)(const void*) = nullptr;
  look_up(memory_of, "_ZNK2v812BackingStore4DataEv");
  if (program.store_of == nullptr || program.shared_store_of == nullptr || memory_of == nullptr) return program;

  constexpr size_t kBytes = 64;
  napi_value buffer, transfer, length, moved;
  void* data = nullptr;
  if (napi_create_arraybuffer(env, kBytes, &data, &buffer) != napi_ok) return std::nullopt;
  // Never released: what is no shared_ptr of ours must not be.
  const Store& store = *new Store(program.store_of(buffer));
  if (store == nullptr || store.use_count() != 2 || memory_of(store.get()) != data) return program;
  const Store& again = *new Store(program.store_of(buffer));
  if (again != store || store.use_count() != 3) return program;
  program.holds = true;

  napi_valuetype type;
  bool is_buffer = false;
  if (napi_get_named_property(env, buffer, "transfer", &transfer) != napi_ok ||
      napi_typeof(env, transfer, &type) != napi_ok) {
    return std::nullopt;
  }
  if (type != napi_function) return program;
  if (napi_create_double(env, 2 * kBytes, &length) != napi_ok ||
      napi_call_function(env, buffer, transfer, 1, &length, &moved) != napi_ok ||
      napi_is_arraybuffer(env, moved, &is_buffer) != napi_ok || !is_buffer) {
    return std::nullopt;
  }
  program.transfer_frees = program.store_of(moved) == store;
  return program;
}

Program program(napi_env env) {
  static std::mutex mutex;
  static std::optional<Program> known;
  {
    std::lock_guard lock(mutex);
    if (known) return *known;
  }
  const auto found = try_program(env);
  if (!found) {
    napi_value exception;
    napi_get_and_clear_last_exception(env, &exception);
    return {};
  }
  std::lock_guard lock(mutex);
  known = found;
  return *known;
}

std::atomic<bool> copies_asked{false};

/** Copies a gradient of elements of this size to the same places: what lies between them belongs to others. */
void copy_rows(const Evaluation& call, size_t size, const std::byte* from, std::byte* to) {
  const auto& [outer, inner, classes] = call.grad_strides;
  for (int64_t o = 0; o < call.outer; ++o) {
    for (int64_t i = 0; i < call.inner; ++i) {
      const int64_t row = o * outer + i * inner;
      if (classes == 1 || call.classes == 1) {
        std::memcpy(to + row * size, from + row * size, call.classes * size);
        continue;
      }
      for (int64_t c = 0; c < call.classes; ++c) {
        std::memcpy(to + (row + c * classes) * size, from + (row + c * classes) * size, size);
      }
    }
  }
}

/** The store of a typed array's buffer, where those can be held. */
Store store_of(const Program& here, napi_env env, napi_value array) {
  napi_value buffer;
  bool is_own = false;
  napi_get_typedarray_info(env, array, nullptr, nullptr, nullptr, &buffer, nullptr);
  napi_is_arraybuffer(env, buffer, &is_own);  // else it is a SharedArrayBuffer
  return (is_own ? here.store_of : here.shared_store_of)(buffer);
}

}  // namespace

MemoryMode memory_mode(Napi::Env env) {
  return program(env).holds && !copies_asked.load() ? MemoryMode::held : MemoryMode::copied;
}

bool use_memory_mode(Napi::Env env, MemoryMode mode) {
  if (mode == MemoryMode::held && !program(env).holds) return false;
  copies_asked.store(mode == MemoryMode::copied);
  return true;
}

bool transfer_frees_held_memory(Napi::Env env) { return program(env).transfer_frees; }

std::shared_ptr<void> hold_array(Napi::Env env, napi_value array) {
  const ArrayView view = read_array(env, array, "an array");
  if (memory_mode(env) == MemoryMode::held) return {store_of(program(env), env, array), view.data};
  std::shared_ptr<std::byte[]> copy(new std::byte[view.bytes]);
  std::memcpy(copy.get(), view.data, view.bytes);
  return {copy, copy.get()};
}

ArrayMemory::ArrayMemory(Napi::Env env, std::span<const napi_value> arguments, Evaluation& call) {
  if (memory_mode(env) == MemoryMode::held) {
    const Program here = program(env);
    for (const napi_value argument : arguments.subspan(kInput)) {
      bool is_array = false;
      napi_is_typedarray(env, argument, &is_array);
      if (is_array) stores_.push_back(store_of(here, env, argument));
    }
    return;
  }
  const auto take = [&](size_t bytes) { return copies_.emplace_back(new std::byte[bytes]).get(); };
  const auto copy = [&](Array array, auto& memory) {
    if (memory == nullptr) return;
    const ArrayView view = read_array(env, arguments[array], "an argument");
    memory =
        static_cast<std::remove_reference_t<decltype(memory)>>(std::memcpy(take(view.bytes), view.data, view.bytes));
  };
  const auto keep = [&](Array array, void*& memory, Result& result) {
    if (memory == nullptr) return;
    result.bytes = read_array(env, arguments[array], "a result").bytes;
    result.array = Napi::Persistent(Napi::Object(env, arguments[array]));
    memory = take(result.bytes);
  };
  copy(kInput, call.input);
  copy(kIndices, call.indices);
  copy(kDense, call.dense);
  copy(kGradOutputs, call.grad_outputs);
  copy(kWeight, call.weight);
  copy(kPosWeight, call.pos_weight);
  copy(kConstants, call.constants);
  keep(kGrad, call.grad, grad_);
  keep(kOutput, call.output, output_);
}

ArrayMemory::~ArrayMemory() = default;

void ArrayMemory::write_back(Napi::Env env, const Evaluation& call) const {
  const auto memory = [&](const Result& result) -> std::byte* {
    if (result.array.IsEmpty()) return nullptr;
    size_t length = 0;
    void* data = nullptr;
    napi_get_typedarray_info(env, result.array.Value(), nullptr, &length, &data, nullptr, nullptr);
    return length > 0 ? static_cast<std::byte*>(data) : nullptr;
  };
  if (std::byte* to = memory(output_)) std::memcpy(to, call.output, output_.bytes);
  if (std::byte* to = memory(grad_)) {
    copy_rows(call, element_size(call.dtype), static_cast<const std::byte*>(call.grad), to);
  }
}

}  // namespace surprisal
