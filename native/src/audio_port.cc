#include "duologue/audio_port.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <new>

namespace duologue {
namespace {

constexpr std::uint64_t kMagic = 0x64756f6c6f677565ULL;  // "duologue"
constexpr int kFadeSamples = 96;
constexpr unsigned long kErrorFlags = 0xF;

// One thread writes each counter, so a plain load and store is enough.
template <typename T>
void bump(std::atomic<T>& counter, T by = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

template <typename T>
void clear(std::atomic<T>& counter) {
  counter.store(T{}, std::memory_order_relaxed);
}

std::size_t align_up(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

}  // namespace

std::int64_t monotonic_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

void DurationCounts::reset() {
  for (auto& count : counts) clear(count);
  clear(max_ns);
}

void DurationCounts::add(std::int64_t duration_ns) {
  int octave = 0;
  const double fraction = std::frexp(static_cast<double>(duration_ns < 1 ? 1 : duration_ns), &octave);
  const int bin = (octave - 1) * kBinsPerOctave + static_cast<int>((fraction - 0.5) * 2 * kBinsPerOctave);
  bump(counts[bin < kBins ? bin : kBins - 1]);
  if (duration_ns > max_ns.load(std::memory_order_relaxed)) {
    max_ns.store(duration_ns, std::memory_order_relaxed);
  }
}

void CallbackLog::reset() {
  for (auto& slot : slots_) {
    clear(slot.begun_ns);
    clear(slot.body_ns);
    clear(slot.flags);
  }
  clear(begun_);
  clear(count_);
}

void CallbackLog::add(const Call& call) {
  const std::uint64_t count = count_.load(std::memory_order_relaxed);
  begun_.store(count + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  Slot& slot = slots_[count % kCapacity];
  slot.begun_ns.store(call.begun_ns, std::memory_order_relaxed);
  slot.body_ns.store(call.body_ns, std::memory_order_relaxed);
  slot.flags.store(call.flags, std::memory_order_relaxed);
  count_.store(count + 1, std::memory_order_release);
}

std::uint64_t CallbackLog::read(std::uint64_t from, Call* out, std::uint64_t* next) const {
  const std::uint64_t count = count_.load(std::memory_order_acquire);
  const std::uint64_t first = std::max(from, count > kCapacity ? count - kCapacity : 0);
  *next = std::max(from, count);
  for (std::uint64_t number = first; number < count; ++number) {
    const Slot& slot = slots_[number % kCapacity];
    out[number - first] = {slot.begun_ns.load(std::memory_order_relaxed),
                           slot.body_ns.load(std::memory_order_relaxed),
                           slot.flags.load(std::memory_order_relaxed)};
  }
  // What the writer may have overwritten meanwhile is left out.
  std::atomic_thread_fence(std::memory_order_acquire);
  const std::uint64_t begun = begun_.load(std::memory_order_relaxed);
  const std::uint64_t whole = begun > kCapacity ? std::max(first, begun - kCapacity) : first;
  if (whole >= count) return 0;
  std::copy(out + (whole - first), out + (count - first), out);
  return count - whole;
}

void CallbackCounts::reset() {
  clear(calls);
  clear(late);
  for (auto& flag : flags) clear(flag);
  clear(flagged);
  clear(last_ns);
  clear(last_samples);
  gap.reset();
  body.reset();
  log.reset();
}

void StampedCount::reset() {
  clear(sequence_);
  clear(count_);
  clear(time_ns_);
}

void StampedCount::publish(std::uint64_t count, std::int64_t time_ns) {
  const std::uint64_t sequence = sequence_.load(std::memory_order_relaxed);
  sequence_.store(sequence + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  count_.store(count, std::memory_order_relaxed);
  time_ns_.store(time_ns, std::memory_order_relaxed);
  sequence_.store(sequence + 2, std::memory_order_release);
}

void StampedCount::get(std::uint64_t* count, std::int64_t* time_ns) const {
  for (;;) {
    const std::uint64_t before = sequence_.load(std::memory_order_acquire);
    *count = count_.load(std::memory_order_relaxed);
    *time_ns = time_ns_.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (before % 2 == 0 && before == sequence_.load(std::memory_order_relaxed)) return;
  }
}

std::size_t AudioPort::bytes(std::uint64_t capacity) {
  return align_up(sizeof(AudioPort)) + 2 * align_up(capacity * sizeof(float));
}

AudioPort* AudioPort::create(void* memory, std::size_t size, std::uint64_t capacity) {
  const bool is_power_of_two = capacity > 0 && (capacity & (capacity - 1)) == 0;
  const bool is_aligned = reinterpret_cast<std::uintptr_t>(memory) % alignof(AudioPort) == 0;
  if (!is_power_of_two || !is_aligned || size < bytes(capacity)) return nullptr;
  auto* port = new (memory) AudioPort;
  char* data = static_cast<char*>(memory) + align_up(sizeof(AudioPort));
  port->input.init(capacity, data - reinterpret_cast<char*>(&port->input));
  data += align_up(capacity * sizeof(float));
  port->output.init(capacity, data - reinterpret_cast<char*>(&port->output));
  for (auto& counts : port->callbacks) counts.reset();
  clear(port->lost_input);
  clear(port->lost_input_events);
  clear(port->concealed_output);
  clear(port->concealed_output_events);
  clear(port->silenced_output);
  clear(port->is_muted);
  port->configure(0, 0, 1, 1);
  port->magic_ = kMagic;
  return port;
}

AudioPort* AudioPort::attach(void* memory, std::size_t size) {
  const bool is_aligned = reinterpret_cast<std::uintptr_t>(memory) % alignof(AudioPort) == 0;
  if (!is_aligned || size < sizeof(AudioPort)) return nullptr;
  auto* port = static_cast<AudioPort*>(memory);
  return port->magic_ == kMagic && size >= bytes(port->input.capacity()) ? port : nullptr;
}

void AudioPort::configure(double new_input_hz, double new_output_hz, int input_channels,
                          int output_channels) {
  input_hz = new_input_hz;
  output_hz = new_output_hz;
  input_channels_ = input_channels;
  output_channels_ = output_channels;
  input.reset();
  output.reset();
  input_clock.reset();
  output_clock.reset();
  clear(silence_until_);
  clear(input_latency_s);
  clear(output_latency_s);
  // The pause before a new stream is no late callback.
  for (auto& counts : callbacks) clear(counts.last_ns);
  held_ = held_gain_ = 0;
  gain_ = 1;
}

void AudioPort::run(const float* from, float* to, std::uint64_t samples, unsigned long flags,
                    std::int64_t now_ns) {
  CallbackCounts& counts = callbacks[from == nullptr ? 1 : 0];
  const std::int64_t last_ns = counts.last_ns.load(std::memory_order_relaxed);
  if (last_ns != 0) {
    const std::int64_t gap_ns = now_ns - last_ns;
    const double hz = from != nullptr ? input_hz : output_hz;
    const double period_ns =
        1e9 * static_cast<double>(counts.last_samples.load(std::memory_order_relaxed)) / hz;
    counts.gap.add(gap_ns);
    if (static_cast<double>(gap_ns) > 2 * period_ns) bump(counts.late);
  }
  counts.last_samples.store(static_cast<std::int64_t>(samples), std::memory_order_relaxed);
  for (int bit = 0; bit < 5; ++bit) {
    if ((flags >> bit & 1U) != 0) bump(counts.flags[bit]);
  }
  if ((flags & kErrorFlags) != 0) bump(counts.flagged);
  if (from != nullptr) {
    take_input(from, samples);
    input_clock.publish(input.written(), now_ns);
  }
  if (to != nullptr) {
    give_output(to, samples);
    output_clock.publish(output.read(), now_ns);
  }
  // Last, because a waiting reader looks here for signs of life.
  bump(counts.calls);
  counts.last_ns.store(now_ns, std::memory_order_release);
}

void AudioPort::take_input(const float* samples, std::uint64_t count) {
  const AudioRing::Spans to = input.acquire_write(count);
  const std::uint64_t room = to.first_count + to.second_count;
  const bool muted = is_muted.load(std::memory_order_relaxed);
  const float scale = muted ? 0.0F : 1.0F / static_cast<float>(input_channels_);
  const float* from = samples;
  for (std::uint64_t i = 0; i < room; ++i) {
    float sum = 0;
    for (int channel = 0; channel < input_channels_; ++channel) sum += *from++;
    (i < to.first_count ? to.first[i] : to.second[i - to.first_count]) = sum * scale;
  }
  input.commit_write(room);
  if (room < count) {
    bump(lost_input, count - room);
    bump(lost_input_events);
  }
}

void AudioPort::give_output(float* samples, std::uint64_t count) {
  const AudioRing::Spans from = output.acquire_read(count);
  const std::uint64_t available = from.first_count + from.second_count;
  const std::uint64_t silence_until = silence_until_.load(std::memory_order_acquire);
  const std::uint64_t at = output.read();
  const std::uint64_t silenced = silence_until > at ? std::min(silence_until - at, available) : 0;
  float* to = fill_gap(samples, silenced);
  to = play(to, from, silenced);
  output.commit_read(available);
  if (silenced > 0) bump(silenced_output, silenced);
  if (available < count) {
    fill_gap(to, count - available);
    bump(concealed_output, count - available);
    bump(concealed_output_events);
  }
}

float* AudioPort::play(float* out, AudioRing::Spans from, std::uint64_t skip) {
  const std::uint64_t skip_first = std::min(skip, from.first_count);
  const std::uint64_t skip_second = skip - skip_first;
  out = play_span(out, from.first + skip_first, from.first_count - skip_first);
  return play_span(out, from.second + skip_second, from.second_count - skip_second);
}

float* AudioPort::play_span(float* out, const float* from, std::uint64_t count) {
  if (count == 0) return out;
  for (std::uint64_t i = 0; i < count; ++i) {
    float value = from[i];
    if (gain_ < 1) {
      value *= gain_;
      gain_ = std::min(1.0F, gain_ + 1.0F / kFadeSamples);
    }
    held_ = value;
    out = put(out, value);
  }
  held_gain_ = 1;
  return out;
}

float* AudioPort::fill_gap(float* out, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    held_gain_ = std::max(0.0F, held_gain_ - 1.0F / kFadeSamples);
    gain_ = 0;
    out = put(out, held_ * held_gain_);
  }
  return out;
}

SampleRange AudioPort::silence_queued() {
  const std::uint64_t until = output.written();
  const std::uint64_t at = output.read();
  const std::uint64_t previous = silence_until_.load(std::memory_order_relaxed);
  silence_until_.store(until, std::memory_order_release);
  return {std::min(std::max(at, previous), until), until};
}

}  // namespace duologue

extern "C" int duologue_audio_callback(const void* input, void* output, unsigned long samples,
                                       const DuologueStreamTimes* times, unsigned long flags,
                                       void* port_pointer) {
  auto* port = static_cast<duologue::AudioPort*>(port_pointer);
  const std::int64_t begun_ns = duologue::monotonic_ns();
  if (times != nullptr) {
    if (input != nullptr) {
      port->input_latency_s.store(times->current_s - times->input_adc_s, std::memory_order_relaxed);
    }
    if (output != nullptr) {
      port->output_latency_s.store(times->output_dac_s - times->current_s, std::memory_order_relaxed);
    }
  }
  port->run(static_cast<const float*>(input), static_cast<float*>(output), samples, flags, begun_ns);
  duologue::CallbackCounts& counts = port->callbacks[input == nullptr ? 1 : 0];
  const std::int64_t body_ns = duologue::monotonic_ns() - begun_ns;
  counts.body.add(body_ns);
  const double hz = input == nullptr ? port->output_hz : port->input_hz;
  if (static_cast<double>(body_ns) * hz > 1e9 * static_cast<double>(samples)) duologue::bump(counts.late);
  counts.log.add({begun_ns, body_ns, static_cast<std::int64_t>(flags)});
  return 0;
}
