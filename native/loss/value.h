#pragma once

// The value type V that formulas are written over: a float or double (one element, as on a GPU), or a SIMD vector of
// them (native/cpu/simd.h), which offers the same functions.
//
// Everything here and in the formulas lives in a namespace of its own for each target that it is compiled for, so
// that the linker can never take one instruction set's copy of an inline function for another's.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

// A build may have its own.
#ifndef SURPRISAL_FN
#ifdef __CUDACC__
#define SURPRISAL_FN __host__ __device__ __forceinline__
#else
#define SURPRISAL_FN inline __attribute__((always_inline))
#endif
#endif

// What few calls come to. On a GPU it is called, as an unrolled loop would have it once for each of its turns.
#ifdef __CUDACC__
#define SURPRISAL_RARE_FN inline __host__ __device__ __noinline__
#else
#define SURPRISAL_RARE_FN SURPRISAL_FN
#endif

#ifndef SURPRISAL_TARGET
#define SURPRISAL_TARGET portable
#endif

namespace surprisal {
inline namespace SURPRISAL_TARGET {

template <class V>
struct ScalarOf {
  using type = typename V::Scalar;
};
template <>
struct ScalarOf<float> {
  using type = float;
};
template <>
struct ScalarOf<double> {
  using type = double;
};
/** float or double: what a value type holds. */
template <class V>
using Scalar = typename ScalarOf<V>::type;

/** What a row's numbers are held in, beside factors of type S: in double, as many of them. */
template <class S>
struct InDoubleOf {
  using type = double;
};
template <class S>
using InDouble = typename InDoubleOf<S>::type;

/** A row's number rounded to the type S of a factor, and back. */
template <class S>
SURPRISAL_FN S rounded(double x) {
  return static_cast<S>(x);
}
SURPRISAL_FN double in_double(float x) { return x; }
SURPRISAL_FN double in_double(double x) { return x; }

template <class To, class From>
SURPRISAL_FN To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits_as keeps the size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

SURPRISAL_FN float select(bool condition, float a, float b) { return condition ? a : b; }
SURPRISAL_FN double select(bool condition, double a, double b) { return condition ? a : b; }
/** 0 where d is below the bound, else x. */
SURPRISAL_FN float zero_below(float d, float bound, float x) { return d < bound ? 0 : x; }
SURPRISAL_FN double zero_below(double d, double bound, double x) { return d < bound ? 0 : x; }
/** True when some element is; when every one is; when either is. */
SURPRISAL_FN bool any(bool condition) { return condition; }
SURPRISAL_FN bool all(bool condition) { return condition; }
SURPRISAL_FN bool either(bool a, bool b) { return a || b; }
/** b where a is NaN; NaN where b is. (A GPU's instruction gives NaN in either case, which is as good.) */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
SURPRISAL_FN float maximum(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}
SURPRISAL_FN float minimum(float a, float b) {
  float smaller;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(smaller) : "f"(a), "f"(b));
  return smaller;
}
#else
SURPRISAL_FN float maximum(float a, float b) { return a > b ? a : b; }
SURPRISAL_FN float minimum(float a, float b) { return a < b ? a : b; }
#endif
SURPRISAL_FN double maximum(double a, double b) { return a > b ? a : b; }
SURPRISAL_FN double minimum(double a, double b) { return a < b ? a : b; }
SURPRISAL_FN float absolute(float a) { return a < 0 ? -a : a; }
SURPRISAL_FN double absolute(double a) { return a < 0 ? -a : a; }

/**
 * a·b + c, rounded once where the target has an instruction for it, else twice. Formulas say so themselves: a compiler
 * that fuses as it pleases gives other digits in one copy of a formula than in another.
 */
#if defined(__FMA__) || defined(__aarch64__) || defined(__CUDA_ARCH__)
SURPRISAL_FN float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
SURPRISAL_FN double multiply_add(double a, double b, double c) { return fma(a, b, c); }
#else
SURPRISAL_FN float multiply_add(float a, float b, float c) { return a * b + c; }
SURPRISAL_FN double multiply_add(double a, double b, double c) { return a * b + c; }
#endif

/** a·b + c, where a is below the bound c alone: b is 0 there, even of an infinite a. */
SURPRISAL_FN float multiply_add_above(float bound, float a, float b, float c) {
  return a < bound ? c : multiply_add(a, b, c);
}
SURPRISAL_FN double multiply_add_above(double bound, double a, double b, double c) {
  return a < bound ? c : multiply_add(a, b, c);
}

/** 2^x within 3.4 units of 2^-24 of itself, by an instruction that GPUs have; 0 below the smallest normal number. */
SURPRISAL_FN float exp2_fast(float x) {
#if defined(__CUDA_ARCH__)
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  return x < -126 ? 0 : exp2f(x);
#endif
}

/** c − a·b, rounded once. */
SURPRISAL_FN float residual(float c, float a, float b) { return fmaf(-a, b, c); }
SURPRISAL_FN double residual(double c, double a, double b) { return fma(-a, b, c); }

/** 1/x within an ulp, for normal x whose inverse is normal too. */
SURPRISAL_FN float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  // A GPU's estimate and a step of Newton's method: a division takes three times as long.
  float estimate;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(estimate) : "f"(x));
  return fmaf(fmaf(-estimate, x, 1), estimate, estimate);
#else
  return 1 / x;
#endif
}
SURPRISAL_FN double reciprocal(double x) { return 1 / x; }

/** a/b within an ulp, for b as that of reciprocal(). */
template <class V>
SURPRISAL_FN V quotient(V a, V b) {
  return a / b;
}
#if defined(__CUDA_ARCH__)
SURPRISAL_FN float quotient(float a, float b) {
  const float inverse = reciprocal(b), about = a * inverse;
  return fmaf(fmaf(-about, b, a), inverse, about);
}
#endif

/** Parameters of a floating format that the elementary functions are built on. */
template <class R>
struct Format;
template <>
struct Format<float> {
  using Int = int32_t;
  static constexpr int fraction_bits = 23;
  static constexpr float smallest_normal = 1.17549435e-38f;
  /** Adding 1.5·2^23 leaves a number of at most 2^22 rounded to an integer in the low bits. */
  static constexpr float round_magic = 12582912.0f;
  static constexpr Int sqrt_half_bits = 0x3f3504f3;
  static constexpr Int one_bits = 0x3f800000;
  static constexpr float ln2 = 0.693147181f;
  /** ln 2 as a head of few bits, whose products with exponents are exact, and the rest. */
  static constexpr float ln2_head = 0.693359375f;
  static constexpr float ln2_tail = -2.12194440e-4f;
  /** ln of the smallest normal number: below it e^x is taken as 0. */
  static constexpr float exp_lowest = -87.3365448f;
  /** Degree of the series for e^r, |r| ≤ ln 2 / 2^(bits + 1): relative error 1.1e-8 at most, a sixth of half an ulp. */
  SURPRISAL_FN static constexpr int exp_degree(int table_bits) { return table_bits == 0 ? 6 : table_bits == 3 ? 4 : 3; }
  /** Σ c_k·r^k for e^r, |r| ≤ ln 2 / 2: Taylor's first terms, the rest through the Chebyshev nodes of
      (e^r − 1 − r)/r². With tables of any bits but these, Taylor's series does. */
  static constexpr int exp_coefficient_bits = 0;
  static constexpr double exp_coefficients[] = {1, 1, 0.5, 0.166665763, 0.0416665561, 0.00836320315, 0.00139262131};
  static constexpr int log_terms = 5;
  static constexpr int log1p_terms = 8;
  /** Degree of the series for logarithms with a table of so many bits. */
  SURPRISAL_FN static constexpr int log_table_degree(int table_bits) { return table_bits == 3 ? 5 : 3; }
  static constexpr int log_head_places = 1 << 16;
};
template <>
struct Format<double> {
  using Int = int64_t;
  static constexpr int fraction_bits = 52;
  static constexpr double smallest_normal = 2.2250738585072014e-308;
  static constexpr double round_magic = 6755399441055744.0;
  static constexpr Int sqrt_half_bits = 0x3fe6a09e667f3bcd;
  static constexpr Int one_bits = 0x3ff0000000000000;
  static constexpr double ln2 = 0.69314718055994531;
  static constexpr double ln2_head = 6.93147180369123816490e-01;
  static constexpr double ln2_tail = 1.90821492927058770002e-10;
  static constexpr double exp_lowest = -708.39641853226408;
  /** Relative error 5e-18. */
  SURPRISAL_FN static constexpr int exp_degree(int table_bits) { return table_bits == 0 ? 13 : 7; }
  /** Σ c_k·r^k for e^r, |r| ≤ ln 2 / 16, through the Chebyshev nodes of (e^r − 1)/r. */
  static constexpr int exp_coefficient_bits = 3;
  static constexpr double exp_coefficients[] = {1,
                                                1,
                                                0.500000000000018,
                                                0.16666666666666866,
                                                0.041666666590226054,
                                                0.008333333324839985,
                                                0.0013889703480254652,
                                                0.0001984217493849779};
  static constexpr int log_terms = 11;
  static constexpr int log1p_terms = 17;
  /** Σ c_k·r^k for (r − log(1 + r))/r², |r| ≤ 0.0714, through Chebyshev nodes: wrong by 1.5e-18 of r. */
  static constexpr double log_coefficients[] = {0.5,
                                                -0.3333333333333362,
                                                0.25000000000000266,
                                                -0.19999999998870321,
                                                0.16666666665617558,
                                                -0.14285715525938297,
                                                0.12500001151762655,
                                                -0.11110555682010055,
                                                0.09999484193608564,
                                                -0.09199589761951511,
                                                0.08434258629844958};
  SURPRISAL_FN static constexpr int log_table_degree(int /*table_bits*/) { return 10; }
  static constexpr int64_t log_head_places = int64_t{1} << 32;
};

/** `entry` with `x`'s representation, shifted left, added to its own. */
template <int shift, class R>
SURPRISAL_FN R add_shifted_bits_scalar(R entry, R x) {
  using Int = typename Format<R>::Int;
  return bits_as<R>(
      static_cast<Int>(static_cast<uint64_t>(bits_as<Int>(entry)) + (static_cast<uint64_t>(bits_as<Int>(x)) << shift)));
}
template <int shift>
SURPRISAL_FN float add_shifted_bits(float entry, float x) {
  return add_shifted_bits_scalar<shift>(entry, x);
}
template <int shift>
SURPRISAL_FN double add_shifted_bits(double entry, double x) {
  return add_shifted_bits_scalar<shift>(entry, x);
}

/** Bits of the index into tables that lookup(table, index) has for V; 0: there is none. */
template <class V>
inline constexpr int kTableBits = 0;

/**
 * The same of tables of logarithms. Where vectors of double have them a double by itself takes their entries too, so
 * that a row's number has the same digits whether or not other rows' are taken with it.
 */
template <class V>
inline constexpr int kLogTableBits = kTableBits<V>;

template <int n>
SURPRISAL_FN double lookup(const double (&table)[n], double x) {
  return table[bits_as<uint64_t>(x) % n];
}

/** x = significand·2^exponent with the significand in [least, 2·least), for positive normal x and the bits of `least`.
 */
template <class R>
SURPRISAL_FN void split_from(typename Format<R>::Int least, R x, R& significand, R& exponent) {
  using F = Format<R>;
  const auto offset = bits_as<typename F::Int>(x) - least;
  const auto whole = offset >> F::fraction_bits;
  exponent = static_cast<R>(whole);
  const auto fraction = offset & ((typename F::Int{1} << F::fraction_bits) - 1);
  significand = bits_as<R>(static_cast<typename F::Int>(fraction + least));
}
/** x = significand·2^exponent with the significand in [√½, √2), for positive normal x. */
SURPRISAL_FN void split_exponent(float x, float& significand, float& exponent) {
  split_from(Format<float>::sqrt_half_bits, x, significand, exponent);
}
SURPRISAL_FN void split_exponent(double x, double& significand, double& exponent) {
  split_from(Format<double>::sqrt_half_bits, x, significand, exponent);
}
/** The same with the significand in [1, 2). */
SURPRISAL_FN void split_binade(float x, float& significand, float& exponent) {
  split_from(Format<float>::one_bits, x, significand, exponent);
}
SURPRISAL_FN void split_binade(double x, double& significand, double& exponent) {
  split_from(Format<double>::one_bits, x, significand, exponent);
}

}  // namespace SURPRISAL_TARGET
}  // namespace surprisal
