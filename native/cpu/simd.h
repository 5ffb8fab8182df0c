#pragma once

// The SIMD value type: GCC's and Clang's vector extensions, as wide as the instruction set that this file is compiled
// for. Intrinsics stand only where the compilers have no good code for the portable form: conversions of half
// precision, maxima, tests of masks, and loads and stores of a row's tail.

#include <bit>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "../dtype.h"
#include "../loss/value.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace surprisal {
inline namespace SURPRISAL_TARGET {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

/** Lanes of a vector that a load or store touches: all, or the first few at a row's end. */
struct Full {};
struct Partial {
  int count;
};

typedef float FloatVector __attribute__((vector_size(kVectorBytes)));
typedef double DoubleVector __attribute__((vector_size(kVectorBytes)));
typedef double WideVector __attribute__((vector_size(2 * kVectorBytes)));
typedef int32_t IntVector __attribute__((vector_size(kVectorBytes)));
typedef uint32_t UIntVector __attribute__((vector_size(kVectorBytes)));
typedef int64_t LongVector __attribute__((vector_size(kVectorBytes)));
typedef uint64_t ULongVector __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfVector __attribute__((vector_size(kVectorBytes / 2)));

/** The compiler's types for vectors of R. */
template <class R>
struct Vectors;
template <>
struct Vectors<float> {
  using Raw = FloatVector;
  using Int = IntVector;
  using UInt = UIntVector;
  using Wide = WideVector;  // as many lanes, in double
};
template <>
struct Vectors<double> {
  using Raw = DoubleVector;
  using Int = LongVector;
  using UInt = ULongVector;
  using Wide = DoubleVector;
};

template <class R>
struct Mask {
  typename Vectors<R>::Int raw;
};

/** True when some lane is. */
template <class R>
SURPRISAL_FN bool any(Mask<R> mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask.raw) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8((__m256i)mask.raw) != 0;
#elif defined(__x86_64__)
  return _mm_movemask_epi8((__m128i)mask.raw) != 0;
#else
  typename Format<R>::Int bits = 0;
  for (size_t i = 0; i < kVectorBytes / sizeof(R); ++i) bits |= mask.raw[i];
  return bits != 0;
#endif
}
/** How many lanes are true. */
template <class R>
SURPRISAL_FN int count(Mask<R> mask) {
#if defined(__AVX512F__)
  if constexpr (sizeof(R) == 4) return __builtin_popcount(_mm512_movepi32_mask((__m512i)mask.raw));
  return __builtin_popcount(_mm512_movepi64_mask((__m512i)mask.raw));
#elif defined(__AVX2__)
  if constexpr (sizeof(R) == 4) return __builtin_popcount(_mm256_movemask_ps((__m256)mask.raw));
  return __builtin_popcount(_mm256_movemask_pd((__m256d)mask.raw));
#elif defined(__x86_64__)
  if constexpr (sizeof(R) == 4) return __builtin_popcount(_mm_movemask_ps((__m128)mask.raw));
  return __builtin_popcount(_mm_movemask_pd((__m128d)mask.raw));
#else
  typename Format<R>::Int sum = 0;  // true is −1
  for (size_t i = 0; i < kVectorBytes / sizeof(R); ++i) sum -= mask.raw[i];
  return static_cast<int>(sum);
#endif
}
template <class R>
SURPRISAL_FN Mask<R> both(Mask<R> a, Mask<R> b) {
  return {a.raw & b.raw};
}

template <class R>
struct Vec {
  using Scalar = R;
  static constexpr int size = kVectorBytes / sizeof(R);
  using Raw = typename Vectors<R>::Raw;
  using Bits = typename Vectors<R>::Int;
  using UBits = typename Vectors<R>::UInt;
  Raw raw;

  Vec() = default;
  SURPRISAL_FN explicit Vec(Raw raw) : raw(raw) {}
  /** x − 0 is x for every x, a negative zero too. */
  SURPRISAL_FN Vec(R x) : raw(x - Raw{}) {}

  SURPRISAL_FN friend Vec operator+(Vec a, Vec b) { return Vec(a.raw + b.raw); }
  SURPRISAL_FN friend Vec operator-(Vec a, Vec b) { return Vec(a.raw - b.raw); }
  SURPRISAL_FN friend Vec operator*(Vec a, Vec b) { return Vec(a.raw * b.raw); }
  SURPRISAL_FN friend Vec operator/(Vec a, Vec b) { return Vec(a.raw / b.raw); }
  SURPRISAL_FN Vec operator-() const { return Vec(-raw); }
  SURPRISAL_FN friend Mask<R> operator==(Vec a, Vec b) { return {a.raw == b.raw}; }
  SURPRISAL_FN friend Mask<R> operator<(Vec a, Vec b) { return {a.raw < b.raw}; }
  SURPRISAL_FN friend Mask<R> operator>(Vec a, Vec b) { return {a.raw > b.raw}; }

  SURPRISAL_FN friend Vec select(Mask<R> mask, Vec a, Vec b) { return Vec(mask.raw ? a.raw : b.raw); }

  /** b where a is NaN. */
  SURPRISAL_FN friend Vec maximum(Vec a, Vec b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4) return Vec((Raw)_mm512_max_ps((__m512)a.raw, (__m512)b.raw));
    if constexpr (sizeof(R) == 8) return Vec((Raw)_mm512_max_pd((__m512d)a.raw, (__m512d)b.raw));
#elif defined(__AVX2__)
    if constexpr (sizeof(R) == 4) return Vec((Raw)_mm256_max_ps((__m256)a.raw, (__m256)b.raw));
    if constexpr (sizeof(R) == 8) return Vec((Raw)_mm256_max_pd((__m256d)a.raw, (__m256d)b.raw));
#elif defined(__x86_64__)
    if constexpr (sizeof(R) == 4) return Vec((Raw)_mm_max_ps((__m128)a.raw, (__m128)b.raw));
    if constexpr (sizeof(R) == 8) return Vec((Raw)_mm_max_pd((__m128d)a.raw, (__m128d)b.raw));
#endif
    return Vec(a.raw > b.raw ? a.raw : b.raw);
  }

  /** c − a·b, rounded once; without such an instruction float takes it in double, where products are exact. */
  SURPRISAL_FN friend Vec residual(Vec c, Vec a, Vec b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4) {
      return Vec((Raw)_mm512_fnmadd_ps((__m512)a.raw, (__m512)b.raw, (__m512)c.raw));
    } else {
      return Vec((Raw)_mm512_fnmadd_pd((__m512d)a.raw, (__m512d)b.raw, (__m512d)c.raw));
    }
#elif defined(__FMA__)
    if constexpr (sizeof(R) == 4) {
      return Vec((Raw)_mm256_fnmadd_ps((__m256)a.raw, (__m256)b.raw, (__m256)c.raw));
    } else {
      return Vec((Raw)_mm256_fnmadd_pd((__m256d)a.raw, (__m256d)b.raw, (__m256d)c.raw));
    }
#elif defined(__aarch64__)
    if constexpr (sizeof(R) == 4) {
      return Vec((Raw)vfmsq_f32((float32x4_t)c.raw, (float32x4_t)a.raw, (float32x4_t)b.raw));
    } else {
      return Vec((Raw)vfmsq_f64((float64x2_t)c.raw, (float64x2_t)a.raw, (float64x2_t)b.raw));
    }
#else
    if constexpr (sizeof(R) == 4) {
      return Vec(__builtin_convertvector(
          __builtin_convertvector(c.raw, WideVector) -
              __builtin_convertvector(a.raw, WideVector) * __builtin_convertvector(b.raw, WideVector),
          Raw));
    } else {
      Vec result;
      for (int i = 0; i < size; ++i) result.raw[i] = __builtin_fma(-a.raw[i], b.raw[i], c.raw[i]);
      return result;
    }
#endif
  }

  SURPRISAL_FN friend Vec absolute(Vec a) {
    const Bits sign = Bits{} + std::bit_cast<typename Format<R>::Int>(R(-0.0));
    return Vec((Raw)((Bits)a.raw & ~sign));
  }

  SURPRISAL_FN friend Vec power_of_two(Vec rounded) {
    using F = Format<R>;
    return Vec((Raw)(((UBits)rounded.raw + static_cast<std::make_unsigned_t<typename F::Int>>(F::exponent_bias))
                     << F::fraction_bits));
  }

  SURPRISAL_FN friend void split_exponent(Vec x, Vec& significand, Vec& exponent) {
    using F = Format<R>;
    const Bits offset = (Bits)x.raw - F::sqrt_half_bits;
    exponent.raw = __builtin_convertvector(offset >> F::fraction_bits, Raw);
    const Bits fraction = offset & ((typename F::Int{1} << F::fraction_bits) - 1);
    significand.raw = (Raw)(fraction + F::sqrt_half_bits);
  }
};

/** 0, 1, 2, ... */
template <class V>
SURPRISAL_FN V lane_numbers() {
  V lanes;
  for (int i = 0; i < V::size; ++i) lanes.raw[i] = static_cast<Scalar<V>>(i);
  return lanes;
}

/** v in the row's lanes, 0 past its end. */
template <class V>
SURPRISAL_FN V inside(Full, V v) {
  return v;
}
template <class V>
SURPRISAL_FN V inside(Partial lanes, V v) {
  return select(lane_numbers<V>() < V(static_cast<Scalar<V>>(lanes.count)), v, V(Scalar<V>(0)));
}

/** The lanes' maximum, NaN lanes ignored. */
template <class V>
SURPRISAL_FN Scalar<V> largest_lane(V a) {
  Scalar<V> result = a.raw[0];
  for (int i = 1; i < V::size; ++i) result = maximum(static_cast<Scalar<V>>(a.raw[i]), result);
  return result;
}

// ------------------------------------------------------------------------------------------------ half precision

SURPRISAL_FN FloatVector widen(HalfVector bits, BFloat16) {
  return (FloatVector)(__builtin_convertvector(bits, UIntVector) << 16);
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

/** What a storage type is computed in. */
template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class T>
using Compute = typename ComputeOf<T>::type;

template <class T>
SURPRISAL_FN Vec<Compute<T>> load(const T* from, Full, Compute<T> /*fill*/ = 0) {
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    Vec<Compute<T>> v;
    memcpy(&v.raw, from, sizeof(v.raw));
    return v;
  } else {
    HalfVector bits;
    memcpy(&bits, from, sizeof(bits));
    return Vec<float>(widen(bits, T{}));
  }
}

/** The first lanes; the others are `fill`. */
template <class T>
SURPRISAL_FN Vec<Compute<T>> load(const T* from, Partial lanes, Compute<T> fill = 0) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const auto mask = static_cast<__mmask16>((1u << lanes.count) - 1);
    return Vec<float>((FloatVector)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, from));
  } else if constexpr (sizeof(T) == 8) {
    const auto mask = static_cast<__mmask8>((1u << lanes.count) - 1);
    return Vec<double>((Vec<double>::Raw)_mm512_mask_loadu_pd(_mm512_set1_pd(fill), mask, from));
  } else  // NOLINT(readability-misleading-indentation): the portable form serves half precision
#endif
  {
    T part[Vec<Compute<T>>::size] = {};
    for (int i = 0; i < lanes.count; ++i) part[i] = from[i];
    Vec<Compute<T>> v = load(part, Full{});
    const auto in_row = lane_numbers<Vec<Compute<T>>>() < Vec<Compute<T>>(static_cast<Compute<T>>(lanes.count));
    return select(in_row, v, Vec<Compute<T>>(fill));
  }
}

template <class T>
SURPRISAL_FN void store(T* to, Vec<Compute<T>> v, Full) {
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    memcpy(to, &v.raw, sizeof(v.raw));
  } else {
    const HalfVector bits = narrow(v.raw, T{});
    memcpy(to, &bits, sizeof(bits));
  }
}

template <class T>
SURPRISAL_FN void store(T* to, Vec<Compute<T>> v, Partial lanes) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << lanes.count) - 1), (__m512)v.raw);
  } else if constexpr (sizeof(T) == 8) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << lanes.count) - 1), (__m512d)v.raw);
  } else  // NOLINT(readability-misleading-indentation)
#endif
  {
    T part[Vec<Compute<T>>::size];
    store(part, v, Full{});
    for (int i = 0; i < lanes.count; ++i) to[i] = part[i];
  }
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

/**
 * A sum over a row: vectors in float over short stretches, these in double, always in the same order. Equal terms, as
 * logits that differ in one class have, round the same way at every addition, so a long stretch would drift.
 */
template <class V>
class Sum {
 public:
  static constexpr int kStretch = 8;

  SURPRISAL_FN void add(V v) {
    part_ = part_ + v;
    if (++count_ == kStretch) flush();
  }

  /** Adds v in double, without a stretch in float before. */
  SURPRISAL_FN void add_wide(V v) { wide_ += __builtin_convertvector(v.raw, Wide); }

  /** Adds a·b, taken in double. */
  SURPRISAL_FN void add_product(V a, V b) {
    wide_ += __builtin_convertvector(a.raw, Wide) * __builtin_convertvector(b.raw, Wide);
  }

  SURPRISAL_FN double total() {
    flush();
    double sum = 0;
    for (int i = 0; i < V::size; ++i) sum += wide_[i];
    return sum;
  }

 private:
  using Wide = typename Vectors<Scalar<V>>::Wide;

  SURPRISAL_FN void flush() {
    wide_ += __builtin_convertvector(part_.raw, Wide);
    part_ = V(0);
    count_ = 0;
  }

  V part_ = V(Scalar<V>(0));
  int count_ = 0;
  Wide wide_ = {};
};

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
