#pragma once

// A dense target of another dtype than the logits' or what these are computed in, converted before the rows are read.

#include "kernels.h"
#include "storage.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

inline constexpr int kConvertThreads = 256;
inline constexpr int64_t kConvertedPerBlock = 4096;

template <class From, class R>
struct Convert {
  static constexpr int most_threads = kConvertThreads;

  const From* from;
  R* to;
  int64_t count;

  SURPRISAL_DEVICE void operator()() const {
    const int64_t first = block_index() * kConvertedPerBlock;
    const int64_t last = first + kConvertedPerBlock < count ? first + kConvertedPerBlock : count;
    for (int64_t i = first + thread_index(); i < last; i += thread_count()) {
      store_global(to + i, static_cast<R>(widen(load_global(from + i))));
    }
  }
};

template <class R>
void launch_convert(const void* from, DType dtype, void* to, int64_t count, Stream stream) {
  const auto run = [&](auto storage) {
    using From = decltype(storage);
    LaunchShape shape;
    shape.blocks = (count + kConvertedPerBlock - 1) / kConvertedPerBlock;
    shape.threads = kConvertThreads;
    launch(Convert<From, R>{static_cast<const From*>(from), static_cast<R*>(to), count}, shape, stream);
  };
  switch (dtype) {
    case DType::float64:
      return run(double{});
    case DType::float16:
      return run(Float16{});
    case DType::bfloat16:
      return run(BFloat16{});
    default:
      return run(float{});
  }
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
