#pragma once

#include "problem.h"

namespace surprisal {

// Each instruction set that is compiled in, in a namespace of its name.
#define SURPRISAL_DECLARE(name)            \
  namespace name {                         \
  const InstructionSet& instruction_set(); \
  }
#ifdef SURPRISAL_TARGET
inline namespace SURPRISAL_TARGET {
const InstructionSet& instruction_set();
}
#else
#if defined(__x86_64__)
SURPRISAL_DECLARE(x86_64_v4)
SURPRISAL_DECLARE(x86_64_v3)
#endif
SURPRISAL_DECLARE(baseline)
#endif
#undef SURPRISAL_DECLARE

}  // namespace surprisal
