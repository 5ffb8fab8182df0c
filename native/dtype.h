#pragma once

#include <cstdint>
#include <type_traits>

namespace surprisal {

/** Storage of float16 and bfloat16: bits, computed on as float. */
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

/** What a storage type is computed in: double for itself, float for any other. */
template <class T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

/** Element types of tensors. The floating ones come first: losses run on these. */
enum class DType : uint8_t {
  float32,
  float64,
  float16,
  bfloat16,
  int8,
  uint8,
  int16,
  uint16,
  int32,
  uint32,
  int64,
  uint64,
  boolean,
};

inline constexpr const char* kDTypeNames[] = {"float32", "float64", "float16", "bfloat16", "int8",   "uint8", "int16",
                                              "uint16",  "int32",   "uint32",  "int64",    "uint64", "bool"};
inline constexpr int kDTypeSizes[] = {4, 8, 2, 2, 1, 1, 2, 2, 4, 4, 8, 8, 1};
inline constexpr int kDTypeCount = sizeof(kDTypeSizes) / sizeof(kDTypeSizes[0]);
inline constexpr int kFloatDTypeCount = 4;

/** Bytes of an element. */
constexpr int element_size(DType dtype) { return kDTypeSizes[static_cast<int>(dtype)]; }

}  // namespace surprisal
