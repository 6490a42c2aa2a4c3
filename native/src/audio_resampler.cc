#include "duologue/audio_resampler.h"

#include <algorithm>
#include <cmath>

namespace duologue {
namespace {

constexpr int kPhases = 256;  // at() takes the phase from eight bits
constexpr double kPi = 3.14159265358979323846;
// 80 dB of stop band.
constexpr double kKaiserBeta = 8.0;

double bessel_i0(double x) {
  double sum = 1;
  double term = 1;
  for (int k = 1; k < 40; ++k) {
    term *= (x / (2 * k)) * (x / (2 * k));
    sum += term;
  }
  return sum;
}

double windowed_sinc(double offset, double stretch, double half_taps) {
  const double share = offset / half_taps;
  if (share <= -1 || share >= 1) return 0;
  const double window = bessel_i0(kKaiserBeta * std::sqrt(1 - share * share)) / bessel_i0(kKaiserBeta);
  const double x = kPi * offset / stretch;
  return window * (std::abs(x) < 1e-12 ? 1 : std::sin(x) / x);
}

}  // namespace

VariableResampler::VariableResampler(double from_hz, double to_hz)
    : nominal_step_(from_hz / to_hz), step_(to_fixed(nominal_step_)) {
  const double stretch = std::max(1.0, nominal_step_);
  half_taps_ = (static_cast<int>(std::ceil(kHalfWidth * stretch)) + 1) / 2 * 2;
  const int taps = 2 * half_taps_;
  table_.resize(static_cast<std::size_t>(kPhases + 1) * taps);
  for (int phase = 0; phase <= kPhases; ++phase) {
    float* row = &table_[static_cast<std::size_t>(phase) * taps];
    double sum = 0;
    // Tap j weighs the sample j - (half_taps - 1) after the one at or before the output instant.
    for (int j = 0; j < taps; ++j) {
      const double value =
          windowed_sinc(j - (half_taps_ - 1) - static_cast<double>(phase) / kPhases, stretch, half_taps_);
      row[j] = static_cast<float>(value);
      sum += value;
    }
    for (int j = 0; j < taps; ++j) row[j] = static_cast<float>(row[j] / sum);
  }
  reset();
}

void VariableResampler::reset() {
  buffer_.assign(half_taps_ - 1, 0.0F);
  position_ = 0;
}

float VariableResampler::at(std::uint64_t position) const {
  const int taps = 2 * half_taps_;
  const auto below_point = static_cast<std::uint32_t>(position);
  const std::size_t phase = below_point >> 24;
  const float weight = static_cast<float>(below_point & 0xFFFFFFU) / 16777216.0F;
  const float* before = &table_[phase * static_cast<std::size_t>(taps)];
  const float* after = before + taps;
  const float* samples = &buffer_[position >> 32];
  // Four sums each, so that the additions need not wait for one another; taps is a multiple of four.
  float low[4] = {};
  float high[4] = {};
  for (int j = 0; j < taps; j += 4) {
    for (int lane = 0; lane < 4; ++lane) {
      low[lane] += samples[j + lane] * before[j + lane];
      high[lane] += samples[j + lane] * after[j + lane];
    }
  }
  const float low_sum = (low[0] + low[1]) + (low[2] + low[3]);
  const float high_sum = (high[0] + high[1]) + (high[2] + high[3]);
  return low_sum + weight * (high_sum - low_sum);
}

void VariableResampler::process(const float* input, std::size_t count, std::vector<float>* output) {
  buffer_.insert(buffer_.end(), input, input + count);
  const auto taps = static_cast<std::size_t>(2 * half_taps_);
  while ((position_ >> 32) + taps <= buffer_.size()) {
    output->push_back(at(position_));
    position_ += step_;
  }
  const std::size_t done = std::min<std::size_t>(position_ >> 32, buffer_.size());
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(done));
  position_ -= static_cast<std::uint64_t>(done) << 32;
}

}  // namespace duologue
