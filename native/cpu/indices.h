#pragma once

#include "../backend.h"
#include "../loss/value.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

/** The class index of a row. */
inline int64_t read_index(const Evaluation& call, int64_t row) {
  switch (call.indices_dtype) {
    case DType::int8:
      return static_cast<const int8_t*>(call.indices)[row];
    case DType::uint8:
    case DType::boolean:
      return static_cast<const uint8_t*>(call.indices)[row];
    case DType::int16:
      return static_cast<const int16_t*>(call.indices)[row];
    case DType::uint16:
      return static_cast<const uint16_t*>(call.indices)[row];
    case DType::int32:
      return static_cast<const int32_t*>(call.indices)[row];
    case DType::uint32:
      return static_cast<const uint32_t*>(call.indices)[row];
    default:  // int64, and uint64, whose upper half reads as negative and is out of range either way
      return static_cast<const int64_t*>(call.indices)[row];
  }
}

inline bool is_ignored(const Evaluation& call, int64_t index) {
  return call.has_ignore_index && index == call.ignore_index;
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
