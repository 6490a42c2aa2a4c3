// Any bytes as a safetensors file: it is refused, or every tensor in it can be read.
//
// With clang this is a libFuzzer target; DUOLOGUE_FUZZ_REPLAY makes it a program that runs the files it is
// given.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <unistd.h>

#include "duologue/mimi_weights.h"
#include "safetensors.h"

namespace {

// The smallest codec there is, so that a lucky file gets all the way into the packer.
duologue::MimiConfig smallest() {
  duologue::MimiConfig config;
  config.frame_samples = 4;
  config.dimension = 1;
  config.n_filters = 1;
  config.n_residual_layers = 0;
  config.compress = 1;
  config.kernel_size = 1;
  config.residual_kernel_size = 1;
  config.last_kernel_size = 1;
  config.ratios = {2};
  config.codebook_dim = 1;
  config.cardinality = 2;
  config.total_codebooks = 2;
  config.d_model = 2;
  config.num_heads = 1;
  config.num_layers = 1;
  config.context = 2;
  config.dim_feedforward = 1;
  return config;
}

std::string scratch_path() {
  const char* folder = std::getenv("TMPDIR");
  return std::string(folder != nullptr ? folder : "/tmp") + "/duologue_fuzz_" + std::to_string(getpid());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string path = scratch_path();
  {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  }
  duologue::SafetensorsFile file;
  if (file.open(path).ok()) {
    volatile unsigned sum = 0;
    for (const auto& entry : file.tensors()) {
      for (std::size_t i = 0; i < entry.second.bytes; ++i) sum = sum + entry.second.data[i];
    }
  }
  for (const duologue::Precision precision :
       {duologue::Precision::kFloat32, duologue::Precision::kFloat16, duologue::Precision::kInt8}) {
    std::shared_ptr<const duologue::MimiWeights> weights;
    const duologue::Status status = duologue::MimiWeights::load(path, smallest(), 2, "", precision, &weights);
    if (status.ok() != (weights != nullptr) || (!status.ok() && status.message.empty())) std::abort();
  }
  return 0;
}

#ifdef DUOLOGUE_FUZZ_REPLAY
int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  std::printf("%d files\n", argc - 1);
  return argc > 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}
#endif
