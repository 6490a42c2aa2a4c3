// write_mini FILE: random weights of the shape that the C example calls "mini".
#include "random_weights.h"

int main(int argc, char** argv) {
  if (argc != 2) return EXIT_FAILURE;
  duologue::MimiConfig config;
  config.dimension = config.d_model = 256;
  config.n_filters = 16;
  config.codebook_dim = 64;
  config.cardinality = 1024;
  config.total_codebooks = 8;
  config.num_heads = 4;
  config.num_layers = 2;
  config.dim_feedforward = 1024;
  duologue_test::write_weights(config, argv[1]);
  return EXIT_SUCCESS;
}
