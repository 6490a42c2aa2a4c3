// Registers of kLanes floats and the functions of one value, for kernels_simd.h and simd_attention.h alone.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "kernels.h"

namespace duologue {
namespace DUOLOGUE_SIMD_NAMESPACE {
namespace {

constexpr int kLanes = DUOLOGUE_SIMD_LANES;
constexpr int kTallRows = DUOLOGUE_SIMD_TALL_ROWS;
constexpr int kTallVectors = DUOLOGUE_SIMD_TALL_VECTORS;
constexpr int kNarrowVectors = 4;

using Vec = float __attribute__((vector_size(kLanes * 4)));
using VecInt = std::int32_t __attribute__((vector_size(kLanes * 4)));
using Unaligned = float __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

#define DUOLOGUE_INLINE inline __attribute__((always_inline))
#define DUOLOGUE_NOINLINE __attribute__((noinline))

DUOLOGUE_INLINE Vec load(const float* from) {
  return *reinterpret_cast<const Unaligned*>(from);
}
DUOLOGUE_INLINE void store(float* to, Vec value) {
  *reinterpret_cast<Unaligned*>(to) = value;
}

// Weights as they are stored, widened.
struct Half {
  std::uint16_t bits;
};

DUOLOGUE_INLINE Vec load(const Half* from) {
#if DUOLOGUE_SIMD_LANES == 16
  return reinterpret_cast<Vec>(
      _mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif DUOLOGUE_SIMD_LANES == 8
  return reinterpret_cast<Vec>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  return reinterpret_cast<Vec>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&from->bits))));
#endif
}

DUOLOGUE_INLINE Vec load(const std::int8_t* from) {
  using Bytes = std::int8_t __attribute__((vector_size(kLanes), aligned(1), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(from), Vec);
}

// What is read once, from memory, is fetched this far ahead to hide its latency.
constexpr int kAheadBytes = 4096;

// Fetches `count` stored values that lie `ahead` bytes after `from`: into the second cache, or past the last
// one if they are read once, where they would push out what is read again.
template <bool IS_READ_ONCE, typename Stored>
DUOLOGUE_INLINE void fetch_ahead(const Stored* from, int count, std::ptrdiff_t ahead) {
  constexpr int kLine = 64 / static_cast<int>(sizeof(Stored));
#pragma GCC unroll 16
  for (int i = 0; i < count; i += kLine)
    __builtin_prefetch(reinterpret_cast<const char*>(from + i) + ahead, 0, IS_READ_ONCE ? 0 : 2);
}

// Subtracting zero changes no value, and the compiler turns the whole into one broadcast.
DUOLOGUE_INLINE Vec splat(float value) {
  return value - Vec{};
}

DUOLOGUE_INLINE float sum_lanes(Vec value) {
  float total = 0.0F;
  for (int lane = 0; lane < kLanes; ++lane) total += value[lane];
  return total;
}

// The larger of each pair.
DUOLOGUE_INLINE Vec max_vec(Vec a, Vec b) {
#if DUOLOGUE_SIMD_LANES == 16
  return reinterpret_cast<Vec>(
      _mm512_maskz_max_ps(0xFFFF, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#else
  return a > b ? a : b;
#endif
}

// The smaller of each pair.
DUOLOGUE_INLINE Vec min_vec(Vec a, Vec b) {
#if DUOLOGUE_SIMD_LANES == 16
  return reinterpret_cast<Vec>(
      _mm512_maskz_min_ps(0xFFFF, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#else
  return a < b ? a : b;
#endif
}

// exp for x <= 88; below -87 the result is below 1e-37. x = n ln 2 + r, then a polynomial for exp(r), of
// degree 6 and 3e-9 from it at most.
DUOLOGUE_INLINE Vec exp_vec(Vec x) {
  x = max_vec(x, splat(-87.0F));
#if DUOLOGUE_SIMD_LANES == 16
  const Vec n = reinterpret_cast<Vec>(
      _mm512_maskz_roundscale_ps(0xFFFF, reinterpret_cast<__m512>(x * 1.44269504F), _MM_FROUND_NO_EXC));
#else
  const Vec magic = splat(12582912.0F);  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Vec shifted = x * 1.44269504F + magic;
  const Vec n = shifted - magic;
#endif
  const Vec r = x - n * 0.693147182F;
  Vec p = r * 1.38146132e-3F + 8.36870983e-3F;
  p = p * r + 4.16683874e-2F;
  p = p * r + 1.66665207e-1F;
  p = p * r + 4.99999935e-1F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
#if DUOLOGUE_SIMD_LANES == 16
  return reinterpret_cast<Vec>(
      _mm512_maskz_scalef_ps(0xFFFF, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  const VecInt scale = (reinterpret_cast<VecInt>(shifted) + 127) << 23;
  return p * reinterpret_cast<Vec>(scale);
#endif
}

DUOLOGUE_INLINE Vec elu(Vec x) {
  const Vec positive = max_vec(x, Vec{});
  return positive + (exp_vec(x - positive) - 1.0F);
}

// x * Phi(x); the normal tail is the rational-exponential form of Abramowitz and Stegun 7.1.26, error
// below 1.5e-7.
DUOLOGUE_INLINE Vec gelu(Vec x) {
  const Vec zero = splat(0.0F);
  const Vec magnitude = (x > zero ? x : -x) * 0.70710678F;
  const Vec t = 1.0F / (magnitude * 0.3275911F + 1.0F);
  Vec p = t * 1.061405429F - 1.453152027F;
  p = p * t + 1.421413741F;
  p = p * t - 0.284496736F;
  p = p * t + 0.254829592F;
  const Vec tail = 0.5F * p * t * exp_vec(-magnitude * magnitude);
  return x * (x > zero ? 1.0F - tail : tail);
}

DUOLOGUE_INLINE Vec activate(Activation kind, Vec x) {
  if (kind == Activation::kElu) return elu(x);
  if (kind == Activation::kGelu) return gelu(x);
  return x;
}

}  // namespace
}  // namespace DUOLOGUE_SIMD_NAMESPACE
}  // namespace duologue
