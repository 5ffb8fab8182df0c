#pragma once

// The choice among the drivers of rows, in one place. A function of the row's length, its dtype, what a driver keeps of
// it and the device alone: a row is computed in the same way wherever it stands and whatever stands beside it.

#include <cstdint>

namespace surprisal {

/** What a device has. */
struct DeviceLimits {
  /** Bytes of shared memory that a block may have. */
  int shared_bytes = 48 * 1024;
  /** Blocks of a cluster; 1: the device has none. */
  int cluster = 1;
  int device = 0;
};

enum class RowDriver : uint8_t {
  lanes,     // some lanes of a warp a row, several rows a block
  block,     // a block a row
  cluster,   // a cluster a row, a slice of it in each block
  two_pass,  // a block a row, which it can't hold: it is read again for the gradient
};
inline constexpr const char* kRowDriverNames[] = {"lanes", "block", "cluster", "two_pass"};

/** Of a row that a thread holds in registers: more would leave too few for the rest. Half of it, of each of two. */
inline constexpr int kRegisterBytes = 128;
/** The most threads that a row's block has. */
inline constexpr int kRowThreads = 512;
/** And that of one that does not fit, of whose slices a thread holds so much. */
inline constexpr int kPassThreads = 256, kPassBytes = 32;
/** Threads of a block whose rows take some lanes each. */
inline constexpr int kLanesThreads = 128;

struct RowPlan {
  RowDriver driver = RowDriver::lanes;
  int threads = 0;       // of a block
  int team = 0;          // threads of a block on one row
  int cluster = 1;       // blocks of a row
  int rows = 1;          // of a block or a cluster, or groups of rows that are computed together
  int slice = 0;         // classes of a row that a block holds at once
  int runs = 0;          // of 16 bytes of these, that some thread has
  int full_runs = 0;     // and that each thread has, of each slice
  int row_bytes = 0;     // of a slice in shared memory, wherever it begins
  int own_place = 0;     // of what the driver keeps in shared memory, after the scratch and the results
  int shared_bytes = 0;  // after the scratch
  bool staged = false;   // results go by shared memory

  int64_t all_rows = 0;  // of the call, or groups of rows
  int64_t tiles = 0;     // blocks or clusters that these take
};

/** What a driver keeps of a row, or of a group of rows that it computes together. */
struct RowNeeds {
  /** Of the call, or groups of rows. */
  int64_t all_rows = 1;
  /** Of each row of a group, that a thread holds. */
  int register_bytes = kRegisterBytes;
  /** The most threads that a block has. */
  int threads = kRowThreads;
  /** Whether results go by shared memory, where they do not stand at multiples of 16 bytes. */
  bool staged = false;
  /** Of shared memory beside that. */
  int64_t bytes = 0, bytes_per_class = 0;
};

/** How rows of so many classes travel. */
RowPlan plan_rows(int64_t classes, int element_bytes, int compute_bytes, const DeviceLimits& limits,
                  const RowNeeds& needs = {});

/** The same, never by a driver that holds rows. */
RowPlan plan_passes(int64_t classes, int element_bytes, int compute_bytes, const DeviceLimits& limits,
                    const RowNeeds& needs);

}  // namespace surprisal
