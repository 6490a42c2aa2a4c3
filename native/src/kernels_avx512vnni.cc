// AVX-512 with products of bytes: activations are 0 to 255.
#define DUOLOGUE_SIMD_NAMESPACE avx512vnni
#define DUOLOGUE_SIMD_LANES 16
#define DUOLOGUE_SIMD_TALL_ROWS 12
#define DUOLOGUE_SIMD_TALL_VECTORS 2
#define DUOLOGUE_SIMD_LOWEST_BYTE 0
#define DUOLOGUE_SIMD_DOT(sum, x, w)                                                                 \
  reinterpret_cast<VecInt>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), _mm512_set1_epi32(x), \
                                               reinterpret_cast<__m512i>(w)))

#include "kernels_simd.h"

namespace duologue {
namespace {

constexpr Kernels kTable = avx512vnni::make_table("avx512vnni");

}  // namespace

const Kernels* avx512vnni_kernels() {
  return &kTable;
}

}  // namespace duologue
