// One head of attention over the ring of keys and values, for kernels_simd.h alone.
#pragma once

#include <cmath>
#include <cstddef>

#include "kernels.h"
#include "simd_vectors.h"

namespace duologue {
namespace DUOLOGUE_SIMD_NAMESPACE {
namespace {

// Scores of QUERIES queries against a block of 16 keys; head_dim is even.
template <typename Cached, int QUERIES>
DUOLOGUE_INLINE void score_block(const AttendCall& call, int query, int block) {
  constexpr int kVectors = kKeyBlock / kLanes;
  constexpr int kChains = 2;  // sums of its own for every other dimension: additions wait for one another
  Vec sums[QUERIES][kChains][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < QUERIES; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < kChains * kVectors; ++v) sums[i][v / kVectors][v % kVectors] = splat(0.0F);
  }
  const Cached* keys =
      static_cast<const Cached*>(call.keys) + static_cast<std::ptrdiff_t>(block) * call.head_dim * kKeyBlock;
  const float* q = call.q + query * call.q_stride;
  for (int d = 0; d < call.head_dim; d += kChains) {
    fetch_ahead<true>(keys, kChains * kKeyBlock, kAheadBytes);
#pragma GCC unroll 16
    for (int chain = 0; chain < kChains; ++chain) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const Vec key = load(keys + chain * kKeyBlock + v * kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < QUERIES; ++i) sums[i][chain][v] += q[i * call.q_stride + d + chain] * key;
      }
    }
    keys += kChains * kKeyBlock;
  }
#pragma GCC unroll 16
  for (int i = 0; i < QUERIES; ++i) {
    float* scores = call.scores + static_cast<std::ptrdiff_t>(query + i) * call.capacity + block * kKeyBlock;
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) store(scores + v * kLanes, sums[i][0][v] + sums[i][1][v]);
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
    largest = max_vec(here, largest);
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

// Weighted sums of VECTORS registers of value columns.
template <typename Cached, int QUERIES, int VECTORS>
DUOLOGUE_INLINE void blend(const AttendCall& call, int query, int column, const float* totals) {
  Vec sums[QUERIES][VECTORS];
#pragma GCC unroll 16
  for (int i = 0; i < QUERIES; ++i) {
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) sums[i][v] = splat(0.0F);
  }
  const float* scores = call.scores + static_cast<std::ptrdiff_t>(query) * call.capacity;
  for (int slot = 0; slot < call.used; ++slot) {
    const Cached* value = static_cast<const Cached*>(call.values) +
                          static_cast<std::ptrdiff_t>(slot) * call.value_stride + column;
    fetch_ahead<true>(value, VECTORS * kLanes, kAheadBytes);
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) {
      const Vec x = load(value + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < QUERIES; ++i) sums[i][v] += scores[i * call.capacity + slot] * x;
    }
  }
  for (int i = 0; i < QUERIES; ++i) {
    float* out = call.out + (query + i) * call.out_stride + column;
    for (int v = 0; v < VECTORS; ++v) {
      const Vec result = sums[i][v] / totals[i];
      for (int lane = 0; lane < kLanes && column + v * kLanes + lane < call.head_dim; ++lane) {
        out[v * kLanes + lane] = result[lane];
      }
    }
  }
}

template <typename Cached, int QUERIES>
void attend_rows(const AttendCall& call, int query) {
  for (int block = 0; block < call.used / kKeyBlock; ++block)
    score_block<Cached, QUERIES>(call, query, block);
  float totals[QUERIES];
  for (int i = 0; i < QUERIES; ++i) totals[i] = softmax(call, query + i);
  constexpr int kWide = 4 * kLanes > kKeyBlock ? 4 * kLanes : kKeyBlock;
  int column = 0;
  for (; column + kWide <= call.value_stride; column += kWide) {
    blend<Cached, QUERIES, kWide / kLanes>(call, query, column, totals);
  }
  for (; column < call.head_dim; column += kKeyBlock) {
    blend<Cached, QUERIES, kKeyBlock / kLanes>(call, query, column, totals);
  }
}

template <typename Cached>
void attend_all(const AttendCall& call) {
  int query = 0;
  for (; query + 2 <= call.queries; query += 2) attend_rows<Cached, 2>(call, query);
  if (query < call.queries) attend_rows<Cached, 1>(call, query);
}

void attend(const AttendCall& call) {
  if (call.format == Format::kFloat16) return attend_all<Half>(call);
  attend_all<float>(call);
}

}  // namespace
}  // namespace DUOLOGUE_SIMD_NAMESPACE
}  // namespace duologue
