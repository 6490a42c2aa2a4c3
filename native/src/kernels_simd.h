// The kernels over a vector of kLanes floats, compiled once per instruction set.
//
// An including file defines DUOLOGUE_SIMD_NAMESPACE, _LANES (floats per register), _TALL_ROWS and
// _TALL_VECTORS (the register block of the tall product), for integer products also
// DUOLOGUE_SIMD_DOT and _LOWEST_BYTE, then calls make_table.
// Everything is in a namespace of its own, so that no code built for one instruction set can be linked into
// another.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels.h"
#include "simd_attention.h"
#include "simd_vectors.h"

namespace duologue {
namespace DUOLOGUE_SIMD_NAMESPACE {
namespace {

// One block of rows against one panel.
struct Place {
  const void* panel;
  std::ptrdiff_t ahead;  // bytes from the weights that are read to those that are fetched
  int block;
  int row;     // its first
  int column;  // likewise
};

// Writes the activations of whole registers; apart from the products, so that it is compiled once.
template <int VECTORS>
DUOLOGUE_NOINLINE void write_activated(const GemmCall& call, const Vec* values, int rows, std::ptrdiff_t at) {
  const Activation kind = call.activation;
  for (int i = 0; i < rows; ++i) {
    float* to = call.activated + at + static_cast<std::ptrdiff_t>(i) * call.w.n;
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) store(to + v * kLanes, activate(kind, values[i * VECTORS + v]));
  }
}

// The same for a panel that ends behind the last column, with the residual.
template <int VECTORS>
DUOLOGUE_NOINLINE void write_some_columns(const GemmCall& call, const Vec* values, int rows,
                                          std::ptrdiff_t at, int columns) {
  for (int i = 0; i < rows; ++i) {
    for (int v = 0; v < VECTORS; ++v) {
      const std::ptrdiff_t begin = at + static_cast<std::ptrdiff_t>(i) * call.w.n + v * kLanes;
      const int lanes = columns - v * kLanes < kLanes ? columns - v * kLanes : kLanes;
      Vec value = values[i * VECTORS + v];
      for (int lane = 0; lane < lanes && call.residual != nullptr; ++lane)
        value[lane] += call.residual[begin + lane];
      for (int lane = 0; lane < lanes && call.raw != nullptr; ++lane) call.raw[begin + lane] = value[lane];
      if (call.activated == nullptr) continue;
      value = activate(call.activation, value);
      for (int lane = 0; lane < lanes; ++lane) call.activated[begin + lane] = value[lane];
    }
  }
}

// Scales and adds what the product still lacks, and writes it.
template <int ROWS, int VECTORS>
DUOLOGUE_INLINE void finish_block(const GemmCall& call, Vec (&sums)[ROWS][VECTORS], int row, int column) {
  const auto each = [&](const auto& function) {
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) function(i, v);
    }
  };
  if (call.w.scale != nullptr)
    each([&](int i, int v) { sums[i][v] *= load(call.w.scale + column + v * kLanes); });
  if (call.w.bias != nullptr)
    each([&](int i, int v) { sums[i][v] += load(call.w.bias + column + v * kLanes); });
  const std::ptrdiff_t n = call.w.n;
  const std::ptrdiff_t at = row * n + column;
  const bool is_whole = column + VECTORS * kLanes <= n;
  if (is_whole && call.residual != nullptr)
    each([&](int i, int v) { sums[i][v] += load(call.residual + at + i * n + v * kLanes); });
  if (is_whole && call.raw != nullptr)
    each([&](int i, int v) { store(call.raw + at + i * n + v * kLanes, sums[i][v]); });
  if (is_whole && call.activated == nullptr) return;
  Vec values[ROWS * VECTORS];
  each([&](int i, int v) { values[i * VECTORS + v] = sums[i][v]; });
  if (is_whole) return write_activated<VECTORS>(call, values, ROWS, at);
  write_some_columns<VECTORS>(call, values, ROWS, at, call.w.n - column);
}

// ROWS rows against one panel of VECTORS registers, sums in registers from first to last k.
template <typename Weight, int ROWS, int VECTORS>
void block(const GemmCall& call, const Place& at) {
  const auto* weights = static_cast<const Weight*>(at.panel);
  Vec sums[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) sums[i][v] = splat(0.0F);
  }
  const float* a = call.a + at.row * call.a_stride;
  const std::ptrdiff_t stride = call.a_stride;
  const int depth = call.w.k;
  for (int k = 0; k < depth; ++k) {
    Vec w[VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) w[v] = load(weights + v * kLanes);
    fetch_ahead<ROWS <= kNarrowRows>(weights, VECTORS * kLanes, at.ahead);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const Vec x = splat(a[i * stride + k]);
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) sums[i][v] += x * w[v];
    }
    weights += VECTORS * kLanes;
  }
  finish_block<ROWS, VECTORS>(call, sums, at.row, at.column);
}

#if DUOLOGUE_SIMD_LANES == 16

// Of each bit: b where `where` is set, a elsewhere.
DUOLOGUE_INLINE __m512i choose(__m512i a, __m512i b, int where) {
  return _mm512_ternarylogic_epi32(_mm512_set1_epi32(where), b, a, 0xCA);
}

// The four registers of one row in Float28; `choices` begin with those of the row.
DUOLOGUE_INLINE void widen_float28(const __m512i* lines, __m512i choices, __m512i table, Vec (&w)[4]) {
  const __m512i last = choose(choose(_mm512_maskz_rol_epi32(0xFFFF, lines[2], 8),
                                     _mm512_maskz_srli_epi32(0xFFFF, lines[0], 16), 0xFF << 7),
                              _mm512_maskz_srli_epi32(0xFFFF, lines[1], 8), 0xFF << 15);
  const __m512i cut[4] = {lines[0], lines[1], lines[2], last};
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    // A table of sixteen is read by the lowest four bits, whatever stands above them.
    const __m512i choice = _mm512_maskz_srli_epi32(0xFFFF, choices, 4U * v);
    const __m512i exponent = _mm512_maskz_permutexvar_epi32(0xFFFF, choice, table);
    w[v] = reinterpret_cast<Vec>(choose(cut[v], exponent, static_cast<int>(Float28::kExponent)));
  }
}

template <int ROWS>
void float28_block(const GemmCall& call, const Place& at) {
  static_assert(Float28::kColumns == kNarrowVectors * kLanes, "a panel is four registers wide");
  const Float28 layout{call.w.k};
  const auto* bytes = static_cast<const char*>(at.panel);
  const auto* outliers = reinterpret_cast<const Float28::Outlier*>(bytes);
  const __m512i table = _mm512_load_si512(bytes + layout.table_at());
  const auto* lines = reinterpret_cast<const __m512i*>(bytes + layout.stream_at());
  const float* a = call.a + at.row * call.a_stride;
  const std::ptrdiff_t stride = call.a_stride;
  float first[ROWS][Float28::kColumns] = {};
  for (int i = 1; i <= outliers[0].place; ++i) {
    const int k = outliers[i].place / Float28::kColumns;
    for (int r = 0; r < ROWS; ++r)
      first[r][outliers[i].place % Float28::kColumns] += a[r * stride + k] * outliers[i].value;
  }
  Vec sums[ROWS][kNarrowVectors];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < kNarrowVectors; ++v) sums[i][v] = load(first[i] + v * kLanes);
  }
  const int depth = call.w.k;
  for (int k = 0; k < depth; k += 2) {
    fetch_ahead<true>(reinterpret_cast<const float*>(lines), Float28::kWordsPerPair, at.ahead);
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; ++odd) {
      Vec w[kNarrowVectors];
      widen_float28(lines + 1 + 3 * odd, _mm512_maskz_srli_epi32(0xFFFF, lines[0], 16U * odd), table, w);
#pragma GCC unroll 16
      for (int i = 0; i < ROWS; ++i) {
        const Vec x = splat(a[i * stride + k + odd]);
#pragma GCC unroll 16
        for (int v = 0; v < kNarrowVectors; ++v) sums[i][v] += x * w[v];
      }
    }
    lines += Float28::kWordsPerPair / Float28::kLanes;
  }
  finish_block<ROWS, kNarrowVectors>(call, sums, at.row, at.column);
}

constexpr bool kHasFloat28 = true;

#else

constexpr bool kHasFloat28 = false;

#endif  // DUOLOGUE_SIMD_LANES == 16

#ifdef DUOLOGUE_SIMD_DOT

DUOLOGUE_INLINE VecInt load_int(const void* from) {
  using UnalignedInt = std::int32_t __attribute__((vector_size(kLanes * 4), aligned(1), may_alias));
  return *static_cast<const UnalignedInt*>(from);
}

// The same for bytes: every plane of a row is a row of its own until the sums are put together.
template <int PLANES, int ROWS, int VECTORS>
void dot_block(const GemmCall& call, const Place& at) {
  const auto* weights = static_cast<const std::int8_t*>(at.panel);
  VecInt sums[PLANES * ROWS][VECTORS] = {};
  const std::uint8_t* planes[PLANES];
  for (int plane = 0; plane < PLANES; ++plane) planes[plane] = call.rounded_plane(at.block, plane);
  const std::ptrdiff_t stride = call.a_stride;
  const int depth = (call.w.k + kDotDepth - 1) / kDotDepth * kDotDepth;
  for (int k = 0; k < depth; k += kDotDepth) {
    VecInt w[VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) w[v] = load_int(weights + v * kLanes * kDotDepth);
    fetch_ahead<ROWS <= kNarrowRows>(weights, VECTORS * kLanes * kDotDepth, at.ahead);
#pragma GCC unroll 16
    for (int i = 0; i < PLANES * ROWS; ++i) {
      std::int32_t x = 0;
      __builtin_memcpy(&x, planes[i / ROWS] + i % ROWS * stride + k, sizeof x);
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) sums[i][v] = DUOLOGUE_SIMD_DOT(sums[i][v], x, w[v]);
    }
    weights += VECTORS * kLanes * kDotDepth;
  }
  const RoundedBlock& block = *call.rounded_block(at.block);
  Vec results[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) {
      const VecInt columns = load_int(call.w.sums + at.column + v * kLanes);
      Vec total = splat(0.0F);
#pragma GCC unroll 2
      for (int plane = 0; plane < PLANES; ++plane) {
        const VecInt centred = sums[plane * ROWS + i][v] - columns * block.zero[plane];
        total = total * 256.0F + __builtin_convertvector(centred, Vec);
      }
      results[i][v] = total * block.scale;
    }
  }
  finish_block<ROWS, VECTORS>(call, results, at.row, at.column);
}

using Bytes = std::uint8_t __attribute__((vector_size(kLanes), aligned(1), may_alias));

void round(const GemmCall& call, int block_index) {
  const float* from = call.a + call.w.block_begin(block_index, call.rows) * call.a_stride;
  const std::ptrdiff_t count = call.block_span(block_index);
  const std::ptrdiff_t whole = count / kLanes * kLanes;
  constexpr int kChains = 4;  // a comparison waits for the one before
  Vec low[kChains] = {};
  Vec high[kChains] = {};
  std::ptrdiff_t i = 0;
  for (; i + kChains * kLanes <= whole; i += kChains * kLanes) {
#pragma GCC unroll 16
    for (int chain = 0; chain < kChains; ++chain) {
      const Vec x = load(from + i + chain * kLanes);
      low[chain] = min_vec(x, low[chain]);
      high[chain] = max_vec(x, high[chain]);
    }
  }
  for (; i < whole; i += kLanes) {
    low[0] = min_vec(load(from + i), low[0]);
    high[0] = max_vec(load(from + i), high[0]);
  }
  for (int chain = 1; chain < kChains; ++chain) {
    low[0] = min_vec(low[chain], low[0]);
    high[0] = max_vec(high[chain], high[0]);
  }
  float least = 0.0F;
  float most = 1e-30F;
  for (int lane = 0; lane < kLanes; ++lane) {
    least = low[0][lane] < least ? low[0][lane] : least;
    most = high[0][lane] > most ? high[0][lane] : most;
  }
  for (; i < count; ++i) {
    least = from[i] < least ? from[i] : least;
    most = from[i] > most ? from[i] : most;
  }
  // Two steps fewer than there are, so that rounding zero to a step pushes nothing out of the range.
  const bool is_fine = call.w.planes == 2;
  const float steps = is_fine ? 65533.0F : 253.0F;
  const float per_step = steps / (most - least);
  const int zero = static_cast<int>(-least * per_step + 0.5F) + 1;
  RoundedBlock& block = *call.rounded_block(block_index);
  block.scale = (most - least) / steps;
  block.zero[0] = (is_fine ? zero >> 8 : zero) + DUOLOGUE_SIMD_LOWEST_BYTE;
  block.zero[1] = (zero & 0xFF) + DUOLOGUE_SIMD_LOWEST_BYTE;
  std::uint8_t* first = call.rounded_plane(block_index, 0);
  std::uint8_t* second = is_fine ? call.rounded_plane(block_index, 1) : nullptr;
  const float magic = 12582912.0F + static_cast<float>(zero);
  const auto put = [&](std::ptrdiff_t at, Vec x) {
    const VecInt bits = reinterpret_cast<VecInt>(x * per_step + magic);
    const VecInt top = is_fine ? bits >> 8 : bits;
    *reinterpret_cast<Bytes*>(first + at) = __builtin_convertvector(top + DUOLOGUE_SIMD_LOWEST_BYTE, Bytes);
    if (is_fine)
      *reinterpret_cast<Bytes*>(second + at) =
          __builtin_convertvector(bits + DUOLOGUE_SIMD_LOWEST_BYTE, Bytes);
  };
  for (i = 0; i < whole; i += kLanes) put(i, load(from + i));
  if (whole == count) return;
  Vec rest = splat(0.0F);
  for (; i < count; ++i) rest[i - whole] = from[i];
  put(whole, rest);
}

#endif  // DUOLOGUE_SIMD_DOT

struct Blocks {
  void (*by_rows[kTallRows])(const GemmCall& call, const Place& at);
};

template <typename Weight, int VECTORS, int... ROWS>
constexpr Blocks blocks(std::integer_sequence<int, ROWS...>) {
  return {{block<Weight, ROWS + 1, VECTORS>...}};
}

template <typename Weight>
constexpr Blocks kTall = blocks<Weight, kTallVectors>(std::make_integer_sequence<int, kTallRows>());
template <typename Weight>
constexpr Blocks kNarrow = blocks<Weight, kNarrowVectors>(std::make_integer_sequence<int, kNarrowRows>());

#if DUOLOGUE_SIMD_LANES == 16
constexpr Blocks kNarrowFloat28 = {{float28_block<1>, float28_block<2>}};
#endif

#ifdef DUOLOGUE_SIMD_DOT
template <int PLANES, int VECTORS, int... ROWS>
constexpr Blocks dot_blocks(std::integer_sequence<int, ROWS...>) {
  return {{dot_block<PLANES, ROWS + 1, VECTORS>...}};
}

template <int PLANES>
constexpr Blocks kTallDot =
    dot_blocks<PLANES, kTallVectors>(std::make_integer_sequence<int, kTallRows / PLANES>());
template <int PLANES>
constexpr Blocks kNarrowDot =
    dot_blocks<PLANES, kNarrowVectors>(std::make_integer_sequence<int, kNarrowRows>());
#endif

const Blocks& blocks_for(const PackedMatrix& w) {
#ifdef DUOLOGUE_SIMD_DOT
  if (w.planes == 1) return w.block_rows == kNarrowRows ? kNarrowDot<1> : kTallDot<1>;
  if (w.planes == 2) return w.block_rows == kNarrowRows ? kNarrowDot<2> : kTallDot<2>;
#endif
  const bool is_narrow = w.block_rows == kNarrowRows;
#if DUOLOGUE_SIMD_LANES == 16
  if (w.format == Format::kFloat28) return kNarrowFloat28;
#endif
  if (w.format == Format::kFloat16) return is_narrow ? kNarrow<Half> : kTall<Half>;
  if (w.format == Format::kInt8) return is_narrow ? kNarrow<std::int8_t> : kTall<std::int8_t>;
  return is_narrow ? kNarrow<float> : kTall<float>;
}

// A matrix this small stays in the second cache, so that a block of rows can be done with, written in one
// stretch and read again from the first cache, before the next one.
constexpr std::ptrdiff_t kSmallMatrix = 128 * 1024;

void gemm(const GemmCall& call, const GemmPart& part) {
  const PackedMatrix& w = call.w;
  const Blocks& kernels = blocks_for(w);
  const std::ptrdiff_t bytes = w.panel_bytes();
  const bool is_small = w.panels() * bytes <= kSmallMatrix;
  const bool is_narrow = w.block_rows == kNarrowRows;
  const auto multiply = [&](int panel, int block) {
    const int row = w.block_begin(block, call.rows);
    const int rows = w.block_begin(block + 1, call.rows) - row;
    // While every block of rows multiplies with a panel, the next panel comes from memory.
    const std::ptrdiff_t next = is_small || panel + 1 == part.panel_end ? 0 : bytes;
    const Place at{static_cast<const char*>(w.data) + panel * bytes, is_narrow ? kAheadBytes : next, block,
                   row, panel * w.panel};
    kernels.by_rows[rows - 1](call, at);
  };
  if (is_small) {
    for (int block = part.block_begin; block < part.block_end; ++block) {
      for (int panel = part.panel_begin; panel < part.panel_end; ++panel) multiply(panel, block);
    }
    return;
  }
  for (int panel = part.panel_begin; panel < part.panel_end; ++panel) {
    for (int block = part.block_begin; block < part.block_end; ++block) multiply(panel, block);
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float* out, int rows, int n) {
  for (int row = 0; row < rows; ++row) {
    const float* in = x + static_cast<std::ptrdiff_t>(row) * n;
    float* to = out + static_cast<std::ptrdiff_t>(row) * n;
    const int whole = n / kLanes * kLanes;
    Vec sums = splat(0.0F);
    for (int i = 0; i < whole; i += kLanes) sums += load(in + i);
    float sum = sum_lanes(sums);
    for (int i = whole; i < n; ++i) sum += in[i];
    const float mean = sum / static_cast<float>(n);
    Vec squares = splat(0.0F);
    for (int i = 0; i < whole; i += kLanes) {
      const Vec centred = load(in + i) - mean;
      squares += centred * centred;
    }
    float square = sum_lanes(squares);
    for (int i = whole; i < n; ++i) square += (in[i] - mean) * (in[i] - mean);
    const float scale = 1.0F / std::sqrt(square / static_cast<float>(n) + 1e-5F);
    for (int i = 0; i < whole; i += kLanes) {
      store(to + i, (load(in + i) - mean) * scale * load(weight + i) + load(bias + i));
    }
    for (int i = whole; i < n; ++i) to[i] = (in[i] - mean) * scale * weight[i] + bias[i];
  }
}

int argmin(const float* x, int n) {
  const int whole = n / kLanes * kLanes;
  float smallest = x[0];
  if (whole > 0) {
    Vec least = load(x);
    for (int i = kLanes; i < whole; i += kLanes) {
      const Vec here = load(x + i);
      least = min_vec(here, least);
    }
    for (int lane = 0; lane < kLanes; ++lane) smallest = least[lane] < smallest ? least[lane] : smallest;
  }
  for (int i = whole; i < n; ++i) smallest = x[i] < smallest ? x[i] : smallest;
  for (int i = 0; i < n; ++i) {
    if (x[i] == smallest) return i;
  }
  return 0;
}

double multiply_adds(int rounds) {
  constexpr int kChains = 12;  // more than the latency of a multiply-add times the units that do them
  Vec sums[kChains];
  for (int i = 0; i < kChains; ++i)
    sums[i] = splat(static_cast<float>(i));  // or the compiler keeps one chain
  const Vec factor = splat(0.999F);
  for (int round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * factor + factor;
  }
  Vec total = sums[0];
  for (int i = 1; i < kChains; ++i) total += sums[i];
  volatile float keep = sum_lanes(total);
  (void)keep;
  return 2.0 * kChains * kLanes * rounds;
}

float read(const float* x, std::size_t n) {
  constexpr int kStreams = 4;
  Vec sums[kStreams] = {};
  for (std::size_t i = 0; i + kStreams * kLanes <= n; i += kStreams * kLanes) {
#pragma GCC unroll 16
    for (int s = 0; s < kStreams; ++s) sums[s] += load(x + i + static_cast<std::size_t>(s) * kLanes);
    __builtin_prefetch(x + i + kAheadBytes);
  }
  volatile float keep = sum_lanes(sums[0] + sums[1] + sums[2] + sums[3]);
  return keep;
}

constexpr Kernels make_table(const char* name) {
#ifndef DUOLOGUE_SIMD_DOT
  constexpr void (*round)(const GemmCall&, int) = nullptr;
#endif
  return {name,
          kNarrowVectors * kLanes,
          kTallVectors * kLanes,
          kTallRows,
          kHasFloat28,
          gemm,
          round,
          attend,
          layer_norm,
          argmin,
          multiply_adds,
          read};
}

}  // namespace
}  // namespace DUOLOGUE_SIMD_NAMESPACE
}  // namespace duologue
