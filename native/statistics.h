#pragma once

#include <cstdint>

namespace surprisal {

/**
 * The words of an evaluation's sufficient statistics, whole numbers in float64: counts, and sums as digits
 * (loss/classification.h). Where each stands, for so many classes, ranks and bins:
 *
 *   ignored     rows that are ignored: they count nowhere else
 *   undefined   rows whose loss is NaN: they have no other number, nor a prediction
 *   uncarried   terms that the labels' sums took since their digits were last brought below 2^32; no statistic
 *   brier       Σ of the rows' Brier scores, digits
 *   entropy     Σ of the rows' entropies, digits
 *   ranks       rows whose label has rank r, for each r below the number of ranks
 *   bins        of confidences in [b/bins, (b + 1)/bins), and one more of confidences of 1:
 *               rows, rows that are right, Σ confidence as digits
 *   labels      of rows with each class as label:
 *               rows, rows that are right, rows of infinite loss, rows of undefined loss,
 *               Σ loss of the others as digits
 */
struct StatisticsLayout {
  static constexpr int kSumWords = 8;
  static constexpr int64_t kBinWords = 2 + kSumWords;
  static constexpr int64_t kLabelWords = 4 + kSumWords;

  int64_t classes = 0;
  int64_t rank_count = 0;
  int64_t bin_count = 0;

  static constexpr int64_t ignored = 0;
  static constexpr int64_t undefined = 1;
  static constexpr int64_t uncarried = 2;
  static constexpr int64_t brier = 3;
  static constexpr int64_t entropy = brier + kSumWords;
  static constexpr int64_t ranks = entropy + kSumWords;
  int64_t bins() const { return ranks + rank_count; }
  int64_t labels() const { return bins() + (bin_count + 1) * kBinWords; }
  int64_t size() const { return labels() + classes * kLabelWords; }
};

/** Where an evaluation's statistics are: of a call to which they are added. */
struct Statistics {
  StatisticsLayout layout;
  double* words = nullptr;      // null: the call is of a loss alone
  double* confusion = nullptr;  // classes × classes, wrong rows by label and prediction; may be null
};

}  // namespace surprisal
