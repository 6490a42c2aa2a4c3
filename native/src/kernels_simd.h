// The kernels over a vector of kLanes floats, compiled once per instruction set.
//
// An including file defines DUOLOGUE_SIMD_NAMESPACE, _LANES (floats per register), _TALL_ROWS and
// _TALL_VECTORS (the register block of the tall product) and _NARROW_VECTORS, then calls make_table.
// Everything is in a namespace of its own, so that no code built for one instruction set can be linked into
// another.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels.h"

namespace duologue {
namespace DUOLOGUE_SIMD_NAMESPACE {
namespace {

constexpr int kLanes = DUOLOGUE_SIMD_LANES;
constexpr int kTallRows = DUOLOGUE_SIMD_TALL_ROWS;
constexpr int kTallVectors = DUOLOGUE_SIMD_TALL_VECTORS;
constexpr int kNarrowVectors = DUOLOGUE_SIMD_NARROW_VECTORS;

using Vec = float __attribute__((vector_size(kLanes * 4)));
using VecInt = std::int32_t __attribute__((vector_size(kLanes * 4)));
using Unaligned = float __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

#define DUOLOGUE_INLINE inline __attribute__((always_inline))

DUOLOGUE_INLINE Vec load(const float* from) {
  return *reinterpret_cast<const Unaligned*>(from);
}
DUOLOGUE_INLINE void store(float* to, Vec value) {
  *reinterpret_cast<Unaligned*>(to) = value;
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

// exp for x <= 88; below -87 the result is below 1e-37. Range reduction by ln 2 in two parts, then a
// polynomial.
DUOLOGUE_INLINE Vec exp_vec(Vec x) {
  const Vec lowest = splat(-87.0F);
  x = x > lowest ? x : lowest;
  const Vec magic = splat(12582912.0F);  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Vec shifted = x * 1.44269504F + magic;
  const Vec n = shifted - magic;
  Vec r = x - n * 0.693145752F;
  r = r - n * 1.42860677e-6F;
  Vec p = r * 1.98412698e-4F + 1.38888889e-3F;
  p = p * r + 8.33333333e-3F;
  p = p * r + 4.16666667e-2F;
  p = p * r + 1.66666667e-1F;
  p = p * r + 0.5F;
  p = p * r * r + r + 1.0F;
  const VecInt scale = (reinterpret_cast<VecInt>(shifted) + 127) << 23;
  return p * reinterpret_cast<Vec>(scale);
}

DUOLOGUE_INLINE Vec elu(Vec x) {
  const Vec zero = splat(0.0F);
  const Vec negative = x < zero ? x : zero;
  const Vec below = exp_vec(negative) - 1.0F;
  return x > zero ? x : below;
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

// Writes one register of results; `columns` < kLanes where the last panel is not full.
DUOLOGUE_INLINE void finish(const GemmCall& call, Vec value, int row, int column, int columns) {
  const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(row) * call.w.n + column;
  if (call.w.bias != nullptr) value += load(call.w.bias + column);
  if (columns >= kLanes) {
    if (call.residual != nullptr) value += load(call.residual + at);
    if (call.raw != nullptr) store(call.raw + at, value);
    if (call.activated != nullptr) store(call.activated + at, activate(call.activation, value));
    return;
  }
  for (int lane = 0; lane < columns && call.residual != nullptr; ++lane)
    value[lane] += call.residual[at + lane];
  for (int lane = 0; lane < columns && call.raw != nullptr; ++lane) call.raw[at + lane] = value[lane];
  if (call.activated == nullptr) return;
  const Vec activated = activate(call.activation, value);
  for (int lane = 0; lane < columns; ++lane) call.activated[at + lane] = activated[lane];
}

// ROWS rows against one panel of VECTORS registers, sums in registers from first to last k.
template <int ROWS, int VECTORS, bool AHEAD>
void block(const GemmCall& call, const float* weights, int row, int column) {
  Vec sums[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) sums[i][v] = splat(0.0F);
  }
  const float* a = call.a + row * call.a_stride;
  const std::ptrdiff_t stride = call.a_stride;
  const int depth = call.w.k;
  for (int k = 0; k < depth; ++k) {
    Vec w[VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) w[v] = load(weights + v * kLanes);
    if (AHEAD) {
      // Rows this few read every weight once, from memory: fetch far enough ahead to hide its latency.
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS * kLanes; v += 16) __builtin_prefetch(weights + v + 1024);
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const Vec x = splat(a[i * stride + k]);
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) sums[i][v] += x * w[v];
    }
    weights += VECTORS * kLanes;
  }
  // Through memory, so that the activation is compiled once instead of once per register.
  Vec results[ROWS * VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) results[i * VECTORS + v] = sums[i][v];
  }
#pragma GCC unroll 1
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 1
    for (int v = 0; v < VECTORS; ++v) {
      const int at = column + v * kLanes;
      if (at < call.w.n) finish(call, results[i * VECTORS + v], row + i, at, call.w.n - at);
    }
  }
}

using Block = void (*)(const GemmCall&, const float*, int, int);

struct Blocks {
  Block by_rows[kTallRows];
};

template <int... ROWS>
constexpr Blocks tall_blocks(std::integer_sequence<int, ROWS...>) {
  return {{block<ROWS + 1, kTallVectors, false>...}};
}

constexpr Blocks kTallBlocks = tall_blocks(std::make_integer_sequence<int, kTallRows>());

// Rows in blocks as even as they come, so that no block is left with a row or two.
void tall(const GemmCall& call, const GemmPart& part, const float* weights, int column) {
  int left = part.row_end - part.row_begin;
  int row = part.row_begin;
  for (int count = (left + kTallRows - 1) / kTallRows; count > 0; --count) {
    const int rows = (left + count - 1) / count;
    kTallBlocks.by_rows[rows - 1](call, weights, row, column);
    row += rows;
    left -= rows;
  }
}

void gemm(const GemmCall& call, const GemmPart& part) {
  const PackedMatrix& w = call.w;
  for (int panel = part.panel_begin; panel < part.panel_end; ++panel) {
    const float* weights = w.data + static_cast<std::ptrdiff_t>(panel) * w.k * w.panel;
    const int column = panel * w.panel;
    if (w.panel == kTallVectors * kLanes) {
      tall(call, part, weights, column);
    } else if (part.row_end - part.row_begin == 2) {
      block<2, kNarrowVectors, true>(call, weights, part.row_begin, column);
    } else {
      for (int row = part.row_begin; row < part.row_end; ++row) {
        block<1, kNarrowVectors, true>(call, weights, row, column);
      }
    }
  }
}

// Scores of QUERIES queries against BLOCKS blocks of 16 keys.
template <int QUERIES, int BLOCKS>
DUOLOGUE_INLINE void score_blocks(const AttendCall& call, int query, int block) {
  constexpr int kVectors = kKeyBlock / kLanes;
  Vec sums[QUERIES][BLOCKS * kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < QUERIES; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < BLOCKS * kVectors; ++v) sums[i][v] = splat(0.0F);
  }
  const std::ptrdiff_t block_floats = static_cast<std::ptrdiff_t>(call.head_dim) * kKeyBlock;
  const float* keys = call.keys + block * block_floats;
  const float* q = call.q + query * call.q_stride;
  for (int d = 0; d < call.head_dim; ++d) {
#pragma GCC unroll 16
    for (int b = 0; b < BLOCKS; ++b) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const Vec key = load(keys + b * block_floats + d * kKeyBlock + v * kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < QUERIES; ++i) sums[i][b * kVectors + v] += q[i * call.q_stride + d] * key;
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < QUERIES; ++i) {
    float* scores = call.scores + static_cast<std::ptrdiff_t>(query + i) * call.capacity + block * kKeyBlock;
#pragma GCC unroll 16
    for (int v = 0; v < BLOCKS * kVectors; ++v) store(scores + v * kLanes, sums[i][v]);
  }
}

// Exponentials of the visible scores, zero for the rest; returns their sum.
DUOLOGUE_INLINE float softmax(const AttendCall& call, int query) {
  float* scores = call.scores + static_cast<std::ptrdiff_t>(query) * call.capacity;
  const int first = call.first_slot[query];
  const int hidden = call.capacity - call.visible[query];
  for (int i = 0; i < hidden; ++i) {
    int slot = first + call.visible[query] + i;
    slot -= slot >= call.capacity ? call.capacity : 0;
    if (slot < call.used) scores[slot] = -INFINITY;
  }
  Vec largest = load(scores);
  for (int slot = kLanes; slot < call.used; slot += kLanes) {
    const Vec here = load(scores + slot);
    largest = here > largest ? here : largest;
  }
  float top = largest[0];
  for (int lane = 1; lane < kLanes; ++lane) top = largest[lane] > top ? largest[lane] : top;
  Vec total = splat(0.0F);
  for (int slot = 0; slot < call.used; slot += kLanes) {
    const Vec score = load(scores + slot);
    const Vec zero = splat(0.0F);
    const Vec weight = score > splat(-INFINITY) ? exp_vec(score - top) : zero;
    store(scores + slot, weight);
    total += weight;
  }
  return sum_lanes(total);
}

// Weighted sums of 4 registers of value columns.
template <int QUERIES>
DUOLOGUE_INLINE void blend(const AttendCall& call, int query, int column, const float* totals) {
  constexpr int kVectors = kKeyBlock / kLanes;
  Vec sums[QUERIES][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < QUERIES; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sums[i][v] = splat(0.0F);
  }
  const float* scores = call.scores + static_cast<std::ptrdiff_t>(query) * call.capacity;
  for (int slot = 0; slot < call.used; ++slot) {
    const float* value = call.values + static_cast<std::ptrdiff_t>(slot) * call.value_stride + column;
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const Vec x = load(value + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < QUERIES; ++i) sums[i][v] += scores[i * call.capacity + slot] * x;
    }
  }
  for (int i = 0; i < QUERIES; ++i) {
    float* out = call.out + (query + i) * call.out_stride + column;
    for (int v = 0; v < kVectors; ++v) {
      const Vec result = sums[i][v] / totals[i];
      for (int lane = 0; lane < kLanes && column + v * kLanes + lane < call.head_dim; ++lane) {
        out[v * kLanes + lane] = result[lane];
      }
    }
  }
}

template <int QUERIES>
void attend_rows(const AttendCall& call, int query) {
  const int blocks = call.used / kKeyBlock;
  int block = 0;
  for (; block + 4 <= blocks; block += 4) score_blocks<QUERIES, 4>(call, query, block);
  for (; block < blocks; ++block) score_blocks<QUERIES, 1>(call, query, block);
  float totals[QUERIES];
  for (int i = 0; i < QUERIES; ++i) totals[i] = softmax(call, query + i);
  for (int column = 0; column < call.head_dim; column += kKeyBlock)
    blend<QUERIES>(call, query, column, totals);
}

void attend(const AttendCall& call) {
  int query = 0;
  for (; query + 2 <= call.queries; query += 2) attend_rows<2>(call, query);
  if (query < call.queries) attend_rows<1>(call, query);
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
      least = here < least ? here : least;
    }
    for (int lane = 0; lane < kLanes; ++lane) smallest = least[lane] < smallest ? least[lane] : smallest;
  }
  for (int i = whole; i < n; ++i) smallest = x[i] < smallest ? x[i] : smallest;
  for (int i = 0; i < n; ++i) {
    if (x[i] == smallest) return i;
  }
  return 0;
}

constexpr Kernels make_table(const char* name) {
  return {name, kNarrowVectors * kLanes, kTallVectors * kLanes, kTallRows, gemm, attend, layer_norm, argmin};
}

}  // namespace
}  // namespace DUOLOGUE_SIMD_NAMESPACE
}  // namespace duologue
