// The elementary functions of native/loss/math.h over every float32 of their range, against libm's in double, whose own
// error is a billionth of what is measured; and over random float64, against long double. Compiled once for each
// instruction set and run by `npm run check:ulp`.

#include <cfloat>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "../../native/cpu/load_store.h"
#include "../../native/loss/math.h"

namespace surprisal {
inline namespace SURPRISAL_TARGET {
namespace {

using V = Vec<float>;

struct Worst {
  double ulp = 0;
  double at = 0;

  template <class R, class Wide>
  void see(R x, R got, Wide truth) {
    // In units of the last place of the exact value; below the smallest normal number these stay as wide.
    const int exponent = std::max(std::ilogb(truth), std::numeric_limits<R>::min_exponent - 1);
    const auto error =
        static_cast<double>(std::fabs(got - truth) / std::ldexp(Wide(1), exponent - Format<R>::fraction_bits));
    if (error > ulp || error != error) *this = {error, x};
  }
};

/** Every float32 from the one with the representation `first` to `last`. */
template <class F, class Truth>
Worst over(uint32_t first, uint32_t last, F f, Truth truth) {
  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<Worst> worst(threads);
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      const uint64_t count = uint64_t{last} - first + 1;
      const uint64_t begin = first + count * t / threads, end = first + count * (t + 1) / threads;
      Worst mine;
      float x[V::size];
      for (uint64_t bits = begin; bits < end; bits += V::size) {
        for (int i = 0; i < V::size; ++i) x[i] = bits_as<float>(static_cast<uint32_t>(std::min(bits + i, end - 1)));
        const V got = f(load(x, Full{}));
        for (int i = 0; i < V::size; ++i) mine.see(x[i], got.raw[i], truth(static_cast<double>(x[i])));
      }
      worst[t] = mine;
    });
  }
  for (std::thread& thread : running) thread.join();
  Worst result;
  for (const Worst& w : worst) {
    if (!(w.ulp <= result.ulp)) result = w;
  }
  return result;
}

/** e^(z − m) for maxima and differences of every size, that an exponential holds above the least that it gives. */
template <class Below>
Worst over_maxima(double least) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> difference(0, 87.3f), exponent(-20, 17), sign(-1, 1);
  Worst worst;
  for (int trial = 0; trial < 20000; ++trial) {
    const float m = std::copysign(std::exp2(exponent(random)), sign(random));
    const Below below(V{m});
    for (int i = 0; i < 256; ++i) {
      const float z = m - difference(random);
      const double truth = std::exp(static_cast<double>(z) - m);
      if (z <= m && truth >= least) worst.see(z, below(V(z)).raw[0], truth);
    }
  }
  return worst;
}

using D = Vec<double>;

/** Two million random float64. */
template <class F, class Draw, class Truth>
Worst over_doubles(Draw draw, F f, Truth truth) {
  std::mt19937_64 random(1);
  Worst worst;
  double x[D::size];
  for (int trial = 0; trial < 2'000'000 / D::size; ++trial) {
    for (double& each : x) each = draw(random);
    const D got = f(load(x, Full{}));
    for (int i = 0; i < D::size; ++i) worst.see(x[i], got.raw[i], truth(static_cast<long double>(x[i])));
  }
  return worst;
}

/** f by vectors; NaN where a number by itself does not have the same digits. */
template <class F>
auto also_alone(F f) {
  return [f](D x) {
    D got = f(x);
    for (int i = 0; i < D::size; ++i) {
      if (f(x.raw[i]) != got.raw[i]) got.raw[i] = NAN;
    }
    return got;
  };
}

uint32_t bits(float x) { return bits_as<uint32_t>(x); }

int failures = 0;

void report(const char* what, const Worst& worst, double bound) {
  const bool holds = worst.ulp <= bound;
  failures += !holds;
  std::printf("  %-34s %.4f ulp at %.9g, promised %.2f%s\n", what, worst.ulp, static_cast<double>(worst.at), bound,
              holds ? "" : "  BROKEN");
}

#define SURPRISAL_STRING_OF(x) #x
#define SURPRISAL_STRING(x) SURPRISAL_STRING_OF(x)

int run() {
  std::printf("%s, vectors of %d\n", SURPRISAL_STRING(SURPRISAL_TARGET), V::size);
  report("e^x, x in [-87.33, -0]",
         over(
             bits(-0.0f), bits(-87.33f), [](V x) { return exponential(x); }, [](double x) { return std::exp(x); }),
         SURPRISAL_EXP_ULP);
  report("e^(z - m), 5 million random pairs", over_maxima<ExponentialBelow<V>>(FLT_MIN), SURPRISAL_EXP_ULP);
  report("the same, one maximum for all",
         over_maxima<ExponentialBelowOne<V>>(kTableBits<V> == 0 ? 1.43 * FLT_MIN : 1.06 * FLT_MIN),
         SURPRISAL_EXP_ONE_ULP);
  report("log x, every normal x > 0",
         over(
             bits(FLT_MIN), bits(FLT_MAX), [](V x) { return logarithm(x); }, [](double x) { return std::log(x); }),
         SURPRISAL_LOG_ULP);
  report("log(1 + t), t in [0, 1]",
         over(
             bits(0.0f), bits(1.0f), [](V t) { return log1p_unit(t); }, [](double t) { return std::log1p(t); }),
         SURPRISAL_LOG_ULP);
  report("e^x, float64 x in [-708, 0]",
         over_doubles([](auto& random) { return std::uniform_real_distribution<double>(-708, 0)(random); },
                      [](D x) { return exponential(x); }, [](long double x) { return std::exp(x); }),
         SURPRISAL_EXP_FLOAT64_ULP);
  const auto log = also_alone([](auto x) { return logarithm(x); });
  const auto log_truth = [](long double x) { return std::log(x); };
  report("log x, normal float64 of any size",
         over_doubles(
             [](auto& random) { return std::exp2(std::uniform_real_distribution<double>(-1022, 1023.9)(random)); }, log,
             log_truth),
         SURPRISAL_LOG_FLOAT64_ULP);
  // Near 1 by every power of two: there the logarithm is small.
  report("log x, float64 around 1",
         over_doubles(
             [](auto& random) {
               const double f = std::exp2(std::uniform_real_distribution<double>(-52, -1)(random));
               return random() % 2 == 0 ? 1 + f : 1 - f;
             },
             log, log_truth),
         SURPRISAL_LOG_FLOAT64_ULP);
  report("log(1 + t), float64 t in [0, 1]",
         over_doubles(
             [](auto& random) {
               const double t = std::uniform_real_distribution<double>(0, 1)(random);
               return random() % 2 == 0 ? t : std::exp2(-60 * t);
             },
             also_alone([](auto t) { return log1p_unit(t); }), [](long double t) { return std::log1p(t); }),
         SURPRISAL_LOG_FLOAT64_ULP);
  return failures;
}

}  // namespace
}  // namespace SURPRISAL_TARGET
}  // namespace surprisal

int main() { return surprisal::run() == 0 ? 0 : 1; }
