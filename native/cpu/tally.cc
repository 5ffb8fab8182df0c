#include "tally.h"

#include <new>

namespace surprisal {
namespace {

/** Classes whose confusion matrix a part has for itself: it fits the first cache. */
constexpr int64_t kFewClasses = 64;
/** Rows to a class from which a part counts the numbers of classes itself: adding these up is little beside them. */
constexpr int64_t kManyRows = 4;

/** Digits and counts are whole numbers below 2^53, and a term adds less than 2^32 to a digit. */
constexpr int64_t kTermsBetweenCarries = int64_t{1} << 20;

constexpr double kBase = 4294967296.0;  // 2^kDigitBits

/** The same sum with digits below the base, but for the last. */
void carry(double* digits) {
  for (int i = 0; i + 1 < kDigits; ++i) {
    const double over = __builtin_floor(digits[i] / kBase);
    digits[i] -= over * kBase;
    digits[i + 1] += over;
  }
}

void carry(int64_t* digits) {
  for (int i = 0; i + 1 < kDigits; ++i) {
    digits[i + 1] += digits[i] >> kDigitBits;
    digits[i] &= (int64_t{1} << kDigitBits) - 1;
  }
}

/** Calls f with each sum's digits. */
template <class Word, class F>
void for_each_sum(const StatisticsLayout& layout, Word* words, int64_t labels, F&& f) {
  f(words + layout.brier);
  f(words + layout.entropy);
  for (int64_t b = 0; b <= layout.bin_count; ++b) f(words + layout.bins() + b * layout.kBinWords + 2);
  for (int64_t y = 0; y < labels; ++y) f(words + layout.labels() + y * layout.kLabelWords + 4);
}

/** Adds terms of a type that is computed on as it is. */
template <class T>
void add_all(const T* terms, int64_t count, double* words) {
  for (int64_t i = 0; i < count; ++i) {
    const double term = terms[i];
    if (term != term) {
      words[kDigits + 2] += 1;
    } else if (term >= kTermLimit || term <= -kTermLimit) {
      words[kDigits + (term < 0)] += 1;
    } else if (term < 0) {
      double negative[kDigits] = {};
      add_exactly(negative, -term);
      for (int j = 0; j < kDigits; ++j) words[j] -= negative[j];
    } else {
      add_exactly(words, term);
    }
    if ((i + 1) % kTermsBetweenCarries == 0) carry(words);
  }
  carry(words);
}

/** Memory that no call counts into at the moment. */
class SpareMemory {
 public:
  /** Never destroyed: calls may still run when the process ends. */
  static SpareMemory& instance() {
    static SpareMemory& spares = *new SpareMemory;
    return spares;
  }

  std::unique_ptr<TallyMemory> take() {
    {
      std::lock_guard lock(mutex_);
      if (!spares_.empty()) {
        auto memory = std::move(spares_.back());
        spares_.pop_back();
        return memory;
      }
    }
    return std::make_unique<TallyMemory>();
  }

  void give_back(std::unique_ptr<TallyMemory> memory) {
    size_t bytes = memory->records.capacity() * sizeof(RowRecord) + memory->cells.capacity() * sizeof(uint32_t);
    for (const auto& partial : memory->partials) {
      bytes += (partial->words.capacity() + partial->confusion.capacity()) * sizeof(int64_t);
    }
    if (bytes > kKeptBytes) return;
    std::lock_guard lock(mutex_);
    if (spares_.size() < kKept) spares_.push_back(std::move(memory));
  }

 private:
  static constexpr size_t kKept = 4, kKeptBytes = size_t{4} << 20;

  std::mutex mutex_;
  std::vector<std::unique_ptr<TallyMemory>> spares_;
};

}  // namespace

static_assert(kDigits == StatisticsLayout::kSumWords);

void add_terms(const void* terms, DType dtype, int64_t count, double* words) {
  if (dtype == DType::float64) {
    add_all(static_cast<const double*>(terms), count, words);
  } else {
    add_all(static_cast<const float*>(terms), count, words);
  }
}

Tally::Tally(const Evaluation& call)
    : target_(call.statistics), rows_(call.rows()), memory_(SpareMemory::instance().take()) {
  if (call.classes <= kFewClasses) return;
  const auto rows = static_cast<size_t>(rows_);
  const bool numbered = target_.confusion == nullptr || call.classes * call.classes < kNoCell;
  if (rows_ < kManyRows * call.classes || !numbered) {
    memory_->records.resize(rows);
    records_ = memory_->records.data();
  } else if (target_.confusion != nullptr) {
    memory_->cells.resize(rows);
    cells_ = memory_->cells.data();
  }
}

Tally::~Tally() {
  try {
    for (auto& partial : partials_) memory_->partials.push_back(std::move(partial));
    SpareMemory::instance().give_back(std::move(memory_));
  } catch (const std::bad_alloc&) {
    // Then it is not used again.
  }
}

std::unique_ptr<PartialTally> Tally::borrow() {
  std::unique_ptr<PartialTally> partial;
  {
    std::lock_guard lock(mutex_);
    if (!partials_.empty()) {
      partial = std::move(partials_.back());
      partials_.pop_back();
      return partial;
    }
    if (!memory_->partials.empty()) {
      partial = std::move(memory_->partials.back());
      memory_->partials.pop_back();
    }
  }
  if (partial == nullptr) partial = std::make_unique<PartialTally>();
  const StatisticsLayout& layout = target_.layout;
  partial->words.assign(static_cast<size_t>(records_ != nullptr ? layout.labels() : layout.size()), 0);
  const bool has_confusion = target_.confusion != nullptr && layout.classes <= kFewClasses;
  partial->confusion.assign(has_confusion ? static_cast<size_t>(layout.classes * layout.classes) : 0, 0);
  return partial;
}

void Tally::give_back(std::unique_ptr<PartialTally> partial) {
  std::lock_guard lock(mutex_);
  partials_.push_back(std::move(partial));
}

void Tally::commit() const {
  const StatisticsLayout& layout = target_.layout;
  double* words = target_.words;
  const auto carry_all = [&](int64_t labels) {
    for_each_sum(layout, words, labels, [](double* digits) { carry(digits); });
  };
  double& uncarried = words[layout.uncarried];
  const auto count_terms = [&](int64_t count) {
    uncarried += static_cast<double>(count);
    if (uncarried < kTermsBetweenCarries) return;
    carry_all(layout.classes);
    uncarried = 0;
  };
  // Of few rows, parts' digits can be added as they are.
  const bool counted_by_parts = records_ == nullptr;
  const bool many = rows_ >= kTermsBetweenCarries;
  for (const auto& partial : partials_) {
    for_each_sum(layout, partial->words.data(), counted_by_parts && many ? layout.classes : 0,
                 [](int64_t* digits) { carry(digits); });
    for (size_t i = 0; i < partial->words.size(); ++i) words[i] += static_cast<double>(partial->words[i]);
    for (size_t i = 0; i < partial->confusion.size(); ++i) {
      target_.confusion[i] += static_cast<double>(partial->confusion[i]);
    }
    if (counted_by_parts && many) count_terms(1);
  }
  carry_all(0);
  if (counted_by_parts && !many) count_terms(rows_);
  // Labels and predictions come in any order, so their words are fetched while others are added to.
  constexpr int64_t kFetchedAhead = 96;
  if (cells_ != nullptr) {
    const auto fetch = [&](uint32_t cell) {
      if (cell != kNoCell) __builtin_prefetch(target_.confusion + cell, 1);
    };
    for (int64_t row = 0; row < rows_; ++row) {
      if (row + kFetchedAhead < rows_) fetch(cells_[row + kFetchedAhead]);
      if (cells_[row] != kNoCell) target_.confusion[cells_[row]] += 1;
    }
  }
  if (counted_by_parts) return;
  double* labels = words + layout.labels();
  const auto fetch = [&](const RowRecord& record) {
    if (record.label < 0) return;
    __builtin_prefetch(labels + record.label * layout.kLabelWords, 1);
    if (target_.confusion == nullptr || !is_confused(record)) return;
    __builtin_prefetch(target_.confusion + record.label * layout.classes + record.prediction, 1);
  };
  for (int64_t row = 0; row < rows_; ++row) {
    if (row + kFetchedAhead < rows_) fetch(records_[row + kFetchedAhead]);
    const RowRecord& record = records_[row];
    if (record.label < 0) continue;
    double* label = labels + record.label * layout.kLabelWords;
    add_row(label, record);
    if (target_.confusion != nullptr && is_confused(record)) {
      target_.confusion[record.label * layout.classes + record.prediction] += 1;
    }
    count_terms(1);
  }
}

}  // namespace surprisal
