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

// How weights are kept. Codebooks are always float32; sums are too, but for the integer products of kInt8.
enum class Precision { kFloat32, kFloat16, kInt8 };

// "float32", "float16" or "int8"; kConfig for any other name.
Status precision_from_name(const std::string& name, Precision* out);
const char* precision_name(Precision precision);

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
                     const std::string& isa, Precision precision, std::shared_ptr<const MimiWeights>* out);
  ~MimiWeights();
  MimiWeights(const MimiWeights&) = delete;
  MimiWeights& operator=(const MimiWeights&) = delete;

  const MimiConfig& config() const { return config_; }
  int num_codebooks() const { return num_codebooks_; }
  Precision precision() const { return precision_; }
  std::size_t packed_bytes() const { return packed_bytes_; }
  const char* isa() const;
  const Kernels& kernels() const { return *kernels_; }
  const MimiLayers& layers() const { return *layers_; }

 private:
  MimiWeights();
  MimiConfig config_;
  int num_codebooks_ = 0;
  Precision precision_ = Precision::kFloat32;
  std::size_t packed_bytes_ = 0;
  const Kernels* kernels_ = nullptr;
  std::unique_ptr<MimiLayers> layers_;
};

}  // namespace duologue
