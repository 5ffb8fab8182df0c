#pragma once

// The choice among the drivers of rows, in one place. A function of the row's length, its dtype and the device alone: a
// row is computed in the same way wherever it stands and whatever stands beside it.

#include <cstdint>

namespace surprisal {

/** What a device has. */
struct DeviceLimits {
  /** Bytes of shared memory that a block may have. */
  int shared_bytes = 48 * 1024;
  /** Blocks of a cluster; 1: the device has none. */
  int cluster = 1;
};

enum class RowDriver : uint8_t {
  lanes,     // some lanes of a warp a row, several rows a block
  block,     // a block a row
  cluster,   // a cluster a row, a slice of it in each block
  two_pass,  // a block a row, which does not fit: it is read again for the gradient
};
inline constexpr const char* kRowDriverNames[] = {"lanes", "block", "cluster", "two_pass"};

/** Of a row that a thread holds in registers: more would leave too few for the rest. */
inline constexpr int kRegisterBytes = 64;
/** The most threads that a row's block has. */
inline constexpr int kRowThreads = 512;
/** And that of one that does not fit: fewer, as it takes more registers. */
inline constexpr int kPassThreads = 256;
/** Threads of a block whose rows take some lanes each. */
inline constexpr int kLanesThreads = 128;

struct RowPlan {
  RowDriver driver = RowDriver::lanes;
  int threads = 0;       // of a block
  int team = 0;          // threads of a block on one row
  int cluster = 1;       // blocks of a row
  int rows = 1;          // of a block, or groups of rows that are computed together
  int slice = 0;         // classes of a row that a block holds at once
  int row_bytes = 0;     // of a slice in shared memory, wherever it begins
  int shared_bytes = 0;  // after the scratch

  constexpr int64_t tiles(int64_t all_rows) const { return (all_rows + rows - 1) / rows; }
};

/** What a driver keeps in shared memory of a row, or of a group of rows that it computes together. */
struct RowMemory {
  int rows = 1;
  /** Beside these rows themselves. */
  int64_t bytes = 0, bytes_per_class = 0;
};

/** How rows of so many classes travel. */
RowPlan plan_rows(int64_t classes, int element_bytes, int compute_bytes, const DeviceLimits& limits,
                  const RowMemory& memory = {});

}  // namespace surprisal
