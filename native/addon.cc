// The exports that binding.d.ts types, and nothing else.

#include <napi.h>

#include "arguments.h"
#include "cpu/cpu.h"
#include "cpu/thread_pool.h"

namespace surprisal {
namespace {

/** Runs f, with native exceptions turned into JavaScript's. */
template <class F>
auto translated(Napi::Env env, F&& f) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& exception) {
    throw to_error(env, exception);
  }
}

void evaluate(const Napi::CallbackInfo& info) {
  const Backend& backend = cpu_backend();
  const Evaluation call = read_evaluation(info, 0, backend);
  translated(info.Env(), [&] { backend.evaluate(call); });
}

/** A call on a thread of libuv, which shares the pool's with every other call. */
class EvaluateWorker : public Napi::AsyncWorker {
 public:
  EvaluateWorker(const Napi::CallbackInfo& info, const Backend& backend)
      : AsyncWorker(info.Env(), "surprisal.evaluate"),
        backend_(backend),
        deferred_(Napi::Promise::Deferred::New(info.Env())),
        call_(read_evaluation(info, 1, backend)) {
    if (!info[0].IsUndefined()) {
      const ArrayView cancel = read_array(info.Env(), info[0], "cancel");
      check_length(info.Env(), cancel, 1, sizeof(int32_t), "cancel");
      static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t));
      call_.cancelled = static_cast<const std::atomic<int32_t>*>(cancel.data);
    }
    // The arrays live as long as the work.
    Napi::Array arrays = Napi::Array::New(info.Env(), info.Length());
    for (uint32_t i = 0; i < info.Length(); ++i) arrays.Set(i, info[i]);
    arrays_ = Napi::Persistent(arrays.As<Napi::Object>());
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      backend_.evaluate(call_);
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  void OnOK() override {
    if (!error_) return deferred_.Resolve(Env().Undefined());
    try {
      std::rethrow_exception(error_);
    } catch (const std::exception& exception) {
      deferred_.Reject(to_error(Env(), exception).Value());
    }
  }

 private:
  const Backend& backend_;
  Napi::Promise::Deferred deferred_;
  Evaluation call_;
  Napi::ObjectReference arrays_;
  std::exception_ptr error_;
};

Napi::Value evaluate_async(const Napi::CallbackInfo& info) {
  auto* worker = new EvaluateWorker(info, cpu_backend());  // deletes itself
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

Napi::Value negative_entropy(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const ArrayView matrix = read_array(env, info[0], "matrix");
  const DType dtype = read_dtype(env, info[1].ToNumber().DoubleValue(), kFloatDTypeCount, "matrix");
  const int64_t rows = info[2].ToNumber().Int64Value(), classes = info[3].ToNumber().Int64Value();
  check_length(env, matrix, rows * classes, kDTypeSizes[static_cast<int>(dtype)], "matrix");
  Napi::Float64Array result = Napi::Float64Array::New(env, rows);
  cpu_backend().negative_entropy(matrix.data, dtype, rows, classes, result.Data());
  return result;
}

void convert(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const DType source_dtype = read_dtype(env, info[1].ToNumber().DoubleValue(), kFloatDTypeCount, "source");
  const DType target_dtype = read_dtype(env, info[3].ToNumber().DoubleValue(), kFloatDTypeCount, "target");
  const ArrayView source = read_array(env, info[0], "source"), target = read_array(env, info[2], "target");
  const int source_size = kDTypeSizes[static_cast<int>(source_dtype)];
  const auto count = static_cast<int64_t>(source.bytes / source_size);
  check_length(env, target, count, kDTypeSizes[static_cast<int>(target_dtype)], "target");
  cpu_backend().convert(source.data, source_dtype, target.data, target_dtype, count);
}

template <class List, class Make>
Napi::Array array_of(Napi::Env env, const List& list, Make&& make) {
  Napi::Array array = Napi::Array::New(env);
  uint32_t i = 0;
  for (const auto& item : list) array.Set(i++, make(item));
  return array;
}

Napi::Array describe_losses(Napi::Env env, const Backend& backend) {
  const std::vector<LossInfo> infos(backend.losses, backend.losses + backend.loss_count);
  return array_of(env, infos, [&](const LossInfo& info) {
    const std::vector<const char*> names(info.parameters, info.parameters + info.parameter_count);
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", info.name);
    entry.Set("kind", info.kind);
    entry.Set("parameters", array_of(env, names, [&](const char* name) { return Napi::String::New(env, name); }));
    return entry;
  });
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  const auto string = [&](const auto& text) { return Napi::String::New(env, text); };
  exports.Set("fields", array_of(env, kFieldNames, string));
  exports.Set("dtypes", array_of(env, kDTypeNames, string));
  exports.Set("reductions", array_of(env, kReductionNames, string));
  exports.Set("losses", describe_losses(env, cpu_backend()));
  exports.Set("evaluate", Napi::Function::New(env, evaluate));
  exports.Set("evaluateAsync", Napi::Function::New(env, evaluate_async));
  exports.Set("negativeEntropy", Napi::Function::New(env, negative_entropy));
  exports.Set("convert", Napi::Function::New(env, convert));
  exports.Set("instructionSets", array_of(env, instruction_sets(), string));
  exports.Set("getInstructionSet", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                return Napi::String::New(info.Env(), current_instruction_set());
              }));
  exports.Set("setInstructionSet", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                const std::string name = info[0].ToString();
                if (!use_instruction_set(name)) {
                  throw Napi::RangeError::New(info.Env(), "no instruction set '" + name + "' here");
                }
              }));
  exports.Set("getNumThreads", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                return Napi::Number::New(info.Env(), ThreadPool::instance().threads());
              }));
  exports.Set("setNumThreads", Napi::Function::New(env, [](const Napi::CallbackInfo& info) {
                ThreadPool::instance().set_threads(info[0].ToNumber().Int32Value());
              }));
  return exports;
}

}  // namespace
}  // namespace surprisal

static Napi::Object init(Napi::Env env, Napi::Object exports) { return surprisal::initialise(env, exports); }

NODE_API_MODULE(surprisal, init)
