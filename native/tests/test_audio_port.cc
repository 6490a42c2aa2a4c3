// The driver callback: exact copies, concealment without clicks, silence on request, honest counters.
#include "duologue/audio_port.h"

#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "check.h"

namespace {

using duologue::AudioPort;
using duologue::SampleRange;

constexpr std::uint64_t kCapacity = 1 << 14;
constexpr int kBlock = 480;

class Fixture {
 public:
  explicit Fixture(int input_channels = 1, int output_channels = 1) {
    const std::size_t size = AudioPort::bytes(kCapacity);
    memory_ = ::operator new(size, std::align_val_t(64));
    port = AudioPort::create(memory_, size, kCapacity);
    CHECK(port != nullptr);
    CHECK(AudioPort::attach(memory_, size) == port);
    port->configure(24000, 24000, input_channels, output_channels);
  }
  ~Fixture() { ::operator delete(memory_, std::align_val_t(64)); }

  AudioPort* port;

 private:
  void* memory_;
};

std::vector<float> tone(int count) {
  std::vector<float> out(count);
  for (int i = 0; i < count; ++i) out[i] = 0.5F * std::sin(0.05F * static_cast<float>(i));
  return out;
}

float largest_step(const std::vector<float>& samples) {
  float step = 0;
  for (std::size_t i = 1; i < samples.size(); ++i)
    step = std::fmax(step, std::fabs(samples[i] - samples[i - 1]));
  return step;
}

void copies_bit_for_bit() {
  Fixture fixture;
  const auto sent = tone(kBlock);
  std::vector<float> heard(kBlock);
  std::vector<float> read(kBlock);
  CHECK(fixture.port->output.write(sent.data(), kBlock) == kBlock);
  CHECK(duologue_audio_callback(sent.data(), heard.data(), kBlock, nullptr, 0, fixture.port) == 0);
  CHECK(heard == sent);
  CHECK(fixture.port->input.read(read.data(), kBlock) == kBlock);
  CHECK(read == sent);
  CHECK(fixture.port->callbacks[0].calls == 1 && fixture.port->concealed_output == 0);
}

void mixes_and_spreads_channels() {
  Fixture fixture(2, 2);
  const float in[] = {1.0F, 0.0F, 0.5F, 0.5F};
  const float queued[] = {0.25F, -0.25F};
  float out[4];
  float mono[2];
  fixture.port->output.write(queued, 2);
  fixture.port->run(in, out, 2, 0, 1);
  fixture.port->input.read(mono, 2);
  CHECK(mono[0] == 0.5F && mono[1] == 0.5F);
  CHECK(out[0] == 0.25F && out[1] == 0.25F && out[2] == -0.25F && out[3] == -0.25F);
}

void a_gap_fades_out_and_in() {
  Fixture fixture;
  const auto sent = tone(10 * kBlock);
  std::vector<float> heard(10 * kBlock);
  fixture.port->output.write(sent.data(), 700);
  for (int block = 0; block < 3; ++block)
    fixture.port->run(nullptr, &heard[block * kBlock], kBlock, 0, block + 1);
  CHECK(fixture.port->concealed_output == 3 * kBlock - 700);
  CHECK(fixture.port->concealed_output_events == 2);
  fixture.port->output.write(&sent[700], 7 * kBlock);
  for (int block = 3; block < 10; ++block)
    fixture.port->run(nullptr, &heard[block * kBlock], kBlock, 0, block + 1);
  CHECK(largest_step(heard) < 2 * largest_step(sent));
  CHECK(heard[1000] == 0.0F);
  CHECK(heard[3 * kBlock + 200] == sent[700 + 200]);
}

void silence_on_request_keeps_the_delay() {
  Fixture fixture;
  const auto sent = tone(3 * kBlock);
  std::vector<float> heard(3 * kBlock);
  fixture.port->output.write(sent.data(), kBlock);
  fixture.port->run(nullptr, heard.data(), kBlock, 0, 1);
  fixture.port->output.write(&sent[kBlock], kBlock);
  const SampleRange silenced = fixture.port->silence_queued();
  CHECK(silenced.until == fixture.port->output.written());
  CHECK(silenced.until - silenced.first == kBlock);
  const SampleRange again = fixture.port->silence_queued();
  CHECK(again.first == again.until);
  fixture.port->output.write(&sent[2 * kBlock], kBlock);
  fixture.port->run(nullptr, &heard[kBlock], kBlock, 0, 2);
  fixture.port->run(nullptr, &heard[2 * kBlock], kBlock, 0, 3);
  CHECK(heard[2 * kBlock - 1] == 0.0F);
  CHECK(heard[3 * kBlock - 1] == sent[3 * kBlock - 1]);
  CHECK(fixture.port->silenced_output == kBlock && fixture.port->concealed_output == 0);
}

void counts_what_it_lost() {
  Fixture fixture;
  const auto sent = tone(kBlock);
  std::vector<float> heard(kBlock);
  const int calls = kCapacity / kBlock + 2;
  for (int call = 0; call < calls; ++call) {
    fixture.port->run(sent.data(), heard.data(), kBlock, call == 3 ? 6 : 0, 1 + call * 20'000'000LL);
  }
  const auto& counts = fixture.port->callbacks[0];
  CHECK(fixture.port->lost_input == static_cast<std::uint64_t>(calls) * kBlock - kCapacity);
  CHECK(counts.flags[1] == 1 && counts.flags[2] == 1 && counts.flagged == 1);
  CHECK(counts.late == 0);
  fixture.port->run(sent.data(), heard.data(), kBlock, 0, 1 + calls * 20'000'000LL + 41'000'000LL);
  CHECK(counts.late == 1);
  CHECK(counts.gap.max_ns == 61'000'000LL);
}

void every_call_is_in_the_log() {
  Fixture fixture;
  const auto sent = tone(kBlock);
  const duologue::CallbackLog& log = fixture.port->callbacks[0].log;
  std::vector<duologue::CallbackLog::Call> calls(duologue::CallbackLog::kCapacity);
  std::uint64_t next = 7;
  CHECK(log.read(0, calls.data(), &next) == 0 && next == 0);
  for (int call = 0; call < 3; ++call) {
    duologue_audio_callback(sent.data(), nullptr, kBlock, nullptr, call == 1 ? 2 : 0, fixture.port);
  }
  CHECK(log.read(1, calls.data(), &next) == 2 && next == 3);
  CHECK(calls[0].flags == 2 && calls[1].flags == 0);
  CHECK(calls[0].begun_ns > 0 && calls[0].body_ns >= 0 && calls[0].begun_ns <= calls[1].begun_ns);
  CHECK(log.read(next, calls.data(), &next) == 0 && next == 3);
}

void a_log_that_is_written_meanwhile_is_never_torn() {
  auto log = std::make_unique<duologue::CallbackLog>();
  log->reset();
  constexpr std::int64_t kCalls = 300000;
  std::thread writer([&] {
    for (std::int64_t i = 0; i < kCalls; ++i) log->add({i, 3 * i, 5 * i});
  });
  std::vector<duologue::CallbackLog::Call> calls(duologue::CallbackLog::kCapacity);
  std::uint64_t next = 0;
  while (next < kCalls) {
    const std::uint64_t count = log->read(next, calls.data(), &next);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto number = static_cast<std::int64_t>(next - count + i);
      CHECK(calls[i].begun_ns == number && calls[i].body_ns == 3 * number && calls[i].flags == 5 * number);
    }
  }
  writer.join();
}

void mute_gives_silence_to_the_conversation() {
  Fixture fixture;
  const auto sent = tone(kBlock);
  std::vector<float> read(kBlock);
  fixture.port->is_muted = true;
  fixture.port->run(sent.data(), nullptr, kBlock, 0, 1);
  fixture.port->input.read(read.data(), kBlock);
  for (const float value : read) CHECK(value == 0.0F);
}

void the_clock_pair_is_never_torn() {
  duologue::StampedCount clock;
  clock.reset();
  std::atomic<bool> is_done{false};
  std::thread writer([&] {
    for (int i = 1; i <= 200000; ++i) clock.publish(i, 7LL * i);
    is_done = true;
  });
  std::uint64_t count = 0;
  std::int64_t time_ns = 0;
  while (!is_done) {
    clock.get(&count, &time_ns);
    CHECK(time_ns == 7 * static_cast<std::int64_t>(count));
  }
  writer.join();
}

}  // namespace

int main() {
  copies_bit_for_bit();
  mixes_and_spreads_channels();
  a_gap_fades_out_and_in();
  silence_on_request_keeps_the_delay();
  counts_what_it_lost();
  every_call_is_in_the_log();
  a_log_that_is_written_meanwhile_is_never_torn();
  mute_gives_silence_to_the_conversation();
  the_clock_pair_is_never_torn();
  return duologue_test::report();
}
