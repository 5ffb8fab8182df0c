#pragma once

#include "../backend.h"

namespace surprisal {

/**
 * A call whose arrays are in host memory: brought to its device and back, and waited for. A large one goes in pieces of
 * rows, of which one is computed while its neighbours are on their way.
 */
double evaluate_from_host(const Evaluation& call);

}  // namespace surprisal
