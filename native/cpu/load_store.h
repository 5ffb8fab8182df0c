#pragma once

// How elements of any storage type come from memory into vectors and back: whole vectors, a row's tail, past the
// caches, and one element by itself.

#include <cstring>

#include "../dtype.h"
#include "simd.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {

typedef uint16_t HalfVector __attribute__((vector_size(kVectorBytes / 2)));

// ------------------------------------------------------------------------------------------------ half precision

// By intrinsics where there are any: GCC 12 has been seen to make wrong code of the portable form at -O3.
SURPRISAL_FN FloatVector widen(HalfVector bits, BFloat16) {
#if defined(__AVX512F__)
  return (FloatVector)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)bits), 16);
#elif defined(__AVX2__)
  return (FloatVector)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)bits), 16);
#else
  return (FloatVector)(__builtin_convertvector(bits, UIntVector) << 16);
#endif
}

/** Rounds to nearest even by adding just under half of the last place that stays; NaN stays NaN. */
SURPRISAL_FN HalfVector narrow(FloatVector x, BFloat16) {
  const UIntVector bits = (UIntVector)x;
  const UIntVector rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const UIntVector quiet = bits | 0x400000;
  return __builtin_convertvector((UIntVector)(x == x ? (IntVector)rounded : (IntVector)quiet) >> 16, HalfVector);
}

#if defined(__AVX512F__)
SURPRISAL_FN FloatVector widen(HalfVector bits, Float16) { return (FloatVector)_mm512_cvtph_ps((__m256i)bits); }
SURPRISAL_FN HalfVector narrow(FloatVector x, Float16) {
  return (HalfVector)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif defined(__F16C__) && defined(__AVX2__)
SURPRISAL_FN FloatVector widen(HalfVector bits, Float16) { return (FloatVector)_mm256_cvtph_ps((__m128i)bits); }
SURPRISAL_FN HalfVector narrow(FloatVector x, Float16) {
  return (HalfVector)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else
/** Exponent and fraction moved into place and multiplied by 2^112, which makes subnormals normal on the way. */
SURPRISAL_FN FloatVector widen(HalfVector half, Float16) {
  const UIntVector bits = __builtin_convertvector(half, UIntVector);
  const UIntVector magnitude = (bits & 0x7fff) << 13;
  const FloatVector finite = (FloatVector)magnitude * 0x1p112f;
  const UIntVector special = magnitude | 0x7f800000;
  const UIntVector value = (UIntVector)((IntVector)magnitude >= 0x0f800000 ? (IntVector)special : (IntVector)finite);
  return (FloatVector)(value | ((bits & 0x8000) << 16));
}
SURPRISAL_FN HalfVector narrow(FloatVector x, Float16) {
  const UIntVector bits = (UIntVector)x;
  const UIntVector sign = (bits >> 16) & 0x8000;
  const UIntVector magnitude = bits & 0x7fffffff;
  // Below 2^-14 the results are subnormal, 2^-24 apart: adding 0.5 leaves them in the low bits, rounded.
  const UIntVector small = (UIntVector)((FloatVector)magnitude + 0.5f) - 0x3f000000;
  const UIntVector normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13;
  const UIntVector large =
      (UIntVector)((IntVector)magnitude > 0x7f800000 ? (IntVector)((magnitude >> 13) | 0x7e00) : IntVector{} + 0x7c00);
  UIntVector value = (UIntVector)((IntVector)magnitude < 0x38800000 ? (IntVector)small : (IntVector)normal);
  value = (UIntVector)((IntVector)magnitude >= 0x477ff000 ? (IntVector)(large & 0x7fff) : (IntVector)value);
  return __builtin_convertvector(value | sign, HalfVector);
}
#endif

// ---------------------------------------------------------------------------------------------- loads and stores

/** values[index·step + lane] of each lane. Indices and steps have 32 bits at most: no array holds more than such steps.
 */
SURPRISAL_FN Vec<float> gather_across(const float* values, int64_t step, IntVector index) {
  using V = Vec<float>;
#if defined(__AVX512F__)
  const __m512i lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
  const auto half = [&](__m256i of_half, int lane) __attribute__((always_inline)) {
    const __m512i offset =
        _mm512_add_epi64(_mm512_mul_epu32(_mm512_cvtepi32_epi64(of_half), _mm512_set1_epi64(step)), lanes);
    return _mm512_i64gather_ps(offset, values + lane, sizeof(float));
  };
  const __m512 low = _mm512_castps256_ps512(half(_mm512_castsi512_si256((__m512i)index), 0));
  return V((FloatVector)_mm512_insertf32x8(low, half(_mm512_extracti64x4_epi64((__m512i)index, 1), 8), 1));
#else
  V v;
  for (int i = 0; i < V::size; ++i) v.raw[i] = values[index[i] * step + i];
  return v;
#endif
}
SURPRISAL_FN Vec<double> gather_across(const double* values, int64_t step, LongVector index) {
  using V = Vec<double>;
#if defined(__AVX512F__)
  const __m512i lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i offset = _mm512_add_epi64(_mm512_mul_epu32((__m512i)index, _mm512_set1_epi64(step)), lanes);
  return V((DoubleVector)_mm512_i64gather_pd(offset, values, sizeof(double)));
#else
  V v;
  for (int i = 0; i < V::size; ++i) v.raw[i] = values[index[i] * step + i];
  return v;
#endif
}

/** A vector as it stands in memory. */
template <class T>
SURPRISAL_FN auto as_stored(Vec<Compute<T>> v) {
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    return v.raw;
  } else {
    return narrow(v.raw, T{});
  }
}
template <class T, class Stored>
SURPRISAL_FN Vec<Compute<T>> from_stored(Stored bits) {
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    return Vec<Compute<T>>(bits);
  } else {
    return Vec<float>(widen(bits, T{}));
  }
}

template <class T>
SURPRISAL_FN Vec<Compute<T>> load(const T* from, Full, Compute<T> /*fill*/ = 0) {
  decltype(as_stored<T>(Vec<Compute<T>>())) bits;
  memcpy(&bits, from, sizeof(bits));
  return from_stored<T>(bits);
}

/** The first lanes; the others are `fill`. */
template <class T>
SURPRISAL_FN Vec<Compute<T>> load(const T* from, Partial lanes, Compute<T> fill = 0) {
  using V = Vec<Compute<T>>;
  const auto in_row = first_lanes<V>(lanes.count);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return V((FloatVector)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), in_row.raw, from));
  } else if constexpr (sizeof(T) == 8) {
    return V((DoubleVector)_mm512_mask_loadu_pd(_mm512_set1_pd(fill), in_row.raw, from));
  } else {
    return select(in_row, V(widen((HalfVector)_mm256_maskz_loadu_epi16(in_row.raw, from), T{})), V(fill));
  }
#else
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return select(in_row, V((FloatVector)_mm256_maskload_ps(from, (__m256i)in_row.raw)), V(fill));
  } else if constexpr (sizeof(T) == 8) {
    return select(in_row, V((DoubleVector)_mm256_maskload_pd(from, (__m256i)in_row.raw)), V(fill));
  }
#endif
  T part[V::size] = {};
  for (int i = 0; i < lanes.count; ++i) part[i] = from[i];
  return select(in_row, load(part, Full{}), V(fill));
#endif
}

template <class T>
SURPRISAL_FN void store(T* to, Vec<Compute<T>> v, Full) {
  const auto bits = as_stored<T>(v);
  memcpy(to, &bits, sizeof(bits));
}

template <class T>
SURPRISAL_FN void store(T* to, Vec<Compute<T>> v, Partial lanes) {
#if defined(__AVX512F__)
  const auto mask = first_lanes<Vec<Compute<T>>>(lanes.count).raw;
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(to, mask, (__m512)v.raw);
  } else if constexpr (sizeof(T) == 8) {
    _mm512_mask_storeu_pd(to, mask, (__m512d)v.raw);
  } else {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)narrow(v.raw, T{}));
  }
#else
  T part[Vec<Compute<T>>::size];
  store(part, v, Full{});
  for (int i = 0; i < lanes.count; ++i) to[i] = part[i];
#endif
}

/** Stores small whole numbers. */
template <class R>
SURPRISAL_FN void store_whole(int32_t* to, Vec<R> v) {
  typedef int32_t Wholes __attribute__((vector_size(Vec<R>::size * sizeof(int32_t))));
  const Wholes wholes = __builtin_convertvector(v.raw, Wholes);
  memcpy(to, &wholes, sizeof(wholes));
}

/** A store past the caches, of a vector at an address that it divides; `finish_streaming` after the last. */
template <class T>
SURPRISAL_FN void stream(T* to, Vec<Compute<T>> v) {
#if defined(__x86_64__)
  const auto bits = as_stored<T>(v);
#if defined(__AVX512F__)
  if constexpr (sizeof(bits) == 64) return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)bits);
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(bits) == 32) return _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)bits);
#endif
  if constexpr (sizeof(bits) == 16) return _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)bits);
#endif
  store(to, v, Full{});
}

/** Makes streamed stores visible to other threads. */
SURPRISAL_FN void finish_streaming() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

/** One element, by way of the vector's conversion. */
template <class T>
SURPRISAL_FN Compute<T> load_one(const T* from) {
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    return *from;
  } else {
    HalfVector bits = {};
    bits[0] = from->bits;
    return widen(bits, T{})[0];
  }
}

template <class T>
SURPRISAL_FN void store_one(T* to, Compute<T> x) {
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    *to = x;
  } else {
    to->bits = narrow(FloatVector{x}, T{})[0];
  }
}

// ------------------------------------------------------------------------------------------------------ row loops

/** Calls f(c, lanes) over [0, count): whole vectors, then what is left. */
template <class V, class F>
SURPRISAL_FN void for_each_vector(int64_t count, F&& f) {
  int64_t c = 0;
  for (; c + V::size <= count; c += V::size) f(c, Full{});
  if (c < count) f(c, Partial{static_cast<int>(count - c)});
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
