// 32 registers of 4 floats: a 6 x 16 block.
#define DUOLOGUE_SIMD_NAMESPACE neon
#define DUOLOGUE_SIMD_LANES 4
#define DUOLOGUE_SIMD_TALL_ROWS 6
#define DUOLOGUE_SIMD_TALL_VECTORS 4

#include "kernels_simd.h"

namespace duologue {
namespace {

constexpr Kernels kTable = neon::make_table("neon");

}  // namespace

const Kernels* neon_kernels() {
  return &kTable;
}

}  // namespace duologue
