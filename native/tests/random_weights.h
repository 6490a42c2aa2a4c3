// Writes random weights of any Mimi, as a safetensors file with the released names.
#pragma once

#include <cmath>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "check.h"
#include "duologue/mimi_weights.h"

namespace duologue_test {

inline std::string write_weights(const duologue::MimiConfig& config, const std::string& path) {
  std::string header = "{";
  std::vector<float> data;
  unsigned seed = 1;
  for (const duologue::TensorSpec& spec : duologue::expected_tensors(config)) {
    std::int64_t count = 1;
    std::string shape;
    for (std::int64_t side : spec.shape) {
      count *= side;
      shape += (shape.empty() ? "" : ",") + std::to_string(side);
    }
    const bool is_usage = spec.name.find("cluster_usage") != std::string::npos;
    const float fan = static_cast<float>(count) / static_cast<float>(spec.shape[0]);
    const std::vector<float> values =
        is_usage ? std::vector<float>(static_cast<std::size_t>(count), 2.0F)
                 : gaussian(static_cast<std::size_t>(count), seed++, 1.0F / std::sqrt(fan));
    header += (header.size() == 1 ? "" : ",") + ("\"" + spec.name) + "\":{\"dtype\":\"F32\",\"shape\":[" +
              shape + "],\"data_offsets\":[" + std::to_string(data.size() * 4) + "," +
              std::to_string((data.size() + values.size()) * 4) + "]}";
    data.insert(data.end(), values.begin(), values.end());
  }
  header += "}";
  const std::uint64_t length = header.size();
  std::ofstream file(path, std::ios::binary);
  for (int i = 0; i < 8; ++i) file.put(static_cast<char>(length >> (8 * i) & 0xFF));
  file << header;
  file.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size() * 4));
  return path;
}

}  // namespace duologue_test
