#pragma once

// The kernels of each instruction set that is compiled in: kernels.cc, in a namespace of its name.

#include "problem.h"

namespace surprisal {

#if defined(__x86_64__)
namespace x86_64_v4 {
const InstructionSet& instruction_set();
}
namespace x86_64_v3 {
const InstructionSet& instruction_set();
}
#endif
namespace baseline {
const InstructionSet& instruction_set();
}

}  // namespace surprisal
