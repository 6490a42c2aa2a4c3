#include "duologue/mimi_config.h"

#include <string>

namespace duologue {
namespace {

constexpr int kLimit = 1 << 16;

bool in_range(int value, int low, int high) {
  return value >= low && value <= high;
}

}  // namespace

int MimiConfig::hop() const {
  int product = 1;
  for (int ratio : ratios) product *= ratio;
  return product;
}

Status MimiConfig::validate() const {
  const struct {
    const char* name;
    int value;
    int low;
    int high;
  } fields[] = {
      {"frame_samples", frame_samples, 1, kLimit},
      {"seanet.dimension", dimension, 1, 8192},
      {"seanet.n_filters", n_filters, 1, 1024},
      {"seanet.n_residual_layers", n_residual_layers, 0, 16},
      {"seanet.compress", compress, 1, 64},
      {"seanet.kernel_size", kernel_size, 1, 64},
      {"seanet.residual_kernel_size", residual_kernel_size, 1, 64},
      {"seanet.last_kernel_size", last_kernel_size, 1, 64},
      {"seanet.dilation_base", dilation_base, 1, 16},
      {"quantizer.dimension", codebook_dim, 1, 4096},
      {"quantizer.bins", cardinality, 2, kLimit},
      {"quantizer.n_q", total_codebooks, 2, 256},
      {"quantizer.n_q_semantic", semantic_codebooks, 1, total_codebooks - 1},
      {"transformer.d_model", d_model, 2, 8192},
      {"transformer.num_heads", num_heads, 1, 256},
      {"transformer.num_layers", num_layers, 1, 64},
      {"transformer.context", context, 1, kLimit},
      {"transformer.dim_feedforward", dim_feedforward, 1, kLimit},
  };
  for (const auto& field : fields) {
    if (!in_range(field.value, field.low, field.high)) {
      return Status::config(std::string(field.name) + " is " + std::to_string(field.value) +
                            "; it must be between " + std::to_string(field.low) + " and " +
                            std::to_string(field.high));
    }
  }
  if (!in_range(static_cast<int>(ratios.size()), 1, 8)) {
    return Status::config("seanet.ratios has " + std::to_string(ratios.size()) +
                          " entries; it must have 1 to 8");
  }
  long long product = 1;
  for (int ratio : ratios) {
    if (!in_range(ratio, 1, 64)) {
      return Status::config("seanet.ratios holds " + std::to_string(ratio) +
                            "; each must be between 1 and 64");
    }
    product *= ratio;
  }
  if (product > frame_samples || frame_samples % product != 0) {
    return Status::config("a frame of " + std::to_string(frame_samples) + " samples is no multiple of " +
                          std::to_string(product) + ", the product of seanet.ratios");
  }
  if (d_model % num_heads != 0 || head_dim() % 2 != 0) {
    return Status::config("transformer.d_model " + std::to_string(d_model) + " does not divide into " +
                          std::to_string(num_heads) + " heads of even width");
  }
  if (n_filters % compress != 0) {
    return Status::config("seanet.n_filters " + std::to_string(n_filters) + " is no multiple of compress " +
                          std::to_string(compress));
  }
  if (!(max_period > 1.0F)) return Status::config("transformer.max_period must be greater than 1");
  if (steps() > context) return Status::config("transformer.context is shorter than the steps of one frame");
  long long reach = residual_kernel_size;
  for (int layer = 1; layer < n_residual_layers; ++layer) reach *= dilation_base;
  if (reach > kLimit)
    return Status::config("seanet.dilation_base to the power of n_residual_layers is too large");
  return {};
}

}  // namespace duologue
