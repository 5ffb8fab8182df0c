#pragma once

// The SIMD value type: GCC's and Clang's vector extensions, as wide as the instruction set that this file is compiled
// for. Intrinsics stand only where the compilers have no good code for the portable form, here and in load_store.h:
// maxima, tests of masks, conversions of half precision, and loads and stores of a row's tail.

#include <bit>
#include <cstddef>
#include <cstring>
#include <type_traits>

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
typedef int32_t IntVector __attribute__((vector_size(kVectorBytes)));
typedef uint32_t UIntVector __attribute__((vector_size(kVectorBytes)));
typedef int64_t LongVector __attribute__((vector_size(kVectorBytes)));
typedef uint64_t ULongVector __attribute__((vector_size(kVectorBytes)));

/** As many doubles as a FloatVector has lanes. */
#if defined(__AVX2__) && !defined(__AVX512F__)
// Cut into halves here: GCC 12 takes what it cuts itself through memory.
struct WideVector {
  DoubleVector half[2];

  SURPRISAL_FN WideVector& operator+=(const WideVector& x) {
    for (int i = 0; i < 2; ++i) half[i] += x.half[i];
    return *this;
  }
  SURPRISAL_FN WideVector& operator*=(double x) {
    for (int i = 0; i < 2; ++i) half[i] *= x;
    return *this;
  }
  SURPRISAL_FN friend WideVector operator*(const WideVector& a, const WideVector& b) {
    return {a.half[0] * b.half[0], a.half[1] * b.half[1]};
  }
};

SURPRISAL_FN WideVector in_double(FloatVector x) {
  return {(DoubleVector)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)x)),
          (DoubleVector)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)x, 1))};
}
SURPRISAL_FN FloatVector in_float(const WideVector& x) {
  return (FloatVector)_mm256_set_m128(_mm256_cvtpd_ps((__m256d)x.half[1]), _mm256_cvtpd_ps((__m256d)x.half[0]));
}
#else
typedef double WideVector __attribute__((vector_size(2 * kVectorBytes)));

SURPRISAL_FN WideVector in_double(FloatVector x) { return __builtin_convertvector(x, WideVector); }
SURPRISAL_FN FloatVector in_float(WideVector x) { return __builtin_convertvector(x, FloatVector); }
#endif
SURPRISAL_FN DoubleVector in_double(DoubleVector x) { return x; }

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

/** A truth value a lane: AVX-512's mask registers, else lanes of all ones. */
#if defined(__AVX512F__)
template <class R>
struct Mask {
  std::conditional_t<sizeof(R) == 4, __mmask16, __mmask8> raw;
};

// As a test of mask registers: GCC 12 has been seen to spill 16 bits of one and to read 32 of them back as a number.
SURPRISAL_FN bool any(Mask<float> mask) { return !_kortestz_mask16_u8(mask.raw, mask.raw); }
SURPRISAL_FN bool any(Mask<double> mask) { return !_kortestz_mask8_u8(mask.raw, mask.raw); }
SURPRISAL_FN bool all(Mask<float> mask) { return _kortestc_mask16_u8(mask.raw, mask.raw); }
SURPRISAL_FN bool all(Mask<double> mask) { return _kortestc_mask8_u8(mask.raw, mask.raw); }
template <class R>
SURPRISAL_FN Mask<R> either(Mask<R> a, Mask<R> b) {
  return {static_cast<decltype(a.raw)>(a.raw | b.raw)};
}
#else
template <class R>
struct Mask {
  typename Vectors<R>::Int raw;
};

/** True when some lane is. */
template <class R>
SURPRISAL_FN bool any(Mask<R> mask) {
#if defined(__AVX2__)
  return _mm256_movemask_epi8((__m256i)mask.raw) != 0;
#elif defined(__x86_64__)
  return _mm_movemask_epi8((__m128i)mask.raw) != 0;
#else
  typename Format<R>::Int bits = 0;
  for (size_t i = 0; i < kVectorBytes / sizeof(R); ++i) bits |= mask.raw[i];
  return bits != 0;
#endif
}
/** True when every lane is. */
template <class R>
SURPRISAL_FN bool all(Mask<R> mask) {
  return !any(Mask<R>{~mask.raw});
}
template <class R>
SURPRISAL_FN Mask<R> either(Mask<R> a, Mask<R> b) {
  return {a.raw | b.raw};
}
#endif

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
#if defined(__AVX512F__)
  SURPRISAL_FN friend Mask<R> operator==(Vec a, Vec b) { return compare<_CMP_EQ_OQ>(a, b); }
  SURPRISAL_FN friend Mask<R> operator<(Vec a, Vec b) { return compare<_CMP_LT_OQ>(a, b); }
  SURPRISAL_FN friend Mask<R> operator>(Vec a, Vec b) { return compare<_CMP_GT_OQ>(a, b); }

  SURPRISAL_FN friend Vec select(Mask<R> mask, Vec a, Vec b) {
    if constexpr (sizeof(R) == 4) {
      return Vec((Raw)_mm512_mask_blend_ps(mask.raw, (__m512)b.raw, (__m512)a.raw));
    } else {
      return Vec((Raw)_mm512_mask_blend_pd(mask.raw, (__m512d)b.raw, (__m512d)a.raw));
    }
  }
#else
  SURPRISAL_FN friend Mask<R> operator==(Vec a, Vec b) { return {a.raw == b.raw}; }
  SURPRISAL_FN friend Mask<R> operator<(Vec a, Vec b) { return {a.raw < b.raw}; }
  SURPRISAL_FN friend Mask<R> operator>(Vec a, Vec b) { return {a.raw > b.raw}; }

  SURPRISAL_FN friend Vec select(Mask<R> mask, Vec a, Vec b) { return Vec(mask.raw ? a.raw : b.raw); }
#endif

  /** 0 where d is below the bound, else x: a part of the instruction that makes x, where instructions have masks. */
  SURPRISAL_FN friend Vec zero_below(Vec d, Vec bound, Vec x) {
#if defined(__AVX512F__)
    const auto kept = compare<_CMP_NLT_UQ>(d, bound).raw;
    if constexpr (sizeof(R) == 4) {
      return Vec((Raw)_mm512_maskz_mov_ps(kept, (__m512)x.raw));
    } else {
      return Vec((Raw)_mm512_maskz_mov_pd(kept, (__m512d)x.raw));
    }
#else
    return select(d < bound, Vec(0), x);
#endif
  }

  /** a·b + c, where a is below the bound c alone: b is 0 there, even of an infinite a. */
  SURPRISAL_FN friend Vec multiply_add_above(Vec bound, Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
    const auto kept = compare<_CMP_NLT_UQ>(a, bound).raw;
    if constexpr (sizeof(R) == 4) {
      return Vec((Raw)_mm512_mask3_fmadd_ps((__m512)a.raw, (__m512)b.raw, (__m512)c.raw, kept));
    } else {
      return Vec((Raw)_mm512_mask3_fmadd_pd((__m512d)a.raw, (__m512d)b.raw, (__m512d)c.raw, kept));
    }
#else
    return multiply_add(maximum(a, bound), b, c);
#endif
  }

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
  SURPRISAL_FN friend Vec minimum(Vec a, Vec b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4) return Vec((Raw)_mm512_min_ps((__m512)a.raw, (__m512)b.raw));
    if constexpr (sizeof(R) == 8) return Vec((Raw)_mm512_min_pd((__m512d)a.raw, (__m512d)b.raw));
#elif defined(__AVX2__)
    if constexpr (sizeof(R) == 4) return Vec((Raw)_mm256_min_ps((__m256)a.raw, (__m256)b.raw));
    if constexpr (sizeof(R) == 8) return Vec((Raw)_mm256_min_pd((__m256d)a.raw, (__m256d)b.raw));
#elif defined(__x86_64__)
    if constexpr (sizeof(R) == 4) return Vec((Raw)_mm_min_ps((__m128)a.raw, (__m128)b.raw));
    if constexpr (sizeof(R) == 8) return Vec((Raw)_mm_min_pd((__m128d)a.raw, (__m128d)b.raw));
#endif
    return Vec(a.raw < b.raw ? a.raw : b.raw);
  }

  SURPRISAL_FN friend Vec multiply_add(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4) {
      return Vec((Raw)_mm512_fmadd_ps((__m512)a.raw, (__m512)b.raw, (__m512)c.raw));
    } else {
      return Vec((Raw)_mm512_fmadd_pd((__m512d)a.raw, (__m512d)b.raw, (__m512d)c.raw));
    }
#elif defined(__FMA__)
    if constexpr (sizeof(R) == 4) {
      return Vec((Raw)_mm256_fmadd_ps((__m256)a.raw, (__m256)b.raw, (__m256)c.raw));
    } else {
      return Vec((Raw)_mm256_fmadd_pd((__m256d)a.raw, (__m256d)b.raw, (__m256d)c.raw));
    }
#elif defined(__aarch64__)
    if constexpr (sizeof(R) == 4) {
      return Vec((Raw)vfmaq_f32((float32x4_t)c.raw, (float32x4_t)a.raw, (float32x4_t)b.raw));
    } else {
      return Vec((Raw)vfmaq_f64((float64x2_t)c.raw, (float64x2_t)a.raw, (float64x2_t)b.raw));
    }
#else
    return a * b + c;
#endif
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
      return Vec(in_float(in_double(c.raw) - in_double(a.raw) * in_double(b.raw)));
    } else {
      Vec result;
      for (int i = 0; i < size; ++i) result.raw[i] = __builtin_fma(-a.raw[i], b.raw[i], c.raw[i]);
      return result;
    }
#endif
  }

  /** 1/x within an ulp, for normal x whose inverse is normal too: an estimate and a step of Newton's method. */
  SURPRISAL_FN friend Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4) {
      const Vec estimate((Raw)_mm512_rcp14_ps((__m512)x.raw));
      return multiply_add(residual(Vec(1), estimate, x), estimate, estimate);
    }
#endif
    return Vec(1) / x;
  }

  SURPRISAL_FN friend Vec absolute(Vec a) {
    const Bits sign = Bits{} + std::bit_cast<typename Format<R>::Int>(R(-0.0));
    return Vec((Raw)((Bits)a.raw & ~sign));
  }

  /** A table as a vector, for lookup(). */
  template <class Table>
  SURPRISAL_FN static Vec of(const Table& table) {
    static_assert(sizeof(table) == kVectorBytes, "a table fills a vector");
    Vec entries;
    memcpy(&entries.raw, &table, sizeof(entries.raw));
    return entries;
  }

  /** table[the low bits of x's representation], as the representation of a number. */
  SURPRISAL_FN friend Vec lookup([[maybe_unused]] Vec table, Vec x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4) return Vec((Raw)_mm512_permutexvar_epi32((__m512i)x.raw, (__m512i)table.raw));
    if constexpr (sizeof(R) == 8) return Vec((Raw)_mm512_permutexvar_epi64((__m512i)x.raw, (__m512i)table.raw));
#elif defined(__AVX2__)
    if constexpr (sizeof(R) == 4) return Vec((Raw)_mm256_permutevar8x32_epi32((__m256i)table.raw, (__m256i)x.raw));
#endif
    return x;
  }
  template <class Entry, int entries>
  SURPRISAL_FN friend Vec lookup(const Entry (&table)[entries], Vec x) {
    return lookup(of(table), x);
  }

  /** `entry` with `x`'s representation, shifted left, added to its own. */
  template <int shift>
  SURPRISAL_FN friend Vec add_shifted_bits(Vec entry, Vec x) {
    return Vec((Raw)((UBits)entry.raw + ((UBits)x.raw << shift)));
  }

  SURPRISAL_FN friend void split_exponent(Vec x, Vec& significand, Vec& exponent) {
    split_from(Format<R>::sqrt_half_bits, x, significand, exponent);
  }
  SURPRISAL_FN friend void split_binade(Vec x, Vec& significand, Vec& exponent) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4) {
      exponent.raw = (Raw)_mm512_getexp_ps((__m512)x.raw);
      significand.raw = (Raw)_mm512_getmant_ps((__m512)x.raw, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
      return;
    }
#endif
    split_from(Format<R>::one_bits, x, significand, exponent);
  }

 private:
  SURPRISAL_FN static void split_from(typename Format<R>::Int least, Vec x, Vec& significand, Vec& exponent) {
    using F = Format<R>;
    const Bits offset = (Bits)x.raw - least;
    exponent.raw = __builtin_convertvector(offset >> F::fraction_bits, Raw);
    const Bits fraction = offset & ((typename F::Int{1} << F::fraction_bits) - 1);
    significand.raw = (Raw)(fraction + least);
  }

#if defined(__AVX512F__)
  template <int predicate>
  SURPRISAL_FN static Mask<R> compare(Vec a, Vec b) {
    if constexpr (sizeof(R) == 4) {
      return {_mm512_cmp_ps_mask((__m512)a.raw, (__m512)b.raw, predicate)};
    } else {
      return {_mm512_cmp_pd_mask((__m512d)a.raw, (__m512d)b.raw, predicate)};
    }
  }
#endif
};

/**
 * Some vectors that a formula is evaluated on together, each of its operations on all of them before the next: so
 * operations that wait for one another stand apart, and a processor need not look far ahead for some that don't.
 */
template <class V, int n>
struct Pack {
  using Scalar = typename V::Scalar;
  static constexpr int size = V::size;
  V part[n];

  Pack() = default;
  SURPRISAL_FN Pack(V x) {
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) part[i] = x;
  }
  SURPRISAL_FN Pack(Scalar x) : Pack(V(x)) {}

  SURPRISAL_FN friend Pack operator+(Pack a, Pack b) {
    return each([&](int i) __attribute__((always_inline)) { return a.part[i] + b.part[i]; });
  }
  SURPRISAL_FN friend Pack operator-(Pack a, Pack b) {
    return each([&](int i) __attribute__((always_inline)) { return a.part[i] - b.part[i]; });
  }
  SURPRISAL_FN friend Pack operator*(Pack a, Pack b) {
    return each([&](int i) __attribute__((always_inline)) { return a.part[i] * b.part[i]; });
  }
  SURPRISAL_FN friend Pack multiply_add(Pack a, Pack b, Pack c) {
    return each([&](int i) __attribute__((always_inline)) { return multiply_add(a.part[i], b.part[i], c.part[i]); });
  }
  SURPRISAL_FN friend Pack residual(Pack c, Pack a, Pack b) {
    return each([&](int i) __attribute__((always_inline)) { return residual(c.part[i], a.part[i], b.part[i]); });
  }
  SURPRISAL_FN friend Pack zero_below(Pack d, Pack bound, Pack x) {
    return each([&](int i) __attribute__((always_inline)) { return zero_below(d.part[i], bound.part[i], x.part[i]); });
  }
  template <class Table>
  SURPRISAL_FN friend Pack lookup(const Table& table, Pack x) {
    return each([&](int i) __attribute__((always_inline)) { return lookup(table, x.part[i]); });
  }
  template <int shift>
  SURPRISAL_FN friend Pack add_shifted_bits(Pack entry, Pack x) {
    return each([&](int i)
                    __attribute__((always_inline)) { return add_shifted_bits<shift>(entry.part[i], x.part[i]); });
  }

 private:
  template <class F>
  SURPRISAL_FN static Pack each(F&& f) {
    Pack result;
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) result.part[i] = f(i);
    return result;
  }
};

/** How many lanes of masks were true. */
template <class R>
class LaneCount {
 public:
  SURPRISAL_FN void add(Mask<R> mask) { count_ += number(mask); }

#if defined(__AVX512F__)
  SURPRISAL_FN int64_t total() const { return count_; }

 private:
  SURPRISAL_FN static int64_t number(Mask<R> mask) {
    // A mask that GCC 12 spilled may come back with bits above its own, which it takes for 0 if it may look.
    unsigned bits = mask.raw;
    __asm__("" : "+r"(bits));
    return __builtin_popcount(bits & ((1u << Vec<R>::size) - 1));
  }

  int64_t count_ = 0;
#else
  SURPRISAL_FN int64_t total() const {
    int64_t total = 0;
    for (size_t i = 0; i < kVectorBytes / sizeof(R); ++i) total += count_[i];
    return total;
  }

 private:
  SURPRISAL_FN static typename Vectors<R>::Int number(Mask<R> mask) { return -mask.raw; }

  typename Vectors<R>::Int count_ = {};
#endif
};

/** The first lane that is true, and 0 where none is. */
template <class R>
SURPRISAL_FN int first_lane(Mask<R> mask) {
#if defined(__AVX512F__)
  return static_cast<int>(std::countr_zero(static_cast<unsigned>(mask.raw)) & (Vec<R>::size - 1));
#elif defined(__AVX2__)
  const int bits = sizeof(R) == 4 ? _mm256_movemask_ps((__m256)mask.raw) : _mm256_movemask_pd((__m256d)mask.raw);
  return std::countr_zero(static_cast<unsigned>(bits)) & (Vec<R>::size - 1);
#else
  for (int i = 0; i < Vec<R>::size; ++i) {
    if (mask.raw[i] != 0) return i;
  }
  return 0;
#endif
}

/** Bits of the tables that lookup() takes. */
#if defined(__AVX512F__)
template <class R>
inline constexpr int kTableBits<Vec<R>> = sizeof(R) == 4 ? 4 : 3;
#elif defined(__AVX2__)
template <>
inline constexpr int kTableBits<Vec<float>> = 3;
#endif

template <>
inline constexpr int kLogTableBits<double> = kTableBits<Vec<double>>;

template <class V, int n>
inline constexpr int kTableBits<Pack<V, n>> = kTableBits<V>;

/** 0, 1, 2, ... */
template <class V>
SURPRISAL_FN V lane_numbers() {
  V lanes;
  for (int i = 0; i < V::size; ++i) lanes.raw[i] = static_cast<Scalar<V>>(i);
  return lanes;
}

/** The first `count` lanes. */
template <class V>
SURPRISAL_FN Mask<Scalar<V>> first_lanes(int count) {
#if defined(__AVX512F__)
  return {static_cast<decltype(Mask<Scalar<V>>::raw)>((1u << count) - 1)};
#else
  return lane_numbers<V>() < V(static_cast<Scalar<V>>(count));
#endif
}

/** v in the row's lanes, 0 past its end. */
template <class V>
SURPRISAL_FN V inside(Full, V v) {
  return v;
}
template <class V>
SURPRISAL_FN V inside(Partial lanes, V v) {
  return select(first_lanes<V>(lanes.count), v, V(Scalar<V>(0)));
}

/** What `combine` makes of a vector's lanes: halves at a time, in vectors and then in numbers. */
template <class Raw, class Combine>
SURPRISAL_FN auto reduce_lanes(Raw raw, Combine&& combine) {
  using Element = std::remove_cvref_t<decltype(raw[0])>;
  if constexpr (sizeof(Raw) > 16) {
    typedef Element Half __attribute__((vector_size(sizeof(Raw) / 2)));
    Half halves[2];
    memcpy(halves, &raw, sizeof(raw));
    return reduce_lanes(combine(halves[0], halves[1]), combine);
  } else if constexpr (sizeof(Element) == 8) {
    return combine(Element(raw[0]), Element(raw[1]));
  } else {
    return combine(combine(Element(raw[0]), Element(raw[2])), combine(Element(raw[1]), Element(raw[3])));
  }
}

#if defined(__AVX2__) && !defined(__AVX512F__)
template <class Combine>
SURPRISAL_FN double reduce_lanes(const WideVector& x, Combine&& combine) {
  return reduce_lanes(combine(x.half[0], x.half[1]), combine);
}
#endif

/** The lanes' maximum, of which none is NaN. */
template <class V>
SURPRISAL_FN Scalar<V> largest_lane(V a) {
  return reduce_lanes(a.raw, [](auto x, auto y) __attribute__((always_inline)) { return x > y ? x : y; });
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
