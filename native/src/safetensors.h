// A safetensors file, memory-mapped and checked before any tensor is touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "duologue/status.h"

namespace duologue {

enum class DType { kF32, kF16, kBF16, kOther };

struct TensorView {
  DType dtype = DType::kOther;
  std::string dtype_name;
  std::vector<std::int64_t> shape;
  const std::uint8_t* data = nullptr;
  std::size_t bytes = 0;
};

// Writes shape as "[2, 3]".
std::string shape_text(const std::vector<std::int64_t>& shape);

class SafetensorsFile {
 public:
  SafetensorsFile() = default;
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  // kWeights when the file is missing, truncated or its header is not sound.
  Status open(const std::string& path);
  const std::string& path() const { return path_; }
  const std::unordered_map<std::string, TensorView>& tensors() const { return tensors_; }
  // Lets the system drop the pages of a tensor that is no longer needed.
  void discard(const TensorView& tensor) const;

 private:
  std::string path_;
  std::uint8_t* mapping_ = nullptr;
  std::size_t size_ = 0;
  std::unordered_map<std::string, TensorView> tensors_;
};

// Parses a header (the JSON text); offsets are checked against `data_bytes`. For open() and for tests.
Status parse_safetensors_header(const char* text, std::size_t length, const std::uint8_t* data,
                                std::size_t data_bytes, std::unordered_map<std::string, TensorView>* out);

}  // namespace duologue
