#pragma once

#include "../backend.h"
#include "../loss/value.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** Calls f with the class indices as an array of their type. */
template <class F>
inline auto with_indices(const Evaluation& call, F&& f) {
  switch (call.indices_dtype) {
    case DType::int8:
      return f(static_cast<const int8_t*>(call.indices));
    case DType::uint8:
    case DType::boolean:
      return f(static_cast<const uint8_t*>(call.indices));
    case DType::int16:
      return f(static_cast<const int16_t*>(call.indices));
    case DType::uint16:
      return f(static_cast<const uint16_t*>(call.indices));
    case DType::int32:
      return f(static_cast<const int32_t*>(call.indices));
    case DType::uint32:
      return f(static_cast<const uint32_t*>(call.indices));
    default:  // int64, and uint64, whose upper half reads as negative and is out of range either way
      return f(static_cast<const int64_t*>(call.indices));
  }
}

/** The class index of a row. */
inline int64_t read_index(const Evaluation& call, int64_t row) {
  return with_indices(call, [&](const auto* indices) -> int64_t { return indices[row]; });
}

/** Those of `count` rows. */
inline void read_indices(const Evaluation& call, int64_t row, int64_t count, int64_t* to) {
  with_indices(call, [&](const auto* indices) {
    for (int64_t i = 0; i < count; ++i) to[i] = indices[row + i];
  });
}

inline bool is_ignored(const Evaluation& call, int64_t index) {
  return call.has_ignore_index && index == call.ignore_index;
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
