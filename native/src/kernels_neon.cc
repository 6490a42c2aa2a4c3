// 32 registers of 4 floats: a 6 x 16 block, and 32 columns for one or two rows.
#define DUOLOGUE_SIMD_NAMESPACE neon
#define DUOLOGUE_SIMD_LANES 4
#define DUOLOGUE_SIMD_TALL_ROWS 6
#define DUOLOGUE_SIMD_TALL_VECTORS 4
#define DUOLOGUE_SIMD_NARROW_VECTORS 8

#include "kernels_simd.h"

namespace duologue {
namespace {

constexpr Kernels kTable = neon::make_table("neon");

}  // namespace

const Kernels* neon_kernels() {
  return &kTable;
}

}  // namespace duologue
