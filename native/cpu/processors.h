#pragma once

#include <string>

namespace surprisal {

inline constexpr int kMostThreads = 1024;

/** What the system lets this process compute on. */
struct Processors {
  /** Those that its affinity allows. */
  int allowed;
  /** How many processors' time the quotas of its control group and of those above it leave; infinite without one. */
  double quota;

  /** As many threads as can run at once: a part of a processor counts as one. */
  int threads() const;
};

/** Reads them from /proc and the control groups' file systems; `root` is put before each path, for tests. */
Processors read_processors(const std::string& root = "");

/** The number of threads to begin with. */
struct DefaultThreads {
  /** SURPRISAL_NUM_THREADS where that is an integer in [1, kMostThreads], else what the processors give. */
  int count;
  /** What it says where it is anything else. */
  std::string ignored;
};

/** As the environment was at the first call. */
const DefaultThreads& default_threads();

}  // namespace surprisal
