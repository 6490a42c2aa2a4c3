// 32 registers of 16 floats: a 12 x 32 block.
#define DUOLOGUE_SIMD_NAMESPACE avx512
#define DUOLOGUE_SIMD_LANES 16
#define DUOLOGUE_SIMD_TALL_ROWS 12
#define DUOLOGUE_SIMD_TALL_VECTORS 2

#include "kernels_simd.h"

namespace duologue {
namespace {

constexpr Kernels kTable = avx512::make_table("avx512");

}  // namespace

const Kernels* avx512_kernels() {
  return &kTable;
}

}  // namespace duologue
