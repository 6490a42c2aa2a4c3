// The resampler: a pure tone stays pure while the ratio moves, and nothing depends on the block size.
#include "duologue/audio_resampler.h"

#include <cmath>
#include <vector>

#include "check.h"

namespace {

constexpr double kPi = 3.14159265358979323846;

void the_block_size_does_not_matter() {
  std::vector<float> input(5000);
  for (std::size_t i = 0; i < input.size(); ++i) input[i] = std::sin(0.3F * static_cast<float>(i));
  duologue::VariableResampler whole(44100, 24000);
  duologue::VariableResampler pieces(44100, 24000);
  std::vector<float> a;
  std::vector<float> b;
  whole.process(input.data(), input.size(), &a);
  for (std::size_t at = 0; at < input.size(); at += 100) pieces.process(&input[at], 100, &b);
  CHECK(a == b);
}

// The second difference of a slow tone is tiny; a jump in phase would stand out of it.
void a_moving_ratio_does_not_click() {
  duologue::VariableResampler resampler(24000, 48000);
  std::vector<float> output;
  for (int block = 0; block < 500; ++block) {
    float input[480];
    for (int i = 0; i < 480; ++i) {
      input[i] = 0.5F * static_cast<float>(std::sin(2 * kPi * 200 * (block * 480 + i) / 24000.0));
    }
    resampler.set_speed(1 + 1e-3 * std::sin(block * 0.7));
    resampler.process(input, 480, &output);
  }
  const double bound = 0.5 * std::pow(2 * kPi * 200 / 48000.0, 2) * 1.05 + 1e-4;
  for (std::size_t i = 200; i < output.size(); ++i) {
    CHECK(std::fabs(output[i] - 2 * output[i - 1] + output[i - 2]) < bound);
  }
}

}  // namespace

int main() {
  the_block_size_does_not_matter();
  a_moving_ratio_does_not_click();
  return duologue_test::report();
}
