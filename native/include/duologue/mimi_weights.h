// Immutable weights of one Mimi, packed for the kernels of one instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "duologue/mimi_config.h"
#include "duologue/status.h"

namespace duologue {

struct MimiLayers;
struct Kernels;

struct TensorSpec {
  std::string name;
  std::vector<std::int64_t> shape;
};

// Every tensor that a file of this configuration must hold, under the released names.
std::vector<TensorSpec> expected_tensors(const MimiConfig& config);

class MimiWeights {
 public:
  // Reads a moshi-format safetensors file; only the first `num_codebooks` codebooks are kept.
  // Fails with kConfig (numbers, unknown `isa`) or kWeights (file; names the tensor, expected and found).
  static Status load(const std::string& path, const MimiConfig& config, int num_codebooks,
                     const std::string& isa, std::shared_ptr<const MimiWeights>* out);
  ~MimiWeights();
  MimiWeights(const MimiWeights&) = delete;
  MimiWeights& operator=(const MimiWeights&) = delete;

  const MimiConfig& config() const { return config_; }
  int num_codebooks() const { return num_codebooks_; }
  std::size_t packed_bytes() const { return packed_bytes_; }
  const char* isa() const;
  const Kernels& kernels() const { return *kernels_; }
  const MimiLayers& layers() const { return *layers_; }

 private:
  MimiWeights();
  MimiConfig config_;
  int num_codebooks_ = 0;
  std::size_t packed_bytes_ = 0;
  const Kernels* kernels_ = nullptr;
  std::unique_ptr<MimiLayers> layers_;
};

}  // namespace duologue
