#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "dtype.h"
#include "statistics.h"

namespace surprisal {

enum class Reduction : uint8_t { none, mean, sum };
inline constexpr const char* kReductionNames[] = {"none", "mean", "sum"};
inline constexpr int kReductionCount = 3;

/** Steps in elements: row (o, i), class c stands at o·outer + i·inner + c·classes. */
struct Strides {
  int64_t outer = 0;
  int64_t inner = 0;
  int64_t classes = 0;
};

inline constexpr int kMaxParameters = 6;

class Queue;

/** The CPU among the numbers of devices; GPU i is i + 1. */
inline constexpr int kCpu = 0;

/** Which of a call's arrays are the device's memory; the others are the host's. */
struct Resident {
  bool input = false, indices = false, grad = false, output = false, dense = false, grad_outputs = false,
       weight = false, pos_weight = false, constants = false;
};

/** One call: rows = outer × inner rows of `classes` logits, and all that belongs to them. Absent arrays are null. */
struct Evaluation {
  int loss = 0;
  int device = kCpu;
  Queue* queue = nullptr;  // of a GPU's: where its work goes; null: one of the call's own
  Resident resident;
  DType dtype = DType::float32;
  Reduction reduction = Reduction::mean;
  double divisor = 0;  // of a mean; 0: the loss's own denominator
  int64_t outer = 0, inner = 1, classes = 0;
  double parameters[kMaxParameters] = {};

  const void* input = nullptr;
  Strides input_strides;

  const void* indices = nullptr;
  DType indices_dtype = DType::int32;
  int64_t indices_count = 0;
  bool has_ignore_index = false;
  int64_t ignore_index = 0;

  const void* dense = nullptr;
  DType dense_dtype = DType::float32;
  Strides dense_strides;
  bool dense_by_index = false;        // the row of `dense` is the row's class index
  const double* constants = nullptr;  // by class index, added to the row's loss

  // Factors in the compute dtype, at row·row_stride + c·class_stride.
  const void* weight = nullptr;
  int64_t weight_row_stride = 0, weight_class_stride = 0;
  const void* pos_weight = nullptr;
  int64_t pos_weight_row_stride = 0, pos_weight_class_stride = 0;

  double grad_output = 1;
  const void* grad_outputs = nullptr;  // compute dtype: one a row, or an element for elementwise losses

  /**
   * In the compute dtype: one loss a row or element of Reduction::none; else the loss, of a call whose input is the
   * device's memory.
   */
  void* output = nullptr;
  void* grad = nullptr;  // the input's dtype; null for a forward pass alone
  Strides grad_strides;

  // Of cross entropy with a class index a row: takes what an evaluation counts, once the call has succeeded.
  Statistics statistics;

  const std::atomic<int32_t>* cancelled = nullptr;

  constexpr int64_t rows() const { return outer * inner; }
};

/** An error that JavaScript sees as a RangeError with this code. */
struct CodedError : std::range_error {
  CodedError(const char* code, const std::string& message) : std::range_error(message), code(code) {}
  const char* code;
};

/** A device's own fault, which JavaScript sees as an Error with the code ERR_CUDA. */
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/** Throws what is said of a row whose class index is out of range. */
[[noreturn]] void throw_bad_label(const Evaluation& call, int64_t row);

/** Thrown when `cancelled` was set. */
struct Aborted : std::exception {
  const char* what() const noexcept override { return "the operation was aborted"; }
};

/** What a registered loss tells about itself. */
struct LossInfo {
  const char* name;
  const char* kind;
  const char* const* parameters;
  int parameter_count;
};

/** A call in stages, whose parts may run at once and in any order. */
class Computation {
 public:
  virtual ~Computation() = default;
  /** Begins the next stage, once all parts of the last have ended: how many it has, 0 where there is none. */
  virtual int64_t next_stage() = 0;
  virtual void run_part(int64_t i) = 0;
  /** What evaluate returns, after the last stage; the statistics are added now, on the caller's thread. Once. */
  virtual double value() const = 0;
};

/** What a backend offers. */
struct Backend {
  int loss_count;
  const LossInfo* losses;
  /**
   * The loss, reduced; 0 for Reduction::none. Throws CodedError before it writes anything, Aborted, or std::bad_alloc.
   */
  double (*evaluate)(const Evaluation&);
  /**
   * The same for other threads to run; its stages and parts throw what evaluate does. The evaluation must live as
   * long. It is given a copy of the labels, as one that changed after it was checked would lead outside of the arrays.
   */
  std::unique_ptr<Computation> (*compute)(Evaluation&);
  /** Σ_c q·log q of each row of a contiguous matrix, into `result`. */
  void (*negative_entropy)(const void* matrix, DType, int64_t rows, int64_t classes, double* result);
  /** Elementwise copy between floating dtypes, rounded once. */
  void (*convert)(const void* source, DType source_dtype, void* target, DType target_dtype, int64_t count);
};

const Backend& cpu_backend();

}  // namespace surprisal
