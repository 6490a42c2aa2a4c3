#include "packer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "half.h"

namespace duologue {
namespace {

constexpr int kPackRows = 16;
constexpr std::size_t kAlignment = 64;

bool all_finite(const float* values, std::size_t count) {
  std::uint32_t found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, values + i, sizeof bits);
    found |= static_cast<std::uint32_t>((bits & 0x7F800000U) == 0x7F800000U);
  }
  return found == 0;
}

// Nearest integer; the magnitude must be far below 2^22.
std::int8_t byte_from_float(float value) {
  const float shifted = value + 12582912.0F;
  return static_cast<std::int8_t>(bits_of(shifted));
}

// One panel in float32, [k][panel].
void copy_panel(const PackedMatrix& packed, int panel, const SourceLayout& source, float* to) {
  const int width = packed.panel;
  const int columns = std::min(width, packed.n - panel * width);
  // A few rows at a time for all columns, so that the lines being written stay in cache.
  for (int outer = 0; outer < packed.k / source.inner_k; ++outer) {
    for (int begin = 0; begin < source.inner_k; begin += kPackRows) {
      const int rows_here = std::min(kPackRows, source.inner_k - begin);
      float* block = to + static_cast<std::ptrdiff_t>(outer * source.inner_k + begin) * width;
      for (int lane = 0; lane < columns; ++lane) {
        const int column = panel * width + lane;
        const float* line = source.base + outer * source.outer_k_step + begin * source.inner_k_step +
                            column / source.inner_n * source.outer_n_step +
                            column % source.inner_n * source.inner_n_step;
        for (int i = 0; i < rows_here; ++i) {
          block[static_cast<std::ptrdiff_t>(i) * width + lane] = line[i * source.inner_k_step];
        }
      }
    }
  }
}

// Scales that use the whole range: powers of two for halves, which lose nothing, and the largest value over
// 127 for bytes.
float column_scale(Format format, float largest) {
  if (largest == 0.0F) return 1.0F;
  if (format == Format::kInt8) return std::fmax(largest / 127.0F, 1e-36F);
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0F, std::max(exponent - 15, -120));
}

// Stores a float32 panel in its own format.
void narrow_panel(const PackedMatrix& packed, const float* values, unsigned char* out, float* scales,
                  std::int32_t* sums) {
  const int width = packed.panel;
  std::vector<float> inverse(static_cast<std::size_t>(width), 0.0F);
  for (int k = 0; k < packed.k; ++k) {
    for (int lane = 0; lane < width; ++lane)
      inverse[lane] = std::max(inverse[lane], std::fabs(values[k * width + lane]));
  }
  for (int lane = 0; lane < width; ++lane) {
    scales[lane] = column_scale(packed.format, inverse[lane]);
    inverse[lane] = 1.0F / scales[lane];
    if (sums != nullptr) sums[lane] = 0;
  }
  for (int k = 0; k < packed.k; ++k) {
    const float* row = values + static_cast<std::ptrdiff_t>(k) * width;
    if (packed.format == Format::kFloat16) {
      auto* to = reinterpret_cast<std::uint16_t*>(out) + static_cast<std::ptrdiff_t>(k) * width;
      for (int lane = 0; lane < width; ++lane) to[lane] = half_from_float(row[lane] * inverse[lane]);
    } else if (packed.planes == 0) {
      auto* to = reinterpret_cast<std::int8_t*>(out) + static_cast<std::ptrdiff_t>(k) * width;
      for (int lane = 0; lane < width; ++lane) to[lane] = byte_from_float(row[lane] * inverse[lane]);
    } else {
      auto* to = reinterpret_cast<std::int8_t*>(out) +
                 static_cast<std::ptrdiff_t>(k / kDotDepth) * width * kDotDepth + k % kDotDepth;
      for (int lane = 0; lane < width; ++lane) {
        to[lane * kDotDepth] = byte_from_float(row[lane] * inverse[lane]);
        sums[lane] += to[lane * kDotDepth];
      }
    }
  }
}

// Stores a float32 panel in 28 bits a weight and leaves 0 where its outliers were; false if they are too
// many.
bool shorten_panel(int k, float* values, unsigned char* out) {
  constexpr int kColumns = Float28::kColumns;
  constexpr int kLanes = Float28::kLanes;
  constexpr int kShift = 23;
  const Float28 layout{k};
  const std::ptrdiff_t count = static_cast<std::ptrdiff_t>(k) * kColumns;
  const auto exponent_of = [](float value) {
    return static_cast<std::int32_t>((bits_of(value) & Float28::kExponent) >> kShift);
  };
  std::int32_t largest = 0;
  for (std::ptrdiff_t i = 0; i < count; ++i) largest = std::max(largest, exponent_of(values[i]));
  const std::int32_t below = std::max(largest - (kLanes - 1), 0);  // exponent e is choice e - below
  auto* outliers = reinterpret_cast<Float28::Outlier*>(out);
  int found = 0;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const std::int32_t exponent = exponent_of(values[i]);
    if (exponent > below || exponent == 0) continue;
    if (++found == layout.outliers()) return false;
    outliers[found] = {static_cast<std::int32_t>(i), values[i]};
    values[i] = 0.0F;
  }
  outliers[0] = {found, 0.0F};
  auto* table = reinterpret_cast<std::uint32_t*>(out + layout.table_at());
  table[0] = 0;
  for (int i = 1; i < kLanes; ++i) table[i] = static_cast<std::uint32_t>(below + i) << kShift;
  auto* line = reinterpret_cast<std::uint32_t*>(out + layout.stream_at());
  for (const float* pair = values; pair != values + count; pair += 2 * kColumns) {
    for (int lane = 0; lane < kLanes; ++lane) {
      std::uint32_t choices = 0;
      for (int i = 0; i < 8; ++i) {
        const std::int32_t exponent = exponent_of(pair[i * kLanes + lane]);
        choices |= static_cast<std::uint32_t>(exponent == 0 ? 0 : exponent - below) << (4 * i);
      }
      line[lane] = choices;
    }
    line += kLanes;
    for (const float* row = pair; row != pair + 2 * kColumns; row += kColumns) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const std::uint32_t last = bits_of(row[3 * kLanes + lane]);
        const std::uint32_t gaps[3] = {last >> 7 & 0xFFU, last >> 15 & 0xFFU,
                                       (last & 0x7FU) << 1 | last >> 31};
        for (int i = 0; i < 3; ++i)
          line[i * kLanes + lane] = (bits_of(row[i * kLanes + lane]) & ~Float28::kExponent) | gaps[i]
                                                                                                  << kShift;
      }
      line += 3 * kLanes;
    }
  }
  return true;
}

}  // namespace

void Tensor::swap(Tensor& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(view_, other.view_);
  std::swap(data_, other.data_);
  owned_.swap(other.owned_);
}

bool Tensor::load() {
  const bool is_f32 = view_->dtype == DType::kF32;
  const std::size_t count = view_->bytes / (is_f32 ? 4 : 2);
  if (is_f32 && reinterpret_cast<std::uintptr_t>(view_->data) % alignof(float) == 0) {
    data_ = reinterpret_cast<const float*>(view_->data);
    return all_finite(data_, count);
  }
  owned_.resize(count);
  if (is_f32) {
    std::memcpy(owned_.data(), view_->data, view_->bytes);
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      std::uint16_t half = 0;
      std::memcpy(&half, view_->data + 2 * i, sizeof half);
      owned_[i] = view_->dtype == DType::kBF16 ? float_from_bits(static_cast<std::uint32_t>(half) << 16)
                                               : half_to_float(half);
    }
  }
  data_ = owned_.data();
  return all_finite(data_, count);
}

std::vector<float> Tensor::copy() const {
  if (data_ == nullptr) return {};
  const std::size_t unit = view_->dtype == DType::kF32 ? 4 : 2;
  return std::vector<float>(data_, data_ + view_->bytes / unit);
}

void Packer::start_packing(void* base) {
  base_ = static_cast<unsigned char*>(base);
  cursor_ = 0;
}

void* Packer::reserve(std::size_t bytes) {
  const std::size_t start = cursor_;
  cursor_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return packing() ? base_ + start : nullptr;
}

const TensorView* Packer::find(const std::string& name, const std::vector<std::string>& aliases) {
  auto found = file_.tensors().find(name);
  for (std::size_t i = 0; found == file_.tensors().end() && i < aliases.size(); ++i) {
    found = file_.tensors().find(aliases[i]);
  }
  if (found == file_.tensors().end()) return nullptr;
  used_.insert(found->first);
  return &found->second;
}

Tensor Packer::take(const std::string& name, const std::vector<std::int64_t>& shape,
                    const std::vector<std::string>& aliases) {
  if (!status_.ok()) return {};
  if (specs_ != nullptr) {
    specs_->push_back({name, shape});
    return {};
  }
  const TensorView* view = find(name, aliases);
  const std::string where = file_.path() + ": tensor '" + name + "'";
  if (view == nullptr) {
    status_ = Status::weights(where + " is missing; expected shape " + shape_text(shape));
  } else if (view->shape != shape) {
    status_ = Status::weights(where + ": expected shape " + shape_text(shape) + ", found " +
                              shape_text(view->shape));
  } else if (view->dtype == DType::kOther) {
    status_ = Status::weights(where + ": expected F32, F16 or BF16, found " + view->dtype_name);
  }
  if (!packing()) return {};
  Tensor tensor(&file_, view);
  if (!tensor.load()) status_ = Status::weights(where + ": expected finite values, found NaN or infinity");
  return tensor;
}

void Packer::refuse_leftovers() {
  if (!status_.ok()) return;
  std::string first;
  for (const auto& entry : file_.tensors()) {
    if (used_.count(entry.first) == 0 && (first.empty() || entry.first < first)) first = entry.first;
  }
  if (!first.empty()) {
    status_ = Status::weights(
        file_.path() + ": tensor '" + first + "' " + shape_text(file_.tensors().at(first).shape) +
        " has no place in this configuration; expected none, check the Mimi configuration");
  }
}

const float* Packer::vector(const float* values, int n) {
  auto* out = static_cast<float*>(reserve(static_cast<std::size_t>(n) * sizeof(float)));
  if (out != nullptr) std::copy(values, values + n, out);
  return out;
}

PackedMatrix Packer::matrix(int k, int n, int rows, const SourceLayout& source, const float* bias, int bias_n,
                            Storage storage) {
  PackedMatrix packed;
  packed.k = k;
  packed.n = n;
  packed.format = storage.format;
  packed.planes = storage.format == Format::kInt8 && kernels_.round != nullptr ? storage.planes : 0;
  const bool is_narrow = rows <= kNarrowRows;
  packed.panel = is_narrow ? kernels_.narrow_panel : kernels_.tall_panel;
  packed.block_rows = is_narrow ? kNarrowRows : kernels_.tall_rows / std::max(1, packed.planes);
  rounded_bytes_ =
      std::max(rounded_bytes_, packed.planes > 0 ? packed.blocks(rows) * packed.rounded_bytes() : 0);
  const std::size_t padded =
      static_cast<std::size_t>(packed.panels()) * static_cast<std::size_t>(packed.panel);
  const bool is_scaled = storage.format != Format::kFloat32;
  if (packing() && storage.format == Format::kFloat32 && is_narrow && kernels_.has_float28)
    shorten(source, &packed);
  auto* out = static_cast<unsigned char*>(
      reserve(static_cast<std::size_t>(packed.panels()) * static_cast<std::size_t>(packed.panel_bytes())));
  auto* bias_out = static_cast<float*>(bias_n > 0 ? reserve(padded * sizeof(float)) : nullptr);
  auto* scale_out = static_cast<float*>(is_scaled ? reserve(padded * sizeof(float)) : nullptr);
  auto* sums_out =
      static_cast<std::int32_t*>(packed.planes > 0 ? reserve(padded * sizeof(std::int32_t)) : nullptr);
  packed.data = out;
  packed.bias = bias_out;
  packed.scale = scale_out;
  packed.sums = sums_out;
  if (out == nullptr) return packed;
  for (int i = 0; bias_n > 0 && i < n; ++i) bias_out[i] = bias[i % bias_n];
  if (packed.format == Format::kFloat28) return packed;
  if (is_scaled) staging_.resize(static_cast<std::size_t>(k) * static_cast<std::size_t>(packed.panel));
  for (int panel = 0; panel < packed.panels(); ++panel) {
    unsigned char* to = out + panel * packed.panel_bytes();
    if (!is_scaled) {
      copy_panel(packed, panel, source, reinterpret_cast<float*>(to));
      continue;
    }
    std::fill(staging_.begin(), staging_.end(), 0.0F);
    copy_panel(packed, panel, source, staging_.data());
    const std::ptrdiff_t column = static_cast<std::ptrdiff_t>(panel) * packed.panel;
    narrow_panel(packed, staging_.data(), to, scale_out + column,
                 sums_out != nullptr ? sums_out + column : nullptr);
  }
  return packed;
}

void Packer::shorten(const SourceLayout& source, PackedMatrix* packed) {
  unsigned char* out = base_ + cursor_;
  const std::ptrdiff_t bytes = Float28{packed->k}.bytes();
  if (packed->k % 2 != 0 || bytes >= packed->panel_bytes()) return;
  for (int panel = 0; panel < packed->panels(); ++panel) {
    staging_.assign(static_cast<std::size_t>(packed->k) * static_cast<std::size_t>(packed->panel), 0.0F);
    copy_panel(*packed, panel, source, staging_.data());
    if (shorten_panel(packed->k, staging_.data(), out + panel * bytes)) continue;
    std::fill(out, out + (panel + 1) * bytes, '\0');
    return;
  }
  packed->format = Format::kFloat28;
}

PackedMatrix Packer::linear(int k, int n, int rows, const float* values, Storage storage, const float* bias) {
  SourceLayout source;
  source.base = values;
  source.inner_k = k;
  source.inner_n = n;
  source.inner_k_step = 1;
  source.inner_n_step = k;
  return matrix(k, n, rows, source, bias, bias != nullptr ? n : 0, storage);
}

CodebookLayer Packer::codebook(int width, int bins, std::vector<float> centroids) {
  CodebookLayer layer;
  std::vector<float> half_norms(static_cast<std::size_t>(bins));
  for (std::size_t i = 0; i < centroids.size() / static_cast<std::size_t>(width); ++i) {
    double power = 0.0;
    double largest = 0.0;
    for (int c = 0; c < width; ++c) {
      const double value = centroids[i * static_cast<std::size_t>(width) + static_cast<std::size_t>(c)];
      power += value * value;
      largest = std::max(largest, std::fabs(value));
    }
    half_norms[i] = static_cast<float>(power / 2.0);
    // Cauchy and Schwarz: a centroid's values are off by half a step each, those of x, where they become two
    // bytes, by |x| / 65533; the rest of the allowance is for float arithmetic.
    const double error = std::sqrt(width) * (largest / 254.0 + std::sqrt(power) / 30000.0);
    layer.slack = std::max(layer.slack, static_cast<float>(error));
  }
  layer.centroids = vector(centroids.data(), bins * width);
  for (float& value : centroids) value = -value;
  layer.rough = linear(width, bins, 1, centroids.data(), {Format::kInt8, 2}, half_norms.data());
  return layer;
}

}  // namespace duologue
