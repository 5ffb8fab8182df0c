// Calls off the event loop: their parts run on the pool's threads and no thread waits for them. Where one has ended,
// the event loop that it came from is told, and settles its promise.

#include "async.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "arguments.h"
#include "array_memory.h"
#include "cpu/thread_pool.h"
#include "device_arrays.h"
#include "devices.h"
#include "environment.h"

namespace surprisal {
namespace {

/** Work for the pool. All else happens on JavaScript's thread. */
class AsyncWork : public ThreadPool::Job {
 public:
  AsyncWork(AsyncCalls& calls, Napi::Env env, int64_t id)
      : id(id), calls_(calls), deferred_(Napi::Promise::Deferred::New(env)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void cancel() {
    cancelled_.store(1, std::memory_order_relaxed);  // for parts that are at work
    ThreadPool::instance().cancel(*this, std::make_exception_ptr(Aborted()));
  }

  void settle(Napi::Env env) {
    if (!error_) return deferred_.Resolve(result(env));
    try {
      std::rethrow_exception(error_);
    } catch (const std::exception& exception) {
      deferred_.Reject(to_error(env, exception).Value());
    }
  }

  const int64_t id;

 protected:
  virtual Napi::Value result(Napi::Env env) = 0;

  std::atomic<int32_t> cancelled_{0};

 private:
  void ended(std::exception_ptr error) noexcept override;

  AsyncCalls& calls_;
  Napi::Promise::Deferred deferred_;
  std::exception_ptr error_;
};

/** Something that is done in one go. */
class AsyncTask final : public AsyncWork {
 public:
  AsyncTask(AsyncCalls& calls, Napi::Env env, int64_t id, std::function<void()> work)
      : AsyncWork(calls, env, id), work_(std::move(work)) {}

 private:
  int64_t next_stage() override { return begun_ ? 0 : begun_ = 1; }
  void run_part(int64_t) override { work_(); }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

  const std::function<void()> work_;
  int64_t begun_ = 0;
};

/** The evaluation of a loss in the host's memory. */
class AsyncCall final : public AsyncWork {
 public:
  AsyncCall(AsyncCalls& calls, Napi::Env env, int64_t id, std::span<const napi_value> arguments,
            const Evaluation& evaluation)
      : AsyncWork(calls, env, id),
        evaluation_(evaluation),
        queue_(evaluation.device == kCpu ? nullptr : choose_queue(env, arguments, evaluation_)),
        memory_(env, arguments, evaluation_),
        computation_(backend_of(evaluation_.device).compute(evaluation_)) {
    evaluation_.cancelled = &cancelled_;
  }

 private:
  int64_t next_stage() override { return computation_->next_stage(); }
  void run_part(int64_t i) override { computation_->run_part(i); }

  Napi::Value result(Napi::Env env) override {
    memory_.write_back(env, evaluation_);
    return loss_value(env, evaluation_, computation_->value());
  }

  Evaluation evaluation_;
  const std::shared_ptr<void> queue_;
  ArrayMemory memory_;
  std::unique_ptr<Computation> computation_;
};

}  // namespace

/** The calls of an environment, that is of one thread's event loop. */
class AsyncCalls {
 public:
  explicit AsyncCalls(Napi::Env env) : env_(env) {
    // The last of the hooks: they run in the opposite order.
    napi_add_env_cleanup_hook(env, [](void* calls) { delete static_cast<AsyncCalls*>(calls); }, this);
  }

  Napi::Value evaluate(std::span<const napi_value> arguments) {
    Evaluation evaluation = read_evaluation(env_, arguments, cpu_backend());
    if (!evaluation.resident.input) return begin<AsyncCall>(arguments, evaluation);
    // Given to the device here and now, so that it comes before whatever JavaScript gives it next.
    const auto queue = choose_queue(env_, arguments, evaluation);
    return begin<AsyncTask>(launch_on_device(env_, arguments, evaluation));
  }

  /** Submits a Work of these arguments; { id, promise }. */
  template <class Work, class... Arguments>
  Napi::Object begin(Arguments&&... arguments) {
    listen();
    const int64_t id = next_id_++;
    auto& call = *calls_.emplace(id, std::make_unique<Work>(*this, env_, id, std::forward<Arguments>(arguments)...))
                      .first->second;
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
  void ended(AsyncWork& call) noexcept {
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

  void submit(AsyncWork& call) {
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
    std::vector<AsyncWork*> ended;
    {
      std::lock_guard lock(mutex_);
      ended = ended_;
      ended_.clear();
    }
    for (AsyncWork* call : ended) {
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
  std::unordered_map<int64_t, std::unique_ptr<AsyncWork>> calls_;
  int64_t next_id_ = 0;
  napi_threadsafe_function loop_ = nullptr;

  std::mutex mutex_;
  std::condition_variable idle_;
  size_t at_work_ = 0;
  std::vector<AsyncWork*> ended_;  // that are to be settled
  bool stopped_ = false;
};

namespace {

void AsyncWork::ended(std::exception_ptr error) noexcept {
  error_ = std::move(error);
  calls_.ended(*this);
}

Napi::Value evaluate_async(const Napi::CallbackInfo& info) {
  try {
    std::vector<napi_value> arguments;
    for (size_t i = 0; i < std::min(info.Length(), kArrayCount); ++i) arguments.push_back(info[i]);
    return Environment::of(info.Env()).calls->evaluate(arguments);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& exception) {
    throw to_error(info.Env(), exception);
  }
}

void cancel(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).calls->cancel(info[0].ToNumber().Int64Value());
}

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
  Environment::of(env).calls = new AsyncCalls(env);
  exports.Set("evaluateAsync", Napi::Function::New(env, evaluate_async, "evaluateAsync"));
  exports.Set("cancel", Napi::Function::New(env, cancel, "cancel"));
  exports.Set("getMemoryMode", Napi::Function::New(env, get_memory_mode));
  exports.Set("setMemoryMode", Napi::Function::New(env, set_memory_mode));
  exports.Set("transferFreesHeldMemory", Napi::Function::New(env, transfer_frees));
}

Napi::Value run_async(Napi::Env env, std::function<void()> work) {
  return Environment::of(env).calls->begin<AsyncTask>(std::move(work)).Get("promise");
}

}  // namespace surprisal
