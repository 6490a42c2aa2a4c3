// 16 registers of 8 floats: a 6 x 16 block, and 32 columns for one or two rows.
#define DUOLOGUE_SIMD_NAMESPACE avx2
#define DUOLOGUE_SIMD_LANES 8
#define DUOLOGUE_SIMD_TALL_ROWS 6
#define DUOLOGUE_SIMD_TALL_VECTORS 2
#define DUOLOGUE_SIMD_NARROW_VECTORS 4

#include "kernels_simd.h"

namespace duologue {
namespace {

constexpr Kernels kTable = avx2::make_table("avx2");

}  // namespace

const Kernels* avx2_kernels() {
  return &kTable;
}

}  // namespace duologue
