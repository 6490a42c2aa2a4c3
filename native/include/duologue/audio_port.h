// Where a sound driver and the conversation meet: two rings, counters and the callback between them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "duologue/audio_ring.h"

namespace duologue {

// Samples of a stream, counted from its start.
struct SampleRange {
  std::uint64_t first;
  std::uint64_t until;
};

// Counts of durations in logarithmic bins, eight to an octave (9 % wide), from 1 ns.
struct DurationCounts {
  static constexpr int kBinsPerOctave = 8;
  static constexpr int kBins = 40 * kBinsPerOctave;

  std::atomic<std::uint64_t> counts[kBins];
  std::atomic<std::int64_t> max_ns;

  void reset();
  void add(std::int64_t duration_ns);
};

// The newest calls of one driver thread, one by one, for a timeline; older ones are overwritten.
class CallbackLog {
 public:
  static constexpr std::uint64_t kCapacity = 1024;

  struct Call {
    std::int64_t begun_ns;
    std::int64_t body_ns;
    std::int64_t flags;
  };

  void reset();
  void add(const Call& call);
  // Copies the calls from number `from` on that are still there to `out` (room for kCapacity), oldest first.
  // Returns how many; `next` is the number of the call after them. Never blocks the writer.
  std::uint64_t read(std::uint64_t from, Call* out, std::uint64_t* next) const;

 private:
  struct Slot {
    std::atomic<std::int64_t> begun_ns;
    std::atomic<std::int64_t> body_ns;
    std::atomic<std::int64_t> flags;
  };
  Slot slots_[kCapacity];
  std::atomic<std::uint64_t> begun_;  // calls whose slot may be half written
  std::atomic<std::uint64_t> count_;  // calls that can be read
};

// What one driver thread counts. A duplex stream uses the first set only.
struct CallbackCounts {
  std::atomic<std::uint64_t> calls;
  std::atomic<std::uint64_t> late;  // the gap exceeded two periods, or the body one
  std::atomic<std::uint64_t>
      flags[5];                        // input underflow, input overflow, output underflow, overflow, priming
  std::atomic<std::uint64_t> flagged;  // calls with any of the first four
  std::atomic<std::int64_t> last_ns;   // when the newest call began
  std::atomic<std::int64_t> last_samples;  // its size
  DurationCounts gap;
  DurationCounts body;
  CallbackLog log;

  void reset();
};

// A direction's clock: samples passed and when, as one consistent pair.
class StampedCount {
 public:
  void reset();
  void publish(std::uint64_t count, std::int64_t time_ns);
  // Never blocks the publisher; retries while it writes.
  void get(std::uint64_t* count, std::int64_t* time_ns) const;

 private:
  std::atomic<std::uint64_t> sequence_;
  std::atomic<std::uint64_t> count_;
  std::atomic<std::int64_t> time_ns_;
};

// Lives in memory that the driver's process and the conversation's process share. The driver calls run(); the
// conversation reads `input`, writes `output`. Neither waits for the other.
class AudioPort {
 public:
  static constexpr int kMaxChannels = 32;

  // `capacity`, in samples per ring, is a power of two.
  static std::size_t bytes(std::uint64_t capacity);
  // Builds a port in `memory` (64-byte aligned, `size` >= bytes(capacity)); null if it does not fit.
  static AudioPort* create(void* memory, std::size_t size, std::uint64_t capacity);
  // The port another process built there, or null.
  static AudioPort* attach(void* memory, std::size_t size);

  // Empties the rings and the clocks for a stream that is about to start. Only while no stream runs. The
  // counters of what was lost go on, so that they cover the whole conversation.
  void configure(double input_hz, double output_hz, int input_channels, int output_channels);

  // The driver's side. Interleaved samples; either may be null. Takes no lock, allocates nothing, waits for
  // nothing.
  void run(const float* input, float* output, std::uint64_t samples, unsigned long flags,
           std::int64_t now_ns);

  // The conversation's side: play silence instead of what waits now; returns which samples that is.
  SampleRange silence_queued();

  AudioRing input;
  AudioRing output;
  StampedCount input_clock;
  StampedCount output_clock;
  CallbackCounts callbacks[2];
  std::atomic<std::uint64_t> lost_input;         // samples the ring had no room for
  std::atomic<std::uint64_t> lost_input_events;  // calls in which that happened
  std::atomic<std::uint64_t> concealed_output;   // samples the ring did not have in time
  std::atomic<std::uint64_t> concealed_output_events;
  std::atomic<std::uint64_t> silenced_output;  // samples silenced on request
  std::atomic<bool> is_muted;                  // the microphone gives silence
  std::atomic<double> input_latency_s;         // the driver's own claims, as hints
  std::atomic<double> output_latency_s;
  double input_hz = 0;
  double output_hz = 0;

 private:
  void take_input(const float* samples, std::uint64_t count);
  void give_output(float* samples, std::uint64_t count);
  float* play(float* out, AudioRing::Spans from, std::uint64_t skip);
  float* play_span(float* out, const float* from, std::uint64_t count);
  float* fill_gap(float* out, std::uint64_t count);
  float* put(float* out, float value) {
    for (int channel = 0; channel < output_channels_; ++channel) *out++ = value;
    return out;
  }

  std::uint64_t magic_ = 0;
  int input_channels_ = 1;
  int output_channels_ = 1;
  std::atomic<std::uint64_t> silence_until_;
  // The driver's own: a gap fades out from the last value and the sound after it fades in, so neither clicks.
  float held_ = 0;
  float held_gain_ = 0;
  float gain_ = 1;
};

std::int64_t monotonic_ns();

}  // namespace duologue

// The shape of PortAudio's stream callback; `port` is a duologue::AudioPort.
extern "C" {
struct DuologueStreamTimes {
  double input_adc_s;
  double current_s;
  double output_dac_s;
};
int duologue_audio_callback(const void* input, void* output, unsigned long samples,
                            const DuologueStreamTimes* times, unsigned long flags, void* port);
}
