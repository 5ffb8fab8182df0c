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
  none,            // floor = 0: the label alone
  uniform,         // floor > 0
  weighted,        // floor > 0, times the class weights
  dense,           // a dense row
  weighted_dense,  // a dense row, times the class weights
};

SURPRISAL_FN constexpr bool is_dense(Spread spread) {
  return spread == Spread::dense || spread == Spread::weighted_dense;
}
SURPRISAL_FN constexpr bool is_weighted(Spread spread) {
  return spread == Spread::weighted || spread == Spread::weighted_dense;
}

/** The part of q that is spread over classes. */
template <Spread spread, class V>
SURPRISAL_FN V spread_target(V floor, V mass, V weight, V dense) {
  if constexpr (spread == Spread::uniform) return floor;
  if constexpr (spread == Spread::weighted) return weight * floor;
  if constexpr (spread == Spread::dense) return mass * dense + floor;
  if constexpr (spread == Spread::weighted_dense) return weight * (mass * dense + floor);
  return V(0);
}

/** q·log q with 0·log 0 = 0. */
template <class V>
SURPRISAL_FN V negative_entropy_term(V q) {
  const V smallest = V(Format<Scalar<V>>::smallest_normal);
  return select(q < smallest, q * V(0), q * logarithm(maximum(q, smallest)));
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
