#pragma once

// What the lanes of a vector are. Along: classes of one row, which is the unit of work. Across: rows, each in a lane
// of its own, as many as a vector has; so short rows are worked at, which would leave vectors half empty, and pay for
// each row what is once a row. Drivers are written once over either, as loops over a unit's elements; both offer
//
//   extent             elements of a unit in scratch: a row; or a vector a class
//   Reader, Writer     of a unit's logits and gradient;  Targets: of its dense targets
//   Labels             a unit's class indices: any() row counts, each(f): f(row, index) of those that do, else 0;
//                      of(values): the label's of a unit's elements, at(position): where it is among a vector's;
//                      counted(x): x of rows that count, else 0; put(losses, x) of all
//   Number, Factor     a number of each row of a unit, in double; the same rounded, to multiply vectors by
//   per_class          of a value a class those of a vector's elements
//   total              of a sum, a row's each; of such totals, all rows'
//   maxima             the rows' largest logits, which softmax_pass takes
//   class_numbers      the classes of a vector's elements, as numbers of their type
//   softmax_pass       one exponential an element: the rows' sums, and those of the n terms that
//                      `each(position, lanes, shifted, rest, may_reach_maximum)` gives of a vector: rest is e, 0 at the
//                      row's maximum, which false_type says is elsewhere.
//                      Lanes past a row's end have z = −∞, e = 0. each.end_stretch(), if it has one, is told of
//                      stretches. Meanwhile the next unit is fetched: the exponentials leave time for it.

#include "across.h"
#include "along.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/**
 * Whether rows are worked at across: short ones, and those whose classes lie apart in memory. By the logits' shape and
 * strides alone, so that a row has the same digits in any batch, with and without a gradient.
 */
template <class R>
inline bool lies_across(const Evaluation& call) {
  return call.classes <= kShortRow<R> || call.input_strides.classes != 1;
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
