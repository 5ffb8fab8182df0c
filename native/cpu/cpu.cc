// The CPU backend: chooses an instruction set, reads the labels, cuts the rows into blocks and adds their losses up.

#include "cpu.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <type_traits>

#include "indices.h"
#include "instruction_sets.h"
#include "tally.h"
#include "thread_pool.h"

namespace surprisal {
namespace {

struct Candidate {
  const InstructionSet& (*get)();
  bool runs_here;
};

std::vector<const InstructionSet*> find_instruction_sets() {
#ifdef SURPRISAL_CPU_DISPATCH
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

/** Rows whose classes lie apart are computed together, as many as the widest vector has lanes, however long they are.
 */
constexpr int64_t kRowsTogether = 16;

/** Rounded up to so many together; large numbers to whole tiles in any case. */
int64_t whole_tiles(int64_t units, int64_t together) {
  const int64_t step = units > kBlockRows ? kBlockRows : together;
  return (units + step - 1) / step * step;
}

/** Long rows that come one after the other, so that one's gradient is written while the next is computed. */
constexpr int64_t kRowsInTurn = 8;
constexpr int64_t kElementsInTurn = 1 << 18;
/** Blocks that are enough to share among a server's threads. */
constexpr int64_t kEnoughBlocks = 128;

/** How many units are computed before anything else may come between. */
int64_t units_per_piece(int64_t units, int64_t elements_per_unit, int64_t together) {
  const int64_t in_turn = std::min({kRowsInTurn, units / kEnoughBlocks, kElementsInTurn / elements_per_unit});
  return whole_tiles(std::max({int64_t{1}, kBlockElements / elements_per_unit, in_turn}), together);
}

/** How many units make a block. A function of the layout alone, so that sums do not depend on the threads. */
int64_t units_per_block(int64_t units, int64_t units_per_piece, int64_t together) {
  return whole_tiles(std::max(units_per_piece, (units + kMostBlocks - 1) / kMostBlocks), together);
}

/** Runs of blocks, which a thread takes at once: consecutive, so that it fetches the next row while it works at one. */
constexpr int64_t kRunsPerThread = 16;
/** Elements of a run, about, where other calls and the event loop wait for it to end. */
constexpr int64_t kRunElements = 1 << 19;

double sum_in_order(const double* parts, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += parts[i];
  return sum;
}

/**
 * Bytes of the largest cache of a processor, as far as one process may reckon with it: a larger one is shared by the
 * many processors of a host, of which a guest sees few. (480 MiB that two processors were told of kept 16 MiB of
 * gradients better than memory did, but not 24.) What sysconf says of it may be the sum over all sockets of a host.
 */
int64_t find_cache_bytes() {
  constexpr int64_t kMost = int64_t{64} << 20;
  int64_t largest = 0;
  for (int i = 0; i < 8; ++i) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/size");
    int64_t size = 0;
    char unit = 'K';
    if (file >> size >> unit) largest = std::max(largest, size << (unit == 'M' ? 20 : 10));
  }
  return largest > 0 ? std::min(largest, kMost) : int64_t{16} << 20;
}

/**
 * A gradient that would not fit the cache beside the logits and as much again, which others have there, is written past
 * it: that spares reading its memory first, and what is in the cache stays. One that takes the place of the logits
 * finds their lines there already.
 */
bool streams_gradient(const Evaluation& call) {
  const int64_t bytes = call.rows() * call.classes * element_size(call.dtype);
  static const int64_t cache_bytes = find_cache_bytes();
  return call.grad != nullptr && call.grad != call.input && 3 * bytes > cache_bytes;
}

/**
 * One call in two stages: the labels are checked and their weights summed up, which is all that a denominator depends
 * on; then the rows are computed.
 */
class CpuComputation final : public Computation {
 public:
  /** The call is read and written until the end. Where its threads are shared, they take shorter runs of blocks. */
  CpuComputation(const Evaluation& call, bool shared)
      : call_(call),
        set_(*current().load()),
        loss_(set_.losses[call.loss]),
        shared_(shared),
        rows_per_unit_(loss_.rows_per_unit(call)),
        units_(call.rows() / rows_per_unit_) {
    if (call.statistics.words != nullptr) tally_ = std::make_unique<Tally>(call);
  }

  /** Gives the call labels of its own, copied where they are checked: nothing changes them afterwards. */
  void keep_labels(Evaluation& call) {
    if (call.indices == nullptr) return;
    const size_t size = element_size(call.indices_dtype);
    labels_.reset(new std::byte[static_cast<size_t>(units_) * size]);
    shared_labels_ = static_cast<const std::byte*>(call.indices);
    call.indices = labels_.get();
  }

  int64_t next_stage() override {
    const Stage last = stage_;
    if (last == Stage::rows) return 0;
    stage_ = last == Stage::none && call_.indices != nullptr ? Stage::labels : Stage::rows;
    if (stage_ == Stage::labels) {
      cut(1, 1);
    } else {
      const double weights = last == Stage::labels ? checked_weights() : static_cast<double>(units_);
      if (call_.reduction == Reduction::mean) {
        denominator_ = call_.divisor != 0 ? call_.divisor : loss_.denominator(call_, weights);
      }
      streams_ = streams_gradient(call_);
      cut(rows_per_unit_ * call_.classes, call_.input_strides.classes == 1 ? 1 : kRowsTogether);
    }
    return runs_;
  }

  void run_part(int64_t run) override {
    const bool alone = runs_ == blocks_;
    const int64_t begin = alone ? run : run * blocks_ / runs_, end = alone ? run + 1 : (run + 1) * blocks_ / runs_;
    const bool counts = tally_ != nullptr && stage_ == Stage::rows;
    std::unique_ptr<PartialTally> partial = counts ? tally_->borrow() : nullptr;
    for (int64_t i = begin; i < end; ++i) {
      const Block block{i * size_, std::min(units_, (i + 1) * size_), std::min(units_, end * size_)};
      sums_[i] = stage_ == Stage::labels ? read_labels(block) : run_rows(block, partial.get());
    }
    if (counts) tally_->give_back(std::move(partial));
  }

  /** The reduced loss. */
  double value() const override {
    if (tally_ != nullptr) tally_->commit();
    return call_.reduction == Reduction::none ? 0 : sum_in_order(sums_, blocks_) / denominator_;
  }

 private:
  enum class Stage : uint8_t { none, labels, rows };

  /** Cuts the units, of so many elements each, into this stage's runs of blocks of pieces. */
  void cut(int64_t elements_per_unit, int64_t together) {
    piece_ = units_per_piece(units_, elements_per_unit, together);
    size_ = units_per_block(units_, piece_, together);
    blocks_ = runs_ = 1;
    if (size_ >= units_) return;
    blocks_ = (units_ + size_ - 1) / size_;
    const int64_t runs = ThreadPool::instance().threads() * kRunsPerThread;
    runs_ = std::min(blocks_, shared_ ? std::max(runs, units_ * elements_per_unit / kRunElements) : runs);
  }

  void check_cancelled() const {
    if (call_.cancelled != nullptr && call_.cancelled->load(std::memory_order_relaxed) != 0) throw Aborted();
  }

  /** Whether all are classes, of which none is ignored. A loop that compilers make vectors of. */
  template <class Index>
  bool are_classes(const Index* indices, int64_t count) const {
    using Unsigned = std::make_unsigned_t<Index>;  // of which negative ones are the largest
    Unsigned largest = 0, ignored = 0;
    const auto ignore_index = static_cast<Index>(call_.ignore_index);
    for (int64_t i = 0; i < count; ++i) {
      largest = std::max(largest, static_cast<Unsigned>(indices[i]));
      ignored |= indices[i] == ignore_index;
    }
    return largest < static_cast<uint64_t>(call_.classes) && !(call_.has_ignore_index && ignored != 0);
  }

  /** Checks the labels of a block and sums the weights of its rows that count. */
  double read_labels(Block block) {
    check_cancelled();
    if (labels_ != nullptr) {
      const size_t size = element_size(call_.indices_dtype);
      std::memcpy(labels_.get() + block.begin * size, shared_labels_ + block.begin * size,
                  (block.end - block.begin) * size);
    }
    const bool wide = call_.dtype == DType::float64;
    const bool per_class = call_.weight != nullptr && call_.weight_row_stride == 0 && call_.weight_class_stride == 1;
    double sum = 0;
    constexpr int64_t kRows = 256;
    for (int64_t begin = block.begin; begin < block.end; begin += kRows) {
      const int64_t count = std::min(kRows, block.end - begin);
      if (!per_class && with_indices(call_, [&](const auto* all) { return are_classes(all + begin, count); })) {
        sum += static_cast<double>(count);
        continue;
      }
      int64_t indices[kRows];
      read_indices(call_, begin, count, indices);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t index = indices[i];
        if (is_ignored(call_, index)) continue;
        if (index < 0 || index >= call_.classes) {
          note_bad_index(begin + i);
          return sum;
        }
        sum += !per_class ? 1
               : wide     ? static_cast<const double*>(call_.weight)[index]
                          : static_cast<double>(static_cast<const float*>(call_.weight)[index]);
      }
    }
    return sum;
  }

  void note_bad_index(int64_t row) {
    int64_t first = first_bad_.load(std::memory_order_relaxed);
    while (row < first && !first_bad_.compare_exchange_weak(first, row, std::memory_order_relaxed)) {
    }
  }

  double checked_weights() const {
    const int64_t bad = first_bad_.load(std::memory_order_relaxed);
    if (bad < units_) throw_bad_label(call_, bad);
    return sum_in_order(sums_, blocks_);
  }

  /** In pieces, as the blocks of a huge call are long and it may be cancelled. */
  double run_rows(Block block, PartialTally* partial) const {
    const Problem problem{call_, call_.grad_output / denominator_, streams_, tally_.get(), partial};
    const BlockKernel run = (tally_ != nullptr ? set_.classification : loss_.run)[static_cast<int>(call_.dtype)];
    double sum = 0;
    for (int64_t begin = block.begin; begin < block.end; begin += piece_) {
      check_cancelled();
      sum += run(problem, {begin, std::min(block.end, begin + piece_), block.run_end});
    }
    return sum;
  }

  const Evaluation& call_;
  const InstructionSet& set_;
  const LossKernels& loss_;
  const bool shared_;
  const int64_t rows_per_unit_, units_;
  bool streams_ = false;
  std::unique_ptr<Tally> tally_;
  std::unique_ptr<std::byte[]> labels_;
  const std::byte* shared_labels_ = nullptr;
  Stage stage_ = Stage::none;
  int64_t piece_ = 0, size_ = 0, blocks_ = 0, runs_ = 0;  // of this stage: units of a piece, of a block; how many
  double denominator_ = 1;
  std::atomic<int64_t> first_bad_{std::numeric_limits<int64_t>::max()};
  double sums_[kMostBlocks];  // of this stage's blocks
};

double evaluate(const Evaluation& call) {
  CpuComputation computation(call, false);
  while (const int64_t count = computation.next_stage()) {
    if (count == 1) {
      computation.run_part(0);
    } else {
      ThreadPool::instance().parallel_for(count, [&](int64_t i) { computation.run_part(i); });
    }
  }
  return computation.value();
}

std::unique_ptr<Computation> compute(Evaluation& call) {
  auto computation = std::make_unique<CpuComputation>(call, true);
  computation->keep_labels(call);
  return computation;
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

void throw_bad_label(const Evaluation& call, int64_t row) {
  const int64_t index = read_index(call, row);
  const bool huge = call.indices_dtype == DType::uint64 && index < 0;
  std::string message = "target: expected class indices in [0, " + std::to_string(call.classes) + "), but row " +
                        std::to_string(row) + " is " +
                        (huge ? std::to_string(static_cast<uint64_t>(index)) : std::to_string(index));
  if (call.has_ignore_index) message += " (rows to be ignored are " + std::to_string(call.ignore_index) + ")";
  throw CodedError("ERR_TARGET_OUT_OF_RANGE", message);
}

const Backend& cpu_backend() {
  static const auto* infos = new std::vector<LossInfo>(loss_infos());
  static const Backend backend{
      static_cast<int>(infos->size()), infos->data(), evaluate, compute, negative_entropy, convert};
  return backend;
}

}  // namespace surprisal
