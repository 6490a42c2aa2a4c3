// Takes tensors out of a file by name and packs them, in call order, into one arena.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "duologue/mimi_weights.h"
#include "duologue/status.h"
#include "kernels.h"
#include "layers.h"
#include "safetensors.h"

namespace duologue {

// The values of one tensor: a view of the file where it holds aligned f32, a converted copy elsewhere.
class Tensor {
 public:
  Tensor() = default;
  Tensor(const SafetensorsFile* file, const TensorView* view) : file_(file), view_(view) {}
  // The file's pages of a packed tensor are not needed again.
  ~Tensor() {
    if (view_ != nullptr) file_->discard(*view_);
  }
  Tensor(Tensor&& other) noexcept { swap(other); }
  Tensor& operator=(Tensor&& other) noexcept {
    swap(other);
    return *this;
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  const float* data() const { return data_; }
  bool load();
  // A copy that may be changed.
  std::vector<float> copy() const;

 private:
  void swap(Tensor& other) noexcept;
  const SafetensorsFile* file_ = nullptr;
  const TensorView* view_ = nullptr;
  const float* data_ = nullptr;
  std::vector<float> owned_;
};

// Where element (k, n) of a matrix lies: k = k_outer * inner_k + k_inner, n likewise.
struct SourceLayout {
  const float* base = nullptr;
  int inner_k = 1;
  int inner_n = 1;
  std::ptrdiff_t outer_k_step = 0;
  std::ptrdiff_t inner_k_step = 0;
  std::ptrdiff_t outer_n_step = 0;
  std::ptrdiff_t inner_n_step = 0;
};

// How a matrix is to be kept: its format and, for integer products where the kernels have them, the bytes to
// which activations are rounded.
struct Storage {
  Format format = Format::kFloat32;
  int planes = 0;
};

// Runs twice over the same calls: first it measures and checks, then, given an arena, it packs.
// After the first failure every call does nothing; read status() at the end.
class Packer {
 public:
  Packer(const SafetensorsFile& file, const Kernels& kernels) : file_(file), kernels_(kernels) {}

  // Only writes down which tensors the calls ask for.
  void start_listing(std::vector<TensorSpec>* specs) { specs_ = specs; }

  // Starts the second run, into `base`.
  void start_packing(void* base);
  // Columns of a panel in products of many rows.
  int tall_panel() const { return kernels_.tall_panel; }
  bool packing() const { return base_ != nullptr && status_.ok(); }
  const Status& status() const { return status_; }
  // After the first run the most that the second needs, after that what it took.
  std::size_t bytes() const { return cursor_; }
  // Scratch that the widest product with integers needs for its activations.
  std::size_t rounded_bytes() const { return static_cast<std::size_t>(rounded_bytes_); }
  // Fails with the name of a tensor that no call asked for.
  void refuse_leftovers();

  // The tensor, checked; it holds data only while packing. `aliases` are other names it goes by.
  Tensor take(const std::string& name, const std::vector<std::int64_t>& shape,
              const std::vector<std::string>& aliases = {});
  // A plain vector of n values, in the arena.
  const float* vector(const float* values, int n);
  // A matrix packed for products with `rows` rows; `bias` holds bias_n values, repeated up to n; 0 means
  // none.
  PackedMatrix matrix(int k, int n, int rows, const SourceLayout& source, const float* bias, int bias_n,
                      Storage storage);
  // The same from a dense [n][k]; `bias` holds n values or is null.
  PackedMatrix linear(int k, int n, int rows, const float* values, Storage storage,
                      const float* bias = nullptr);
  // Centroids [bins][width]; empty in the first run.
  CodebookLayer codebook(int width, int bins, std::vector<float> centroids);

 private:
  void* reserve(std::size_t bytes);
  // Packs a matrix at the cursor in 28 bits a weight and says so in its format, if that is shorter and its
  // outliers fit; the cursor stays.
  void shorten(const SourceLayout& source, PackedMatrix* packed);
  const TensorView* find(const std::string& name, const std::vector<std::string>& aliases);
  const SafetensorsFile& file_;
  const Kernels& kernels_;
  std::vector<TensorSpec>* specs_ = nullptr;
  Status status_;
  unsigned char* base_ = nullptr;
  std::size_t cursor_ = 0;
  std::ptrdiff_t rounded_bytes_ = 0;
  std::vector<float> staging_;  // one panel before it is stored in fewer bytes
  std::unordered_set<std::string> used_;
};

}  // namespace duologue
