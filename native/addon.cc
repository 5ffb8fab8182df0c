// The exports that binding.d.ts types, and nothing else.

#include <napi.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "arguments.h"
#include "async.h"
#include "cpu/cpu.h"
#include "cpu/processors.h"
#include "cpu/tally.h"
#include "cpu/thread_pool.h"
#include "device_arrays.h"
#include "devices.h"
#include "environment.h"
#include "loss/classification.h"

namespace surprisal {
namespace {

/**
 * The one function that is called as Node-API has it: a Napi::CallbackInfo takes memory from the heap for more than six
 * arguments, which a small call would feel.
 */
napi_value evaluate(napi_env env, napi_callback_info info) {
  napi_value arguments[kArrayCount];
  size_t count = kArrayCount;
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  try {
    const std::span<const napi_value> given(arguments, std::min(count, kArrayCount));
    Evaluation call = read_evaluation(env, given, cpu_backend());
    const auto queue = call.device == kCpu ? nullptr : choose_queue(env, given, call);
    if (call.resident.input) {
      launch_on_device(env, given, call);
      return nullptr;
    }
    return loss_value(env, call, backend_of(call.device).evaluate(call));
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
  } catch (const std::exception& exception) {
    to_error(env, exception).ThrowAsJavaScriptException();
  }
  return nullptr;
}

Napi::Value negative_entropy(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const ArrayView matrix = read_array(env, info[0], "matrix");
  const DType dtype = read_dtype(env, info[1].ToNumber().DoubleValue(), kFloatDTypeCount, "matrix");
  const int64_t rows = info[2].ToNumber().Int64Value(), classes = info[3].ToNumber().Int64Value();
  check_length(env, matrix, rows * classes, element_size(dtype), "matrix");
  Napi::Float64Array result = Napi::Float64Array::New(env, rows);
  cpu_backend().negative_entropy(matrix.data, dtype, rows, classes, result.Data());
  return result;
}

void convert(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const DType source_dtype = read_dtype(env, info[1].ToNumber().DoubleValue(), kFloatDTypeCount, "source");
  const DType target_dtype = read_dtype(env, info[3].ToNumber().DoubleValue(), kFloatDTypeCount, "target");
  const ArrayView source = read_array(env, info[0], "source"), target = read_array(env, info[2], "target");
  const int source_size = element_size(source_dtype);
  const auto count = static_cast<int64_t>(source.bytes / source_size);
  check_length(env, target, count, element_size(target_dtype), "target");
  cpu_backend().convert(source.data, source_dtype, target.data, target_dtype, count);
}

Napi::Value processors(const Napi::CallbackInfo& info) {
  const Processors found = info[0].IsUndefined() ? read_processors() : read_processors(info[0].ToString());
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("allowed", found.allowed);
  result.Set("quota", found.quota);
  result.Set("threads", found.threads());
  return result;
}

Napi::Value statistics_layout(const Napi::CallbackInfo& info) {
  const auto whole = [&](size_t i) { return info[i].ToNumber().Int64Value(); };
  const StatisticsLayout layout{whole(0), whole(1), whole(2)};
  const std::pair<const char*, int64_t> parts[] = {
      {"ignored", layout.ignored},     {"undefined", layout.undefined},
      {"uncarried", layout.uncarried}, {"brier", layout.brier},
      {"entropy", layout.entropy},     {"ranks", layout.ranks},
      {"bins", layout.bins()},         {"binWords", layout.kBinWords},
      {"labels", layout.labels()},     {"labelWords", layout.kLabelWords},
      {"size", layout.size()},         {"digits", kDigits},
      {"digitBits", kDigitBits},       {"digitsExponent", kDigitsExponent}};
  Napi::Object result = Napi::Object::New(info.Env());
  for (const auto& [name, value] : parts) result.Set(name, static_cast<double>(value));
  return result;
}

void add_terms(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const ArrayView terms = read_array(env, info[0], "terms"), words = read_array(env, info[2], "words");
  const DType dtype = read_dtype(env, info[1].ToNumber().DoubleValue(), 2, "terms");  // float32 or float64
  check_length(env, words, kDigits + 3, sizeof(double), "words");
  const auto count = static_cast<int64_t>(terms.bytes / element_size(dtype));
  add_terms(terms.data, dtype, count, static_cast<double*>(words.data));
}

template <class List, class Make>
Napi::Array array_of(Napi::Env env, const List& list, Make&& make) {
  Napi::Array array = Napi::Array::New(env);
  uint32_t i = 0;
  for (const auto& item : list) array.Set(i++, make(item));
  return array;
}

/** What CUDA finds, asked for when it is wanted: the driver is loaded only then. */
Napi::Value cuda(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const CudaDevices& found = cuda_devices();
  Napi::Object result = Napi::Object::New(env);
  result.Set("devices", array_of(env, found.devices, [&](const CudaDevice& device) {
               Napi::Object entry = Napi::Object::New(env);
               entry.Set("name", device.name);
               entry.Set("memory", device.memory);
               entry.Set("capability", device.capability);
               return entry;
             }));
  if (!found.unavailable.empty()) result.Set("unavailable", found.unavailable);
  return result;
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
  napi_value evaluate_function = nullptr;
  napi_create_function(env, "evaluate", NAPI_AUTO_LENGTH, evaluate, nullptr, &evaluate_function);
  exports.Set("evaluate", evaluate_function);
  Environment::create(env);
  export_async(env, exports);
  export_device_arrays(env, exports);
  exports.Set("negativeEntropy", Napi::Function::New(env, negative_entropy));
  exports.Set("statisticsLayout", Napi::Function::New(env, statistics_layout));
  exports.Set("addTerms", Napi::Function::New(env, add_terms));
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
  exports.Set("cuda", Napi::Function::New(env, cuda));
  exports.Set("processors", Napi::Function::New(env, processors));
  if (const auto& asked = default_threads().ignored; !asked.empty()) exports.Set("ignoredNumThreads", string(asked));
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
