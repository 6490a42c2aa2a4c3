#include "duologue/mimi.h"

#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "duologue/mimi_stream.h"
#include "duologue/mimi_weights.h"

struct duologue_mimi {
  std::shared_ptr<const duologue::MimiWeights> weights;
};

struct duologue_mimi_stream {
  std::unique_ptr<duologue::MimiStream> stream;
};

namespace {

using duologue::MimiConfig;
using duologue::Status;

constexpr int kMaxRatios = 8;

thread_local char last_error[1024] = "";

duologue_status fail(duologue_status code, const char* message) {
  std::snprintf(last_error, sizeof last_error, "%s", message);
  return code;
}

duologue_status report(const Status& status) {
  switch (status.code) {
    case duologue::StatusCode::kOk:
      return DUOLOGUE_OK;
    case duologue::StatusCode::kWeights:
      return fail(DUOLOGUE_WEIGHTS_ERROR, status.message.c_str());
    case duologue::StatusCode::kStream:
      return fail(DUOLOGUE_STREAM_ERROR, status.message.c_str());
    case duologue::StatusCode::kAudio:
      return fail(DUOLOGUE_AUDIO_ERROR, status.message.c_str());
    default:
      return fail(DUOLOGUE_CONFIG_ERROR, status.message.c_str());
  }
}

// Runs `work`, which gives a Status, and lets nothing escape.
template <typename Work>
duologue_status guarded(Work work) noexcept {
  try {
    return report(work());
  } catch (const std::bad_alloc&) {
    return fail(DUOLOGUE_STREAM_ERROR, "no memory");
  } catch (const std::exception& error) {
    return fail(DUOLOGUE_STREAM_ERROR, error.what());
  }
}

// The two structures hold the same numbers; only lists and truths are written differently.
template <typename To, typename From>
void copy_numbers(const From& from, To* to) {
  to->frame_samples = from.frame_samples;
  to->dimension = from.dimension;
  to->n_filters = from.n_filters;
  to->n_residual_layers = from.n_residual_layers;
  to->compress = from.compress;
  to->kernel_size = from.kernel_size;
  to->residual_kernel_size = from.residual_kernel_size;
  to->last_kernel_size = from.last_kernel_size;
  to->dilation_base = from.dilation_base;
  to->true_skip = from.true_skip != 0;
  to->codebook_dim = from.codebook_dim;
  to->cardinality = from.cardinality;
  to->total_codebooks = from.total_codebooks;
  to->semantic_codebooks = from.semantic_codebooks;
  to->d_model = from.d_model;
  to->num_heads = from.num_heads;
  to->num_layers = from.num_layers;
  to->context = from.context;
  to->dim_feedforward = from.dim_feedforward;
  to->max_period = from.max_period;
  to->has_layer_scale = from.has_layer_scale != 0;
}

MimiConfig config_from(const duologue_mimi_config* given) {
  MimiConfig config;
  if (given == nullptr) return config;
  copy_numbers(*given, &config);
  config.ratios.clear();
  for (int i = 0; i < kMaxRatios && given->ratios[i] != 0; ++i) config.ratios.push_back(given->ratios[i]);
  return config;
}

}  // namespace

extern "C" {

duologue_mimi_config duologue_mimi_released(void) {
  duologue_mimi_config config{};
  guarded([&] {
    const MimiConfig released;
    copy_numbers(released, &config);
    for (std::size_t i = 0; i < released.ratios.size(); ++i) config.ratios[i] = released.ratios[i];
    return Status();
  });
  return config;
}

duologue_status duologue_mimi_load(const char* path, const duologue_mimi_config* config, int num_codebooks,
                                   duologue_precision precision, duologue_mimi** out) {
  return guarded([&] {
    if (path == nullptr || out == nullptr) return Status::config("path and out must not be null");
    if (precision < DUOLOGUE_FLOAT32 || precision > DUOLOGUE_INT8) {
      return Status::config("precision must be DUOLOGUE_FLOAT32, DUOLOGUE_FLOAT16 or DUOLOGUE_INT8");
    }
    auto mimi = std::make_unique<duologue_mimi>();
    Status status = duologue::MimiWeights::load(path, config_from(config), num_codebooks, "",
                                                static_cast<duologue::Precision>(precision), &mimi->weights);
    if (status.ok()) *out = mimi.release();
    return status;
  });
}

void duologue_mimi_free(duologue_mimi* mimi) {
  delete mimi;
}

duologue_status duologue_mimi_stream_create(const duologue_mimi* mimi, int threads,
                                            duologue_mimi_stream** out) {
  return guarded([&] {
    if (mimi == nullptr || out == nullptr) return Status::config("mimi and out must not be null");
    auto stream = std::make_unique<duologue_mimi_stream>();
    Status status =
        duologue::MimiStream::create(mimi->weights, duologue::Window::kMoshi, threads, &stream->stream);
    if (status.ok()) *out = stream.release();
    return status;
  });
}

duologue_status duologue_mimi_encode(duologue_mimi_stream* stream, const float* samples, int32_t* codes) {
  return guarded([&] {
    if (stream == nullptr || samples == nullptr || codes == nullptr) {
      return Status::config("stream, samples and codes must not be null");
    }
    return stream->stream->encode(samples, codes);
  });
}

duologue_status duologue_mimi_decode(duologue_mimi_stream* stream, const int32_t* codes, float* samples) {
  return guarded([&] {
    if (stream == nullptr || samples == nullptr || codes == nullptr) {
      return Status::config("stream, samples and codes must not be null");
    }
    return stream->stream->decode(codes, samples);
  });
}

duologue_status duologue_mimi_reset(duologue_mimi_stream* stream) {
  return guarded([&] {
    if (stream == nullptr) return Status::config("stream must not be null");
    stream->stream->reset();
    return Status();
  });
}

void duologue_mimi_stream_free(duologue_mimi_stream* stream) {
  delete stream;
}

const char* duologue_last_error(void) {
  return last_error;
}

}  // extern "C"
