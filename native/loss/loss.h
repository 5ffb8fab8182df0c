#pragma once

// What a loss's header says about itself. A formula is a struct, templated on Scalar R (float or double), constructed
// from its parameters; `kind` names the driver that runs it and thereby the functions that it must have:
//
//   softmax_linear   linear in log softmax: `floor` and `mass` of its target view (target.h)
//   softmax_coupled  its own function of log softmax a class: label(...), other(...)
//   row_group        over the K rows of a sample: splits, factor, cross_entropy, mixture(...), slope(...),
//                    Gradient
//   elementwise      a sum over classes: on, off, target(...), evaluate(...); has_pos_weight, if positives may have a
//                    factor; `passes`, the number of passes over many elements before evaluate(...), which
//                    prepare<pass>(...) does, and parts(pass, grad), how many values of an element are kept then
//   gather           of the label's element alone: value(...), slope()
//   row_map          not a loss: a row to a row of the same length

#include "value.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

enum class Kind : uint8_t { softmax_linear, softmax_coupled, row_group, elementwise, gather, row_map };
inline constexpr const char* kKindNames[] = {"softmax_linear", "softmax_coupled", "row_group",
                                             "elementwise",    "gather",          "row_map"};

/** What `mean` divides by. It depends on labels alone, so gradients are scaled before the logits are read. */
enum class Denominator : uint8_t {
  rows,
  weights,   // Σ weight[y] over rows that are not ignored; rows, for dense targets
  elements,  // rows × classes
  samples,   // rows ÷ splits
};

/** Place `index` of the registry: empty, unless SURPRISAL_REGISTER took it. */
template <int index>
struct Registered {
  static constexpr bool present = false;
};

inline constexpr int kRegistryStart = __COUNTER__ + 1;

/** Puts a formula into the registry, in the order of inclusion. Stands after its definition, in namespace surprisal. */
#define SURPRISAL_REGISTER(Loss)                    \
  template <>                                       \
  struct Registered<__COUNTER__ - kRegistryStart> { \
    static constexpr bool present = true;           \
    template <class R>                              \
    using Formula = Loss<R>;                        \
  }

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
