#pragma once

#include "../dtype.h"
#include "device.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

SURPRISAL_DEVICE float widen(float x) { return x; }
SURPRISAL_DEVICE double widen(double x) { return x; }
SURPRISAL_DEVICE float narrow(float x, float) { return x; }
SURPRISAL_DEVICE double narrow(double x, double) { return x; }

/** The larger of two; of a number and a NaN the number. */
SURPRISAL_DEVICE float larger(float a, float b) { return fmaxf(a, b); }
SURPRISAL_DEVICE double larger(double a, double b) { return fmax(a, b); }

/** x as it is stored, rounded to nearest even. */
template <class T>
SURPRISAL_DEVICE T stored(Compute<T> x) {
  return narrow(x, T{});
}

/** Elements of a 16-byte access. */
template <class T>
inline constexpr int kPack = kPackBytes / static_cast<int>(sizeof(T));

/** What one access has of neighbouring elements. */
template <class S>
struct alignas(kPackBytes) Pack {
  S elements[kPack<S>];
};

/** Calls f with a value of a dense target's storage type: the logits', or what they are computed in. */
template <class T, class F>
SURPRISAL_DEVICE void with_dense(DType dtype, F&& f) {
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    f(T{});
  } else if (dtype == DType::float32) {
    f(float{});
  } else {
    f(T{});
  }
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
