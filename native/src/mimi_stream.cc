#include "duologue/mimi_stream.h"

#include <cmath>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "layers.h"
#include "quantizer.h"
#include "runner.h"
#include "seanet.h"
#include "transformer.h"
#include "workspace.h"

namespace duologue {
namespace {

// The first digit counts up whenever the state is laid out otherwise.
constexpr std::uint64_t kSnapshotMagic = 0x324D494D4F554400ULL;

struct SnapshotHeader {
  std::uint64_t magic;
  std::uint64_t fingerprint;
  std::uint64_t bytes;
};

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  return (hash ^ value) * 0x100000001B3ULL;
}

// Tells streams apart whose state has another meaning: shapes of every buffer, context and window.
std::uint64_t fingerprint(const MimiConfig& config, Window window,
                          const std::vector<Workspace::Region>& regions) {
  std::uint64_t hash = 0xCBF29CE484222325ULL;
  for (int value : {config.context, config.num_heads, config.d_model, static_cast<int>(window)}) {
    hash = mix(hash, static_cast<std::uint64_t>(value));
  }
  for (const Workspace::Region& region : regions) hash = mix(hash, region.bytes);
  return hash;
}

constexpr const char* kStageNames[kStages] = {
    "outside",          "encode tall convolutions",   "encode narrow convolutions", "encode projections",
    "encode attention", "encode quantizer",           "decode quantizer",           "decode projections",
    "decode attention", "decode narrow convolutions", "decode tall convolutions",
};

}  // namespace

const char* stage_name(Stage stage) {
  return kStageNames[static_cast<std::size_t>(stage)];
}

struct MimiStream::State {
  Workspace workspace;
  Runner runner;
  Seanet encoder;
  Transformer encoder_transformer;
  SeanetStep downsample;
  Quantizer quantizer;
  Transformer decoder_transformer;
  Seanet decoder;
  RowBuffer upsample;         // one row of state: the latent before
  float* latent = nullptr;    // [dimension]
  float* steps_in = nullptr;  // decoder transformer input [steps][dimension]
  // Whether the encoder has seen no frame yet (1.0 or 0.0; in the workspace, because it is state).
  float* seen = nullptr;
  std::uint64_t fingerprint = 0;
};

MimiStream::MimiStream() = default;
MimiStream::~MimiStream() = default;

Status MimiStream::create(std::shared_ptr<const MimiWeights> weights, Window window, int threads,
                          std::unique_ptr<MimiStream>* out) {
  if (threads < 1 || threads > 2) {
    return Status::config("threads is " + std::to_string(threads) + "; a stream runs on 1 or 2");
  }
  try {
    std::unique_ptr<MimiStream> stream(new MimiStream());
    stream->state_ = std::make_unique<State>();
    State& state = *stream->state_;
    const MimiConfig& config = weights->config();
    const MimiLayers& layers = weights->layers();
    Workspace* workspace = &state.workspace;
    const std::size_t width = static_cast<std::size_t>(config.dimension);
    state.seen = workspace->scratch(1);
    workspace->keep(state.seen, sizeof(float));
    state.encoder.build_encoder(workspace, layers);
    // Attention is a read of the cache: halves halve it.
    const Format cache = weights->precision() == Precision::kFloat32 ? Format::kFloat32 : Format::kFloat16;
    state.encoder_transformer.build(workspace, config, layers.encoder_transformer, window, cache,
                                    {Stage::kEncodeProjections, Stage::kEncodeAttention});
    state.latent = workspace->scratch(width);
    if (config.steps() > 1) {
      const ConvLayer& down = layers.downsample;
      const RowBuffer rows = make_rows(workspace, down.state_rows(), down.in_rows(), down.in_channels);
      state.downsample = make_conv(workspace, down, rows);
      state.downsample.call.raw = state.latent;
      state.upsample = make_rows(workspace, 1, 1, config.dimension);
    }
    state.quantizer.build(workspace, config, layers.quantizer);
    state.steps_in = workspace->scratch(static_cast<std::size_t>(config.steps()) * width);
    state.decoder_transformer.build(workspace, config, layers.decoder_transformer, window, cache,
                                    {Stage::kDecodeProjections, Stage::kDecodeAttention});
    state.decoder.build_decoder(workspace, layers);
    state.fingerprint = fingerprint(config, window, workspace->regions());
    if (!state.runner.start(weights->kernels(), threads, layers.rounded_bytes, workspace))
      return Status::stream("the system starts no second thread; use threads=1");
    stream->weights_ = std::move(weights);
    *out = std::move(stream);
    return {};
  } catch (const std::bad_alloc&) {
    return Status::stream("no memory for a codec stream");
  }
}

void MimiStream::encode_latent(const float* frame) {
  State& state = *state_;
  const MimiConfig& config = weights_->config();
  std::memcpy(state.encoder.input(), frame, static_cast<std::size_t>(config.frame_samples) * sizeof(float));
  state.encoder.run(&state.runner);
  if (config.steps() == 1) {
    state.encoder_transformer.run(&state.runner, state.encoder.output(), state.latent);
    return;
  }
  const RowBuffer& rows = state.downsample.input;
  state.encoder_transformer.run(&state.runner, state.encoder.output(), rows.fresh());
  state.runner.enter(Stage::kEncodeQuantizer);
  if (*state.seen == 0.0F) {
    // Before its first input this convolution sees that input repeated, not zeros.
    for (int row = 0; row < rows.state_rows; ++row) {
      std::memcpy(rows.base + static_cast<std::ptrdiff_t>(row) * rows.channels, rows.fresh(),
                  static_cast<std::size_t>(rows.channels) * sizeof(float));
    }
  }
  *state.seen = 1.0F;
  run_step(&state.runner, state.downsample);
}

Status MimiStream::latent(const float* frame, float* latent) {
  const MimiConfig& config = weights_->config();
  for (int i = 0; i < config.frame_samples; ++i) {
    if (!std::isfinite(frame[i])) {
      return Status::audio("sample " + std::to_string(i) +
                           " of the frame is NaN or infinite; pass finite audio");
    }
  }
  encode_latent(frame);
  if (latent != nullptr) {
    std::memcpy(latent, state_->latent, static_cast<std::size_t>(config.dimension) * sizeof(float));
  }
  return {};
}

Status MimiStream::encode(const float* frame, int32_t* codes) {
  Status status = latent(frame, nullptr);
  if (status.ok()) state_->quantizer.encode(&state_->runner, state_->latent, codes);
  state_->runner.enter(Stage::kOutside);
  return status;
}

Status MimiStream::decode(const int32_t* codes, float* frame) {
  State& state = *state_;
  const MimiConfig& config = weights_->config();
  for (int i = 0; i < weights_->num_codebooks(); ++i) {
    if (codes[i] < 0 || codes[i] >= config.cardinality) {
      return Status::config("code " + std::to_string(codes[i]) + " of codebook " + std::to_string(i) +
                            " is out of range; codes are 0 to " + std::to_string(config.cardinality - 1));
    }
  }
  const int width = config.dimension;
  const int steps = config.steps();
  state.runner.enter(Stage::kDecodeQuantizer);
  if (steps == 1) {
    state.quantizer.decode(&state.runner, codes, state.steps_in);
  } else {
    const float* before = state.upsample.base;
    const float* now = state.upsample.fresh();
    state.quantizer.decode(&state.runner, codes, state.upsample.fresh());
    for (int step = 0; step < steps; ++step) {
      const float* early = weights_->layers().upsample + static_cast<std::ptrdiff_t>(step) * width;
      const float* late = early + static_cast<std::ptrdiff_t>(steps) * width;
      float* to = state.steps_in + static_cast<std::ptrdiff_t>(step) * width;
      for (int c = 0; c < width; ++c) to[c] = now[c] * early[c] + before[c] * late[c];
    }
    state.upsample.roll();
  }
  state.decoder_transformer.run(&state.runner, state.steps_in, state.decoder.input());
  state.decoder.run(&state.runner);
  std::memcpy(frame, state.decoder.output(), static_cast<std::size_t>(config.frame_samples) * sizeof(float));
  state.runner.enter(Stage::kOutside);
  return {};
}

void MimiStream::start_clock() {
  state_->runner.start_clock();
}

StageFigures MimiStream::stage(Stage stage) const {
  return state_->runner.figures(stage);
}

void MimiStream::reset() {
  for (const Workspace::Region& region : state_->workspace.regions())
    std::memset(region.data, 0, region.bytes);
}

std::size_t MimiStream::snapshot_bytes() const {
  std::size_t bytes = sizeof(SnapshotHeader);
  for (const Workspace::Region& region : state_->workspace.regions()) bytes += region.bytes;
  return bytes;
}

void MimiStream::snapshot(void* out) const {
  const SnapshotHeader header{kSnapshotMagic, state_->fingerprint, snapshot_bytes()};
  auto* to = static_cast<unsigned char*>(out);
  std::memcpy(to, &header, sizeof header);
  to += sizeof header;
  for (const Workspace::Region& region : state_->workspace.regions()) {
    std::memcpy(to, region.data, region.bytes);
    to += region.bytes;
  }
}

Status MimiStream::restore(const void* data, std::size_t bytes) {
  SnapshotHeader header{};
  if (bytes >= sizeof header) std::memcpy(&header, data, sizeof header);
  if (header.magic != kSnapshotMagic) return Status::stream("these bytes are no snapshot of a codec stream");
  if (header.fingerprint != state_->fingerprint || header.bytes != bytes || bytes != snapshot_bytes()) {
    return Status::stream(
        "this snapshot was taken from a codec stream of another configuration, precision or window");
  }
  const auto* from = static_cast<const unsigned char*>(data) + sizeof header;
  for (const Workspace::Region& region : state_->workspace.regions()) {
    std::memcpy(region.data, from, region.bytes);
    from += region.bytes;
  }
  return {};
}

}  // namespace duologue
