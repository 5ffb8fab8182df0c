#include "tally.h"

#include <limits>

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

}  // namespace

void add_terms(const void* terms, DType dtype, int64_t count, double* words) {
  if (dtype == DType::float64) {
    add_all(static_cast<const double*>(terms), count, words);
  } else {
    add_all(static_cast<const float*>(terms), count, words);
  }
}

static_assert(kDigits == StatisticsLayout::kSumWords);

Tally::Tally(const Evaluation& call) : target_(call.statistics), rows_(call.rows()) {
  const auto rows = static_cast<size_t>(rows_);
  if (call.classes > kFewClasses) {
    const bool numbered = target_.confusion == nullptr || call.classes * call.classes < kNoCell;
    if (rows_ < kManyRows * call.classes || !numbered) {
      records_.reset(new RowRecord[rows]);
    } else if (target_.confusion != nullptr) {
      cells_.reset(new uint32_t[rows]);
    }
  }
  const int64_t bins = target_.layout.bin_count;
  for (int64_t b = 0; b <= bins; ++b) {
    const double edge = static_cast<double>(b) / static_cast<double>(bins);
    edges_.push_back(call.dtype == DType::float64 ? edge : static_cast<double>(static_cast<float>(edge)));
  }
  edges_.push_back(std::numeric_limits<double>::infinity());
}

std::unique_ptr<PartialTally> Tally::borrow() {
  {
    std::lock_guard lock(mutex_);
    if (!partials_.empty()) {
      auto partial = std::move(partials_.back());
      partials_.pop_back();
      return partial;
    }
  }
  auto partial = std::make_unique<PartialTally>();
  const StatisticsLayout& layout = target_.layout;
  partial->words.resize(static_cast<size_t>(records_ != nullptr ? layout.labels() : layout.size()));
  if (target_.confusion != nullptr && layout.classes <= kFewClasses) {
    partial->confusion.resize(static_cast<size_t>(layout.classes * layout.classes));
  }
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
