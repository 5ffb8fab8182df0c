#include "arguments.h"

#include <cmath>
#include <iterator>
#include <string_view>

#include "device_arrays.h"

namespace surprisal {
namespace {

/** Slots of a call's header; binding.d.ts says what each holds. */
enum Slot {
  kLoss,
  kDType,
  kReduction,
  kDivisor,
  kOuter,
  kInner,
  kClasses,
  kInputOuterStride,
  kInputInnerStride,
  kInputClassStride,
  kGradOuterStride,
  kGradInnerStride,
  kGradClassStride,
  kIndicesDType,
  kIgnoreIndex,
  kDenseDType,
  kDenseOuterStride,
  kDenseInnerStride,
  kDenseClassStride,
  kDenseByIndex,
  kWeightRowStride,
  kWeightClassStride,
  kPosWeightRowStride,
  kPosWeightClassStride,
  kGradOutput,
  kDevice,
  kRanks,
  kBins,
  kParameter0,
  kSlotCount = kParameter0 + kMaxParameters,
};

constexpr double kLargestInteger = 9007199254740992.0;  // 2^53

Napi::Error coded(Napi::Error error, const char* code) {
  error.Set("code", Napi::String::New(error.Env(), code));
  return error;
}

[[noreturn]] void refuse(Napi::Env env, const std::string& message) {
  throw coded(Napi::RangeError::New(env, message), "ERR_SHAPE");
}

[[noreturn]] void refuse_number(Napi::Env env, double value, int64_t least, const char* name) {
  refuse(env, std::string("expected an integer of at least ") + std::to_string(least) + " for " + name + ", got " +
                  std::to_string(value));
}

int64_t to_integer(Napi::Env env, double value, int64_t least, const char* name) {
  if (!(value >= static_cast<double>(least) && value < kLargestInteger)) refuse_number(env, value, least, name);
  const auto integer = static_cast<int64_t>(value);
  if (static_cast<double>(integer) != value) refuse_number(env, value, least, name);
  return integer;
}

Strides read_strides(Napi::Env env, const double* header, int slot) {
  return {to_integer(env, header[slot], 0, "a stride"), to_integer(env, header[slot + 1], 0, "a stride"),
          to_integer(env, header[slot + 2], 0, "a stride")};
}

/** Elements from the first to the last of outer × inner × classes ones; throws where that passes 2^53. */
int64_t extent(Napi::Env env, const Evaluation& call, const Strides& strides) {
  const double last = static_cast<double>(call.outer - 1) * static_cast<double>(strides.outer) +
                      static_cast<double>(call.inner - 1) * static_cast<double>(strides.inner) +
                      static_cast<double>(call.classes - 1) * static_cast<double>(strides.classes);
  return to_integer(env, last, 0, "the extent of a tensor") + 1;
}

/** Elements that a factor reaches: rows × classes under its two strides. */
int64_t factor_extent(Napi::Env env, const Evaluation& call, int64_t row_stride, int64_t class_stride) {
  Evaluation flat;
  flat.outer = call.rows();
  flat.classes = call.classes;
  return extent(env, flat, {row_stride, 0, class_stride});
}

[[noreturn]] void refuse_type(Napi::Env env, const char* name) {
  throw coded(Napi::TypeError::New(env, std::string("expected a typed array for ") + name), "ERR_DTYPE");
}

/** Memory of a typed array, none of undefined. An array's type is not asked for first: each question takes time. */
ArrayView find_array(Napi::Env env, napi_value value, const char* name) {
  // Node 20 leaves the type of a Float16Array unwritten, and node-addon-api has no size for it.
  auto type = static_cast<napi_typedarray_type>(-1);
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok) {
    napi_valuetype other = napi_null;
    napi_typeof(env, value, &other);
    if (other == napi_undefined) return {};
    const ArrayView array = find_device_array(env, value);
    if (array.data == nullptr) refuse_type(env, name);
    return array;
  }
  constexpr uint8_t kSizes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  const size_t size = static_cast<size_t>(type) < std::size(kSizes) ? kSizes[type] : 2;
  if (length == 0 || data == nullptr) {
    throw coded(Napi::TypeError::New(env, std::string(name) + ": its buffer is empty or detached"), "ERR_DISPOSED");
  }
  return {data, length * size};
}

}  // namespace

const std::vector<const char*> kFieldNames = {
    "loss",
    "dtype",
    "reduction",
    "divisor",
    "outer",
    "inner",
    "classes",
    "inputOuterStride",
    "inputInnerStride",
    "inputClassStride",
    "gradOuterStride",
    "gradInnerStride",
    "gradClassStride",
    "indicesDtype",
    "ignoreIndex",
    "denseDtype",
    "denseOuterStride",
    "denseInnerStride",
    "denseClassStride",
    "denseByIndex",
    "weightRowStride",
    "weightClassStride",
    "posWeightRowStride",
    "posWeightClassStride",
    "gradOutput",
    "device",
    "ranks",
    "bins",
    "parameter0",
    "parameter1",
    "parameter2",
    "parameter3",
    "parameter4",
    "parameter5",
};

ArrayView read_array(Napi::Env env, napi_value value, const char* name) {
  const ArrayView array = find_array(env, value, name);
  if (array.data == nullptr || array.device != kCpu) refuse_type(env, name);
  return array;
}

void check_length(Napi::Env env, const ArrayView& array, int64_t count, int element_size, const char* name) {
  const auto bytes = static_cast<double>(count) * element_size;
  if (static_cast<double>(array.bytes) < bytes) {
    refuse(env, std::string(name) + ": expected at least " + std::to_string(count) + " elements of " +
                    std::to_string(element_size) + " bytes, got " + std::to_string(array.bytes) + " bytes");
  }
}

DType read_dtype(Napi::Env env, double code, int count, const char* name) {
  if (!(code >= 0 && code < count)) {
    throw coded(Napi::TypeError::New(env, std::string("unexpected dtype for ") + name), "ERR_DTYPE");
  }
  return static_cast<DType>(static_cast<int>(code));
}

Evaluation read_evaluation(Napi::Env env, std::span<const napi_value> arguments, const Backend& backend) {
  if (arguments.size() <= kInput) refuse(env, "expected a header and an input");
  const ArrayView header_array = read_array(env, arguments[kHeader], "the header");
  check_length(env, header_array, kSlotCount, sizeof(double), "the header");
  const double* header = static_cast<const double*>(header_array.data);

  Evaluation call;
  call.loss = static_cast<int>(to_integer(env, header[kLoss], 0, "loss"));
  const int reduction = static_cast<int>(to_integer(env, header[kReduction], 0, "reduction"));
  if (call.loss >= backend.loss_count || reduction >= kReductionCount) refuse(env, "unknown loss or reduction");
  const LossInfo& loss = backend.losses[call.loss];
  const std::string_view kind = loss.kind;
  call.dtype = read_dtype(env, header[kDType], kFloatDTypeCount, "input");
  call.reduction = static_cast<Reduction>(reduction);
  call.divisor = header[kDivisor];
  call.outer = to_integer(env, header[kOuter], 1, "outer");
  call.inner = to_integer(env, header[kInner], 1, "inner");
  call.classes = to_integer(env, header[kClasses], 1, "classes");
  to_integer(env, header[kOuter] * header[kInner] * header[kClasses], 1, "the number of elements");
  std::copy_n(header + kParameter0, kMaxParameters, call.parameters);
  call.input_strides = read_strides(env, header, kInputOuterStride);
  call.grad_output = header[kGradOutput];
  call.device = static_cast<int>(to_integer(env, header[kDevice], kCpu, "device"));

  const int size = element_size(call.dtype);
  const int compute_size = call.dtype == DType::float64 ? 8 : 4;
  Resident& resident = call.resident;
  /** An argument's memory, which is where the call is computed, or the host's. */
  const auto find = [&](Array array, const char* name, bool& is_resident) {
    const ArrayView view = array < arguments.size() ? find_array(env, arguments[array], name) : ArrayView{};
    is_resident = view.device != kCpu;
    const bool may_be = array == kInput ? view.device == call.device : resident.input && view.device == call.device;
    if (is_resident && !may_be) refuse(env, std::string(name) + ": expected memory of the device that the input is on");
    return view;
  };
  const auto checked = [&](const ArrayView& array, int64_t count, int element_size, const char* name) {
    check_length(env, array, count, element_size, name);
    return array.data;
  };

  const ArrayView input = find(kInput, "input", resident.input);
  if (input.data == nullptr) refuse_type(env, "input");
  call.input = checked(input, extent(env, call, call.input_strides), size, "input");
  int64_t units = call.rows();
  if (kind == "row_group") {
    const int64_t splits = to_integer(env, call.parameters[0], 1, "numSplits");
    if (units % splits != 0) refuse(env, "numSplits does not divide the rows");
    units /= splits;
  }
  if (const ArrayView indices = find(kIndices, "target", resident.indices); indices.data != nullptr) {
    call.indices_dtype = read_dtype(env, header[kIndicesDType], kDTypeCount, "target");
    if (static_cast<int>(call.indices_dtype) < kFloatDTypeCount) {
      throw coded(Napi::TypeError::New(env, "expected class indices of an integer dtype"), "ERR_DTYPE");
    }
    call.indices = checked(indices, units, element_size(call.indices_dtype), "target");
    call.has_ignore_index = !std::isnan(header[kIgnoreIndex]);
    if (call.has_ignore_index) call.ignore_index = static_cast<int64_t>(header[kIgnoreIndex]);
  }
  if (const ArrayView dense = find(kDense, "target", resident.dense); dense.data != nullptr) {
    call.dense_dtype = read_dtype(env, header[kDenseDType], kFloatDTypeCount, "target");
    call.dense_strides = read_strides(env, header, kDenseOuterStride);
    call.dense_by_index = header[kDenseByIndex] != 0;
    Evaluation shape = call;
    if (call.dense_by_index) {
      shape.outer = call.classes;
      shape.inner = 1;
    }
    const int element = element_size(call.dense_dtype);
    call.dense = checked(dense, extent(env, shape, call.dense_strides), element, "target");
  }
  if (call.indices == nullptr && (call.dense == nullptr || call.dense_by_index) && kind != "row_map") {
    refuse(env, "expected a target");
  }
  if (const ArrayView constants = find(kConstants, "constants", resident.constants); constants.data != nullptr) {
    call.constants = static_cast<const double*>(checked(constants, call.classes, sizeof(double), "constants"));
  }
  if (const ArrayView weight = find(kWeight, "weight", resident.weight); weight.data != nullptr) {
    call.weight_row_stride = to_integer(env, header[kWeightRowStride], 0, "a stride");
    call.weight_class_stride = to_integer(env, header[kWeightClassStride], 0, "a stride");
    call.weight = checked(weight, factor_extent(env, call, call.weight_row_stride, call.weight_class_stride),
                          compute_size, "weight");
  }
  if (const ArrayView pos_weight = find(kPosWeight, "posWeight", resident.pos_weight); pos_weight.data != nullptr) {
    call.pos_weight_row_stride = to_integer(env, header[kPosWeightRowStride], 0, "a stride");
    call.pos_weight_class_stride = to_integer(env, header[kPosWeightClassStride], 0, "a stride");
    call.pos_weight =
        checked(pos_weight, factor_extent(env, call, call.pos_weight_row_stride, call.pos_weight_class_stride),
                compute_size, "posWeight");
  }
  const int64_t outputs = call.reduction != Reduction::none ? 1
                          : kind == "elementwise"           ? call.rows() * call.classes
                                                            : call.rows();
  if (const ArrayView each = find(kGradOutputs, "gradOutput", resident.grad_outputs); each.data != nullptr) {
    call.grad_outputs = checked(each, outputs, compute_size, "gradOutput");
  }
  if (const ArrayView output = find(kOutput, "output", resident.output); output.data != nullptr) {
    call.output = checked(output, outputs, compute_size, "output");
  }
  if (const ArrayView grad = find(kGrad, "grad", resident.grad); grad.data != nullptr) {
    call.grad_strides = read_strides(env, header, kGradOuterStride);
    call.grad = checked(grad, extent(env, call, call.grad_strides), size, "grad");
  }
  const bool is_map = kind == "row_map", needs_output = call.reduction == Reduction::none || resident.input;
  if (is_map ? call.grad == nullptr : needs_output && call.output == nullptr) {
    refuse(env, "expected memory for the result");
  }
  if (resident.input && ((call.grad != nullptr && !resident.grad) || (call.output != nullptr && !resident.output))) {
    refuse(env, "expected memory for the results on the device that the input is on");
  }
  bool on_device = false;
  if (const ArrayView words = find(kStatistics, "statistics", on_device); words.data != nullptr) {
    if (std::string_view(loss.name) != "cross_entropy" || call.indices == nullptr || call.dense != nullptr ||
        call.weight != nullptr || call.parameters[0] != 0 || call.reduction == Reduction::none ||
        call.grad != nullptr || call.device != kCpu) {
      refuse(env,
             "statistics are those of plain cross entropy of class indices, reduced, without a gradient, on the CPU");
    }
    constexpr int64_t kMostClasses = int64_t{1} << 24;  // they are numbered in the compute dtype
    if (call.classes > kMostClasses) refuse(env, "too many classes for statistics");
    StatisticsLayout& layout = call.statistics.layout;
    layout.classes = call.classes;
    layout.rank_count = to_integer(env, header[kRanks], 0, "ranks");
    layout.bin_count = to_integer(env, header[kBins], 1, "bins");
    to_integer(env, header[kRanks] + header[kBins], 1, "ranks and bins");
    call.statistics.words = static_cast<double*>(checked(words, layout.size(), sizeof(double), "statistics"));
    if (const ArrayView confusion = find(kConfusion, "confusion", on_device); confusion.data != nullptr) {
      const int64_t cells = to_integer(env, header[kClasses] * header[kClasses], 1, "the confusion matrix");
      call.statistics.confusion = static_cast<double*>(checked(confusion, cells, sizeof(double), "confusion"));
    }
  }
  return call;
}

Napi::Value loss_value(Napi::Env env, const Evaluation& call, double loss) {
  if (call.reduction == Reduction::none || call.resident.input) return env.Undefined();
  return Napi::Number::New(env, loss);
}

Napi::Error to_error(Napi::Env env, const std::exception& exception) {
  if (const auto* error = dynamic_cast<const CodedError*>(&exception)) {
    return coded(Napi::RangeError::New(env, error->what()), error->code);
  }
  if (dynamic_cast<const Aborted*>(&exception)) return coded(Napi::Error::New(env, exception.what()), "ERR_ABORTED");
  if (dynamic_cast<const DeviceError*>(&exception)) return coded(Napi::Error::New(env, exception.what()), "ERR_CUDA");
  if (dynamic_cast<const std::bad_alloc*>(&exception)) {
    return coded(Napi::Error::New(env, "out of memory for a call's scratch space; use smaller batches"),
                 "ERR_OUT_OF_MEMORY");
  }
  return Napi::Error::New(env, exception.what());
}

}  // namespace surprisal
