#pragma once

// Target views: what the target distribution q of a row is, without ever writing it to memory.
//
//   q_c = w_c·(floor + mass·hit_c)
//
// with hit_c = [c = y] for a class index y, or a dense row (a soft target, or row y of a confusion lens).

#include "math.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** How much of q is more than one class wide; the label's own share is added once a row, in full precision. */
enum class Spread : uint8_t {
  none,      // floor = 0: the label alone
  uniform,   // floor > 0
  weighted,  // floor > 0, times the class weights
  dense,     // a dense row as it is
  mixed,     // a dense row, with floor and mass, times the class weights
};

SURPRISAL_FN constexpr bool is_dense(Spread spread) { return spread == Spread::dense || spread == Spread::mixed; }

/** A value over vectors in two parts. */
template <class V>
struct Parts {
  V head, tail;
};

/** The part of q that is spread over classes; what its products and sums lose in rounding is its tail. */
template <Spread spread, class V>
SURPRISAL_FN Parts<V> spread_target(Split<Scalar<V>> floor, Split<Scalar<V>> mass, V weight, V dense) {
  if constexpr (spread == Spread::uniform) return {V(floor.head), V(floor.tail)};
  if constexpr (spread == Spread::dense) return {dense, V(0)};
  if constexpr (spread == Spread::weighted) {
    const V q = weight * V(floor.head);
    return {q, multiply_add(weight, V(floor.tail), -residual(q, weight, V(floor.head)))};
  }
  if constexpr (spread == Spread::mixed) {
    const V product = dense * V(mass.head);
    const V product_tail = multiply_add(dense, V(mass.tail), -residual(product, dense, V(mass.head)));
    const V sum = product + V(floor.head);
    const V sum_tail = (difference_tail(product, V(-floor.head), sum) + product_tail) + V(floor.tail);
    const V q = weight * sum;
    return {q, multiply_add(weight, sum_tail, -residual(q, weight, sum))};
  }
  return {V(0), V(0)};
}

/** q·log q with 0·log 0 = 0. */
template <class V>
SURPRISAL_FN V negative_entropy_term(V q) {
  const V smallest = V(Format<Scalar<V>>::smallest_normal);
  return select(q < smallest, q * V(0), q * logarithm(maximum(q, smallest)));
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
