#pragma once

// What the lanes of a vector are. Along: classes of one row, which is the unit of work. Across: rows, each in a lane
// of its own, as many as a vector has; so short rows are worked at, which would leave vectors half empty, and pay for
// each row what is once a row. Drivers are written once over either, as loops over a unit's elements; both offer
//
//   extent             elements of a unit in scratch: a row; or a vector a class
//   Reader, Writer     of a unit's logits and gradient, which goes to a Writer::Row;  Targets: of its dense targets.
//                      Units may be worked at several at a time where holds_many() of Writer and Targets is true
//   Labels             a unit's class indices: any() row counts, each(f): f(row, index) of those that do, else 0;
//                      of(values): the label's of a unit's elements, at(position): where it is among a vector's;
//                      counted(x): x of rows that count, else 0; put(losses, x) of all
//   Number, Factor     a number of each row of a unit, in double; the same rounded, to multiply vectors by
//   per_class          of a value a class those of a vector's elements
//   total              of a sum, a row's each; of such totals, all rows'
//   reference          what exponentials of rows are relative to where their maxima are not known yet
//   single_pass        one exponential an element, kept in scratch where there is one: what conclude() makes the rows'
//                      sums of, and those of the n terms that `each(position, lanes, d)` gives of a vector, with d
//                      relative to the reference. Lanes past a row's end have z = −∞, e = 0. Meanwhile what comes next
//                      is fetched: the exponentials leave time
//   maxima             the largest logits of the rows or of their first classes, which softmax_pass takes
//   softmax_pass       the same for terms that must be relative to the maximum: `each(position, lanes, shifted, rest,
//                      is_maximum)`. Shifted is relative to the largest logit so far: where a larger one comes,
//                      `on_rise(rise, terms)` brings the sums of the terms to it. is_maximum is a mask, or false_type
//                      where no lane is; rest is e, 0 at that maximum. each.begin_chunk(begin, end) and
//                      each.end_stretch(), if it has them, are told of a row's chunks and of the stretches that are
//                      summed in the compute type. each may have a constant kTakesLong, which leaves more time to fetch
//   fetches_soon       whether such a pass, which takes long or not, has its targets fetched too
//   class_numbers      the classes of a vector's elements, as numbers of their type

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
