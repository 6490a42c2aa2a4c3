// The header parser: what it accepts, and that it survives any damage.
#include <cstring>
#include <random>
#include <string>

#include "check.h"
#include "safetensors.h"

using duologue::parse_safetensors_header;
using duologue::Status;
using duologue::TensorView;

namespace {

using Tensors = std::unordered_map<std::string, TensorView>;

Status parse(const std::string& text, std::size_t data_bytes, Tensors* out) {
  static const std::vector<std::uint8_t> data(1024);
  return parse_safetensors_header(text.data(), text.size(), data.data(), data_bytes, out);
}

bool is_refused(const std::string& text) {
  Tensors tensors;
  return !parse(text, 64, &tensors).ok();
}

void check_good() {
  Tensors tensors;
  CHECK(parse(R"( {"__metadata__": {"format": "pt", "x\"y": "z"}, "a.b": {"dtype":"F32","shape":[2, 3],)"
              R"("data_offsets":[0,24]}, "s": {"data_offsets":[24,26],"shape":[],"dtype":"F16"}}  )",
              26, &tensors)
            .ok());
  CHECK(tensors.size() == 2);
  CHECK(tensors.at("a.b").bytes == 24 && tensors.at("a.b").shape == (std::vector<std::int64_t>{2, 3}));
  CHECK(tensors.at("s").shape.empty() && tensors.at("s").dtype == duologue::DType::kF16);
  Tensors none;
  CHECK(parse("{}", 0, &none).ok() && none.empty());
}

void check_bad() {
  const std::string entry = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  for (const std::string& text : {
           std::string(),
           std::string("{"),
           std::string("[]"),
           std::string("{\"a\":1}"),
           "{\"a\":" + entry,
           "{\"a\":" + entry + "}x",
           "{\"a\":" + entry + ",\"a\":" + entry + "}",
           std::string(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})"),
           std::string(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})"),
           std::string(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[60,68]}})"),
           std::string(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})"),
           std::string(R"({"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}})"),
           std::string(R"({"a":{"dtype":"F32","shape":[2]}})"),
           std::string(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]}})"),
           std::string(R"({"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}})"),
           std::string(R"({"a\)"),
           std::string(R"({"__metadata__":{"a":1}})"),
       }) {
    CHECK(is_refused(text));
  }
}

// Any accepted header must point inside the data.
void check_damage() {
  const std::string good =
      R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})";
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string text = good;
    for (unsigned i = 0; i <= random() % 4; ++i)
      text[random() % text.size()] = static_cast<char>(random() % 256);
    if (random() % 4 == 0) text.resize(random() % text.size());
    // An exact-size copy, so that the address sanitizer sees any read past its end.
    const std::vector<char> exact(text.begin(), text.end());
    static const std::vector<std::uint8_t> data(32);
    Tensors tensors;
    if (!parse_safetensors_header(exact.data(), exact.size(), data.data(), data.size(), &tensors).ok())
      continue;
    for (const auto& entry : tensors) {
      CHECK(entry.second.data >= data.data() &&
            entry.second.data + entry.second.bytes <= data.data() + data.size());
    }
  }
}

}  // namespace

int main() {
  check_good();
  check_bad();
  check_damage();
  duologue::SafetensorsFile missing;
  CHECK(!missing.open("/nonexistent/file.safetensors").ok());
  duologue::SafetensorsFile folder;
  CHECK(!folder.open("/").ok());
  return duologue_test::report();
}
