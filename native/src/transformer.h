// A causal transformer over a ring of keys and values, a few steps at a time, for ever.
#pragma once

#include <cstdint>
#include <vector>

#include "duologue/mimi_config.h"
#include "duologue/mimi_stream.h"
#include "layers.h"
#include "runner.h"
#include "workspace.h"

namespace duologue {

class Transformer {
 public:
  struct Stages {
    Stage projections;
    Stage attention;
  };
  // `cache` is how keys and values are kept: kFloat32 or kFloat16.
  void build(Workspace* workspace, const MimiConfig& config, const TransformerLayers& layers, Window window,
             Format cache, Stages stages);
  // x[steps][dimension] -> out[steps][dimension]; advances the position.
  void run(Runner* runner, const float* x, float* out);

 private:
  void prepare_step();
  void rotate(const float* in, float scale, int step, float* out) const;
  template <typename Cached>
  void store(int layer, int step, const float* qkv);
  void attend(Runner* runner, int layer);
  void project(Runner* runner, const PackedMatrix& w, const float* a, float* raw, const float* residual,
               float* activated) const;
  void* keys(int layer, int head) const;
  void* values(int layer, int head) const;
  std::ptrdiff_t key_bytes() const;
  std::ptrdiff_t ring_bytes() const;

  const TransformerLayers* layers_ = nullptr;
  Window window_ = Window::kMoshi;
  Format cache_ = Format::kFloat32;
  Stages stages_{Stage::kOutside, Stage::kOutside};
  int steps_ = 0;
  int width_ = 0;
  int heads_ = 0;
  int head_dim_ = 0;
  int value_stride_ = 0;
  int context_ = 0;
  int capacity_ = 0;
  int feedforward_ = 0;
  float scale_ = 1.0F;
  std::vector<float> frequencies_;  // [head_dim / 2]
  std::vector<int> first_slot_;     // [steps]
  std::vector<int> visible_;        // [steps]
  int used_ = 0;
  std::int64_t* position_ = nullptr;  // steps since the stream began; in the workspace, because it is state
  float* cosines_ = nullptr;          // [steps][head_dim / 2]
  float* sines_ = nullptr;
  // [layers][heads] of keys [capacity / 16][head_dim][16], then values [capacity][value_stride]: in the order
  // in which they are read.
  void* rings_ = nullptr;
  float* stream_ = nullptr;  // residual stream [steps][width]
  float* normed_ = nullptr;
  float* qkv_ = nullptr;
  float* attended_ = nullptr;
  float* hidden_ = nullptr;
  float* scores_ = nullptr;  // [heads][steps][capacity]
};

}  // namespace duologue
