// All kernels of one dtype, whose name is SURPRISAL_DTYPE: a driver for each registered loss. all_kernels.cu has this
// file once for each; the emulator's build compiles it so often.

#include "../loss/table.h"
#include "convert.h"
#include "elementwise.h"
#include "gather.h"
#include "kernels.h"
#include "labels.h"
#include "row_group.h"
#include "row_map.h"
#include "softmax_coupled.h"
#include "softmax_linear.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {
namespace {

template <Kind kind, class T, class Formula>
struct JobsOf;
template <class T, class Formula>
struct JobsOf<Kind::softmax_linear, T, Formula> : SoftmaxLinearJobs<T, Formula> {};
template <class T, class Formula>
struct JobsOf<Kind::softmax_coupled, T, Formula> : SoftmaxCoupledJobs<T, Formula> {};
template <class T, class Formula>
struct JobsOf<Kind::row_group, T, Formula> : RowGroupJobs<T, Formula> {};
template <class T, class Formula>
struct JobsOf<Kind::elementwise, T, Formula> : ElementwiseJobs<T, Formula> {};
template <class T, class Formula>
struct JobsOf<Kind::gather, T, Formula> : GatherJobs<T, Formula> {};
template <class T, class Formula>
struct JobsOf<Kind::row_map, T, Formula> : RowMapJobs<T, Formula> {};

struct StorageTypes {
  using float32 = float;
  using float64 = double;
  using float16 = Float16;
  using bfloat16 = BFloat16;
};
using T = StorageTypes::SURPRISAL_DTYPE;
using R = Compute<T>;

template <int index>
using Formula = typename Registered<index>::template Formula<R>;
template <int index>
using Jobs = JobsOf<Formula<index>::kind, T, Formula<index>>;

/** The weights of labels are the device's to add up where they are not known beforehand. */
template <class F>
double known_divisor(const Evaluation& call) {
  const bool unknown = call.weight != nullptr || call.has_ignore_index;
  return denominator<F>(call, unknown ? 0 : static_cast<double>(call.rows()));
}

template <int index>
struct JobsEntry {
  static constexpr LossJobs entry() {
    return {info_of<Formula<index>>(), Jobs<index>::launch, Jobs<index>::parts,
            Formula<index>::kind == Kind::softmax_linear, known_divisor<Formula<index>>};
  }
};

constexpr auto kTable = loss_table<LossJobs, JobsEntry>(Places{});

// Static, as nvcc names an unnamed namespace after the file, which is the same for every dtype.
static void launch_label_weights(const Problem& problem, Stream stream) {
  LaunchShape shape;
  shape.blocks = label_parts(problem.call.rows());
  shape.threads = kLabelThreads;
  shape.shared_bytes = sizeof(Scratch);
  launch(LabelWeights<R>{problem}, shape, stream);
}

#define SURPRISAL_JOIN_NAMES(a, b) a##b
#define SURPRISAL_JOIN(a, b) SURPRISAL_JOIN_NAMES(a, b)

}  // namespace
}  // namespace SURPRISAL_TARGET

const DTypeJobs& SURPRISAL_JOIN(SURPRISAL_DTYPE, _jobs)() {
  namespace own = SURPRISAL_TARGET;
  static constexpr DTypeJobs jobs = {kLossCount, own::kTable.losses, own::launch_label_weights, launch_convert<own::R>};
  return jobs;
}

}  // namespace surprisal
