// The layers of one Mimi as the kernels want them: packed matrices and the numbers around them.
#pragma once

#include <cstddef>
#include <vector>

#include "arena.h"
#include "kernels.h"

namespace duologue {

// Causal convolution; a row of A is `taps` rows of the input, `dilation` apart.
struct ConvLayer {
  PackedMatrix w;
  int in_channels = 0;
  int out_channels = 0;
  int taps = 1;
  int stride = 1;
  int dilation = 1;
  int out_rows = 0;  // per frame

  int in_rows() const { return out_rows * stride; }
  // Input rows of earlier frames that this frame's first output still reads.
  int state_rows() const { return (taps - 1) * dilation + 1 - stride; }
};

// Transposed convolution with kernel 2 * stride as a product over (x[t-1], x[t]): its state is one input row.
struct UpLayer {
  PackedMatrix w;  // [2 * in_channels][stride * out_channels]
  int in_channels = 0;
  int out_channels = 0;
  int stride = 1;
  int in_rows = 0;
};

struct ResidualBlock {
  ConvLayer wide;
  ConvLayer narrow;
  bool has_shortcut = false;
  ConvLayer shortcut;
};

struct EncoderStage {
  std::vector<ResidualBlock> blocks;
  ConvLayer down;
};

struct DecoderStage {
  UpLayer up;
  std::vector<ResidualBlock> blocks;
};

struct TransformerLayer {
  const float* norm1_weight = nullptr;
  const float* norm1_bias = nullptr;
  PackedMatrix qkv;
  PackedMatrix out;  // layer scale folded in
  const float* norm2_weight = nullptr;
  const float* norm2_bias = nullptr;
  PackedMatrix up;
  PackedMatrix down;  // layer scale folded in
};

struct TransformerLayers {
  PackedMatrix input;   // k == 0 when the widths agree and no projection exists
  PackedMatrix output;  // likewise
  std::vector<TransformerLayer> layers;
};

// The centroids of one codebook twice: in bytes, a quarter of the memory to read for every vector, and as
// they are, for the few that the bytes cannot tell apart.
struct CodebookLayer {
  PackedMatrix rough;                // [codebook_dim][cardinality] = -c in bytes, bias |c|^2 / 2 as it is
  const float* centroids = nullptr;  // [cardinality][codebook_dim]
  float slack = 0.0F;  // a product of `rough` with x is never further than slack * |x| from the truth

  const float* centroid(int code) const { return centroids + static_cast<std::ptrdiff_t>(code) * rough.k; }
};

struct QuantizerLayers {
  PackedMatrix input;  // [dimension][2 * codebook_dim]: semantic beside acoustic
  std::vector<CodebookLayer> codebooks;
  PackedMatrix output;  // [2 * codebook_dim][dimension]
};

struct MimiLayers {
  Arena arena;
  std::size_t rounded_bytes = 0;  // scratch that the products with integers share
  ConvLayer encoder_first;
  std::vector<EncoderStage> encoder_stages;
  ConvLayer encoder_last;
  TransformerLayers encoder_transformer;
  ConvLayer downsample;  // taps 0 when a frame is a single step
  QuantizerLayers quantizer;
  const float* upsample = nullptr;  // [2 * steps][dimension], null when a frame is a single step
  TransformerLayers decoder_transformer;
  ConvLayer decoder_first;
  std::vector<DecoderStage> decoder_stages;
  ConvLayer decoder_last;
};

}  // namespace duologue
