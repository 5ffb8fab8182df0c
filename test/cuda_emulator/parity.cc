// The CUDA kernels against the CPU backend: every registered loss at shapes that reach every driver and every tail,
// with every layout; bit by bit the same wherever a row stands. On the emulator, where the bytes that kernels move are
// counted too (`npm run test:emulated`), or on a GPU (scripts/gpu_run.sh).
//
//   cuda_parity [--quick] [part of a test's name]
//
// --quick takes one dtype of each size and fewer shapes, for tools that slow kernels down a hundred times.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "../../native/cuda/cuda.h"
#include "../../native/cuda/kernels.h"
#include "../../native/cuda/runtime.h"
#ifdef SURPRISAL_CUDA_EMULATED
#include "emulator.h"
#endif

namespace surprisal {
namespace {

int failures = 0, checks = 0;
bool quick = false;
std::string context;

void fail(const char* format, auto... values) {
  if (++failures > 40) return;
  std::printf("  FAILED %s: ", context.c_str());
  std::printf(format, values...);
  std::printf("\n");
}

void expect(bool holds, const char* what) {
  ++checks;
  if (!holds) fail("%s", what);
}

int loss_named(const std::string& name) {
  const Backend& backend = cpu_backend();
  for (int i = 0; i < backend.loss_count; ++i) {
    if (backend.losses[i].name == name) return i;
  }
  std::abort();
}

/** An array of one dtype, with as many elements before its first as `offset`, so that its address is what is asked. */
class Array {
 public:
  Array() = default;
  Array(DType dtype, int64_t count, const std::function<double(int64_t)>& value) : dtype_(dtype), count_(count) {
    std::vector<double> numbers(count);
    for (int64_t i = 0; i < count; ++i) numbers[i] = value(i);
    bytes_.resize(count * size());
    cpu_backend().convert(numbers.data(), DType::float64, bytes_.data(), dtype, count);
  }

  void* data() { return bytes_.empty() ? nullptr : bytes_.data(); }
  size_t size() const { return kDTypeSizes[static_cast<int>(dtype_)]; }
  std::vector<double> numbers() const {
    std::vector<double> numbers(count_);
    cpu_backend().convert(bytes_.data(), dtype_, numbers.data(), DType::float64, count_);
    return numbers;
  }
  Array as(DType dtype) const {
    const std::vector<double> values = numbers();
    return Array(dtype, count_, [&](int64_t i) { return values[i]; });
  }
  bool empty() const { return bytes_.empty(); }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  DType dtype_ = DType::float32;
  int64_t count_ = 0;
  std::vector<char> bytes_;
};

/** A call with the arrays that it reads and writes. */
struct Case {
  Evaluation call;
  Array input, dense, weight, pos_weight, constants, grad_outputs, output, grad;
  std::vector<int64_t> labels;

  /** The evaluation over these very arrays. */
  Evaluation& bind() {
    call.input = input.data();
    call.dense = dense.data();
    call.weight = weight.data();
    call.pos_weight = pos_weight.data();
    call.constants = static_cast<const double*>(constants.data());
    call.grad_outputs = grad_outputs.data();
    call.output = output.data();
    call.grad = grad.data();
    call.indices = labels.empty() ? nullptr : labels.data();
    call.indices_dtype = DType::int64;
    return call;
  }

  /** The same in float64. */
  Case wide() const {
    Case result = *this;
    result.call.dtype = DType::float64;
    result.input = input.as(DType::float64);
    if (!dense.empty()) result.dense = dense.as(DType::float64), result.call.dense_dtype = DType::float64;
    for (Array Case::* array : {&Case::weight, &Case::pos_weight, &Case::grad_outputs, &Case::output, &Case::grad}) {
      if (!(this->*array).empty()) result.*array = (this->*array).as(DType::float64);
    }
    return result;
  }
};

/** What calls are to be planned for, where it is less than what the device has. */
std::optional<DeviceLimits> limits;

/** A case's arrays on the device, each of exactly its size. */
class OnDevice {
 public:
  explicit OnDevice(Case& c) : case_(c), call_(c.bind()) {
    call_.input = upload(c.input);
    call_.dense = upload(c.dense);
    call_.weight = upload(c.weight);
    call_.pos_weight = upload(c.pos_weight);
    call_.constants = static_cast<const double*>(upload(c.constants));
    call_.grad_outputs = upload(c.grad_outputs);
    call_.output = upload(c.output);
    call_.grad = upload(c.grad);
    if (!c.labels.empty()) call_.indices = upload(c.labels.data(), c.labels.size() * sizeof(int64_t));
  }

  /** Evaluates it, and brings the results to the case's own arrays. */
  Outcome run() {
    const DeviceLimits planned = limits.value_or(device_limits());
    const DeviceMemory workspace(workspace_bytes(call_, planned), nullptr), place(sizeof(Outcome), nullptr);
    zero_device(place.get(), sizeof(Outcome), nullptr);
    zero_device(workspace.get(), kTicketBytes, nullptr);
    enqueue(call_, planned, static_cast<Outcome*>(place.get()), workspace.get(), nullptr);
    Outcome outcome;
    copy_to_host(&outcome, place.get(), sizeof(outcome), nullptr);
    download(case_.output, call_.output);
    download(case_.grad, call_.grad);
    synchronize(Stream{});
    return outcome;
  }

 private:
  void* upload(const void* data, size_t bytes) {
    memory_.emplace_back(bytes, nullptr);
    copy_to_device(memory_.back().get(), data, bytes, nullptr);
    return memory_.back().get();
  }
  void* upload(Array& array) { return array.empty() ? nullptr : upload(array.data(), array.bytes().size()); }
  static void download(Array& array, const void* from) {
    if (!array.empty()) copy_to_host(array.data(), from, array.bytes().size(), nullptr);
  }

  Case& case_;
  Evaluation call_;
  std::vector<DeviceMemory> memory_;
};

/** The backend's own way from host memory, unless calls are to be planned for less. */
double evaluate(Case& c) {
  if (!limits) return cuda_backend().evaluate(c.bind());
  const Outcome outcome = OnDevice(c).run();
  check_labels(c.call, outcome);
  return outcome.value;
}

const char* dtype_name(DType dtype) { return kDTypeNames[static_cast<int>(dtype)]; }

/** What a result may be off by, of itself and in all. */
struct Tolerance {
  double relative, absolute;
};

void expect_near(const char* what, const std::vector<double>& got, const std::vector<double>& truth, Tolerance t) {
  ++checks;
  for (size_t i = 0; i < got.size(); ++i) {
    const bool both_nan = got[i] != got[i] && truth[i] != truth[i];
    const bool near = std::fabs(got[i] - truth[i]) <= t.relative * std::fabs(truth[i]) + t.absolute;
    if (both_nan || got[i] == truth[i] || near) continue;
    return fail("%s[%zu]: %.9g, not %.9g: off by %.3g of itself", what, i, got[i], truth[i],
                std::fabs(got[i] / truth[i] - 1));
  }
}

/** Half a unit in the last place of a dtype, relative. */
double rounding(DType dtype) {
  return dtype == DType::float64   ? 0x1p-53
         : dtype == DType::float32 ? 0x1p-24
         : dtype == DType::float16 ? 0x1p-11
                                   : 0x1p-8;
}

/** Runs a case on the device, and in float64 on the CPU, and compares all that comes out. */
void compare(Case c) {
  Case reference = c.wide();
  double value = 0, truth = 0;
  try {
    value = evaluate(c);
    truth = cpu_backend().evaluate(reference.bind());
  } catch (const std::exception& error) {
    return fail("threw: %s", error.what());
  }
  const bool wide = c.call.dtype == DType::float64;
  // DESIGN 3: a loss is right to 4e-7 of itself in float32. In float64 the CPU's own errors are of this order.
  // The asymmetric ones take powers of differences of probabilities, which may be as small as these are wrong.
  const bool powers = std::string(cpu_backend().losses[c.call.loss].name).find("asymmetric") == 0;
  const Tolerance loss =
      wide ? Tolerance{powers ? 1e-11 : 2e-14, 1e-300} : Tolerance{powers ? 3e-6 : 4e-7, powers ? 1e-12 : 1e-37};
  // Where losses of both signs cancel, double itself ends at its last place of the terms.
  expect_near("value", {value}, {truth}, {loss.relative, wide ? 1e-15 : loss.absolute});
  if (!c.output.empty()) expect_near("output", c.output.numbers(), reference.output.numbers(), loss);
  if (!c.grad.empty()) {
    // Computed in float, within a few units of its last place of the largest terms, and then rounded once.
    const double own = wide ? (powers ? 1e-11 : 1e-13) : powers ? 3e-6 : 6e-7, once = rounding(c.call.dtype);
    // Where q is met by p, what is left is right to a unit in the last place of p: of the largest gradients', about.
    const bool cancels = c.call.dense != nullptr || c.call.parameters[0] != 0;
    double largest = 0;
    for (const double g : reference.grad.numbers()) largest = std::fmax(largest, std::isfinite(g) ? std::fabs(g) : 0);
    const double smallest = c.call.dtype == DType::float16 ? 0x1p-25 : wide ? 1e-300 : 1e-37;
    expect_near("grad", c.grad.numbers(), reference.grad.numbers(),
                {own + 1.01 * once, smallest + largest * (!cancels ? 0
                                                          : wide   ? 2e-16
                                                                   : 1.2e-7)});
  }
}

std::mt19937_64 random_bits(20251122);

double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(random_bits); }
double normal(double scale) { return std::normal_distribution<double>(0, scale)(random_bits); }
int64_t below(int64_t n) { return static_cast<int64_t>(random_bits() % static_cast<uint64_t>(n)); }

enum class Target { label, dense, lens };
enum class Layout { contiguous, padded_rows, classes_first };

struct Options {
  std::string loss = "cross_entropy";
  DType dtype = DType::float32;
  int64_t rows = 3, classes = 10;
  Target target = Target::label;
  std::vector<double> parameters = {0};
  Reduction reduction = Reduction::mean;
  Layout layout = Layout::contiguous;
  bool grad = true, weighted = false, ignored = false, grad_outputs = false;
  double spread = 3, offset = 0;
  /** The label's logit is so much larger: a confident row. */
  double confidence = 0;
  DType dense_dtype = DType::float32;
  bool in_place = false;
};

Case make(const Options& o) {
  Case c;
  c.call.loss = loss_named(o.loss);
  c.call.dtype = o.dtype;
  c.call.reduction = o.reduction;
  std::copy(o.parameters.begin(), o.parameters.end(), c.call.parameters);
  c.call.classes = o.classes;
  c.call.outer = o.rows;
  Strides strides = {o.classes, 0, 1};
  if (o.layout == Layout::padded_rows) strides = {o.classes + 3, 0, 1};
  if (o.layout == Layout::classes_first) {
    c.call.outer = 1;
    c.call.inner = o.rows;
    strides = {o.classes * o.rows, 1, o.rows};
  }
  c.call.input_strides = c.call.grad_strides = strides;
  const int64_t count =
      (c.call.outer - 1) * strides.outer + (c.call.inner - 1) * strides.inner + (o.classes - 1) * strides.classes + 1;
  const bool row_map = o.loss.find("softmax") != std::string::npos;
  const bool elementwise = std::string(cpu_backend().losses[c.call.loss].kind) == "elementwise";
  const int64_t units = o.loss == "jsd" ? o.rows / static_cast<int64_t>(o.parameters[0]) : o.rows;
  std::vector<double> logits(count, 0.5);
  for (double& z : logits) z = normal(o.spread) + o.offset;
  if (o.target != Target::dense && !row_map) {
    for (int64_t r = 0; r < units; ++r) c.labels.push_back(below(o.classes));
    for (int64_t r = 0; r < o.rows && o.confidence != 0; ++r) {
      logits[(o.layout == Layout::classes_first ? r * strides.inner : r * strides.outer) +
             c.labels[r % units] * strides.classes] += o.confidence;
    }
    if (o.ignored) {
      c.call.has_ignore_index = true;
      c.call.ignore_index = -100;
      for (int64_t r = 0; r < o.rows; r += 3) c.labels[r] = -100;
    }
  }
  c.input = Array(o.dtype, count, [&](int64_t i) { return logits[i]; });
  const DType compute = o.dtype == DType::float64 ? DType::float64 : DType::float32;
  if (o.target != Target::label || o.loss.find("backward") != std::string::npos) {
    const int64_t dense_rows = o.target == Target::lens ? o.classes : o.rows;
    c.call.dense_dtype = o.dense_dtype;
    c.call.dense_by_index = o.target == Target::lens;
    c.call.dense_strides = {o.classes, 0, 1};
    if (o.layout == Layout::classes_first && o.target != Target::lens) c.call.dense_strides = strides;
    std::vector<double> q(dense_rows * o.classes);
    for (double& x : q) x = elementwise ? below(2) : uniform(0, 2.0 / static_cast<double>(o.classes));
    if (o.loss == "log_softmax_backward") {
      for (double& x : q) x = std::log(x + 1e-9);
    }
    c.dense = Array(o.dense_dtype, dense_rows * o.classes, [&](int64_t i) { return q[i]; });
    if (c.call.dense_by_index) {
      c.constants = Array(DType::float64, o.classes, [&](int64_t) { return uniform(-1, 0); });
    }
  }
  if (o.weighted) {
    c.weight = Array(compute, o.classes, [&](int64_t) { return uniform(0.2, 2); });
    c.call.weight_class_stride = 1;
    if (elementwise) {
      c.pos_weight = Array(compute, o.classes, [&](int64_t) { return uniform(0.2, 2); });
      c.call.pos_weight_class_stride = 1;
    }
  }
  const int64_t outputs = elementwise ? o.rows * o.classes : o.rows;
  if (o.reduction == Reduction::none && !row_map) c.output = Array(compute, outputs, [](int64_t) { return 77.0; });
  if (o.grad_outputs) c.grad_outputs = Array(compute, outputs, [](int64_t) { return normal(1); });
  // What lies between its elements must stay.
  if (o.grad || row_map) c.grad = Array(o.dtype, count, [](int64_t) { return 55.0; });
  c.call.grad_output = 0.75;
  return c;
}

std::string describe(const Options& o) {
  char text[256];
  std::snprintf(text, sizeof(text), "%s %s %lldx%lld target %d parameters %g.. reduction %d layout %d%s%s%s%s",
                o.loss.c_str(), dtype_name(o.dtype), static_cast<long long>(o.rows), static_cast<long long>(o.classes),
                static_cast<int>(o.target), o.parameters[0], static_cast<int>(o.reduction), static_cast<int>(o.layout),
                o.grad ? " grad" : "", o.weighted ? " weighted" : "", o.ignored ? " ignored" : "",
                o.confidence != 0 ? " confident" : "");
  return text;
}

void compare(const Options& o) {
  context = describe(o);
  compare(make(o));
}

std::vector<DType> floats() {
  if (quick) return {DType::float32, DType::bfloat16};
  return {DType::float32, DType::float64, DType::float16, DType::bfloat16};
}

/** A device with little shared memory and no clusters, for drivers that others take longer rows to. */
const DeviceLimits kSmall = {12 * 1024, 1};
const std::optional<DeviceLimits> kLimits[] = {{}, kSmall};

/** Class counts at each edge of the lanes' and blocks' drivers, and beside multiples of 16 bytes. */
std::vector<int64_t> class_counts() {
  if (quick) return {1, 17, 512, 1021};
  return {1, 2, 3, 10, 15, 16, 17, 31, 32, 33, 64, 65, 100, 255, 256, 257, 511, 512, 513, 1000, 1021, 1024, 2049};
}

// ------------------------------------------------------------------------------------------------------------ tests

void test_linear() {
  for (const DType dtype : floats()) {
    for (const int64_t classes : class_counts()) {
      for (const double smoothing : {0.0, 0.1}) {
        compare({.dtype = dtype, .rows = 1 + below(9), .classes = classes, .parameters = {smoothing}});
      }
      compare({.dtype = dtype, .rows = 5, .classes = classes, .target = Target::dense});
    }
    for (const Layout layout : {Layout::contiguous, Layout::padded_rows, Layout::classes_first}) {
      for (const Reduction reduction : {Reduction::none, Reduction::mean, Reduction::sum}) {
        for (const int64_t classes : {7, 130, 700}) {
          Options o = {.dtype = dtype, .rows = 11, .classes = classes, .reduction = reduction, .layout = layout};
          o.grad_outputs = reduction == Reduction::none;
          o.weighted = reduction != Reduction::sum;
          o.ignored = true;
          compare(o);
          o.parameters = {0.2};
          compare(o);
          o.ignored = false;
          o.target = Target::dense;
          o.dense_dtype = classes == 7 ? dtype : DType::float32;
          compare(o);
          o.parameters = {0};
          o.weighted = false;
          compare(o);
          o.grad = false;
          compare(o);
          o.target = Target::lens;
          o.grad = true;
          compare(o);
        }
      }
    }
  }
}

void test_confident_rows() {
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    for (const int64_t classes : {10, 1000, 5000}) {
      for (const double confidence : {12.0, 30.0, 60.0}) {
        Options o = {.dtype = dtype, .rows = 4, .classes = classes, .reduction = Reduction::none, .spread = 1};
        o.confidence = confidence;
        compare(o);
        o.offset = dtype == DType::float32 ? 1e4 : 0;
        compare(o);
      }
    }
  }
}

/** Rows of clusters, on a device that has them; of two passes, on one that has not. */
void test_long_rows() {
  for (const DType dtype : floats()) {
    for (const double smoothing : {0.0, 0.1}) {
      for (const Target target : {Target::label, Target::dense}) {
        Options o = {.dtype = dtype, .rows = 3, .classes = 8193, .target = target, .parameters = {smoothing}};
        limits.reset();
        compare(o);
        o.classes = 20011;
        compare(o);
        limits = kSmall;
        compare(o);
        o.layout = Layout::classes_first;
        o.reduction = Reduction::none;
        o.weighted = o.ignored = target == Target::label;
        compare(o);
        limits.reset();
        compare(o);
        o.grad = false;
        compare(o);
      }
    }
  }
}

void test_coupled() {
  for (const DType dtype : floats()) {
    for (const int64_t classes : {int64_t{2}, int64_t{10}, int64_t{513}, int64_t{2049}, int64_t{20011}}) {
      for (const auto& asked : kLimits) {
        limits = asked;
        Options o = {.loss = "asymmetric_loss_single_label", .dtype = dtype, .rows = 3, .classes = classes};
        o.parameters = {1, 4, 0.1};
        compare(o);
        o.layout = Layout::classes_first;
        o.reduction = Reduction::none;
        o.grad_outputs = true;
        o.parameters = {2, 1.5, 0.1};
        if (classes < 10000) compare(o);
      }
    }
  }
}

void test_row_maps() {
  for (const DType dtype : floats()) {
    for (const int64_t classes : {int64_t{1}, int64_t{10}, int64_t{257}, int64_t{2049}, int64_t{20011}}) {
      for (const auto& asked : kLimits) {
        limits = asked;
        for (const char* loss : {"softmax", "log_softmax", "softmax_backward", "log_softmax_backward"}) {
          Options o = {.loss = loss, .dtype = dtype, .rows = 5, .classes = classes, .reduction = Reduction::none};
          o.dense_dtype = dtype == DType::float64 ? dtype : DType::float32;
          compare(o);
          o.layout = Layout::padded_rows;
          if (classes < 10000) compare(o);
        }
      }
    }
  }
}

void test_row_groups() {
  for (const DType dtype : floats()) {
    for (const int64_t classes : {int64_t{2}, int64_t{10}, int64_t{100}, int64_t{1000}, int64_t{9001}}) {
      for (const double splits : {2.0, 3.0, 5.0}) {
        for (const auto& asked : kLimits) {
          if (classes == 9001 && splits == 5) continue;
          limits = asked;
          Options o = {.loss = "jsd", .dtype = dtype, .rows = 4 * static_cast<int64_t>(splits), .classes = classes};
          o.parameters = {splits, 12, 0.1};
          compare(o);
          o.parameters[2] = 0;
          o.layout = classes < 1000 ? Layout::classes_first : Layout::padded_rows;
          o.grad = classes != 100;
          compare(o);
        }
      }
    }
  }
}

void test_elementwise() {
  for (const DType dtype : floats()) {
    for (const char* loss : {"binary_cross_entropy", "asymmetric_loss_multi_label", "kl_div"}) {
      for (const int64_t classes : {1, 3, 10, 64, 1021}) {
        for (const Layout layout : {Layout::contiguous, Layout::padded_rows, Layout::classes_first}) {
          const bool bce = loss[0] == 'b';
          Options o = {.loss = loss, .dtype = dtype, .rows = 9, .classes = classes};
          o.layout = layout;
          o.parameters = bce              ? std::vector<double>{0.1, NAN}
                         : loss[0] == 'a' ? std::vector<double>{4, 1, 0.05, 1e-8, 0}
                                          : std::vector<double>{0};
          if (bce) compare(o);
          o.target = Target::dense;
          o.weighted = bce;
          compare(o);
          o.reduction = Reduction::none;
          o.grad_outputs = true;
          o.dense_dtype = dtype;
          compare(o);
        }
      }
    }
  }
}

void test_gather() {
  for (const DType dtype : floats()) {
    for (const int64_t classes : {1, 10, 1021, 40000}) {
      for (const Layout layout : {Layout::contiguous, Layout::padded_rows, Layout::classes_first}) {
        Options o = {.loss = "nll", .dtype = dtype, .rows = classes > 2000 ? 3 : 300, .classes = classes};
        o.layout = layout;
        o.weighted = o.ignored = true;
        compare(o);
        o.reduction = Reduction::none;
        o.grad_outputs = true;
        compare(o);
      }
    }
  }
}

#ifdef SURPRISAL_CUDA_EMULATED
/** The bytes that a call on arrays of the device's moves, over its floor: the logits in, and the gradient out. */
void expect_floor(const Options& o, double passes) {
  context = describe(o);
  Case c = make(o);
  OnDevice on_device(c);
  emulator::take_traffic();
  on_device.run();
  const emulator::Traffic traffic = emulator::take_traffic();
  const double floor = passes * static_cast<double>(o.rows * o.classes) * static_cast<double>(c.input.size());
  const double moved = static_cast<double>(traffic.read + traffic.written);
  ++checks;
  if (moved < floor || moved > 1.02 * floor) fail("moved %.0f bytes, %.4f of the floor", moved, moved / floor);
}

/** One read, and one write of the gradient, within 2%: labels, losses and parts of sums are what comes to it. */
void test_traffic() {
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    for (const int64_t classes : {int64_t{1000}, int64_t{1021}, int64_t{4096}, int64_t{20011}, int64_t{128256}}) {
      for (const bool grad : {false, true}) {
        Options o = {.dtype = dtype, .rows = classes > 10000 ? 2 : 24, .classes = classes, .grad = grad};
        expect_floor(o, 1 + grad);
        o.parameters = {0.1};
        expect_floor(o, 1 + grad);
        o.loss = "asymmetric_loss_single_label";
        o.parameters = {1, 4, 0.1};
        if (classes < 100000) expect_floor(o, 1 + grad);
        o.loss = "jsd";
        o.rows = 12;
        o.parameters = {3, 12, 0.1};
        if (classes < 100000) expect_floor(o, 1 + grad);
      }
      Options o = {.loss = "softmax", .dtype = dtype, .rows = 8, .classes = classes, .reduction = Reduction::none};
      if (classes < 100000) expect_floor(o, 2);
      // A dense target of the logits' dtype is as much again; a soft target is read once, too.
      o = {.dtype = dtype, .rows = 4, .classes = classes, .target = Target::dense, .dense_dtype = dtype};
      if (classes < 100000) expect_floor(o, 3);
      o.loss = "binary_cross_entropy";
      o.parameters = {0, NAN};
      if (classes < 100000) expect_floor(o, 3);
    }
  }
}

#endif

/** A row's loss and gradient are the same bits wherever it stands, at whatever address, beside whatever rows. */
void test_batch_invariance() {
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    for (const int64_t classes : {int64_t{7}, int64_t{333}, int64_t{1021}, int64_t{20011}}) {
      for (const char* loss : {"cross_entropy", "asymmetric_loss_single_label"}) {
        Options o = {.loss = loss, .dtype = dtype, .rows = 1, .classes = classes, .reduction = Reduction::none};
        o.parameters = loss[0] == 'c' ? std::vector<double>{0.1} : std::vector<double>{1, 4, 0.1};
        context = describe(o);
        Case alone = make(o);
        const size_t bytes = static_cast<size_t>(classes) * alone.input.size();
        evaluate(alone);
        o.rows = 6;
        for (int64_t place = 0; place < o.rows; ++place) {
          Case batch = make(o);
          std::memcpy(static_cast<char*>(batch.input.data()) + place * bytes, alone.input.data(), bytes);
          batch.labels[place] = alone.labels[0];
          evaluate(batch);
          expect(std::memcmp(static_cast<char*>(batch.grad.data()) + place * bytes, alone.grad.data(), bytes) == 0,
                 "the gradient depends on the row's place");
          expect(std::memcmp(static_cast<char*>(batch.output.data()) + place * sizeof(float), alone.output.data(),
                             sizeof(float)) == 0,
                 "the loss depends on the row's place");
        }
      }
    }
  }
}

/** A label out of range: that row's loss is NaN and its gradient 0, the other rows' stay, and the call says which. */
void test_bad_labels() {
  for (const int64_t classes : {int64_t{10}, int64_t{1021}, int64_t{20011}}) {
    for (const char* loss : {"cross_entropy", "asymmetric_loss_single_label", "jsd", "nll"}) {
      for (const auto& asked : kLimits) {
        Options o = {.loss = loss, .rows = 6, .classes = classes, .reduction = Reduction::none};
        o.parameters = loss[0] == 'j' ? std::vector<double>{2, 12, 0.1} : std::vector<double>{1, 4, 0.1};
        if (loss[0] == 'j') o.reduction = Reduction::mean;
        if (loss[0] == 'c') o.parameters = {0};
        context = describe(o);
        Case c = make(o);
        c.labels[2] = classes;
        c.labels[1] = -1;
        limits = asked;
        const Outcome outcome = OnDevice(c).run();
        expect(~outcome.bad_label == 1, "the first bad row was not told");
        try {
          check_labels(c.bind(), outcome);
          expect(false, "nothing was thrown");
        } catch (const CodedError& error) {
          expect(std::string(error.what()).find("row 1 is -1") != std::string::npos, error.what());
        }
        const std::vector<double> grad = c.grad.numbers();
        for (int64_t row = 0; row < o.rows; ++row) {
          const bool bad = loss[0] == 'j' ? row % 3 != 0 : row == 1 || row == 2;
          bool zero = true;
          for (int64_t k = 0; k < classes; ++k) zero = zero && grad[row * classes + k] == 0;
          expect(zero == bad, bad ? "the gradient of a bad row is not 0" : "the gradient of a good row is 0");
          if (o.reduction != Reduction::none) continue;
          const double own = c.output.numbers()[row];
          expect((own != own) == bad, bad ? "the loss of a bad row is a number" : "the loss of a good row is NaN");
        }
        if (o.reduction != Reduction::none) expect(outcome.value != outcome.value, "the loss is a number");
      }
    }
  }
}

/** Masked classes, NaN, infinities and equal maxima. */
void test_special_values() {
  for (const int64_t classes : {int64_t{9}, int64_t{700}, int64_t{20011}}) {
    for (const auto& asked : kLimits) {
      limits = asked;
      Options o = {.rows = 7, .classes = classes, .reduction = Reduction::none};
      context = describe(o) + " special";
      Case c = make(o);
      auto* z = static_cast<float*>(c.input.data());
      for (int64_t k = 0; k < classes; ++k) {
        if (k != c.labels[0] && k % 2 == 0) z[k] = -INFINITY;
        z[2 * classes + k] = -INFINITY;
        z[3 * classes + k] = 1;
        z[4 * classes + k] = k % 3 == 0 ? 88 : -1e30f;
      }
      z[1 * classes + classes / 2] = NAN;
      z[5 * classes + classes - 1] = INFINITY;
      compare(c);
    }
  }
}

/** The last row that each driver takes, and the first one that it does not. */
void test_plans() {
  const auto driver = [](int64_t classes, int compute_bytes, const DeviceLimits& limits) {
    const RowPlan plan = plan_rows(classes, compute_bytes, compute_bytes, limits);
    const int64_t held = static_cast<int64_t>(plan.threads / plan.team) * plan.team;
    expect(held == plan.threads && plan.threads % 32 == 0, "teams fill a block of whole warps");
    expect(plan.driver == RowDriver::two_pass || static_cast<int64_t>(plan.slice) * plan.cluster >= classes,
           "the slices hold the row");
    expect(static_cast<int64_t>(plan.team) * kRegisterBytes / compute_bytes >= plan.slice, "registers hold the slice");
    expect(static_cast<int64_t>(plan.shared_bytes) < limits.shared_bytes, "shared memory holds the slice");
    return std::string(kRowDriverNames[static_cast<int>(plan.driver)]) + " " + std::to_string(plan.cluster);
  };
  const DeviceLimits hopper = {227 * 1024, 16}, ampere = {163 * 1024, 1}, desktop = {99 * 1024, 8};
  const struct {
    int64_t classes;
    int compute_bytes;
    DeviceLimits limits;
    const char* expected;
  } edges[] = {
      {1, 4, hopper, "lanes 1"},          {1024, 4, hopper, "lanes 1"},      {1025, 4, hopper, "block 1"},
      {8192, 4, hopper, "block 1"},       {8193, 4, hopper, "cluster 2"},    {16384, 4, hopper, "cluster 2"},
      {16385, 4, hopper, "cluster 4"},    {65537, 4, hopper, "cluster 16"},  {131073, 4, hopper, "cluster 16"},
      {262144, 4, hopper, "cluster 16"},  {262145, 4, hopper, "two_pass 1"}, {512, 8, hopper, "lanes 1"},
      {513, 8, hopper, "block 1"},        {4096, 8, hopper, "block 1"},      {4097, 8, hopper, "cluster 2"},
      {16384, 4, ampere, "block 1"},      {16385, 4, ampere, "two_pass 1"},  {131072, 4, desktop, "cluster 8"},
      {131073, 4, desktop, "two_pass 1"}, {8192, 4, kSmall, "two_pass 1"},
  };
  for (const auto& edge : edges) {
    context = std::to_string(edge.classes) + " classes of " + std::to_string(edge.compute_bytes) + " bytes";
    const std::string got = driver(edge.classes, edge.compute_bytes, edge.limits);
    if (got != edge.expected) fail("%s, not %s", got.c_str(), edge.expected);
  }
}

struct Test {
  const char* name;
  void (*run)();
};

constexpr Test kTests[] = {
    {"plans", test_plans},
    {"linear", test_linear},
    {"confident rows", test_confident_rows},
    {"long rows", test_long_rows},
    {"coupled", test_coupled},
    {"row maps", test_row_maps},
    {"row groups", test_row_groups},
    {"elementwise", test_elementwise},
    {"gather", test_gather},
#ifdef SURPRISAL_CUDA_EMULATED
    {"traffic", test_traffic},
#endif
    {"batch invariance", test_batch_invariance},
    {"bad labels", test_bad_labels},
    {"special values", test_special_values},
};

int run(const std::string& wanted) {
  if (!find_devices().unavailable.empty()) {
    std::printf("left out: %s\n", find_devices().unavailable.c_str());
    return 0;
  }
  use_device(0);
  for (const Test& test : kTests) {
    if (std::string(test.name).find(wanted) == std::string::npos) continue;
    limits.reset();
    const int before = failures, checked = checks;
    try {
      test.run();
    } catch (const std::exception& error) {
      fail("threw: %s", error.what());
    }
    std::printf("%s %s: %d checks\n", failures == before ? "passed" : "FAILED", test.name, checks - checked);
    std::fflush(stdout);
  }
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures == 0 && checks > 0 ? 0 : 1;
}

}  // namespace
}  // namespace surprisal

int main(int count, char** arguments) {
  std::string wanted;
  for (int i = 1; i < count; ++i) {
    if (std::string(arguments[i]) == "--quick") {
      surprisal::quick = true;
    } else {
      wanted = arguments[i];
    }
  }
  return surprisal::run(wanted);
}
