#pragma once

// Driver of an evaluation: cross entropy of rows with hard labels, and whatever else is known of a row after the same
// pass.

#include <bit>

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
    if (count_ >= enough_) return;
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

  SURPRISAL_FN R value() const { return static_cast<R>(count_); }

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
  SURPRISAL_FN LabelRank(const Across<R>& lanes, const TileLabels<R>& labels, const Columns<R>& z, V, int64_t) {
    const V own = rounded<V>(labels.of(z));
    V smaller_index(1);
    for (int64_t at = 0; at < lanes.extent(); at += V::size) {
      const V x = load(z + at, Full{});
      smaller_index = select(labels.at(at), V(0), smaller_index);
      count_ = count_ + select(x > own, V(1), select(x == own, smaller_index, V(0)));
    }
  }

  SURPRISAL_FN V value() const { return count_; }

 private:
  V count_{0};
};

/**
 * The digits of a sum (loss/classification.h) that terms in [0, 2^15) add to, lane by lane: `count` from the one worth
 * 2^-16 down, what is less than the last cut off. They are whole numbers, and may be negative.
 */
template <class Number, int count>
class LaneDigits {
  static constexpr int kParts = sizeof(Number) / sizeof(DoubleVector);
  static constexpr int kLargest = (-16 - kDigitsExponent) / kDigitBits;  // the digit's index in a sum
  static_assert(kDigitsExponent + kLargest * kDigitBits == -16);

 public:
  static constexpr double kLimit = 0x1p15;

  LaneDigits() = default;
  SURPRISAL_FN explicit LaneDigits(const Number& terms) {
    using V = Vec<double>;
    const V magic(Format<double>::round_magic), one(std::bit_cast<double>(int64_t{1}));
    V left[kParts];
    memcpy(&left, &terms, sizeof(left));
    for (int k = 0; k < count; ++k) {
      for (int i = 0; i < kParts; ++i) {
        left[i] = left[i] * V(k == 0 ? 0x1p16 : 0x1p32);
        // The nearest whole number, in the low bits.
        const V shifted = left[i] + magic;
        const V whole = shifted - magic;
        digits_[k][i] = (LongVector)shifted.raw - (LongVector)magic.raw;
        if (k == count - 1) digits_[k][i] -= (LongVector)select(left[i] < whole, one, V(0)).raw;
        left[i] = left[i] - whole;
      }
    }
  }

  SURPRISAL_FN void add(const LaneDigits& other) {
    for (int k = 0; k < count; ++k) {
      for (int i = 0; i < kParts; ++i) digits_[k][i] += other.digits_[k][i];
    }
  }

  /** Adds those of a lane to a sum. */
  SURPRISAL_FN void add_lane_to(int64_t* sum, int lane) const {
    const auto* of_lanes = reinterpret_cast<const char*>(digits_) + lane * sizeof(int64_t);
    for (int k = 0; k < count; ++k) {
      int64_t digit;
      memcpy(&digit, of_lanes + k * sizeof(digits_[0]), sizeof(digit));
      sum[kLargest - k] += digit;
    }
  }

 private:
  LongVector digits_[count][kParts] = {};
};

/** What is known of as many rows as a vector has lanes. */
template <class R>
struct RowOutcomes {
  using Number = Doubles<Vec<R>>;
  static constexpr int size = Vec<R>::size;

  int64_t row[size], label[size];
  int32_t prediction[size], rank[size], bin[size];
  double loss[size];
  LaneDigits<Number, 4> loss_digits;
  LaneDigits<Number, 3> confidence_digits;  // no confidence that is a float32 has more
};

/** Counts rows into a part's words. */
template <class R>
class RowCounter {
  using V = Vec<R>;
  using Number = Doubles<V>;
  using Outcomes = RowOutcomes<R>;

 public:
  RowCounter(const Evaluation& call, const Tally& tally, PartialTally& partial, Block block)
      : layout_(tally.layout()),
        classes_(call.classes),
        records_(tally.records()),
        cells_(tally.cells()),
        words_(partial.words.data()),
        bin_words_(words_ + layout_.bins()),
        label_words_(words_ + layout_.labels()),
        confusion_(partial.confusion.empty() ? nullptr : partial.confusion.data()),
        ignored_(block.end - block.begin) {
    // Rows are ignored until they are counted.
    for (int64_t i = block.begin; i < block.end; ++i) {
      if (records_ != nullptr) records_[i].label = -1;
      if (cells_ != nullptr) cells_[i] = Tally::kNoCell;
    }
  }

  /** The bins of confidences in [0, 1]: b of [b/bins, (b + 1)/bins), as these edges are in the type of the losses. */
  SURPRISAL_FN V bins_of(V confidence) const {
    const V bins(static_cast<R>(layout_.bin_count)), magic(Format<R>::round_magic);
    // The product may be off by its rounding; the edges decide.
    V bin = (confidence * bins + magic) - magic;
    bin = select(confidence < bin / bins, bin - V(1), bin);
    const V next = bin + V(1);
    return select(confidence < next / bins, bin, next);
  }

  /** Returns the sum of the losses. */
  double count(const Outcomes& rows) {
    // Copies, as words are written to that could be these.
    const int64_t classes = classes_, rank_count = layout_.rank_count;
    int64_t counted = 0, no_rank = 0;  // ranks that are too large to be told apart
    double loss_sum = 0;
    for (int j = 0; j < Outcomes::size; ++j) {
      const int64_t label = rows.label[j];
      // None; and shared memory may have changed since labels were checked: where is written to must not depend on it.
      if (static_cast<uint64_t>(label) >= static_cast<uint64_t>(classes)) continue;
      ++counted;
      const double loss = rows.loss[j];
      loss_sum += loss;
      const bool defined = loss == loss;
      const int32_t prediction = defined ? rows.prediction[j] : -1;
      const int64_t right = prediction == label;
      const RowRecord record{static_cast<int32_t>(label), prediction, loss};
      if (records_ != nullptr) {
        records_[rows.row[j]] = record;
      } else {
        int64_t* words = label_words_ + label * layout_.kLabelWords;
        if (loss >= 0 && loss < decltype(rows.loss_digits)::kLimit) [[likely]] {
          words[0] += 1;
          words[1] += right;
          rows.loss_digits.add_lane_to(words + 4, j);
        } else {
          add_row(words, record);
        }
        // Without a branch on whether the row is right, which nobody can foresee.
        const int64_t cell = label * classes + prediction;
        if (cells_ != nullptr) {
          cells_[rows.row[j]] = is_confused(record) ? static_cast<uint32_t>(cell) : Tally::kNoCell;
        } else if (confusion_ != nullptr && defined) {
          confusion_[cell] += right ^ 1;
        }
      }
      if (!defined) [[unlikely]] {
        words_[layout_.undefined] += 1;
        continue;
      }
      int64_t* rank = rows.rank[j] < rank_count ? words_ + layout_.ranks + rows.rank[j] : &no_rank;
      *rank += 1;
      int64_t* bin = bin_words_ + rows.bin[j] * layout_.kBinWords;
      bin[0] += 1;
      bin[1] += right;
      rows.confidence_digits.add_lane_to(bin + 2, j);
    }
    ignored_ -= counted;
    return loss_sum;
  }

  /** Adds numbers in [0, 2^15) of a batch's rows, 0 where there are none. */
  SURPRISAL_FN void add(const Number& brier, const Number& entropy) {
    brier_.add(Digits(brier));
    entropy_.add(Digits(entropy));
  }

  void finish() {
    for (int j = 0; j < Outcomes::size; ++j) {
      brier_.add_lane_to(words_ + layout_.brier, j);
      entropy_.add_lane_to(words_ + layout_.entropy, j);
    }
    words_[layout_.ignored] += ignored_;
  }

 private:
  using Digits = LaneDigits<Number, 3>;

  const StatisticsLayout layout_;
  const int64_t classes_;
  RowRecord* records_;
  uint32_t* cells_;
  int64_t *words_, *bin_words_, *label_words_, *confusion_;
  int64_t ignored_;
  Digits brier_, entropy_;
};

/** As many rows as a vector has lanes, between their passes and their numbers, whose chains of operations are long. */
template <class R>
class RowBatch {
  using V = Vec<R>;
  using Number = Doubles<V>;

 public:
  static constexpr int size = V::size;

  /** What the passes give of a row, or of a unit's rows: numbers in double, and small whole ones. */
  template <class N, class Whole>
  struct Sums {
    N rest, at_maximum, squares, products, d;
    Whole rank, prediction;
  };

  explicit RowBatch(const Evaluation& call) : last_class_(static_cast<R>(call.classes - 1)) { clear(); }

  bool full() const { return count_ == size; }

  /** One more row. */
  void add(int64_t row, int64_t label, const Sums<double, R>& sums) {
    outcomes_.row[count_] = row;
    outcomes_.label[count_] = label;
    const double numbers[] = {sums.rest, sums.at_maximum, sums.squares, sums.products, sums.d};
    for (int i = 0; i < kNumbers; ++i) numbers_[i][count_] = numbers[i];
    ranks_[count_] = sums.rank;
    predictions_[count_] = sums.prediction;
    ++count_;
  }

  /** All rows of a tile; those that don't count have no label. */
  void add(const TileLabels<R>& labels, int64_t row, const Sums<Number, V>& sums) {
    memcpy(numbers_, &sums, sizeof(numbers_));
    store(ranks_, sums.rank, Full{});
    store(predictions_, sums.prediction, Full{});
    labels.each([&](int64_t at, int64_t label) {
      outcomes_.row[at - row] = at;
      outcomes_.label[at - row] = label;
      return 0.0;
    });
    count_ = size;
  }

  /** Counts the rows, and begins anew. Returns the sum of their losses. */
  double finish(RowCounter<R>& counter) {
    Number sums[kNumbers];
    memcpy(&sums, numbers_, sizeof(sums));
    const auto& [rest, at_maximum, squares, products, d] = sums;
    RowSums<Number> row;
    row.rest = rest;
    row.peak = Number(1);
    const Number e = in_double(exponential(rounded<V>(d)));
    const RowScores<Number> scores(row, row.log_sum(), at_maximum, squares, products, d, e);
    double counts[size];
    for (int j = 0; j < size; ++j) counts[j] = outcomes_.label[j] >= 0;
    Number counted;
    memcpy(&counted, counts, sizeof(counted));
    const auto number = [&](const Number& x) __attribute__((always_inline)) {
      return select(scores.loss == scores.loss, select(counted == Number(0), Number(0), x), Number(0));
    };
    counter.add(number(scores.brier), number(scores.entropy));
    // Rows that others write to meanwhile may come to any numbers, of which none may lead out of bounds.
    const V confidence = minimum(maximum(rounded<V>(scores.confidence), V(0)), V(1));
    memcpy(outcomes_.loss, &scores.loss, sizeof(outcomes_.loss));
    outcomes_.loss_digits = decltype(outcomes_.loss_digits)(scores.loss);
    outcomes_.confidence_digits = decltype(outcomes_.confidence_digits)(in_double(confidence));
    store_whole(outcomes_.bin, counter.bins_of(confidence));
    store_whole(outcomes_.rank, load(ranks_, Full{}));
    store_whole(outcomes_.prediction, minimum(load(predictions_, Full{}), V(last_class_)));
    const double loss_sum = counter.count(outcomes_);
    clear();
    return loss_sum;
  }

 private:
  static constexpr int kNumbers = 5;

  void clear() {
    for (int64_t& label : outcomes_.label) label = -1;
    count_ = 0;
  }

  int count_ = 0;
  R last_class_;
  RowOutcomes<R> outcomes_;
  alignas(Number) double numbers_[kNumbers][size] = {};
  alignas(V) R ranks_[size] = {}, predictions_[size] = {};
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
    RowCounter<R> counter(call, *problem.tally, *problem.partial, block);
    Batch batch(call);
    double loss_sum = 0;
    for (int64_t next = block.begin; next < block.end; next += Lanes::kRows) {
      const Labels labels(call, block, next);
      if (!labels.any()) continue;
      const auto z = input.row(next);
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
    static constexpr bool kTakesLong = true;

    explicit SURPRISAL_FN Others(const LabelRank<Lanes>& rank) : rank(rank) {}

    LabelRank<Lanes> rank;
    V square{0}, product{0};
    V first{static_cast<R>(__builtin_inf())};  // class at the maximum
    Sum<V> squares, products;
    bool pending = false;

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
    /** Two stretches go to the sums in double together. */
    SURPRISAL_FN void end_stretch() {
      pending = !pending;
      if (!pending) add_up();
    }
    SURPRISAL_FN void add_up() {
      squares.add(square);
      products.add(product);
      square = product = V(0);
    }
    SURPRISAL_FN void rise(const Rise& rise) {
      first = V(static_cast<R>(__builtin_inf()));
      add_up();
      Formula::raise(rise, squares, products);
    }
  };

  SURPRISAL_FN static auto passes(const Lanes& lanes, const Reader& input, const Labels& labels,
                                  const typename Reader::Row& z, int64_t enough) {
    const auto max = lanes.maxima(z, 0);
    Others others{LabelRank<Lanes>(lanes, labels, z, max, enough)};
    const auto [sums, terms, at_maximum] = lanes.template softmax_pass<0>(
        input, z, max, nullptr, others,
        [&](const Rise& rise, auto*) __attribute__((always_inline)) { others.rise(rise); });
    others.add_up();
    using Whole = decltype(others.rank.value());
    Whole first;
    if constexpr (std::is_same_v<Whole, R>) {
      first = -largest_lane(-others.first);
    } else {
      first = others.first;
    }
    return typename Batch::template Sums<Number, Whole>{sums.rest,
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
