// Everything one conversation changes: the encode state and the decode state of one Mimi.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "duologue/mimi_weights.h"
#include "duologue/status.h"

namespace duologue {

// How many keys a transformer step sees once `context` is full; three published streams differ.
enum class Window {
  kMoshi,      // moshi's ring: the new steps of a frame are written first, so its first steps see fewer
  kExact,      // `context` keys, the step's own included, as trained
  kRustymimi,  // `context` + 1 keys
};

// Parts of a frame, for profiles.
enum class Stage : int {
  kOutside,
  kEncodeTallConvolutions,    // more than two rows
  kEncodeNarrowConvolutions,  // one or two
  kEncodeProjections,
  kEncodeAttention,
  kEncodeQuantizer,  // downsampling and codebook search
  kDecodeQuantizer,  // codes to latents, and upsampling
  kDecodeProjections,
  kDecodeAttention,
  kDecodeNarrowConvolutions,
  kDecodeTallConvolutions,
};
constexpr int kStages = 11;
const char* stage_name(Stage stage);

struct StageFigures {
  double seconds = 0.0;
  double multiply_adds = 0.0;
  std::size_t bytes = 0;  // weights, keys and values read
};

// One stream belongs to one thread at a time. No step allocates.
class MimiStream {
 public:
  // `threads` is 1 or 2; the second is started here and ends with the stream.
  static Status create(std::shared_ptr<const MimiWeights> weights, Window window, int threads,
                       std::unique_ptr<MimiStream>* out);
  ~MimiStream();
  MimiStream(const MimiStream&) = delete;
  MimiStream& operator=(const MimiStream&) = delete;

  // frame[frame_samples] -> codes[num_codebooks]. kAudio when a sample is not finite (state unchanged).
  Status encode(const float* frame, int32_t* codes);
  // frame[frame_samples] -> latent[dimension], what the quantizer would read; advances the encode state.
  Status latent(const float* frame, float* latent);
  // codes[num_codebooks] -> frame[frame_samples]. kConfig when a code is out of range (state unchanged).
  Status decode(const int32_t* codes, float* frame);

  void reset();
  std::size_t snapshot_bytes() const;
  void snapshot(void* out) const;
  // kStream when the bytes were taken from a stream of another shape (state unchanged).
  Status restore(const void* data, std::size_t bytes);

  const MimiWeights& weights() const { return *weights_; }

  // Sets every figure to zero and measures from here on, at two readings of a clock per stage.
  void start_clock();
  StageFigures stage(Stage stage) const;

 private:
  struct State;
  MimiStream();
  void encode_latent(const float* frame);
  std::shared_ptr<const MimiWeights> weights_;
  std::unique_ptr<State> state_;
};

}  // namespace duologue
