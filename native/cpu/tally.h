#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "../backend.h"
#include "../loss/classification.h"

namespace surprisal {

/** What a row adds to the numbers of its class. A row that is ignored has no label. */
struct RowRecord {
  int32_t label;
  int32_t prediction;  // -1: none
  double loss;
};

/** Whether a row is counted in the confusion matrix, which lacks its diagonal: right rows, which most are, touch no
 * cell. */
SURPRISAL_FN bool is_confused(const RowRecord& row) { return row.prediction >= 0 && row.prediction != row.label; }

/** Adds a row to the words of its label. */
template <class Word>
SURPRISAL_FN void add_row(Word* label, const RowRecord& row) {
  label[0] += 1;
  label[1] += row.prediction == row.label;
  if (row.loss < kTermLimit) {
    add_exactly(label + 4, row.loss);
  } else {
    label[row.loss >= kTermLimit ? 2 : 3] += 1;
  }
}

/** Adds terms to a sum's digits, and counts those that are ∞, −∞ or NaN in the words that follow. */
void add_terms(const void* terms, DType dtype, int64_t count, double* words);

/** What a part of a call has counted. */
struct PartialTally {
  std::vector<int64_t> words;
  std::vector<int64_t> confusion;
};

/** What calls count into, one after another: fresh memory costs more than a call of few rows does. */
struct TallyMemory {
  std::vector<RowRecord> records;
  std::vector<uint32_t> cells;
  std::vector<std::unique_ptr<PartialTally>> partials;
};

/**
 * The statistics of one call, apart from those that they will be added to: what fails or is aborted adds nothing. Each
 * part counts for itself. Where classes are many beside the rows, the numbers of each are not: its rows' records are
 * kept until the end.
 */
class Tally {
 public:
  explicit Tally(const Evaluation& call);
  ~Tally();

  /** For a part to count into; until it is given back nobody else has it. */
  std::unique_ptr<PartialTally> borrow();
  void give_back(std::unique_ptr<PartialTally> partial);

  const StatisticsLayout& layout() const { return target_.layout; }
  /** By row; null where parts count the numbers of classes themselves. */
  RowRecord* records() const { return records_; }
  /** The confusion matrix's cell of each row, where it is too large for parts to have one; else null. */
  uint32_t* cells() const { return cells_; }
  static constexpr uint32_t kNoCell = UINT32_MAX;

  /** Adds all that was counted to the statistics. */
  void commit() const;

 private:
  const Statistics target_;
  const int64_t rows_;
  std::unique_ptr<TallyMemory> memory_;
  RowRecord* records_ = nullptr;
  uint32_t* cells_ = nullptr;
  std::mutex mutex_;
  std::vector<std::unique_ptr<PartialTally>> partials_;  // what this call has counted
};

}  // namespace surprisal
