// Conversion between float and the 16-bit format of IEEE 754.
#pragma once

#include <cstdint>
#include <cstring>

namespace duologue {

inline float float_from_bits(std::uint32_t bits) {
  float value = 0.0F;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline std::uint32_t bits_of(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1FU;
  const std::uint32_t mantissa = half & 0x3FFU;
  if (exponent == 0)
    return float_from_bits(sign | 0x33800000U) * static_cast<float>(mantissa);  // 2^-24 steps
  const std::uint32_t biased = exponent == 31 ? 255 : exponent + 112;
  return float_from_bits(sign | biased << 23 | mantissa << 13);
}

// Nearest, ties to even; |value| must be below 65520. Free of branches, so that a loop over it vectorises.
inline std::uint16_t half_from_float(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  const std::uint32_t normal = (magnitude + 0xFFFU + (magnitude >> 13 & 1U) - (112U << 23)) >> 13;
  // Adding 0.5 leaves a number of 2^-24 steps, rounded, in the low bits.
  const std::uint32_t subnormal = bits_of(float_from_bits(magnitude) + 0.5F) - bits_of(0.5F);
  const std::uint32_t half = magnitude < (113U << 23) ? subnormal : normal;
  return static_cast<std::uint16_t>(half | (bits >> 16 & 0x8000U));
}

}  // namespace duologue
