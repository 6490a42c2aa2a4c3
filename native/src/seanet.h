// The convolutional halves of Mimi as flat lists of products over state-prefixed rows.
#pragma once

#include <vector>

#include "layers.h"
#include "runner.h"
#include "workspace.h"

namespace duologue {

// Channels-last rows [state + fresh][channels]; the state rows are the last input rows of the frame before.
struct RowBuffer {
  float* base = nullptr;
  int state_rows = 0;
  int rows = 0;
  int channels = 0;

  float* fresh() const { return base + static_cast<std::ptrdiff_t>(state_rows) * channels; }
  void roll() const;
};

// One product and the input rows to carry over after it.
struct SeanetStep {
  GemmCall call;
  RowBuffer input;
  // Dilated taps are not adjacent, so their rows are copied together first.
  float* gathered = nullptr;
  int taps = 1;
  int dilation = 1;
};

RowBuffer make_rows(Workspace* workspace, int state_rows, int rows, int channels);
SeanetStep make_conv(Workspace* workspace, const ConvLayer& layer, const RowBuffer& input);
void run_step(Runner* runner, const SeanetStep& step);

class Seanet {
 public:
  void build_encoder(Workspace* workspace, const MimiLayers& layers);
  void build_decoder(Workspace* workspace, const MimiLayers& layers);
  float* input() const { return steps_.front().input.fresh(); }
  const float* output() const { return output_; }
  void run(Runner* runner) const;

 private:
  // Where a layer's output goes: raw for a skip connection, activated for the next convolution.
  struct Sink {
    float* raw = nullptr;
    float* activated = nullptr;
  };
  struct Block {
    const ResidualBlock* layer;
    RowBuffer wide_input;
    RowBuffer narrow_input;
    float* skip;
  };
  RowBuffer rows_for(Workspace* workspace, const ConvLayer& layer) const;
  std::vector<Block> make_blocks(Workspace* workspace, const std::vector<ResidualBlock>& layers) const;
  void add(const SeanetStep& step, const Sink& sink, const float* residual);
  void add_blocks(Workspace* workspace, const std::vector<Block>& blocks, float* next_activated);
  std::vector<SeanetStep> steps_;
  float* output_ = nullptr;
  Stage narrow_stage_ = Stage::kOutside;
  Stage tall_stage_ = Stage::kOutside;
};

}  // namespace duologue
