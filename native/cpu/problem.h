#pragma once

#include "../backend.h"

namespace surprisal {

class Tally;
struct PartialTally;

/** An evaluation whose labels were read: what every block of rows needs to know. */
struct Problem {
  const Evaluation& call;
  double grad_scale;  // of dL/dz of a row: 1 ÷ denominator, times grad_output where that is one number
  bool streams;       // the gradient is written past the caches

  const Tally* tally = nullptr;  // of a call for statistics, with what this part counts into
  PartialTally* partial = nullptr;
};

/** Units of work [begin, end): rows, or samples of a row group. */
struct Block {
  int64_t begin;
  int64_t end;
  int64_t run_end;  // of the blocks that this thread goes on with
};

/** Runs a block; returns its losses' sum. */
using BlockKernel = double (*)(const Problem&, Block);

/** What one loss needs to be run. */
struct LossKernels {
  LossInfo info;
  BlockKernel run[kFloatDTypeCount];  // by dtype
  /** What `mean` divides by, from Σ weight[y] over the rows that count. */
  double (*denominator)(const Evaluation&, double weights);
  /** Rows of a unit of work: 1, or the splits of a row group. */
  int64_t (*rows_per_unit)(const Evaluation&);
};

/** Everything that is compiled once for each instruction set. */
struct InstructionSet {
  const char* name;
  int loss_count;
  const LossKernels* losses;
  BlockKernel classification[kFloatDTypeCount];  // cross entropy with statistics of its rows
  void (*negative_entropy)(const void* matrix, DType, int64_t rows, int64_t classes, double* result);
  void (*convert)(const void* source, DType source_dtype, void* target, DType target_dtype, int64_t count);
};

}  // namespace surprisal
