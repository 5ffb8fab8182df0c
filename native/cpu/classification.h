#pragma once

// Driver of an evaluation: cross entropy of rows with hard labels, and whatever else is known of a row after the same
// pass.

#include <array>

#include "../loss/classification.h"
#include "lanes.h"
#include "tally.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/**
 * How many classes come before a row's label: those of larger logits, and of equal ones those of smaller index. Where
 * these are as many as `enough` it may be any number from there on. Counted chunk by chunk, where the maxima of its
 * stretches say that there may be some.
 */
template <class Lanes>
class LabelRank;

template <class T>
class LabelRank<Along<T>> {
  using R = Compute<T>;
  using V = Vec<R>;
  using Maxima = typename Along<T>::Maxima;

 public:
  SURPRISAL_FN LabelRank(const Along<T>&, const RowLabel<R>& label, const T* z, const Maxima& maxima, int64_t enough)
      : z_(z), maxima_(maxima), label_(label.index()), enough_(enough), own_(load_one(z + label_)) {}

  SURPRISAL_FN void begin_chunk(int64_t begin, int64_t end) {
    const R no_logit = static_cast<R>(__builtin_nan(""));
    LaneCount<R> before;
    Along<T>::look_for(
        own_, z_, begin, end, maxima_,
        [&](int64_t c, auto, V x) __attribute__((always_inline)) {
          // NaN equals nothing, and lanes past the row's end are of larger index.
          const V of_smaller_index = select(lane_numbers<V>() < V(static_cast<R>(label_ - c)), x, V(no_logit));
          before.add(x > own_);
          before.add(of_smaller_index == own_);
        },
        [&] { return count_ + before.total() < enough_; });
    count_ += before.total();
  }

  SURPRISAL_FN double value() const { return static_cast<double>(count_); }

 private:
  const T* z_;
  const Maxima& maxima_;
  int64_t label_, enough_, count_ = 0;
  V own_;
};

template <class R>
class LabelRank<Across<R>> {
  using V = Vec<R>;

 public:
  SURPRISAL_FN LabelRank(const Across<R>& lanes, const TileLabels<R>& labels, const R* z, V, int64_t) {
    const V own = rounded<V>(labels.of(z));
    V smaller_index(1);
    for (int64_t at = 0; at < lanes.extent(); at += V::size) {
      const V x = load(z + at, Full{});
      smaller_index = select(labels.at(at), V(0), smaller_index);
      count_ = count_ + select(x > own, V(1), select(x == own, smaller_index, V(0)));
    }
  }

  SURPRISAL_FN Doubles<V> value() const { return in_double(count_); }

 private:
  V count_{0};
};

/** What is known of a row. */
struct RowOutcome {
  int64_t row, label, rank, prediction, bin;
  double loss, confidence;
  FixedParts<double> loss_parts, confidence_parts;
  bool has_loss_parts;  // no more than these is needed to hold the loss exactly
};

/** Counts rows into a part's words. */
template <class Number>
class RowCounter {
 public:
  RowCounter(const Evaluation& call, const Tally& tally, PartialTally& partial)
      : layout_(tally.layout()),
        classes_(call.classes),
        edges_(tally.bin_edges()),
        records_(tally.records()),
        cells_(tally.cells()),
        words_(partial.words.data()),
        bin_words_(words_ + layout_.bins()),
        label_words_(words_ + layout_.labels()),
        confusion_(partial.confusion.empty() ? nullptr : partial.confusion.data()) {}

  /** Rows are ignored until they are counted. */
  void begin(int64_t row, int64_t count) {
    words_[layout_.ignored] += count;
    if (records_ != nullptr) {
      for (int64_t i = row; i < row + count; ++i) records_[i].label = -1;
    } else if (cells_ != nullptr) {
      for (int64_t i = row; i < row + count; ++i) cells_[i] = Tally::kNoCell;
    }
  }

  /** The bin of a confidence, which may be the next to the right one. */
  template <class N>
  SURPRISAL_FN N near_bin(const N& confidence) const {
    return confidence * N(static_cast<double>(layout_.bin_count));
  }

  SURPRISAL_FN void count(const RowOutcome& row) {
    // Shared memory may have changed since labels were checked: what is written to must not depend on it.
    if (static_cast<uint64_t>(row.label) >= static_cast<uint64_t>(classes_)) return;
    words_[layout_.ignored] -= 1;
    const bool defined = row.loss == row.loss;
    const auto prediction = defined ? static_cast<int32_t>(row.prediction) : -1;
    const RowRecord record{static_cast<int32_t>(row.label), prediction, row.loss};
    if (records_ != nullptr) {
      records_[row.row] = record;
    } else {
      int64_t* words = label_words_ + row.label * layout_.kLabelWords;
      if (row.has_loss_parts) [[likely]] {
        words[0] += 1;
        words[1] += prediction == row.label;
        add_parts(row.loss_parts, words + 4);
      } else {
        add_row(words, record);
      }
      // Without a branch on whether the row is right, which nobody can foresee.
      const int64_t cell = row.label * classes_ + prediction;
      if (cells_ != nullptr) {
        cells_[row.row] = is_confused(record) ? static_cast<uint32_t>(cell) : Tally::kNoCell;
      } else if (confusion_ != nullptr && defined) {
        confusion_[cell] += is_confused(record);
      }
    }
    if (!defined) [[unlikely]] {
      words_[layout_.undefined] += 1;
      return;
    }
    int64_t* rank = row.rank < layout_.rank_count ? words_ + layout_.ranks + row.rank : &no_rank_;
    *rank += 1;
    // Of a row that others write to meanwhile it may be any number.
    if (!(row.confidence >= 0 && row.confidence <= 1)) [[unlikely]]
      return;
    // The product that made the bin may be off by its rounding; the edges decide.
    int64_t b = row.bin;
    b -= row.confidence < edges_[b];
    b += row.confidence >= edges_[b + 1];
    int64_t* bin = bin_words_ + b * layout_.kBinWords;
    bin[0] += 1;
    bin[1] += prediction == row.label;
    add_parts(row.confidence_parts, bin + 2);
  }

  /** Adds numbers of a batch's rows, 0 where there are none. */
  void add(const Number& brier, const Number& entropy) {
    brier_.add(brier);
    entropy_.add(entropy);
    if (++terms_ == FixedSum<Number>::kTerms) finish();
  }

  void finish() {
    take(brier_, words_ + layout_.brier);
    take(entropy_, words_ + layout_.entropy);
    terms_ = 0;
  }

 private:
  /** Brings a sum's whole numbers to digits. */
  template <class Sum>
  SURPRISAL_FN static void take(Sum& sum, int64_t* digits) {
    sum.take([&](const FixedParts<double>& parts) __attribute__((always_inline)) { add_parts(parts, digits); });
  }

  SURPRISAL_FN static void add_parts(const FixedParts<double>& parts, int64_t* digits) {
    constexpr int kWholes = (FixedParts<double>::kWholesExponent - kDigitsExponent) / kDigitBits;
    static_assert(kWholes * kDigitBits + kDigitsExponent == FixedParts<double>::kWholesExponent);
    static_assert(FixedParts<double>::kLeftBits == kDigitBits);
    constexpr int64_t kLow = (int64_t{1} << kDigitBits) - 1;
    digits[kWholes - 1] += parts.left & kLow;
    digits[kWholes] += (parts.left >> kDigitBits) + (parts.whole & kLow);
    digits[kWholes + 1] += parts.whole >> kDigitBits;
  }

  const StatisticsLayout layout_;
  const int64_t classes_;
  const double* edges_;
  RowRecord* records_;
  uint32_t* cells_;
  int64_t *words_, *bin_words_, *label_words_, *confusion_;
  FixedSum<Number> brier_, entropy_;
  int terms_ = 0;
  int64_t no_rank_ = 0;  // counts ranks that are too large to be told apart
};

/** As many rows as a vector has lanes, between their passes and their numbers, whose chains of operations are long. */
template <class R>
class RowBatch {
  using V = Vec<R>;
  using Number = Doubles<V>;

 public:
  static constexpr int size = V::size;

  /** What the passes give of a row, or of a unit's rows. */
  template <class N>
  struct Sums {
    N rest, at_maximum, squares, products, d, rank, prediction;
  };

  RowBatch() { clear(); }

  bool full() const { return count_ == size; }

  /** One more row. */
  void add(int64_t row, int64_t label, const Sums<double>& sums) {
    rows_[count_] = row;
    labels_[count_] = label;
    const double numbers[] = {sums.rest, sums.at_maximum, sums.squares,   sums.products,
                              sums.d,    sums.rank,       sums.prediction};
    for (int i = 0; i < kNumbers; ++i) numbers_[i][count_] = numbers[i];
    ++count_;
  }

  /** All rows of a tile; those that don't count have no label. */
  void add(const TileLabels<R>& labels, int64_t row, const Sums<Number>& sums) {
    static_assert(sizeof(sums) == sizeof(numbers_));
    memcpy(numbers_, &sums, sizeof(numbers_));
    labels.each([&](int64_t at, int64_t label) {
      rows_[at - row] = at;
      labels_[at - row] = label;
      return 0.0;
    });
    count_ = size;
  }

  /** Counts the rows, and begins anew. Returns the sum of their losses. */
  double finish(RowCounter<Number>& counter) {
    Sums<Number> sums;
    memcpy(&sums, numbers_, sizeof(sums));
    RowSums<Number> row;
    row.rest = sums.rest;
    const Number e = in_double(exponential(rounded<V>(sums.d)));
    const RowScores<Number> scores(row, row.log_sum(), sums.at_maximum, sums.squares, sums.products, sums.d, e);
    double counts[size];
    for (int j = 0; j < size; ++j) counts[j] = labels_[j] >= 0;
    Number counted;
    memcpy(&counted, counts, sizeof(counted));
    const auto number = [&](const Number& x) {
      return select(scores.loss == scores.loss, select(counted == Number(0), Number(0), x), Number(0));
    };
    counter.add(number(scores.brier), number(scores.entropy));
    const Number rounded_confidence = in_double(rounded<V>(scores.confidence));
    const FixedParts<Number> loss_parts(scores.loss), confidence_parts(rounded_confidence);
    const Number near_bin = counter.near_bin(rounded_confidence);
    double loss[size], confidence[size], bin[size];
    memcpy(loss, &scores.loss, sizeof(loss));
    memcpy(confidence, &rounded_confidence, sizeof(confidence));
    memcpy(bin, &near_bin, sizeof(bin));
    double loss_sum = 0;
    for (int j = 0; j < size; ++j) {
      if (labels_[j] < 0) continue;
      counter.count({rows_[j], labels_[j], static_cast<int64_t>(numbers_[kRank][j]),
                     static_cast<int64_t>(numbers_[kPrediction][j]), static_cast<int64_t>(bin[j]), loss[j],
                     confidence[j], loss_parts.at(j), confidence_parts.at(j), FixedParts<double>::is_exact(loss[j])});
      loss_sum += loss[j];
    }
    clear();
    return loss_sum;
  }

 private:
  static constexpr int kNumbers = 7, kRank = 5, kPrediction = 6;

  void clear() {
    memset(numbers_, 0, sizeof(numbers_));
    for (int64_t& label : labels_) label = -1;
    count_ = 0;
  }

  int count_ = 0;
  int64_t rows_[size], labels_[size];
  alignas(Number) double numbers_[kNumbers][size];
};

template <class Lanes, class Formula>
struct ClassificationDriver {
  using T = typename Lanes::Stored;
  using R = typename Lanes::R;
  using V = typename Lanes::V;
  using Number = typename Lanes::Number;
  using Reader = typename Lanes::Reader;
  using Labels = typename Lanes::Labels;
  using Batch = RowBatch<R>;

  static size_t scratch(const Evaluation& call) { return Lanes::scratch(call, 1) + Reader::scratch(call); }

  static double run(const Problem& problem, Block block) {
    const Evaluation& call = problem.call;
    Arena& arena = Arena::local();
    arena.reserve(scratch(call));
    const Lanes lanes(call, 1, arena);
    Reader input(call, block, arena);
    RowCounter<Doubles<V>> counter(call, *problem.tally, *problem.partial);
    Batch batch;
    double loss_sum = 0;
    for (int64_t next = block.begin; next < block.end; next += Lanes::kRows) {
      counter.begin(next, block.end - next < Lanes::kRows ? block.end - next : Lanes::kRows);
      const Labels labels(call, block, next);
      if (!labels.any()) continue;
      const T* z = input.row(next);
      input.expect(next + Lanes::kRows);
      const auto sums = passes(lanes, input, labels, z, problem.tally->layout().rank_count);
      if constexpr (std::is_same_v<Number, double>) {
        batch.add(next, labels.index(), sums);
      } else {
        batch.add(labels, next, sums);
      }
      if (batch.full()) loss_sum += batch.finish(counter);
    }
    loss_sum += batch.finish(counter);
    counter.finish();
    return loss_sum;
  }

 private:
  /** What the loss has no use for. Products are added by one instruction each, so they are not summed in pairs. */
  struct Others {
    explicit SURPRISAL_FN Others(const LabelRank<Lanes>& rank) : rank(rank) {}

    LabelRank<Lanes> rank;
    V square{0}, product{0};
    V first{static_cast<R>(__builtin_inf())};  // class at the maximum
    Sum<V> squares, products;

    template <class Within, class IsMaximum>
    SURPRISAL_FN Terms<V, 0> operator()(int64_t at, Within, Shifted<V> x, V rest, IsMaximum is_maximum) {
      square = Formula::add_square(rest, square);
      product = Formula::add_product(x, product);
      if constexpr (!std::is_same_v<IsMaximum, std::false_type>) {
        first = minimum(first, select(is_maximum, Lanes::class_numbers(at), V(static_cast<R>(__builtin_inf()))));
      }
      return {};
    }
    SURPRISAL_FN void begin_chunk(int64_t begin, int64_t end)
      requires requires { rank.begin_chunk(begin, end); }
    {
      rank.begin_chunk(begin, end);
    }
    SURPRISAL_FN void end_stretch() {
      squares.add(square);
      products.add(product);
      square = product = V(0);
    }
    SURPRISAL_FN void rise(const Rise& rise) {
      first = V(static_cast<R>(__builtin_inf()));
      Formula::raise(rise, squares, products);
    }
  };

  SURPRISAL_FN static typename Batch::template Sums<Number> passes(const Lanes& lanes, const Reader& input,
                                                                   const Labels& labels, const T* z, int64_t enough) {
    const auto max = lanes.maxima(z, 0);
    Others others{LabelRank<Lanes>(lanes, labels, z, max, enough)};
    const auto [sums, terms, at_maximum] = lanes.template softmax_pass<0>(
        input, z, max, nullptr, others,
        [&](const Rise& rise, auto*) __attribute__((always_inline)) { others.rise(rise); });
    Number first;
    if constexpr (std::is_same_v<Number, double>) {
      first = -largest_lane(-others.first);
    } else {
      first = in_double(others.first);
    }
    return {sums.rest,
            at_maximum,
            Lanes::total(others.squares),
            Lanes::total(others.products),
            labels.of(z) - sums.max,
            others.rank.value(),
            first};
  }
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
