// The CPU backend: chooses an instruction set, reads the labels, cuts the rows into blocks and adds their losses up.

#include "cpu.h"

#include <algorithm>
#include <fstream>
#include <memory>

#include "indices.h"
#include "instruction_sets.h"
#include "thread_pool.h"

namespace surprisal {
namespace {

struct Candidate {
  const InstructionSet& (*get)();
  bool runs_here;
};

std::vector<const InstructionSet*> find_instruction_sets() {
#if defined(__x86_64__)
  const Candidate candidates[] = {{x86_64_v4::instruction_set, !!__builtin_cpu_supports("x86-64-v4")},
                                  {x86_64_v3::instruction_set, !!__builtin_cpu_supports("x86-64-v3")},
                                  {baseline::instruction_set, true}};
#else
  const Candidate candidates[] = {{baseline::instruction_set, true}};
#endif
  std::vector<const InstructionSet*> found;
  for (const auto& candidate : candidates) {
    if (candidate.runs_here) found.push_back(&candidate.get());
  }
  return found;
}

const std::vector<const InstructionSet*>& available() {
  static const auto* sets = new std::vector<const InstructionSet*>(find_instruction_sets());
  return *sets;
}

std::atomic<const InstructionSet*>& current() {
  static std::atomic<const InstructionSet*> set(available().front());
  return set;
}

/** Elements of a block: large beside the cost of handing it out, small enough to share evenly. */
constexpr int64_t kBlockElements = 32768;
/** Rows of a strided block come in whole tiles of this many. */
constexpr int64_t kBlockRows = 64;
/** Blocks of a call: their sums are kept on the stack. */
constexpr int64_t kMostBlocks = 1024;

/** How many units make a block. A function of the shape alone, so that sums do not depend on the threads. */
int64_t units_per_block(int64_t units, int64_t elements_per_unit) {
  int64_t size = std::max<int64_t>(1, kBlockElements / elements_per_unit);
  size = std::max(size, (units + kMostBlocks - 1) / kMostBlocks);
  return size > kBlockRows ? (size + kBlockRows - 1) / kBlockRows * kBlockRows : size;
}

void check_cancelled(const Evaluation& call) {
  if (call.cancelled != nullptr && call.cancelled->load(std::memory_order_relaxed) != 0) throw Aborted();
}

/** Runs of blocks that a thread takes at once: consecutive, so that it can fetch the next row while it works at one. */
constexpr int64_t kRunsPerThread = 16;

/** Calls f(block, i) for blocks of `size` units, on every thread; one alone on this thread. */
template <class F>
void for_each_block(const Evaluation& call, int64_t units, int64_t size, F&& f) {
  if (units <= size) {
    check_cancelled(call);
    f(Block{0, units, units}, 0);
    return;
  }
  const int64_t count = (units + size - 1) / size;
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      check_cancelled(call);
      f(Block{i * size, std::min(units, (i + 1) * size), std::min(units, end * size)}, i);
    }
  };
  ThreadPool& pool = ThreadPool::instance();
  const int64_t runs = std::min(count, pool.threads() * kRunsPerThread);
  pool.parallel_for(runs, [&](int64_t r) { run(r * count / runs, (r + 1) * count / runs); });
}

double sum_in_order(const double* parts, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += parts[i];
  return sum;
}

[[noreturn]] void throw_bad_index(const Evaluation& call, int64_t row) {
  const int64_t index = read_index(call, row);
  const bool huge = call.indices_dtype == DType::uint64 && index < 0;
  std::string message = "target: expected class indices in [0, " + std::to_string(call.classes) + "), but row " +
                        std::to_string(row) + " is " +
                        (huge ? std::to_string(static_cast<uint64_t>(index)) : std::to_string(index));
  if (call.has_ignore_index) message += " (rows to be ignored are " + std::to_string(call.ignore_index) + ")";
  throw CodedError("ERR_TARGET_OUT_OF_RANGE", message);
}

/** Checks every label and sums the weights of the rows that count: all that a denominator depends on. */
double read_labels(const Evaluation& call, int64_t rows) {
  const bool wide = call.dtype == DType::float64;
  const bool per_class = call.weight != nullptr && call.weight_row_stride == 0 && call.weight_class_stride == 1;
  const int64_t size = units_per_block(rows, 1);
  double weights[kMostBlocks];
  int64_t bad[kMostBlocks];
  for_each_block(call, rows, size, [&](Block block, int64_t i) {
    double sum = 0;
    bad[i] = -1;
    for (int64_t row = block.begin; row < block.end; ++row) {
      const int64_t index = read_index(call, row);
      if (is_ignored(call, index)) continue;
      if (index < 0 || index >= call.classes) {
        bad[i] = row;
        break;
      }
      sum += !per_class ? 1
             : wide     ? static_cast<const double*>(call.weight)[index]
                        : static_cast<double>(static_cast<const float*>(call.weight)[index]);
    }
    weights[i] = sum;
  });
  const int64_t count = (rows + size - 1) / size;
  for (int64_t i = 0; i < count; ++i) {
    if (bad[i] >= 0) throw_bad_index(call, bad[i]);
  }
  return sum_in_order(weights, count);
}

/** Bytes of the largest cache of a processor. What sysconf says of it may be the sum over all sockets of a host. */
int64_t find_cache_bytes() {
  int64_t largest = 0;
  for (int i = 0; i < 8; ++i) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/size");
    int64_t size = 0;
    char unit = 'K';
    if (file >> size >> unit) largest = std::max(largest, size << (unit == 'M' ? 20 : 10));
  }
  return largest > 0 ? largest : int64_t{16} << 20;
}

/**
 * A gradient that would push everything else out of the caches is written past them, which also spares reading its
 * memory first. One that takes the place of the logits finds their lines in the cache already.
 */
bool streams_gradient(const Evaluation& call) {
  const int64_t bytes = call.rows() * call.classes * kDTypeSizes[static_cast<int>(call.dtype)];
  static const int64_t cache_bytes = find_cache_bytes();
  return call.grad != nullptr && call.grad != call.input && 2 * bytes > cache_bytes;
}

double evaluate(const Evaluation& call) {
  const LossKernels& loss = current().load()->losses[call.loss];
  const int64_t rows_per_unit = loss.rows_per_unit(call);
  const int64_t units = call.rows() / rows_per_unit;
  const double weights = call.indices != nullptr ? read_labels(call, units) : static_cast<double>(units);

  double denominator = 1;
  if (call.reduction == Reduction::mean) {
    denominator = call.divisor != 0 ? call.divisor : loss.denominator(call, weights);
  }
  const Problem problem{call, call.grad_output / denominator, streams_gradient(call)};
  const BlockKernel run = loss.run[static_cast<int>(call.dtype)];
  const int64_t size = units_per_block(units, rows_per_unit * call.classes);
  double sums[kMostBlocks];
  for_each_block(call, units, size, [&](Block block, int64_t i) { sums[i] = run(problem, block); });
  if (call.reduction == Reduction::none) return 0;
  return sum_in_order(sums, (units + size - 1) / size) / denominator;
}

void negative_entropy(const void* matrix, DType dtype, int64_t rows, int64_t classes, double* result) {
  current().load()->negative_entropy(matrix, dtype, rows, classes, result);
}

void convert(const void* source, DType source_dtype, void* target, DType target_dtype, int64_t count) {
  current().load()->convert(source, source_dtype, target, target_dtype, count);
}

std::vector<LossInfo> loss_infos() {
  const InstructionSet* set = current().load();
  std::vector<LossInfo> infos;
  for (int i = 0; i < set->loss_count; ++i) infos.push_back(set->losses[i].info);
  return infos;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const auto* set : available()) names.emplace_back(set->name);
  return names;
}

std::string current_instruction_set() { return current().load()->name; }

bool use_instruction_set(const std::string& name) {
  for (const auto* set : available()) {
    if (set->name == name) {
      current().store(set);
      return true;
    }
  }
  return false;
}

const Backend& cpu_backend() {
  static const auto* infos = new std::vector<LossInfo>(loss_infos());
  static const Backend backend{static_cast<int>(infos->size()), infos->data(), evaluate, negative_entropy, convert};
  return backend;
}

}  // namespace surprisal
