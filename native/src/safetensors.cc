#include "safetensors.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace duologue {
namespace {

constexpr std::size_t kMaxHeader = 100U << 20;
constexpr int kMaxDepth = 8;

// Reads just the JSON that a safetensors header may hold.
class HeaderReader {
 public:
  HeaderReader(const char* text, std::size_t length) : at_(text), end_(text + length) {}

  bool take(char wanted) {
    skip_space();
    if (at_ == end_ || *at_ != wanted) return false;
    ++at_;
    return true;
  }

  bool at_end() {
    skip_space();
    return at_ == end_;
  }

  bool string(std::string* out) {
    out->clear();
    if (!take('"')) return false;
    while (at_ != end_ && *at_ != '"') {
      if (static_cast<unsigned char>(*at_) < 0x20) return false;
      if (*at_ == '\\' && !escape(out)) return false;
      if (at_ != end_ && *at_ != '"' && *at_ != '\\') out->push_back(*at_++);
    }
    return take('"');
  }

  bool number(std::int64_t* out) {
    skip_space();
    const char* start = at_;
    std::int64_t value = 0;
    while (at_ != end_ && *at_ >= '0' && *at_ <= '9') {
      if (value > (INT64_MAX - 9) / 10) return false;
      value = value * 10 + (*at_++ - '0');
    }
    *out = value;
    return at_ != start;
  }

  bool numbers(std::vector<std::int64_t>* out) {
    out->clear();
    if (!take('[')) return false;
    if (take(']')) return true;
    do {
      std::int64_t value = 0;
      if (!number(&value)) return false;
      out->push_back(value);
    } while (take(','));
    return take(']');
  }

  // Skips {"text": "text", ...}, the only form of __metadata__.
  bool metadata() {
    std::string text;
    if (!take('{')) return false;
    if (take('}')) return true;
    do {
      if (!string(&text) || !take(':') || !string(&text)) return false;
    } while (take(','));
    return take('}');
  }

 private:
  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }

  // Keeps an escape as it is written but for the simple ones: tensor names do not use \u.
  bool escape(std::string* out) {
    if (end_ - at_ < 2) return false;
    const char kind = at_[1];
    if (std::strchr("\"\\/bfnrtu", kind) == nullptr || kind == '\0') return false;
    if (kind != '"' && kind != '\\' && kind != '/') out->push_back('\\');
    out->push_back(kind);
    at_ += 2;
    return true;
  }

  const char* at_;
  const char* end_;
};

DType dtype_from(const std::string& name) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBF16;
  return DType::kOther;
}

std::size_t element_bytes(const std::string& dtype) {
  static const struct {
    const char* name;
    std::size_t bytes;
  } table[] = {{"F64", 8},  {"I64", 8}, {"U64", 8}, {"F32", 4}, {"I32", 4}, {"U32", 4}, {"F16", 2},
               {"BF16", 2}, {"I16", 2}, {"U16", 2}, {"I8", 1},  {"U8", 1},  {"BOOL", 1}};
  for (const auto& entry : table) {
    if (dtype == entry.name) return entry.bytes;
  }
  return 0;
}

bool read_entry(HeaderReader* reader, TensorView* view, std::vector<std::int64_t>* offsets) {
  std::string key;
  int seen = 0;
  if (!reader->take('{')) return false;
  do {
    if (!reader->string(&key) || !reader->take(':')) return false;
    bool good = false;
    if (key == "dtype") good = reader->string(&view->dtype_name);
    if (key == "shape") good = reader->numbers(&view->shape) && view->shape.size() <= kMaxDepth;
    if (key == "data_offsets") good = reader->numbers(offsets) && offsets->size() == 2;
    if (!good) return false;
    ++seen;
  } while (reader->take(','));
  return seen == 3 && reader->take('}');
}

Status check_entry(const std::string& name, const std::vector<std::int64_t>& offsets,
                   const std::uint8_t* data, std::size_t data_bytes, TensorView* view) {
  const std::string tensor = "tensor '" + name + "'";
  const std::size_t unit = element_bytes(view->dtype_name);
  if (unit == 0) return Status::weights(tensor + " has unknown dtype '" + view->dtype_name + "'");
  std::uint64_t expected = unit;
  for (std::int64_t side : view->shape) {
    if (side != 0 && expected > (std::uint64_t{1} << 62) / static_cast<std::uint64_t>(side)) {
      return Status::weights(tensor + " has an impossible shape " + shape_text(view->shape));
    }
    expected *= static_cast<std::uint64_t>(side);
  }
  if (offsets.size() != 2 || offsets[0] > offsets[1] || static_cast<std::uint64_t>(offsets[1]) > data_bytes) {
    return Status::weights(tensor + " lies outside the file: is it truncated?");
  }
  if (static_cast<std::uint64_t>(offsets[1] - offsets[0]) != expected) {
    return Status::weights(tensor + " of shape " + shape_text(view->shape) + " " + view->dtype_name +
                           " needs " + std::to_string(expected) + " bytes, the file gives it " +
                           std::to_string(offsets[1] - offsets[0]));
  }
  view->dtype = dtype_from(view->dtype_name);
  view->data = data + offsets[0];
  view->bytes = static_cast<std::size_t>(expected);
  return {};
}

}  // namespace

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

Status parse_safetensors_header(const char* text, std::size_t length, const std::uint8_t* data,
                                std::size_t data_bytes, std::unordered_map<std::string, TensorView>* out) {
  HeaderReader reader(text, length);
  const Status broken = Status::weights("the safetensors header is damaged");
  if (!reader.take('{')) return broken;
  if (reader.take('}')) return reader.at_end() ? Status{} : broken;
  std::string name;
  std::vector<std::int64_t> offsets;
  do {
    if (!reader.string(&name) || !reader.take(':')) return broken;
    if (name == "__metadata__") {
      if (!reader.metadata()) return broken;
      continue;
    }
    TensorView view;
    if (!read_entry(&reader, &view, &offsets)) {
      return Status::weights("the safetensors header is damaged at tensor '" + name + "'");
    }
    Status status = check_entry(name, offsets, data, data_bytes, &view);
    if (!status.ok()) return status;
    if (!out->emplace(name, std::move(view)).second)
      return Status::weights("tensor '" + name + "' appears twice");
  } while (reader.take(','));
  return reader.take('}') && reader.at_end() ? Status{} : broken;
}

SafetensorsFile::~SafetensorsFile() {
  if (mapping_ != nullptr) munmap(mapping_, size_);
}

Status SafetensorsFile::open(const std::string& path) {
  path_ = path;
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return Status::weights(path + ": cannot open: " + std::strerror(errno));
  struct stat info{};
  const bool is_file = fstat(descriptor, &info) == 0 && S_ISREG(info.st_mode);
  size_ = is_file ? static_cast<std::size_t>(info.st_size) : 0;
  void* mapping = size_ >= 8 ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0) : MAP_FAILED;
  close(descriptor);
  if (!is_file) return Status::weights(path + ": not a file");
  if (mapping == MAP_FAILED) return Status::weights(path + ": not a safetensors file: too short");
  mapping_ = static_cast<std::uint8_t*>(mapping);
  std::uint64_t header = 0;
  for (int i = 7; i >= 0; --i) header = header << 8 | mapping_[i];
  if (header > size_ - 8 || header > kMaxHeader) {
    return Status::weights(path + ": not a safetensors file, or truncated: its header is said to have " +
                           std::to_string(header) + " bytes, the file has " + std::to_string(size_));
  }
  Status status = parse_safetensors_header(reinterpret_cast<const char*>(mapping_ + 8), header,
                                           mapping_ + 8 + header, size_ - 8 - header, &tensors_);
  if (!status.ok()) status.message = path + ": " + status.message;
  return status;
}

void SafetensorsFile::discard(const TensorView& tensor) const {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t begin = (static_cast<std::size_t>(tensor.data - mapping_) + page - 1) / page * page;
  const std::size_t end = (static_cast<std::size_t>(tensor.data - mapping_) + tensor.bytes) / page * page;
  if (end > begin) madvise(mapping_ + begin, end - begin, MADV_DONTNEED);
}

}  // namespace duologue
