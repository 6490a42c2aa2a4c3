#include "seanet.h"

#include <cstring>

namespace duologue {

void RowBuffer::roll() const {
  if (state_rows == 0) return;
  const std::size_t bytes =
      static_cast<std::size_t>(state_rows) * static_cast<std::size_t>(channels) * sizeof(float);
  std::memmove(base, base + static_cast<std::ptrdiff_t>(rows) * channels, bytes);
}

RowBuffer make_rows(Workspace* workspace, int state_rows, int rows, int channels) {
  RowBuffer buffer;
  buffer.state_rows = state_rows;
  buffer.rows = rows;
  buffer.channels = channels;
  buffer.base =
      workspace->scratch(static_cast<std::size_t>(state_rows + rows) * static_cast<std::size_t>(channels));
  workspace->keep(buffer.base,
                  static_cast<std::size_t>(state_rows) * static_cast<std::size_t>(channels) * sizeof(float));
  return buffer;
}

SeanetStep make_conv(Workspace* workspace, const ConvLayer& layer, const RowBuffer& input) {
  SeanetStep step;
  step.input = input;
  step.taps = layer.taps;
  step.dilation = layer.dilation;
  step.call.w = layer.w;
  step.call.rows = layer.out_rows;
  step.call.a = input.base;
  step.call.a_stride = static_cast<std::ptrdiff_t>(layer.stride) * layer.in_channels;
  if (layer.dilation > 1 && layer.taps > 1) {
    step.gathered =
        workspace->scratch(static_cast<std::size_t>(layer.out_rows) * static_cast<std::size_t>(layer.w.k));
    step.call.a = step.gathered;
    step.call.a_stride = layer.w.k;
  }
  return step;
}

namespace {

SeanetStep make_up(const UpLayer& layer, const RowBuffer& input) {
  SeanetStep step;
  step.input = input;
  step.call.w = layer.w;
  step.call.rows = layer.in_rows;
  step.call.a = input.base;
  step.call.a_stride = layer.in_channels;
  return step;
}

void gather(const SeanetStep& step) {
  const int channels = step.input.channels;
  float* out = step.gathered;
  for (int row = 0; row < step.call.rows; ++row) {
    for (int tap = 0; tap < step.taps; ++tap) {
      const float* from = step.input.base + static_cast<std::ptrdiff_t>(row + tap * step.dilation) * channels;
      std::memcpy(out, from, static_cast<std::size_t>(channels) * sizeof(float));
      out += channels;
    }
  }
}

}  // namespace

void run_step(Runner* runner, const SeanetStep& step) {
  if (step.gathered != nullptr) gather(step);
  runner->gemm(step.call);
  step.input.roll();
}

RowBuffer Seanet::rows_for(Workspace* workspace, const ConvLayer& layer) const {
  return make_rows(workspace, layer.state_rows(), layer.in_rows(), layer.in_channels);
}

std::vector<Seanet::Block> Seanet::make_blocks(Workspace* workspace,
                                               const std::vector<ResidualBlock>& layers) const {
  std::vector<Block> blocks;
  for (const ResidualBlock& layer : layers) {
    Block block;
    block.layer = &layer;
    block.wide_input = rows_for(workspace, layer.wide);
    block.narrow_input = rows_for(workspace, layer.narrow);
    block.skip = workspace->scratch(static_cast<std::size_t>(layer.wide.out_rows) *
                                    static_cast<std::size_t>(layer.wide.in_channels));
    blocks.push_back(block);
  }
  return blocks;
}

void Seanet::add(const SeanetStep& step, const Sink& sink, const float* residual) {
  SeanetStep linked = step;
  linked.call.raw = sink.raw;
  linked.call.activated = sink.activated;
  linked.call.activation = sink.activated != nullptr ? Activation::kElu : Activation::kNone;
  linked.call.residual = residual;
  steps_.push_back(linked);
}

// x + narrow(ELU(wide(ELU(x)))) per block; every block's x arrives raw in `skip` and activated in
// `wide_input`.
void Seanet::add_blocks(Workspace* workspace, const std::vector<Block>& blocks, float* next_activated) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Block& block = blocks[i];
    const float* skip = block.skip;
    if (block.layer->has_shortcut) {
      RowBuffer plain;
      plain.base = block.skip;
      plain.rows = block.layer->shortcut.out_rows;
      plain.channels = block.layer->shortcut.in_channels;
      float* out =
          workspace->scratch(static_cast<std::size_t>(plain.rows) * static_cast<std::size_t>(plain.channels));
      add(make_conv(workspace, block.layer->shortcut, plain), {out, nullptr}, nullptr);
      skip = out;
    }
    add(make_conv(workspace, block.layer->wide, block.wide_input), {nullptr, block.narrow_input.fresh()},
        nullptr);
    const bool is_last = i + 1 == blocks.size();
    const Sink sink =
        is_last ? Sink{nullptr, next_activated} : Sink{blocks[i + 1].skip, blocks[i + 1].wide_input.fresh()};
    add(make_conv(workspace, block.layer->narrow, block.narrow_input), sink, skip);
  }
}

void Seanet::build_encoder(Workspace* workspace, const MimiLayers& layers) {
  narrow_stage_ = Stage::kEncodeNarrowConvolutions;
  tall_stage_ = Stage::kEncodeTallConvolutions;
  const RowBuffer first = rows_for(workspace, layers.encoder_first);
  const RowBuffer last = rows_for(workspace, layers.encoder_last);
  std::vector<std::vector<Block>> blocks;
  std::vector<RowBuffer> downs;
  for (const EncoderStage& stage : layers.encoder_stages) {
    blocks.push_back(make_blocks(workspace, stage.blocks));
    downs.push_back(rows_for(workspace, stage.down));
  }
  const auto entry = [&](std::size_t stage) {
    if (stage == downs.size()) return Sink{nullptr, last.fresh()};
    if (blocks[stage].empty()) return Sink{nullptr, downs[stage].fresh()};
    return Sink{blocks[stage][0].skip, blocks[stage][0].wide_input.fresh()};
  };
  add(make_conv(workspace, layers.encoder_first, first), entry(0), nullptr);
  for (std::size_t i = 0; i < downs.size(); ++i) {
    add_blocks(workspace, blocks[i], downs[i].fresh());
    add(make_conv(workspace, layers.encoder_stages[i].down, downs[i]), entry(i + 1), nullptr);
  }
  output_ = workspace->scratch(static_cast<std::size_t>(layers.encoder_last.out_rows) *
                               static_cast<std::size_t>(layers.encoder_last.out_channels));
  add(make_conv(workspace, layers.encoder_last, last), {output_, nullptr}, nullptr);
}

void Seanet::build_decoder(Workspace* workspace, const MimiLayers& layers) {
  narrow_stage_ = Stage::kDecodeNarrowConvolutions;
  tall_stage_ = Stage::kDecodeTallConvolutions;
  const RowBuffer first = rows_for(workspace, layers.decoder_first);
  const RowBuffer last = rows_for(workspace, layers.decoder_last);
  std::vector<std::vector<Block>> blocks;
  std::vector<RowBuffer> ups;
  for (const DecoderStage& stage : layers.decoder_stages) {
    ups.push_back(make_rows(workspace, 1, stage.up.in_rows, stage.up.in_channels));
    blocks.push_back(make_blocks(workspace, stage.blocks));
  }
  const auto next = [&](std::size_t stage) {
    return stage == ups.size() ? last.fresh() : ups[stage].fresh();
  };
  add(make_conv(workspace, layers.decoder_first, first), {nullptr, next(0)}, nullptr);
  for (std::size_t i = 0; i < ups.size(); ++i) {
    const bool has_blocks = !blocks[i].empty();
    const Sink sink =
        has_blocks ? Sink{blocks[i][0].skip, blocks[i][0].wide_input.fresh()} : Sink{nullptr, next(i + 1)};
    add(make_up(layers.decoder_stages[i].up, ups[i]), sink, nullptr);
    add_blocks(workspace, blocks[i], next(i + 1));
  }
  output_ = workspace->scratch(static_cast<std::size_t>(layers.decoder_last.out_rows) *
                               static_cast<std::size_t>(layers.decoder_last.out_channels));
  add(make_conv(workspace, layers.decoder_last, last), {output_, nullptr}, nullptr);
}

void Seanet::run(Runner* runner) const {
  for (const SeanetStep& step : steps_) {
    runner->enter(step.call.rows <= kNarrowRows ? narrow_stage_ : tall_stage_);
    run_step(runner, step);
  }
}

}  // namespace duologue
