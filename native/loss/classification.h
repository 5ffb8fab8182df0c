#pragma once

// What an evaluation asks of a row of logits and its label y, from one pass of exponentials e_c = e^(z_c − m), with
// RowSums of softmax.h:
//
//   loss        −log p_y = log1p(rest) + (m − z_y)
//   Brier       Σ_c (p_c − [c = y])² = Σ_{c≠y} p_c² + (1 − p_y)²      no cancellation, however confident the row
//   entropy     −Σ p·log p = log1p(rest) + Σ e·(m − z) / S
//   confidence  max p = 1 / S
//
// Sums over rows are sums of whole multiples of a small unit, and exact: they are the same in any order, cut into any
// shards. A sum is kept as digits of 32 bits.

#include "cross_entropy.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class R>
struct Classification {
  /** Σ e² over the classes below the maximum, from e that is 0 there. */
  template <class V>
  SURPRISAL_FN static V add_square(V rest, V sum) {
    return multiply_add(rest, rest, sum);
  }

  /** Σ e·(z − m). Where e is 0, as it is of a masked class, so must the product be. */
  template <class V>
  SURPRISAL_FN static V add_product(Shifted<V> x, V sum) {
    return multiply_add_above(V(Format<Scalar<V>>::exp_lowest), x.d, x.e, sum);
  }

  /** The sums when the maximum rises: f·Σ e² with what was at it, f = e^2(m − m'); and e^(m − m')·Σ e·(z − m'). */
  template <class Sum>
  SURPRISAL_FN static void raise(const Rise& rise, Sum& squares, Sum& products) {
    squares.add_number(rise.maxima);
    squares.scale(rise.factor * rise.factor);
    if (rise.factor != 0) products.add_number(-rise.distances(rise.rest + rise.maxima));
    products.scale(rise.factor);
  }
};

/** A number of each row of a unit. */
template <class Number>
struct RowScores {
  Number loss, brier, entropy, confidence;

  RowScores() = default;
  /** From log S, from how many classes are at the maximum, from the sums of the terms, and from the label's d and e. */
  SURPRISAL_FN RowScores(const RowSums<Number>& row, Number log_sum, Number maxima, Number squares, Number products,
                         Number d, Number e)
      : loss(log_sum + -d), confidence(row.inverse()) {
    const Number others = select(d == Number(0), squares + (maxima - Number(1)), (squares - e * e) + maxima);
    const Number miss = (row.rest + (Number(1) - e)) * confidence;  // 1 − p_y
    brier = others * confidence * confidence + miss * miss;
    entropy = log_sum - products * confidence;
  }
};

/** A sum's digits, of 32 bits each, the first of them worth 2^kDigitsExponent. Each is held in more bits. */
inline constexpr int kDigits = 8;
inline constexpr int kDigitBits = 32;
/** Terms below 2^132, which is more than the loss of any float32 row, are taken down to multiples of this. */
inline constexpr int kDigitsExponent = -112;
inline constexpr double kTermLimit = 0x1p132;

/** Adds a term below kTermLimit to a sum; one that is not positive adds nothing. */
template <class Digit>
SURPRISAL_FN void add_exactly(Digit* digits, double term) {
  if (!(term > 0 && term < kTermLimit)) return;
  const auto bits = bits_as<uint64_t>(term);
  const int exponent = static_cast<int>(bits >> 52);
  const uint64_t significand = (bits & ((uint64_t{1} << 52) - 1)) | uint64_t{exponent > 0} << 52;
  const int place = exponent - 1075 - kDigitsExponent;  // of the significand's last bit
  if (place < 0) {
    // Less than the first digit's unit is cut off.
    if (place <= -64) return;
    const uint64_t whole = significand >> -place;
    digits[0] += static_cast<Digit>(whole & 0xffffffff);
    digits[1] += static_cast<Digit>(whole >> 32);
    return;
  }
  Digit* first = digits + place / kDigitBits;
  const int shift = place % kDigitBits;
  const uint64_t low = significand << shift;
  first[0] += static_cast<Digit>(low & 0xffffffff);
  first[1] += static_cast<Digit>(low >> 32);
  first[2] += static_cast<Digit>(significand >> 32 >> (32 - shift));
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
