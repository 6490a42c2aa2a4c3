#include "quantizer.h"

#include <algorithm>

namespace duologue {

void Quantizer::build(Workspace* workspace, const MimiConfig& config, const QuantizerLayers& layers) {
  layers_ = &layers;
  semantic_ = config.semantic_codebooks;
  width_ = config.codebook_dim;
  residuals_ = workspace->scratch(2 * static_cast<std::size_t>(width_));
  sums_ = workspace->scratch(2 * static_cast<std::size_t>(width_));
  distances_ = workspace->scratch(static_cast<std::size_t>(config.cardinality));
}

void Quantizer::add_centroid(const PackedMatrix& codebook, int code, float sign, float* vector) const {
  const int panel = codebook.panel;
  const float* centroid = static_cast<const float*>(codebook.data) +
                          static_cast<std::ptrdiff_t>(code / panel) * codebook.k * panel + code % panel;
  for (int i = 0; i < width_; ++i) vector[i] -= sign * centroid[static_cast<std::ptrdiff_t>(i) * panel];
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
    call.w = layers_->codebooks[static_cast<std::size_t>(i)];
    call.a = residual;
    call.raw = distances_;
    runner->gemm(call);
    codes[i] = runner->kernels().argmin(distances_, call.w.n);
    add_centroid(call.w, codes[i], -1.0F, residual);
  }
}

void Quantizer::decode(Runner* runner, const int32_t* codes, float* latent) {
  std::fill(sums_, sums_ + 2 * width_, 0.0F);
  const int count = static_cast<int>(layers_->codebooks.size());
  for (int i = 0; i < count; ++i) {
    add_centroid(layers_->codebooks[static_cast<std::size_t>(i)], codes[i], 1.0F,
                 sums_ + (i < semantic_ ? 0 : width_));
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
