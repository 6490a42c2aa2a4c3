#include "packer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace duologue {
namespace {

constexpr int kPackRows = 16;

float from_bits(std::uint32_t bits) {
  float value = 0.0F;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1FU;
  const std::uint32_t mantissa = half & 0x3FFU;
  if (exponent == 0) return from_bits(sign | 0x33800000U) * static_cast<float>(mantissa);  // 2^-24 steps
  const std::uint32_t biased = exponent == 31 ? 255 : exponent + 112;
  return from_bits(sign | biased << 23 | mantissa << 13);
}

bool all_finite(const float* values, std::size_t count) {
  std::uint32_t found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, values + i, sizeof bits);
    found |= static_cast<std::uint32_t>((bits & 0x7F800000U) == 0x7F800000U);
  }
  return found == 0;
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
      owned_[i] = view_->dtype == DType::kBF16 ? from_bits(static_cast<std::uint32_t>(half) << 16)
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

void Packer::start_packing(float* base) {
  base_ = base;
  cursor_ = 0;
}

float* Packer::reserve(std::size_t floats) {
  const std::size_t start = cursor_;
  cursor_ += (floats + 15) / 16 * 16;
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
  float* out = reserve(static_cast<std::size_t>(n));
  if (out != nullptr) std::copy(values, values + n, out);
  return out;
}

PackedMatrix Packer::matrix(int k, int n, int rows, const SourceLayout& source, const float* bias,
                            int bias_n) {
  PackedMatrix packed;
  packed.k = k;
  packed.n = n;
  packed.panel = rows <= kNarrowRows ? kernels_.narrow_panel : kernels_.tall_panel;
  const int width = packed.panel;
  const std::size_t padded = static_cast<std::size_t>(packed.panels()) * static_cast<std::size_t>(width);
  float* out = reserve(padded * static_cast<std::size_t>(k));
  float* bias_out = bias_n > 0 ? reserve(padded) : nullptr;
  packed.data = out;
  packed.bias = bias_out;
  if (out == nullptr) return packed;
  for (int i = 0; bias_n > 0 && i < n; ++i) bias_out[i] = bias[i % bias_n];
  for (int panel = 0; panel < packed.panels(); ++panel) {
    float* to = out + static_cast<std::ptrdiff_t>(panel) * k * width;
    const int columns = std::min(width, n - panel * width);
    // A few rows at a time for all columns, so that the lines being written stay in cache.
    for (int outer = 0; outer < k / source.inner_k; ++outer) {
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
  return packed;
}

PackedMatrix Packer::linear(int k, int n, int rows, const float* values) {
  SourceLayout source;
  source.base = values;
  source.inner_k = k;
  source.inner_n = n;
  source.inner_k_step = 1;
  source.inner_n_step = k;
  return matrix(k, n, rows, source, nullptr, 0);
}

}  // namespace duologue
