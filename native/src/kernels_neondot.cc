// NEON with products of bytes (Armv8.2 dot products): activations are -128 to 127.
#define DUOLOGUE_SIMD_NAMESPACE neondot
#define DUOLOGUE_SIMD_LANES 4
#define DUOLOGUE_SIMD_TALL_ROWS 6
#define DUOLOGUE_SIMD_TALL_VECTORS 4
#define DUOLOGUE_SIMD_LOWEST_BYTE -128
#define DUOLOGUE_SIMD_DOT(sum, x, w)                                                                         \
  reinterpret_cast<VecInt>(vdotq_s32(reinterpret_cast<int32x4_t>(sum), vreinterpretq_s8_s32(vdupq_n_s32(x)), \
                                     reinterpret_cast<int8x16_t>(w)))

#include "kernels_simd.h"

namespace duologue {
namespace {

constexpr Kernels kTable = neondot::make_table("neondot");

}  // namespace

const Kernels* neondot_kernels() {
  return &kTable;
}

}  // namespace duologue
