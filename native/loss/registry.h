#pragma once

// The one list of what there is. A loss of a known kind is a header that ends in SURPRISAL_REGISTER, and a line here.

#include "asymmetric_loss.h"
#include "binary_cross_entropy.h"
#include "cross_entropy.h"
#include "jsd.h"
#include "softmax.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Places in the registry, the empty ones included. */
inline constexpr int kRegistrySize = __COUNTER__ - kRegistryStart;

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
