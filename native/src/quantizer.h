// Residual vector quantisation: one latent to codes and back.
#pragma once

#include <cstdint>

#include "duologue/mimi_config.h"
#include "layers.h"
#include "runner.h"
#include "workspace.h"

namespace duologue {

class Quantizer {
 public:
  void build(Workspace* workspace, const MimiConfig& config, const QuantizerLayers& layers);
  // latent[dimension] -> codes, one per codebook kept.
  void encode(Runner* runner, const float* latent, int32_t* codes);
  // codes -> latent[dimension]
  void decode(Runner* runner, const int32_t* codes, float* latent);

 private:
  // The code of the centroid nearest to x[codebook_dim].
  int nearest(Runner* runner, const CodebookLayer& codebook, const float* x);
  const QuantizerLayers* layers_ = nullptr;
  int semantic_ = 1;
  int width_ = 0;
  float* residuals_ = nullptr;  // [2][codebook_dim], semantic then acoustic
  float* sums_ = nullptr;       // likewise, for decoding
  float* distances_ = nullptr;  // [cardinality]
};

}  // namespace duologue
