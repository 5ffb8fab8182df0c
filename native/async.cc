// Calls off the event loop: their parts run on the pool's threads and no thread waits for them. Where one has ended,
// the event loop that it came from is told, and settles its promise.

#include "async.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "arguments.h"
#include "array_memory.h"
#include "cpu/thread_pool.h"
#include "devices.h"

namespace surprisal {
namespace {

class AsyncCalls;

/** One call. All but its computation happens on JavaScript's thread. */
class AsyncCall final : public ThreadPool::Job {
 public:
  AsyncCall(AsyncCalls& calls, Napi::Env env, int64_t id, std::span<const napi_value> arguments)
      : id(id),
        calls_(calls),
        evaluation_(read_evaluation(env, arguments, cpu_backend())),
        memory_(env, arguments, evaluation_),
        computation_(backend_of(evaluation_.device).compute(evaluation_)),
        deferred_(Napi::Promise::Deferred::New(env)) {
    evaluation_.cancelled = &cancelled_;
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

  void cancel() {
    cancelled_.store(1, std::memory_order_relaxed);  // for parts that are at work
    ThreadPool::instance().cancel(*this, std::make_exception_ptr(Aborted()));
  }

  void settle(Napi::Env env) {
    if (!error_) {
      memory_.write_back(env, evaluation_);
      return deferred_.Resolve(loss_value(env, evaluation_, computation_->value()));
    }
    try {
      std::rethrow_exception(error_);
    } catch (const std::exception& exception) {
      deferred_.Reject(to_error(env, exception).Value());
    }
  }

  const int64_t id;

 private:
  int64_t next_stage() override { return computation_->next_stage(); }
  void run_part(int64_t i) override { computation_->run_part(i); }
  void ended(std::exception_ptr error) noexcept override;

  AsyncCalls& calls_;
  std::atomic<int32_t> cancelled_{0};
  Evaluation evaluation_;
  ArrayMemory memory_;
  std::unique_ptr<Computation> computation_;
  Napi::Promise::Deferred deferred_;
  std::exception_ptr error_;
};

/** The calls of an environment, that is of one thread's event loop. */
class AsyncCalls {
 public:
  explicit AsyncCalls(Napi::Env env) : env_(env) {
    // The last of the hooks: they run in the opposite order.
    napi_add_env_cleanup_hook(env, [](void* calls) { delete static_cast<AsyncCalls*>(calls); }, this);
  }

  Napi::Value begin(const Napi::CallbackInfo& info) {
    std::vector<napi_value> arguments;
    for (size_t i = 0; i < std::min(info.Length(), kArrayCount); ++i) arguments.push_back(info[i]);
    listen();
    const int64_t id = next_id_++;
    AsyncCall& call = *calls_.emplace(id, std::make_unique<AsyncCall>(*this, env_, id, arguments)).first->second;
    Napi::Object result = Napi::Object::New(env_);
    try {
      result.Set("id", static_cast<double>(id));
      result.Set("promise", call.promise());
      submit(call);
    } catch (...) {
      calls_.erase(id);
      throw;
    }
    if (calls_.size() == 1) napi_ref_threadsafe_function(env_, loop_);
    return result;
  }

  void cancel(int64_t id) {
    if (const auto call = calls_.find(id); call != calls_.end()) call->second->cancel();
  }

  /** On any thread. */
  void ended(AsyncCall& call) noexcept {
    std::lock_guard lock(mutex_);
    ended_.push_back(&call);  // into memory that begin() reserved
    if (ended_.size() == 1 && !stopped_) napi_call_threadsafe_function(loop_, nullptr, napi_tsfn_nonblocking);
    if (--at_work_ == 0) idle_.notify_all();
  }

 private:
  /** Opens the way back to the event loop, at the first call. */
  void listen() {
    if (loop_ != nullptr) return;
    const auto on_ended = [](napi_env env, napi_value, void* calls, void*) {
      if (env != nullptr) static_cast<AsyncCalls*>(calls)->settle();
    };
    const napi_value name = Napi::String::New(env_, "surprisal.evaluate");
    const napi_status status =
        napi_create_threadsafe_function(env_, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, on_ended, &loop_);
    if (status != napi_ok) throw Napi::Error::New(env_);
    napi_unref_threadsafe_function(env_, loop_);
    // Before the hook by which Node-API closes it.
    napi_add_env_cleanup_hook(env_, [](void* calls) { static_cast<AsyncCalls*>(calls)->stop(); }, this);
  }

  void submit(AsyncCall& call) {
    {
      std::lock_guard lock(mutex_);
      ended_.reserve(calls_.size());
      ++at_work_;
    }
    try {
      ThreadPool::instance().submit(call);
    } catch (...) {
      std::lock_guard lock(mutex_);
      --at_work_;
      throw;
    }
  }

  void settle() {
    std::vector<AsyncCall*> ended;
    {
      std::lock_guard lock(mutex_);
      ended = ended_;
      ended_.clear();
    }
    for (AsyncCall* call : ended) {
      const Napi::HandleScope scope(env_);
      const auto node = calls_.extract(call->id);
      try {
        node.mapped()->settle(env_);
      } catch (const Napi::Error&) {
        // JavaScript is being stopped: nobody is there to be told.
      }
    }
    if (calls_.empty()) napi_unref_threadsafe_function(env_, loop_);
  }

  /** The environment ends: its calls with it, as soon as the parts at work have. */
  void stop() {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    for (const auto& [id, call] : calls_) call->cancel();
    {
      std::unique_lock lock(mutex_);
      idle_.wait(lock, [&] { return at_work_ == 0; });
    }
    calls_.clear();
    napi_release_threadsafe_function(loop_, napi_tsfn_release);
  }

  const Napi::Env env_;
  std::unordered_map<int64_t, std::unique_ptr<AsyncCall>> calls_;
  int64_t next_id_ = 0;
  napi_threadsafe_function loop_ = nullptr;

  std::mutex mutex_;
  std::condition_variable idle_;
  size_t at_work_ = 0;
  std::vector<AsyncCall*> ended_;  // that are to be settled
  bool stopped_ = false;
};

void AsyncCall::ended(std::exception_ptr error) noexcept {
  error_ = std::move(error);
  calls_.ended(*this);
}

AsyncCalls& calls_of(const Napi::CallbackInfo& info) { return *static_cast<AsyncCalls*>(info.Data()); }

Napi::Value evaluate_async(const Napi::CallbackInfo& info) {
  try {
    return calls_of(info).begin(info);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& exception) {
    throw to_error(info.Env(), exception);
  }
}

void cancel(const Napi::CallbackInfo& info) { calls_of(info).cancel(info[0].ToNumber().Int64Value()); }

Napi::Value get_memory_mode(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), kMemoryModeNames[static_cast<int>(memory_mode(info.Env()))]);
}

void set_memory_mode(const Napi::CallbackInfo& info) {
  const std::string name = info[0].ToString();
  const auto* found = std::find(std::begin(kMemoryModeNames), std::end(kMemoryModeNames), name);
  const auto mode = static_cast<MemoryMode>(found - std::begin(kMemoryModeNames));
  if (found == std::end(kMemoryModeNames) || !use_memory_mode(info.Env(), mode)) {
    throw Napi::RangeError::New(info.Env(), "no memory mode '" + name + "' here");
  }
}

Napi::Value transfer_frees(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), transfer_frees_held_memory(info.Env()));
}

}  // namespace

void export_async(Napi::Env env, Napi::Object exports) {
  auto* calls = new AsyncCalls(env);
  exports.Set("evaluateAsync", Napi::Function::New(env, evaluate_async, "evaluateAsync", calls));
  exports.Set("cancel", Napi::Function::New(env, cancel, "cancel", calls));
  exports.Set("getMemoryMode", Napi::Function::New(env, get_memory_mode));
  exports.Set("setMemoryMode", Napi::Function::New(env, set_memory_mode));
  exports.Set("transferFreesHeldMemory", Napi::Function::New(env, transfer_frees));
}

}  // namespace surprisal
