// The plain reference: loops that follow the definitions, against which every other instruction set is
// tested.
#include <cmath>

#include "kernels.h"

namespace duologue {
namespace {

constexpr int kPanel = 16;

float activate(Activation kind, float x) {
  if (kind == Activation::kElu) return x > 0.0F ? x : std::expm1(x);
  if (kind == Activation::kGelu) return 0.5F * x * (1.0F + std::erf(x * 0.70710678F));
  return x;
}

void gemm(const GemmCall& call, const GemmPart& part) {
  const PackedMatrix& w = call.w;
  for (int panel = part.panel_begin; panel < part.panel_end; ++panel) {
    const float* weights = w.data + static_cast<std::ptrdiff_t>(panel) * w.k * kPanel;
    const int columns = w.n - panel * kPanel < kPanel ? w.n - panel * kPanel : kPanel;
    for (int row = part.row_begin; row < part.row_end; ++row) {
      const float* a = call.a + row * call.a_stride;
      float sums[kPanel] = {};
      for (int k = 0; k < w.k; ++k) {
        for (int lane = 0; lane < kPanel; ++lane) sums[lane] += a[k] * weights[k * kPanel + lane];
      }
      const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(row) * w.n + panel * kPanel;
      for (int lane = 0; lane < columns; ++lane) {
        float value = sums[lane];
        if (w.bias != nullptr) value += w.bias[panel * kPanel + lane];
        if (call.residual != nullptr) value += call.residual[at + lane];
        if (call.raw != nullptr) call.raw[at + lane] = value;
        if (call.activated != nullptr) call.activated[at + lane] = activate(call.activation, value);
      }
    }
  }
}

bool is_visible(const AttendCall& call, int query, int slot) {
  const int after_first = (slot - call.first_slot[query] + call.capacity) % call.capacity;
  return after_first < call.visible[query];
}

void attend(const AttendCall& call) {
  for (int query = 0; query < call.queries; ++query) {
    const float* q = call.q + query * call.q_stride;
    float* scores = call.scores + static_cast<std::ptrdiff_t>(query) * call.capacity;
    float* out = call.out + query * call.out_stride;
    float largest = -INFINITY;
    for (int slot = 0; slot < call.used; ++slot) {
      const float* key = call.keys +
                         static_cast<std::ptrdiff_t>(slot / kKeyBlock) * call.head_dim * kKeyBlock +
                         slot % kKeyBlock;
      float score = 0.0F;
      for (int i = 0; i < call.head_dim; ++i) score += q[i] * key[i * kKeyBlock];
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
        sum += scores[slot] * call.values[static_cast<std::ptrdiff_t>(slot) * call.value_stride + i];
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

constexpr Kernels kTable = {"scalar", kPanel, kPanel, 4, gemm, attend, layer_norm, argmin};

}  // namespace

const Kernels* scalar_kernels() {
  return &kTable;
}

}  // namespace duologue
