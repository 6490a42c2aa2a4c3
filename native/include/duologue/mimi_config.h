// The shape of a Mimi codec: every number that its tensors and its streaming state follow from.
#pragma once

#include <cstdint>
#include <vector>

#include "duologue/status.h"

namespace duologue {

struct MimiConfig {
  // SEANet. `ratios` in decoder order, as in the configuration files.
  int frame_samples = 1920;
  int dimension = 512;
  int n_filters = 64;
  int n_residual_layers = 1;
  int compress = 2;
  int kernel_size = 7;
  int residual_kernel_size = 3;
  int last_kernel_size = 3;
  int dilation_base = 2;
  bool true_skip = true;
  std::vector<int> ratios = {8, 6, 5, 4};
  // Quantizer.
  int codebook_dim = 256;
  int cardinality = 2048;
  int total_codebooks = 32;
  int semantic_codebooks = 1;
  // Transformers, one before and one after the quantizer.
  int d_model = 512;
  int num_heads = 8;
  int num_layers = 8;
  int context = 250;
  int dim_feedforward = 2048;
  float max_period = 10000.0F;
  bool has_layer_scale = true;

  // Samples per SEANet latent: the product of the ratios.
  int hop() const;
  // SEANet latents (and transformer steps) per frame.
  int steps() const { return frame_samples / hop(); }
  int head_dim() const { return d_model / num_heads; }
  // Refuses what no Mimi can be (kConfig); call it before anything else reads the numbers.
  Status validate() const;
};

}  // namespace duologue
