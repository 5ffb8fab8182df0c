// All kernels of one instruction set. CMake compiles this file once for each, with SURPRISAL_TARGET as its name.

#include <type_traits>

#include "../loss/table.h"
#include "classification.h"
#include "elementwise.h"
#include "gather.h"
#include "row_group.h"
#include "row_map.h"
#include "softmax_coupled.h"
#include "softmax_linear.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {
namespace {

/** A driver over rows of storage type T. */
template <template <class Lanes, class Formula> class Driver, class T, class Formula>
struct OverRows {
  static double run(const Problem& problem, Block block) {
    using R = Compute<T>;
    return lies_across<R>(problem.call) ? Driver<Across<R>, Formula>::run(problem, block)
                                        : Driver<Along<T>, Formula>::run(problem, block);
  }
};

template <class T>
using ClassificationOf = OverRows<ClassificationDriver, T, Classification<Compute<T>>>;

template <Kind kind, class T, class Formula>
struct DriverOf;
template <class T, class Formula>
struct DriverOf<Kind::softmax_linear, T, Formula> : OverRows<SoftmaxLinear, T, Formula> {};
template <class T, class Formula>
struct DriverOf<Kind::softmax_coupled, T, Formula> : OverRows<SoftmaxCoupled, T, Formula> {};
template <class T, class Formula>
struct DriverOf<Kind::row_group, T, Formula> : OverRows<RowGroup, T, Formula> {};
template <class T, class Formula>
struct DriverOf<Kind::row_map, T, Formula> : OverRows<RowMap, T, Formula> {};
template <class T, class Formula>
struct DriverOf<Kind::elementwise, T, Formula> : Elementwise<T, Formula> {};
template <class T, class Formula>
struct DriverOf<Kind::gather, T, Formula> : Gather<T, Formula> {};

template <int index, class T>
using Driver = DriverOf<Registered<index>::template Formula<double>::kind, T,
                        typename Registered<index>::template Formula<Compute<T>>>;

template <int index>
struct KernelsOf {
  static constexpr LossKernels entry() {
    using F = typename Registered<index>::template Formula<double>;
    return {info_of<F>(),
            {Driver<index, float>::run, Driver<index, double>::run, Driver<index, Float16>::run,
             Driver<index, BFloat16>::run},
            denominator<F>,
            rows_per_unit<F>};
  }
};

constexpr auto kTable = loss_table<LossKernels, KernelsOf>(Places{});

/** In double for every dtype: a constant is made once, and is subtracted from a loss that may be small. */
void negative_entropy(const void* matrix, DType dtype, int64_t rows, int64_t classes, double* result) {
  with_storage(dtype, [&](auto storage) {
    using T = decltype(storage);
    using V = Vec<double>;
    for (int64_t row = 0; row < rows; ++row) {
      const T* q = static_cast<const T*>(matrix) + row * classes;
      Sum<V> total;
      for (int64_t c = 0; c < classes; c += V::size) {
        V v(0);
        for (int i = 0; i < V::size && c + i < classes; ++i) v.raw[i] = static_cast<double>(load_one(q + c + i));
        total.add(negative_entropy_term(v));
      }
      result[row] = total.total();
    }
  });
}

/** float64 to float with the last bit sticky (round to odd), so that rounding on to half precision rounds once. */
float to_odd(double x) {
  const auto nearest = static_cast<float>(x);
  if (static_cast<double>(nearest) == x || x != x) return nearest;
  auto bits = bits_as<uint32_t>(nearest);
  if (absolute(static_cast<double>(nearest)) > absolute(x)) --bits;  // towards zero
  return bits_as<float>(bits | 1);
}

void convert(const void* source, DType source_dtype, void* target, DType target_dtype, int64_t count) {
  with_storage(source_dtype, [&](auto from) {
    with_storage(target_dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const From* x = static_cast<const From*>(source);
      To* y = static_cast<To*>(target);
      for (int64_t i = 0; i < count; ++i) {
        if constexpr (std::is_same_v<From, double> && sizeof(To) == 2) {
          store_one(y + i, to_odd(x[i]));
        } else {
          store_one(y + i, static_cast<Compute<To>>(load_one(x + i)));
        }
      }
    });
  });
}

#define SURPRISAL_STRING_OF(x) #x
#define SURPRISAL_STRING(x) SURPRISAL_STRING_OF(x)

}  // namespace

const InstructionSet& instruction_set() {
  static constexpr InstructionSet set = {SURPRISAL_STRING(SURPRISAL_TARGET),
                                         kLossCount,
                                         kTable.losses,
                                         {ClassificationOf<float>::run, ClassificationOf<double>::run,
                                          ClassificationOf<Float16>::run, ClassificationOf<BFloat16>::run},
                                         negative_entropy,
                                         convert};
  return set;
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
