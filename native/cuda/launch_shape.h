#pragma once

#include <cstdint>

namespace surprisal {

/** The blocks of a launch, in clusters of so many, and the dynamic shared memory of each. */
struct LaunchShape {
  int64_t blocks = 1;
  int threads = 32;
  int cluster = 1;
  int shared_bytes = 0;

  /** Whether it may begin before the last kernel has ended, for whose results it waits by itself. */
  bool overlaps = false;
  int device = 0;
};

/** What the threads of a block wait at for what other blocks of its cluster send. */
struct MailBarrier {
  uint64_t state;
};

inline constexpr int kWarp = 32;
/** Bytes of the widest access to memory. */
inline constexpr int kPackBytes = 16;

}  // namespace surprisal
