#pragma once

#include <string>
#include <vector>

namespace surprisal {

/** Names of the instruction sets that were compiled in and run here, best first. */
std::vector<std::string> instruction_sets();
/** The one in use. */
std::string current_instruction_set();
/** Changes it; false where there is none of that name. For tests and benchmarks, while nothing runs. */
bool use_instruction_set(const std::string& name);

}  // namespace surprisal
