#pragma once

// Driver of an evaluation: cross entropy of rows with hard labels, and whatever else is known of a row after the same
// two passes. The label's rank is counted while the maximum is looked for, when the processor waits for memory anyway.

#include <array>

#include "../loss/classification.h"
#include "lanes.h"
#include "tally.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Counts classes before a row's label: larger logits, and equal ones of smaller index. */
template <class Lanes>
class LabelRank;

template <class T>
class LabelRank<Along<T>> {
  using R = Compute<T>;
  using V = Vec<R>;

 public:
  SURPRISAL_FN LabelRank(const RowLabel<R>& label, const T* z)
      : z_(z), y_(label.index()), own_(load_one(z + y_)), count_(0) {}

  SURPRISAL_FN void look(int64_t at, V x) {
    if (at + V::size <= y_) {
      count_ = count_ - select(x < own_, V(1), V(0));
    } else {
      count_ = count_ + select(x > own_, V(1), V(0));
    }
  }

  SURPRISAL_FN double value() const {
    // Whole vectors before the label's were counted down from their size; in its own, equal ones are left.
    const int64_t before = y_ % V::size, whole = y_ - before;
    V count = count_;
    if (before > 0) {
      const V x = load(z_ + whole, Partial{static_cast<int>(before)}, static_cast<R>(__builtin_nan("")));
      count = count + select(x == own_, V(1), V(0));
    }
    Sum<V> sum;
    sum.add(count);
    return static_cast<double>(whole) + sum.total();
  }

 private:
  const T* z_;
  int64_t y_;
  V own_, count_;
};

template <class R>
class LabelRank<Across<R>> {
  using V = Vec<R>;

 public:
  SURPRISAL_FN LabelRank(const TileLabels<R>& labels, const R* z)
      : labels_(labels), own_(rounded<V>(labels.of(z))), before_(1), count_(0) {}

  SURPRISAL_FN void look(int64_t at, V x) {
    before_ = select(labels_.at(at), V(0), before_);
    count_ = count_ + select(x > own_, V(1), select(x == own_, before_, V(0)));
  }

  SURPRISAL_FN Doubles<V> value() const { return in_double(count_); }

 private:
  const TileLabels<R>& labels_;
  V own_, before_, count_;
};

/** What is known of a row. */
struct RowOutcome {
  int64_t row, label, rank;
  int32_t prediction;
  double loss, brier, entropy, confidence;
};

/** Counts rows into a part's words. */
class RowCounter {
 public:
  RowCounter(const Evaluation& call, const Tally& tally, PartialTally& partial)
      : layout_(tally.layout()),
        classes_(call.classes),
        bins_(static_cast<double>(layout_.bin_count)),
        edges_(tally.bin_edges()),
        records_(tally.records()),
        words_(partial.words.data()),
        bin_words_(words_ + layout_.bins()),
        label_words_(words_ + layout_.labels()),
        confusion_(partial.confusion.empty() ? nullptr : partial.confusion.data()) {}

  /** Rows are ignored until they are counted. */
  void begin(int64_t row, int64_t count) {
    words_[layout_.ignored] += count;
    if (records_ == nullptr) return;
    for (int64_t i = row; i < row + count; ++i) records_[i].label = -1;
  }

  void count(const RowOutcome& row) {
    // Shared memory may have changed since labels were checked: what is written to must not depend on it.
    if (static_cast<uint64_t>(row.label) >= static_cast<uint64_t>(classes_)) return;
    words_[layout_.ignored] -= 1;
    const bool defined = row.loss == row.loss;
    const RowRecord record{static_cast<int32_t>(row.label), defined ? row.prediction : -1, row.loss};
    if (records_ != nullptr) {
      records_[row.row] = record;
    } else {
      add_row(label_words_ + row.label * layout_.kLabelWords, record);
      if (confusion_ != nullptr && defined) confusion_[row.label * classes_ + row.prediction] += 1;
    }
    if (!defined) {
      words_[layout_.undefined] += 1;
      return;
    }
    add_exactly(words_ + layout_.brier, row.brier);
    add_exactly(words_ + layout_.entropy, row.entropy);
    if (row.rank < layout_.rank_count) words_[layout_.ranks + row.rank] += 1;
    int64_t* bin = bin_words_ + bin_of(row.confidence) * layout_.kBinWords;
    bin[0] += 1;
    bin[1] += row.prediction == row.label;
    add_exactly(bin + 2, row.confidence);
  }

 private:
  /** The product may be off by its rounding; the edges decide. */
  int64_t bin_of(double confidence) const {
    auto bin = static_cast<int64_t>(confidence * bins_);
    if (confidence < edges_[bin]) --bin;
    if (confidence >= edges_[bin + 1]) ++bin;
    return bin;
  }

  const StatisticsLayout layout_;
  const int64_t classes_;
  const double bins_;
  const double* edges_;
  RowRecord* records_;
  int64_t *words_, *bin_words_, *label_words_, *confusion_;
};

template <class Lanes, class Formula>
struct ClassificationDriver {
  using T = typename Lanes::Stored;
  using R = typename Lanes::R;
  using V = typename Lanes::V;
  using Number = typename Lanes::Number;
  using Factor = typename Lanes::Factor;
  using Reader = typename Lanes::Reader;
  using Labels = typename Lanes::Labels;

  static size_t scratch(const Evaluation& call) { return Lanes::scratch(call, kMostUnits) + Reader::scratch(call); }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    const Lanes lanes(call, kMostUnits, arena);
    Reader input(call, block, arena);
    RowCounter counter(call, *problem.tally, *problem.partial);
    const int most = group_size(call);
    Unit group[kMostUnits];
    double loss_sum = 0;
    for (int64_t next = block.begin; next < block.end;) {
      int count = 0;
      for (; count < most && next < block.end; next += Lanes::kRows) {
        Unit& unit = group[count];
        counter.begin(next, block.end - next < Lanes::kRows ? block.end - next : Lanes::kRows);
        unit.labels = Labels(call, block, next);
        if (!unit.labels.any()) continue;
        unit.row = next;
        unit.z = input.row(next);
        LabelRank<Lanes> rank(unit.labels, unit.z);
        unit.maxima = lanes.maxima(unit.z, count,
                                   [&](int64_t at, auto, V x) __attribute__((always_inline)) { rank.look(at, x); });
        unit.rank = rank.value();
        ++count;
      }
      for (int i = 0; i < count; ++i) {
        input.expect(next + i * Lanes::kRows);
        pass(lanes, input, group[i]);
      }
      Number log_sums[kMostUnits];
      take_log_sums(group, count, log_sums);
      for (int i = 0; i < count; ++i) loss_sum += count_rows(lanes, group[i], log_sums[i], counter);
    }
    return loss_sum;
  }

 private:
  static constexpr int kMostUnits = 16;

  /** Units whose logits stay in the first cache together; of tiles one, as they share a buffer. */
  static int group_size(const Evaluation& call) {
    if constexpr (!std::is_same_v<Number, double>) return 1;
    constexpr int64_t kBytes = 4096;
    const int64_t units = kBytes / (Lanes::extent(call) * static_cast<int64_t>(sizeof(R)));
    return static_cast<int>(units < 1 ? 1 : units > kMostUnits ? kMostUnits : units);
  }

  /** A unit between its passes. */
  struct Unit {
    Labels labels;
    int64_t row;
    const T* z;
    typename Lanes::Maxima maxima;
    RowSums<Number> sums;
    Number rank, at_maximum, squares, distances;
  };

  SURPRISAL_FN static void pass(const Lanes& lanes, const Reader& input, Unit& unit) {
    const auto each = [](int64_t, auto, Shifted<V> x) __attribute__((always_inline)) {
      return Terms<V, 2>{{Formula::square_term(x), Formula::entropy_term(x)}};
    };
    const auto [sums, terms, maxima] = lanes.template softmax_pass<2>(input, unit.z, unit.maxima, each);
    unit.sums = sums;
    unit.at_maximum = maxima;
    unit.squares = Lanes::total(terms.sum[0]);
    unit.distances = Lanes::total(terms.sum[1]);
  }

  static void take_log_sums(const Unit* group, int count, Number* log_sums) {
    using D = Vec<double>;
    int i = 0;
    if constexpr (std::is_same_v<Number, double>) {
      for (; count - i > 1; i += D::size) {
        double rest[D::size] = {};
        for (int j = 0; j < D::size && i + j < count; ++j) rest[j] = group[i + j].sums.rest;
        store(log_sums + i, log_sum_of(load(rest, Full{})), Full{});
      }
    }
    for (; i < count; ++i) log_sums[i] = group[i].sums.log_sum();
  }

  /** Counts a unit's rows; returns the sum of their losses. */
  static double count_rows(const Lanes& lanes, const Unit& unit, const Number& log_sum, RowCounter& counter) {
    const Number d = unit.labels.of(unit.z) - unit.sums.max;
    const Number e = in_double(exponential(rounded<Factor>(d)));
    const RowScores<Number> scores(unit.sums, log_sum, unit.at_maximum, unit.squares, unit.distances, d, e);
    const auto loss = by_row(scores.loss), brier = by_row(scores.brier), entropy = by_row(scores.entropy);
    const auto confidence = by_row(in_double(rounded<Factor>(scores.confidence))), rank = by_row(unit.rank);
    const auto prediction = by_row(lanes.first_maxima(unit.z, unit.maxima));
    return Lanes::total(unit.labels.each([&](int64_t row, int64_t y) {
      const auto j = row - unit.row;
      counter.count({row, y, static_cast<int64_t>(rank[j]), static_cast<int32_t>(prediction[j]), loss[j], brier[j],
                     entropy[j], confidence[j]});
      return loss[j];
    }));
  }

  static std::array<double, Lanes::kRows> by_row(const Number& number) {
    std::array<double, Lanes::kRows> values;
    static_assert(sizeof(values) == sizeof(number));
    memcpy(&values, &number, sizeof(values));
    return values;
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
