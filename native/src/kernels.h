// The table every instruction set fills in, and the packed layouts it works on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace duologue {

enum class Activation : int { kNone, kElu, kGelu };

// A matrix [k][n] as panels [ceil(n / panel)][k][panel]: one panel is read front to back, once. Columns past
// n are 0.
struct PackedMatrix {
  const float* data = nullptr;
  const float* bias = nullptr;  // [panels * panel] or null
  int k = 0;
  int n = 0;
  int panel = 0;

  int panels() const { return (n + panel - 1) / panel; }
};

// Y = activation(A W + bias + residual) for rows whose memory may overlap: row t of A is a[t * a_stride
// ..][k]. So a convolution over channels-last rows is a stride, not a copy. Outputs and residual are dense
// [rows][n].
struct GemmCall {
  PackedMatrix w;
  const float* a = nullptr;
  std::ptrdiff_t a_stride = 0;
  int rows = 0;
  const float* residual = nullptr;  // may be `raw` itself
  float* raw = nullptr;             // before the activation; may be null
  float* activated = nullptr;       // after it; may be null
  Activation activation = Activation::kNone;
};

// The part of a GemmCall that one thread does.
struct GemmPart {
  int panel_begin = 0;
  int panel_end = 0;
  int row_begin = 0;
  int row_end = 0;
};

constexpr int kKeyBlock = 16;

// One head, `queries` rows: softmax(q k) v over a ring of `capacity` slots.
struct AttendCall {
  const float* q = nullptr;  // [queries] rows, q_stride apart, already scaled
  std::ptrdiff_t q_stride = 0;
  const float* keys = nullptr;    // [capacity / 16][head_dim][16]
  const float* values = nullptr;  // [capacity][value_stride], zero past head_dim
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
  void (*gemm)(const GemmCall& call, const GemmPart& part);
  void (*attend)(const AttendCall& call);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* out, int rows, int n);
  // Index of the smallest value, the first of equals.
  int (*argmin)(const float* x, int n);
};

constexpr int kNarrowRows = 2;

const Kernels* scalar_kernels();
#ifdef DUOLOGUE_X86
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
#endif
#ifdef DUOLOGUE_NEON
const Kernels* neon_kernels();
#endif

}  // namespace duologue
