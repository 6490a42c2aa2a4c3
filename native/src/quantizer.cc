#include "quantizer.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace duologue {
namespace {

double dot(const float* a, const float* b, int n) {
  constexpr int kSums = 4;  // one would wait for itself
  double sums[kSums] = {};
  int i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (int s = 0; s < kSums; ++s) sums[s] += static_cast<double>(a[i + s]) * b[i + s];
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(a[i]) * b[i];
  return sums[0] + sums[1] + sums[2] + sums[3];
}

}  // namespace

void Quantizer::build(Workspace* workspace, const MimiConfig& config, const QuantizerLayers& layers) {
  layers_ = &layers;
  semantic_ = config.semantic_codebooks;
  width_ = config.codebook_dim;
  residuals_ = workspace->scratch(2 * static_cast<std::size_t>(width_));
  sums_ = workspace->scratch(2 * static_cast<std::size_t>(width_));
  distances_ = workspace->scratch(static_cast<std::size_t>(config.cardinality));
}

int Quantizer::nearest(Runner* runner, const CodebookLayer& codebook, const float* x) {
  GemmCall call;
  call.w = codebook.rough;
  call.a = x;
  call.a_stride = call.w.k;
  call.rows = 1;
  call.raw = distances_;
  runner->gemm(call);
  int code = runner->kernels().argmin(distances_, call.w.n);
  // Whatever is nearest cannot lie beyond the best by more than both may be wrong.
  const float limit =
      distances_[code] + 2.0F * codebook.slack * static_cast<float>(std::sqrt(dot(x, x, width_)));
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < call.w.n; ++i) {
    if (!(distances_[i] <= limit)) continue;
    const double distance = codebook.rough.bias[i] - dot(x, codebook.centroid(i), width_);
    if (distance >= least) continue;
    least = distance;
    code = i;
  }
  return code;
}

void Quantizer::encode(Runner* runner, const float* latent, int32_t* codes) {
  GemmCall call;
  call.w = layers_->input;
  call.a = latent;
  call.a_stride = call.w.k;
  call.rows = 1;
  call.raw = residuals_;
  runner->gemm(call);
  const int count = static_cast<int>(layers_->codebooks.size());
  for (int i = 0; i < count; ++i) {
    // The acoustic codebooks quantise the same latent anew, not what the semantic one left over.
    float* residual = residuals_ + (i < semantic_ ? 0 : width_);
    const CodebookLayer& codebook = layers_->codebooks[static_cast<std::size_t>(i)];
    codes[i] = nearest(runner, codebook, residual);
    const float* centroid = codebook.centroid(codes[i]);
    for (int c = 0; c < width_; ++c) residual[c] -= centroid[c];
  }
}

void Quantizer::decode(Runner* runner, const int32_t* codes, float* latent) {
  std::fill(sums_, sums_ + 2 * width_, 0.0F);
  const int count = static_cast<int>(layers_->codebooks.size());
  for (int i = 0; i < count; ++i) {
    const float* centroid = layers_->codebooks[static_cast<std::size_t>(i)].centroid(codes[i]);
    float* sums = sums_ + (i < semantic_ ? 0 : width_);
    for (int c = 0; c < width_; ++c) sums[c] += centroid[c];
  }
  GemmCall call;
  call.w = layers_->output;
  call.a = sums_;
  call.a_stride = call.w.k;
  call.rows = 1;
  call.raw = latent;
  runner->gemm(call);
}

}  // namespace duologue
