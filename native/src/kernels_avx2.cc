// 16 registers of 8 floats: a 6 x 16 block.
#define DUOLOGUE_SIMD_NAMESPACE avx2
#define DUOLOGUE_SIMD_LANES 8
#define DUOLOGUE_SIMD_TALL_ROWS 6
#define DUOLOGUE_SIMD_TALL_VECTORS 2

#include "kernels_simd.h"

namespace duologue {
namespace {

constexpr Kernels kTable = avx2::make_table("avx2");

}  // namespace

const Kernels* avx2_kernels() {
  return &kTable;
}

}  // namespace duologue
