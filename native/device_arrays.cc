#include "device_arrays.h"

#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "array_memory.h"
#include "async.h"
#include "cuda/cuda.h"
#include "cuda/memory.h"
#include "devices.h"
#include "environment.h"

#ifdef SURPRISAL_CUDA_EMULATED
#include "../test/cuda_emulator/emulator.h"
#endif

namespace surprisal {
namespace {

[[noreturn]] void refuse(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::TypeError::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  throw error;
}

/** An event, and the stream that it was last recorded in. */
struct Mark {
  Mark() : event(create_event()) {}
  ~Mark() { destroy_event(event); }
  const Event event;
  std::shared_ptr<Queue> queue;
};

/** Objects that stand for a T; each kind has a tag, by which others are told from it. */
template <class T>
struct TagOf;
template <>
struct TagOf<DeviceBlock> {
  static constexpr napi_type_tag tag = {0x7d1f60a2c3b54e18, 0x9a50c1e7f2084b63};
  static constexpr const char* name = "memory of a device";
};
template <>
struct TagOf<Queue> {
  static constexpr napi_type_tag tag = {0x2e94b70d158a4f3c, 0xb1d67e3a90c2584f};
  static constexpr const char* name = "a stream";
};
template <>
struct TagOf<Mark> {
  static constexpr napi_type_tag tag = {0x58c3e1f9a7264d0b, 0x8f3b2d6019e7a4c5};
  static constexpr const char* name = "an event";
};

void account(napi_env env, int64_t bytes) {
  int64_t all = 0;
  napi_adjust_external_memory(env, bytes, &all);
}

int64_t external_bytes(const DeviceBlock& block) { return static_cast<int64_t>(block.bytes()); }
int64_t external_bytes(const auto&) { return 0; }

template <class T>
void release(napi_env env, std::shared_ptr<T>& thing) {
  if (thing == nullptr) return;
  account(env, -external_bytes(*thing));
  thing.reset();
}

template <class T>
Napi::Value wrap(Napi::Env env, std::shared_ptr<T> thing) {
  Napi::Object object = Napi::Object::New(env);
  object.TypeTag(&TagOf<T>::tag);
  const int64_t bytes = external_bytes(*thing);
  auto* holder = new std::shared_ptr<T>(std::move(thing));
  const auto finalize = [](napi_env env, void* data, void*) {
    auto* holder = static_cast<std::shared_ptr<T>*>(data);
    release(env, *holder);
    delete holder;
  };
  if (napi_wrap(env, object, holder, finalize, nullptr, nullptr) != napi_ok) {
    delete holder;
    throw Napi::Error::New(env);
  }
  account(env, bytes);
  return object;
}

/** Null for a value of another kind. */
template <class T>
std::shared_ptr<T>* find(napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  bool is = false;
  void* holder = nullptr;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_object) return nullptr;
  if (napi_check_object_type_tag(env, value, &TagOf<T>::tag, &is) != napi_ok || !is) return nullptr;
  if (napi_unwrap(env, value, &holder) != napi_ok) return nullptr;
  return static_cast<std::shared_ptr<T>*>(holder);
}

template <class T>
auto& alive(Napi::Env env, T& thing) {
  using Thing = typename std::remove_const_t<T>::element_type;
  if (thing == nullptr) refuse(env, "ERR_DISPOSED", std::string(TagOf<Thing>::name) + " was disposed");
  return thing;
}

template <class T>
std::shared_ptr<T>& read(Napi::Env env, napi_value value) {
  auto* found = find<T>(env, value);
  if (found == nullptr) refuse(env, "ERR_DTYPE", std::string("expected ") + TagOf<T>::name);
  return alive(env, *found);
}

}  // namespace

/** The streams of an environment that no one made: one a device. */
class DefaultQueues {
 public:
  const std::shared_ptr<Queue>& of(int device) {
    if (queues_.size() <= static_cast<size_t>(device)) queues_.resize(device + 1);
    if (queues_[device] == nullptr) queues_[device] = std::make_shared<Queue>(device);
    return queues_[device];
  }

 private:
  std::vector<std::shared_ptr<Queue>> queues_;
};

namespace {

const std::shared_ptr<Queue>& default_queue(napi_env env, int device) {
  std::shared_ptr<DefaultQueues>& queues = Environment::of(env).queues;
  if (queues == nullptr) queues = std::make_shared<DefaultQueues>();
  return queues->of(device);
}

/** A stream that was given, or the default one of a device (a number among GPUs). */
std::shared_ptr<Queue> queue_of(Napi::Env env, int device, napi_value stream) {
  napi_valuetype type = napi_undefined;
  if (stream != nullptr) napi_typeof(env, stream, &type);
  if (type == napi_undefined) return default_queue(env, device);
  const std::shared_ptr<Queue>& given = read<Queue>(env, stream);
  if (given->device() != device) {
    refuse(env, "ERR_OPTION",
           "stream: expected one of cuda:" + std::to_string(device) +
               ", got one of cuda:" + std::to_string(given->device()));
  }
  return given;
}

int read_device(const Napi::Value& value) { return value.ToNumber().Int32Value() - 1; }

/** A copy of all of `source`, between two devices' memories or one and the host's. */
struct Copy {
  std::shared_ptr<DeviceBlock> from, to;  // null: the host's
  std::shared_ptr<void> host;             // holds that which is read
  Napi::ObjectReference result;           // and that which is written
  void* host_data = nullptr;
  size_t bytes = 0;
  std::shared_ptr<Queue> queue;
  std::shared_ptr<Launched> loss_of;  // the call whose loss the host asks for

  Copy(Napi::Env env, const Napi::CallbackInfo& info) {
    if (find<DeviceBlock>(env, info[0]) != nullptr) from = read<DeviceBlock>(env, info[0]);
    if (find<DeviceBlock>(env, info[1]) != nullptr) to = read<DeviceBlock>(env, info[1]);
    if (from == nullptr && to == nullptr) refuse(env, "ERR_DTYPE", "expected memory of a device to copy from or to");
    size_t room = 0;
    if (from == nullptr || to == nullptr) {
      const ArrayView view = read_array(env, info[from == nullptr ? 0 : 1], "an array");
      host_data = view.data;
      bytes = from == nullptr ? view.bytes : from->bytes();
      room = from == nullptr ? to->bytes() : view.bytes;
    } else {
      bytes = from->bytes();
      room = to->bytes();
    }
    if (room < bytes) refuse(env, "ERR_SHAPE", "expected room for " + std::to_string(bytes) + " bytes");
    queue = queue_of(env, (to != nullptr ? to : from)->device(), info[2]);
    if (from != nullptr) from->use_in(queue, DeviceBlock::Use::reads);
    if (to != nullptr) to->use_in(queue, DeviceBlock::Use::writes);
    if (from != nullptr) (to != nullptr ? to->launched : loss_of) = from->launched;
  }

  /** On any thread. Throws what the call says of its labels whose loss this is. */
  void run() const {
    if (loss_of != nullptr) loss_of->value();
    if (from == nullptr) return queue->upload(to->data(), host_data, bytes);
    if (to == nullptr) return queue->download(host_data, from->data(), bytes);
    use_device(queue->device());
    copy_on_device(to->data(), from->data(), bytes, queue->stream());
  }
};

/** `f`, whose errors reach JavaScript as those of a device. */
template <class F>
auto guarded(F f) {
  return [f](const Napi::CallbackInfo& info) -> Napi::Value {
    try {
      return f(info);
    } catch (const Napi::Error&) {
      throw;
    } catch (const std::exception& exception) {
      throw to_error(info.Env(), exception);
    }
  };
}

Napi::Value allocate(const Napi::CallbackInfo& info) {
  const auto queue = queue_of(info.Env(), read_device(info[0]), info[2]);
  const auto bytes = static_cast<size_t>(info[1].ToNumber().Int64Value());
  return wrap(info.Env(), std::make_shared<DeviceBlock>(queue, bytes));
}

Napi::Value free(const Napi::CallbackInfo& info) {
  if (auto* found = find<DeviceBlock>(info.Env(), info[0])) release(info.Env(), *found);
  return info.Env().Undefined();
}

Napi::Value share(const Napi::CallbackInfo& info) {
  const MemoryHandle handle = read<DeviceBlock>(info.Env(), info[0])->share();
  auto result = Napi::Uint8Array::New(info.Env(), sizeof(handle.bytes));
  std::memcpy(result.Data(), handle.bytes, sizeof(handle.bytes));
  return result;
}

Napi::Value open(const Napi::CallbackInfo& info) {
  const auto queue = queue_of(info.Env(), read_device(info[0]), nullptr);
  const ArrayView from = read_array(info.Env(), info[1], "a handle");
  MemoryHandle handle;
  check_length(info.Env(), from, sizeof(handle.bytes), 1, "a handle");
  std::memcpy(handle.bytes, from.data, sizeof(handle.bytes));
  const auto offset = static_cast<size_t>(info[2].ToNumber().Int64Value());
  const auto bytes = static_cast<size_t>(info[3].ToNumber().Int64Value());
  use_device(queue->device());
  void* base = open_memory(handle);
  return wrap(info.Env(), std::make_shared<DeviceBlock>(queue, Ownership::opened, base, offset, bytes));
}

Napi::Value borrow(const Napi::CallbackInfo& info) {
  const auto queue = queue_of(info.Env(), read_device(info[0]), nullptr);
  bool lossless = true;
  const uint64_t address = info[1].As<Napi::BigInt>().Uint64Value(&lossless);
  const auto bytes = static_cast<size_t>(info[2].ToNumber().Int64Value());
  void* base = reinterpret_cast<void*>(address);
  return wrap(info.Env(), std::make_shared<DeviceBlock>(queue, Ownership::borrowed, base, 0, bytes));
}

Napi::Value address(const Napi::CallbackInfo& info) {
  const void* data = read<DeviceBlock>(info.Env(), info[0])->data();
  return Napi::BigInt::New(info.Env(), static_cast<uint64_t>(reinterpret_cast<uintptr_t>(data)));
}

Napi::Value copy(const Napi::CallbackInfo& info) {
  const Copy copy(info.Env(), info);
  copy.run();
  if (copy.loss_of != nullptr) copy.from->launched.reset();  // It was found to be right.
  return info.Env().Undefined();
}

Napi::Value copy_async(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto copy = std::make_shared<Copy>(env, info);
  if (copy->from == nullptr) {
    copy->host = hold_array(env, info[0]);
    copy->host_data = copy->host.get();
  } else if (copy->to == nullptr) {
    // Nobody else has this array yet, so that it can't be transferred: it is enough that it is not collected.
    copy->result = Napi::Persistent(info[1].As<Napi::Object>());
  }
  return run_async(env, [copy] { copy->run(); });
}

Napi::Value create_queue(const Napi::CallbackInfo& info) {
  return wrap(info.Env(), std::make_shared<Queue>(read_device(info[0])));
}

/** What a stream is given, or the default one of a device. */
std::shared_ptr<Queue> stream_argument(const Napi::CallbackInfo& info, size_t i) {
  if (info[i].IsNumber()) return default_queue(info.Env(), read_device(info[i]));
  return read<Queue>(info.Env(), info[i]);
}

Napi::Value synchronize_stream(const Napi::CallbackInfo& info) {
  stream_argument(info, 0)->synchronize();
  return info.Env().Undefined();
}

Napi::Value synchronize_stream_async(const Napi::CallbackInfo& info) {
  return run_async(info.Env(), [queue = stream_argument(info, 0)] { queue->synchronize(); });
}

Napi::Value make_event(const Napi::CallbackInfo& info) {
  use_device(read_device(info[0]));
  return wrap(info.Env(), std::make_shared<Mark>());
}

Napi::Value record_event(const Napi::CallbackInfo& info) {
  const auto& mark = read<Mark>(info.Env(), info[0]);
  mark->queue = stream_argument(info, 1);
  use_device(mark->queue->device());
  record(mark->event, mark->queue->stream());
  return info.Env().Undefined();
}

Napi::Value wait_for_event(const Napi::CallbackInfo& info) {
  const auto queue = stream_argument(info, 0);
  use_device(queue->device());
  wait(queue->stream(), read<Mark>(info.Env(), info[1])->event);
  return info.Env().Undefined();
}

Napi::Value event_has_come(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), has_come(read<Mark>(info.Env(), info[0])->event));
}

Napi::Value synchronize_event(const Napi::CallbackInfo& info) {
  synchronize(read<Mark>(info.Env(), info[0])->event);
  return info.Env().Undefined();
}

Napi::Value synchronize_event_async(const Napi::CallbackInfo& info) {
  return run_async(info.Env(), [mark = read<Mark>(info.Env(), info[0])] { synchronize(mark->event); });
}

Napi::Value event_elapsed(const Napi::CallbackInfo& info) {
  const auto& from = read<Mark>(info.Env(), info[0]);
  const auto& to = read<Mark>(info.Env(), info[1]);
  return Napi::Number::New(info.Env(), elapsed(from->event, to->event));
}

#ifdef SURPRISAL_CUDA_EMULATED
/** What the emulator counts, for tests. */
Napi::Value emulator_counts(const Napi::CallbackInfo& info) {
  Napi::Object counts = Napi::Object::New(info.Env());
  counts.Set("hostWaits", static_cast<double>(emulator::host_waits()));
  counts.Set("deviceMemory", static_cast<double>(emulator::device_memory()));
  counts.Set("kernels", static_cast<double>(emulator::launches()));
  return counts;
}
#endif

}  // namespace

ArrayView find_device_array(Napi::Env env, napi_value value) {
  const auto* found = find<DeviceBlock>(env, value);
  if (found == nullptr) return {};
  const DeviceBlock& block = *alive(env, *found);
  return {block.data(), block.bytes(), block.device() + 1};
}

std::shared_ptr<void> choose_queue(Napi::Env env, std::span<const napi_value> arguments, Evaluation& call) {
  const auto queue = queue_of(env, call.device - 1, arguments.size() > kStream ? arguments[kStream] : nullptr);
  call.queue = queue.get();
  return queue;
}

std::function<void()> launch_on_device(Napi::Env env, std::span<const napi_value> arguments, Evaluation& call) {
  const auto queue = call.queue->shared_from_this();
  const Resident& resident = call.resident;
  const auto use = [&](bool is_resident, Array array, DeviceBlock::Use use) {
    if (is_resident) read<DeviceBlock>(env, arguments[array])->use_in(queue, use);
  };
  use(resident.input, kInput, DeviceBlock::Use::reads);
  use(resident.indices, kIndices, DeviceBlock::Use::reads);
  use(resident.dense, kDense, DeviceBlock::Use::reads);
  use(resident.grad_outputs, kGradOutputs, DeviceBlock::Use::reads);
  use(resident.weight, kWeight, DeviceBlock::Use::reads);
  use(resident.pos_weight, kPosWeight, DeviceBlock::Use::reads);
  use(resident.constants, kConstants, DeviceBlock::Use::reads);
  use(resident.grad, kGrad, DeviceBlock::Use::writes);
  use(resident.output, kOutput, DeviceBlock::Use::writes);
  const auto launched = std::make_shared<Launched>(call, *queue);
  if (resident.indices) launched->keep(read<DeviceBlock>(env, arguments[kIndices]));
  if (call.output != nullptr) read<DeviceBlock>(env, arguments[kOutput])->launched = launched;
  return [launched] { launched->value(); };
}

void export_device_arrays(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) {
    exports.Set(name, Napi::Function::New(env, guarded(function), name));
  };
  add("allocateDevice", allocate);
  add("freeDevice", free);
  add("shareDevice", share);
  add("openDevice", open);
  add("borrowDevice", borrow);
  add("addressOfDevice", address);
  add("copyDevice", copy);
  add("copyDeviceAsync", copy_async);
  add("createStream", create_queue);
  add("synchronizeStream", synchronize_stream);
  add("synchronizeStreamAsync", synchronize_stream_async);
  add("createEvent", make_event);
  add("recordEvent", record_event);
  add("waitForEvent", wait_for_event);
  add("eventHasCome", event_has_come);
  add("synchronizeEvent", synchronize_event);
  add("synchronizeEventAsync", synchronize_event_async);
  add("elapsedTime", event_elapsed);
#ifdef SURPRISAL_CUDA_EMULATED
  add("emulatorCounts", emulator_counts);
#endif
}

}  // namespace surprisal
