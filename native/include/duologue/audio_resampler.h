// Sample-rate conversion whose ratio may change between any two calls without a click.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace duologue {

// A windowed sinc in steps of 1/256 of an input sample, interpolated linearly between steps. The position of
// the next output sample is kept as a number, so a changed ratio bends time and never jumps in it. Source: J.
// O. Smith, Digital Audio Resampling (bandlimited interpolation with a tabulated window).
class VariableResampler {
 public:
  // Half width of the filter, in samples of the slower rate: 0.83 ms at 24 kHz.
  static constexpr int kHalfWidth = 20;

  VariableResampler(double from_hz, double to_hz);

  void reset();
  // Output samples per input sample, relative to to_hz / from_hz.
  void set_speed(double relative) { step_ = to_fixed(nominal_step_ / relative); }
  // Input samples before an output instant that the filter still needs.
  int lookahead() const { return half_taps_; }
  // Appends what `count` input samples complete to `output`.
  void process(const float* input, std::size_t count, std::vector<float>* output);

 private:
  // Positions have 32 bits below the point: adding them rounds nothing, so the block size cannot matter.
  static std::uint64_t to_fixed(double value) {
    return static_cast<std::uint64_t>(value * 4294967296.0 + 0.5);
  }
  float at(std::uint64_t position) const;

  double nominal_step_;
  std::uint64_t step_;
  int half_taps_;
  std::vector<float> table_;  // [phases + 1][2 * half_taps]
  std::vector<float> buffer_;
  std::uint64_t position_ = 0;  // of the next output, counted from buffer_[half_taps - 1]
};

}  // namespace duologue
