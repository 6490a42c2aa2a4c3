// The table every instruction set fills in, and the packed layouts it works on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace duologue {

enum class Activation : int { kNone, kElu, kGelu };

// How a matrix is stored. kFloat28 is float32 in fewer bytes, nothing lost; halves and bytes multiply each
// column by a scale of its own.
enum class Format : int { kFloat32, kFloat28, kFloat16, kInt8 };

constexpr int kDotDepth = 4;  // weights of a column that one integer instruction multiplies

// A panel of float32 in 28 bits a weight. Nearly all exponents of a panel are one of fifteen neighbours, or
// that of zero: sign and fraction stay, and four bits choose from a table of sixteen. A panel has 64 columns
// and is
//   outliers  the weights of another exponent, whose place in the stream holds 0
//   table     [16] exponents, as a float has them; the first is 0
//   stream    [k / 2] pairs of rows in seven lines of 16 words: first the choices, those of row r and columns
//             16 c to 16 c + 15 in bits 16 r + 4 c and up, then three lines for either row. Line c holds
//             columns 16 c to 16 c + 15 with their exponents cut out; the gaps hold the last 16 columns:
//             fraction bits 7 to 14 in line 0, 15 to 22 in line 1, sign and bits 0 to 6 in line 2.
struct Float28 {
  static constexpr int kColumns = 64;
  static constexpr int kLanes = 16;
  static constexpr int kWordsPerPair = 7 * kLanes;
  static constexpr std::uint32_t kExponent = 0x7F800000U;

  struct Outlier {
    std::int32_t place;  // k * kColumns + column
    float value;
  };

  int k = 0;

  // Room for one weight in a thousand: more would cost more than the bits save. The first entry's place is
  // how many follow.
  int outliers() const { return (k * kColumns / 1024 + 8) / 8 * 8; }
  std::ptrdiff_t table_at() const { return static_cast<std::ptrdiff_t>(outliers()) * 8; }
  std::ptrdiff_t stream_at() const { return table_at() + kLanes * 4; }
  std::ptrdiff_t bytes() const {
    return stream_at() + static_cast<std::ptrdiff_t>(k / 2) * kWordsPerPair * 4;
  }
};

// A matrix [k][n] as panels [ceil(n / panel)][k][panel]: one panel is read front to back, once. Columns past
// n are 0. With integer products (planes > 0) a panel is [ceil(k / 4)][panel][4], and rows past k are 0.
struct PackedMatrix {
  const void* data = nullptr;
  const float* bias = nullptr;         // [panels * panel] or null
  const float* scale = nullptr;        // likewise
  const std::int32_t* sums = nullptr;  // of each column's integers, where planes > 0
  int k = 0;
  int n = 0;
  int panel = 0;
  int block_rows = 0;  // rows of a product that are held in registers together, at most
  Format format = Format::kFloat32;
  int planes = 0;  // bytes to which activations are rounded: 0 (not at all), 1 or 2

  int panels() const { return (n + panel - 1) / panel; }
  std::ptrdiff_t panel_bytes() const {
    if (format == Format::kFloat28) return Float28{k}.bytes();
    const int depth = planes > 0 ? (k + kDotDepth - 1) / kDotDepth * kDotDepth : k;
    return static_cast<std::ptrdiff_t>(depth) * panel *
           (format == Format::kFloat32   ? 4
            : format == Format::kFloat16 ? 2
                                         : 1);
  }
  int blocks(int rows) const { return (rows + block_rows - 1) / block_rows; }
  // First row of a block: rows are shared out evenly, so that no block is left with a row or two.
  int block_begin(int block, int rows) const { return block * rows / blocks(rows); }
  // Size of one block's rounded activations, which never overlap more than dense rows would.
  int plane_bytes() const { return (block_rows * k + 2 * kLine - 1) / kLine * kLine; }
  std::ptrdiff_t rounded_bytes() const { return kLine + static_cast<std::ptrdiff_t>(planes) * plane_bytes(); }
  static constexpr int kLine = 64;
};

// One block of activations in bytes, a = scale * (byte - zero) or, with two planes, scale * (256 * (byte_0 -
// zero[0]) + byte_1 - zero[1]). The planes follow one line later, each laid out as the activations are.
struct RoundedBlock {
  float scale;
  std::int32_t zero[2];
};

// Y = activation(A W + bias + residual) for rows whose memory may overlap: row t of A is a[t * a_stride
// ..][k]. So a convolution over channels-last rows is a stride, not a copy. Outputs and residual are dense
// [rows][n].
struct GemmCall {
  PackedMatrix w;
  const float* a = nullptr;
  std::ptrdiff_t a_stride = 0;  // at most k
  int rows = 0;
  const float* residual = nullptr;  // may be `raw` itself
  float* raw = nullptr;             // before the activation; may be null
  float* activated = nullptr;       // after it; may be null
  std::uint8_t* rounded = nullptr;  // scratch where w.planes > 0: [blocks][rounded_bytes], 64-byte aligned
  Activation activation = Activation::kNone;

  RoundedBlock* rounded_block(int block) const {
    return reinterpret_cast<RoundedBlock*>(rounded + block * w.rounded_bytes());
  }
  std::uint8_t* rounded_plane(int block, int plane) const {
    return rounded + block * w.rounded_bytes() + PackedMatrix::kLine +
           static_cast<std::ptrdiff_t>(plane) * w.plane_bytes();
  }
  // Floats from the first row of a block to the end of its last.
  std::ptrdiff_t block_span(int block) const {
    const int rows_here = w.block_begin(block + 1, rows) - w.block_begin(block, rows);
    return (rows_here - 1) * a_stride + w.k;
  }
};

// The part of a GemmCall that one thread does.
struct GemmPart {
  int panel_begin = 0;
  int panel_end = 0;
  int block_begin = 0;
  int block_end = 0;
};

constexpr int kKeyBlock = 16;

// One head, `queries` rows: softmax(q k) v over a ring of `capacity` slots.
struct AttendCall {
  const float* q = nullptr;  // [queries] rows, q_stride apart, already scaled
  std::ptrdiff_t q_stride = 0;
  Format format = Format::kFloat32;  // of keys and values: kFloat32 or kFloat16
  const void* keys = nullptr;        // [capacity / 16][head_dim][16]
  const void* values = nullptr;      // [capacity][value_stride], zero past head_dim
  int head_dim = 0;
  int value_stride = 0;  // head_dim rounded up to 16
  int capacity = 0;      // a multiple of 16
  int used = 0;          // slots that may hold a key, a multiple of 16
  int queries = 0;
  const int* first_slot = nullptr;  // [queries] oldest visible slot
  const int* visible = nullptr;     // [queries] how many slots follow it, around the ring
  float* scores = nullptr;          // scratch [queries][capacity]
  float* out = nullptr;             // [queries] rows, out_stride apart
  std::ptrdiff_t out_stride = 0;
};

struct Kernels {
  const char* name;
  int narrow_panel;  // panel width for 1 or 2 rows, where reading the weights is the whole cost
  int tall_panel;    // panel width for more rows
  int tall_rows;     // rows a tall kernel holds in registers
  bool has_float28;  // multiplies narrow panels of that format
  void (*gemm)(const GemmCall& call, const GemmPart& part);
  // Rounds one block of activations into call.rounded, before any gemm of that block; null where this
  // instruction set has no integer products.
  void (*round)(const GemmCall& call, int block);
  void (*attend)(const AttendCall& call);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* out, int rows, int n);
  // Index of the smallest value, the first of equals.
  int (*argmin)(const float* x, int n);
  // For ceilings: `rounds` of multiply-adds in registers, returns how many operations that is; and a plain
  // read.
  double (*multiply_adds)(int rounds);
  float (*read)(const float* x, std::size_t n);
};

constexpr int kNarrowRows = 2;

const Kernels* scalar_kernels();
#ifdef DUOLOGUE_X86
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512vnni_kernels();
#endif
#ifdef DUOLOGUE_NEON
const Kernels* neon_kernels();
const Kernels* neondot_kernels();
#endif

}  // namespace duologue
