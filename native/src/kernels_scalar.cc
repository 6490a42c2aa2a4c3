// The plain reference: loops that follow the definitions, against which every other instruction set is
// tested.
#include <algorithm>
#include <cmath>

#include "half.h"
#include "kernels.h"

namespace duologue {
namespace {

constexpr int kPanel = 16;

float activate(Activation kind, float x) {
  if (kind == Activation::kElu) return x > 0.0F ? x : std::expm1(x);
  if (kind == Activation::kGelu) return 0.5F * x * (1.0F + std::erf(x * 0.70710678F));
  return x;
}

// Row k of a panel as floats; float32 needs no copy.
const float* widened(const PackedMatrix& w, const void* panel, int k, float* out) {
  const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(k) * kPanel;
  if (w.format == Format::kFloat32) return static_cast<const float*>(panel) + at;
  for (int lane = 0; lane < kPanel; ++lane) {
    if (w.format == Format::kFloat16) {
      out[lane] = half_to_float(static_cast<const std::uint16_t*>(panel)[at + lane]);
    } else if (w.planes == 0) {
      out[lane] = static_cast<const std::int8_t*>(panel)[at + lane];
    } else {
      out[lane] =
          static_cast<const std::int8_t*>(panel)[(k / kDotDepth * kPanel + lane) * kDotDepth + k % kDotDepth];
    }
  }
  return out;
}

void product(const GemmCall& call, const void* panel, int row, float* sums) {
  const float* a = call.a + row * call.a_stride;
  float copy[kPanel];
  for (int k = 0; k < call.w.k; ++k) {
    const float* weights = widened(call.w, panel, k, copy);
    for (int lane = 0; lane < kPanel; ++lane) sums[lane] += a[k] * weights[lane];
  }
}

void rounded_product(const GemmCall& call, const void* panel, int block, int row, float* sums) {
  const std::ptrdiff_t first = (row - call.w.block_begin(block, call.rows)) * call.a_stride;
  const RoundedBlock& rounded = *call.rounded_block(block);
  float copy[kPanel];
  for (int plane = 0; plane < call.w.planes; ++plane) {
    const std::uint8_t* bytes = call.rounded_plane(block, plane) + first;
    std::int32_t totals[kPanel] = {};
    for (int k = 0; k < call.w.k; ++k) {
      const float* weights = widened(call.w, panel, k, copy);
      const std::int32_t x = bytes[k] - rounded.zero[plane];
      for (int lane = 0; lane < kPanel; ++lane) totals[lane] += x * static_cast<std::int32_t>(weights[lane]);
    }
    for (int lane = 0; lane < kPanel; ++lane)
      sums[lane] = sums[lane] * 256.0F + static_cast<float>(totals[lane]);
  }
  for (int lane = 0; lane < kPanel; ++lane) sums[lane] *= rounded.scale;
}

void gemm(const GemmCall& call, const GemmPart& part) {
  const PackedMatrix& w = call.w;
  for (int panel = part.panel_begin; panel < part.panel_end; ++panel) {
    const auto* weights = static_cast<const char*>(w.data) + panel * w.panel_bytes();
    const int columns = w.n - panel * kPanel < kPanel ? w.n - panel * kPanel : kPanel;
    for (int block = part.block_begin; block < part.block_end; ++block) {
      for (int row = w.block_begin(block, call.rows); row < w.block_begin(block + 1, call.rows); ++row) {
        float sums[kPanel] = {};
        if (w.planes > 0) {
          rounded_product(call, weights, block, row, sums);
        } else {
          product(call, weights, row, sums);
        }
        const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(row) * w.n + panel * kPanel;
        for (int lane = 0; lane < columns; ++lane) {
          float value = sums[lane];
          if (w.scale != nullptr) value *= w.scale[panel * kPanel + lane];
          if (w.bias != nullptr) value += w.bias[panel * kPanel + lane];
          if (call.residual != nullptr) value += call.residual[at + lane];
          if (call.raw != nullptr) call.raw[at + lane] = value;
          if (call.activated != nullptr) call.activated[at + lane] = activate(call.activation, value);
        }
      }
    }
  }
}

void round(const GemmCall& call, int block) {
  const float* from = call.a + call.w.block_begin(block, call.rows) * call.a_stride;
  const std::ptrdiff_t count = call.block_span(block);
  const float least = std::min(0.0F, *std::min_element(from, from + count));
  const float most = std::max(1e-30F, *std::max_element(from, from + count));
  // Two steps fewer than there are, so that rounding zero to a step pushes nothing out of the range.
  const bool is_fine = call.w.planes == 2;
  const float steps = is_fine ? 65533.0F : 253.0F;
  const float per_step = steps / (most - least);
  const int zero = static_cast<int>(-least * per_step + 0.5F) + 1;
  RoundedBlock& out = *call.rounded_block(block);
  out.scale = (most - least) / steps;
  out.zero[0] = is_fine ? zero >> 8 : zero;
  out.zero[1] = zero & 0xFF;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const int step = static_cast<int>(std::nearbyint(from[i] * per_step + static_cast<float>(zero)));
    call.rounded_plane(block, 0)[i] = static_cast<std::uint8_t>(is_fine ? step >> 8 : step);
    if (is_fine) call.rounded_plane(block, 1)[i] = static_cast<std::uint8_t>(step);
  }
}

bool is_visible(const AttendCall& call, int query, int slot) {
  const int after_first = (slot - call.first_slot[query] + call.capacity) % call.capacity;
  return after_first < call.visible[query];
}

float cached(const AttendCall& call, const void* cache, std::ptrdiff_t at) {
  if (call.format == Format::kFloat16) return half_to_float(static_cast<const std::uint16_t*>(cache)[at]);
  return static_cast<const float*>(cache)[at];
}

void attend(const AttendCall& call) {
  for (int query = 0; query < call.queries; ++query) {
    const float* q = call.q + query * call.q_stride;
    float* scores = call.scores + static_cast<std::ptrdiff_t>(query) * call.capacity;
    float* out = call.out + query * call.out_stride;
    float largest = -INFINITY;
    for (int slot = 0; slot < call.used; ++slot) {
      const std::ptrdiff_t key =
          static_cast<std::ptrdiff_t>(slot / kKeyBlock) * call.head_dim * kKeyBlock + slot % kKeyBlock;
      float score = 0.0F;
      for (int i = 0; i < call.head_dim; ++i) score += q[i] * cached(call, call.keys, key + i * kKeyBlock);
      scores[slot] = is_visible(call, query, slot) ? score : -INFINITY;
      largest = std::fmax(largest, scores[slot]);
    }
    float total = 0.0F;
    for (int slot = 0; slot < call.used; ++slot) {
      scores[slot] = std::exp(scores[slot] - largest);
      total += scores[slot];
    }
    for (int i = 0; i < call.head_dim; ++i) {
      float sum = 0.0F;
      for (int slot = 0; slot < call.used; ++slot) {
        const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(slot) * call.value_stride + i;
        sum += scores[slot] * cached(call, call.values, at);
      }
      out[i] = sum / total;
    }
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float* out, int rows, int n) {
  for (int row = 0; row < rows; ++row) {
    const float* in = x + static_cast<std::ptrdiff_t>(row) * n;
    double sum = 0.0;
    double squares = 0.0;
    for (int i = 0; i < n; ++i) sum += in[i];
    const double mean = sum / n;
    for (int i = 0; i < n; ++i) squares += (in[i] - mean) * (in[i] - mean);
    const double scale = 1.0 / std::sqrt(squares / n + 1e-5);
    for (int i = 0; i < n; ++i) {
      out[static_cast<std::ptrdiff_t>(row) * n + i] =
          static_cast<float>((in[i] - mean) * scale) * weight[i] + bias[i];
    }
  }
}

int argmin(const float* x, int n) {
  int best = 0;
  for (int i = 1; i < n; ++i) {
    if (x[i] < x[best]) best = i;
  }
  return best;
}

double multiply_adds(int rounds) {
  float sums[kPanel] = {};
  for (int round = 0; round < rounds; ++round) {
    for (float& sum : sums) sum = sum * 0.999F + 0.999F;
  }
  volatile float keep = sums[0];
  (void)keep;
  return 2.0 * kPanel * rounds;
}

float read(const float* x, std::size_t n) {
  float sums[kPanel] = {};
  for (std::size_t i = 0; i + kPanel <= n; i += kPanel) {
    for (std::size_t lane = 0; lane < kPanel; ++lane) sums[lane] += x[i + lane];
  }
  volatile float keep = sums[0];
  return keep;
}

constexpr Kernels kTable = {"scalar", kPanel, kPanel,     4,      false,         gemm,
                            round,    attend, layer_norm, argmin, multiply_adds, read};

}  // namespace

const Kernels* scalar_kernels() {
  return &kTable;
}

}  // namespace duologue
