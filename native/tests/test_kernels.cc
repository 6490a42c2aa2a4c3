// Every instruction set that this processor has against definitions written out in double precision.
#include <algorithm>
#include <string>

#include "arena.h"
#include "check.h"
#include "duologue/isa.h"
#include "half.h"
#include "kernels.h"
#include "packer.h"
#include "safetensors.h"

using namespace duologue;
using duologue_test::gaussian;

namespace {

// A matrix packed by the packer itself, for up to `rows` rows.
struct Packed {
  Arena arena;
  PackedMatrix matrix;
};

Packed pack(const Kernels& kernels, const std::vector<float>& w, const std::vector<float>& bias, int k, int n,
            int rows, Storage storage) {
  SourceLayout source;
  source.base = w.data();
  source.inner_k = k;
  source.inner_n = n;
  source.inner_k_step = n;
  source.inner_n_step = 1;
  const SafetensorsFile none;
  Packer packer(none, kernels);
  packer.matrix(k, n, rows, source, bias.data(), n, storage);
  Packed packed;
  CHECK(packed.arena.allocate(packer.bytes()));
  packer.start_packing(packed.arena.data());
  packed.matrix = packer.matrix(k, n, rows, source, bias.data(), n, storage);
  return packed;
}

// Rounds where the format asks for it, then multiplies.
void run(const Kernels& kernels, GemmCall call) {
  Arena rounded;
  const int blocks = call.w.blocks(call.rows);
  CHECK(rounded.allocate(static_cast<std::size_t>(blocks * call.w.rounded_bytes())));
  call.rounded = static_cast<std::uint8_t*>(rounded.data());
  for (int block = 0; call.w.planes > 0 && block < blocks; ++block) kernels.round(call, block);
  kernels.gemm(call, {0, call.w.panels(), 0, blocks});
}

double activate(Activation kind, double x) {
  if (kind == Activation::kElu) return x > 0.0 ? x : std::expm1(x);
  if (kind == Activation::kGelu) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  return x;
}

struct Tolerance {
  Storage storage;
  double to_exact;   // of the product with the weights before they were packed
  double to_scalar;  // with the same packed weights; a rounded activation may fall to the next step
};

const Tolerance kTolerances[] = {
    {{Format::kFloat32, 0}, 2e-5, 2e-5}, {{Format::kFloat16, 0}, 2e-3, 2e-5},
    {{Format::kInt8, 0}, 0.04, 2e-5},    {{Format::kInt8, 1}, 0.08, 6e-3},
    {{Format::kInt8, 2}, 0.04, 1e-4},
};

void check_gemm(const Kernels& kernels, int rows, int k, int n, int stride, Activation kind,
                const Tolerance& tolerance) {
  const std::vector<float> a = gaussian(static_cast<std::size_t>(rows - 1) * stride + k, 1);
  const std::vector<float> w =
      gaussian(static_cast<std::size_t>(k) * n, 2, 1.0F / std::sqrt(static_cast<float>(k)));
  const std::vector<float> bias = gaussian(static_cast<std::size_t>(n), 3);
  const std::vector<float> residual = gaussian(static_cast<std::size_t>(rows) * n, 4);
  const Kernels& scalar = *duologue::scalar_kernels();
  const Packed packed = pack(kernels, w, bias, k, n, rows, tolerance.storage);
  Storage same = tolerance.storage;
  same.planes = packed.matrix.planes;
  Packed plain = pack(scalar, w, bias, k, n, rows, same);
  plain.matrix.block_rows = packed.matrix.block_rows;
  std::vector<float> raw(residual.size() + 1, -7.0F);
  std::vector<float> activated(residual.size() + 1, -7.0F);
  std::vector<float> expected_raw(residual.size());
  GemmCall call;
  call.w = packed.matrix;
  call.a = a.data();
  call.a_stride = stride;
  call.rows = rows;
  call.residual = residual.data();
  call.raw = raw.data();
  call.activated = activated.data();
  call.activation = kind;
  run(kernels, call);
  call.w = plain.matrix;
  call.raw = expected_raw.data();
  call.activated = nullptr;
  run(scalar, call);
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < n; ++column) {
      const int at = row * n + column;
      double expected = static_cast<double>(bias[column]) + residual[at];
      for (int i = 0; i < k; ++i) expected += static_cast<double>(a[row * stride + i]) * w[i * n + column];
      CHECK_NEAR(raw[at], expected, tolerance.to_exact);
      CHECK_NEAR(raw[at], expected_raw[at], tolerance.to_scalar);
      CHECK_NEAR(activated[at], activate(kind, raw[at]), 2e-6);
    }
  }
  CHECK(raw.back() == -7.0F && activated.back() == -7.0F);
}

// Weights and activations of any size keep their relative precision, and nothing wraps around.
void check_extremes(const Kernels& kernels, Storage storage) {
  const int k = 8;
  for (float size : {1e-30F, 1e-6F, 1.0F, 1e6F, 1e15F}) {
    for (float offset : {-1.0F, 0.0F, 1.0F}) {
      std::vector<float> w = gaussian(k, 12, size);
      std::vector<float> a = gaussian(k, 13, size);
      for (float& x : a) x = std::fabs(x) * offset;
      const std::vector<float> bias(1, 0.0F);
      const Packed packed = pack(kernels, w, bias, k, 1, 1, storage);
      float raw = -7.0F;
      GemmCall call;
      call.w = packed.matrix;
      call.a = a.data();
      call.a_stride = k;
      call.rows = 1;
      call.raw = &raw;
      run(kernels, call);
      double expected = 0.0;
      double magnitude = 1e-37;
      for (int i = 0; i < k; ++i) {
        expected += static_cast<double>(a[i]) * w[i];
        magnitude += std::fabs(static_cast<double>(a[i]) * w[i]);
      }
      // Below the smallest step that rounding knows, activations vanish.
      const bool vanishes = size < 1e-20F;
      CHECK_NEAR(raw, expected, vanishes ? 1e-37 : 0.02 * magnitude);
    }
  }
}

// What is stored in 28 bits is every float32 as it was, and a panel of too many exponents stays as it is.
void check_float28(const Kernels& kernels, int k) {
  const int n = 130;  // the last panel is not full
  for (const bool is_wild : {false, true}) {
    std::vector<float> w = gaussian(static_cast<std::size_t>(k) * n, 14);
    w[3] = 0.0F;
    w[5] = -0.0F;
    for (const int place : {7, 64, 65, k * n / 2, k * n - 1}) w[place] *= 1e-9F;
    w[9] = -3e-42F;
    w[k * n - 2] = 1e-45F;
    for (std::size_t i = 0; is_wild && i < w.size(); i += 100) w[i] *= 1e20F;
    const std::vector<float> bias(n, 0.0F);
    for (const int rows : {1, 2}) {
      const Packed packed = pack(kernels, w, bias, k, n, rows, {});
      const bool is_short = kernels.has_float28 && !is_wild && k > 2;
      CHECK((packed.matrix.format == Format::kFloat28) == is_short);
      std::vector<float> a(static_cast<std::size_t>(rows) * k);
      std::vector<float> raw(static_cast<std::size_t>(rows) * n);
      GemmCall call;
      call.w = packed.matrix;
      call.a = a.data();
      call.a_stride = k;
      call.rows = rows;
      call.raw = raw.data();
      for (int i = 0; i < k; ++i) {
        for (int row = 0; row < rows; ++row) a[row * k + (i + row) % k] = 1.0F;
        run(kernels, call);
        for (int row = 0; row < rows; ++row) {
          for (int column = 0; column < n; ++column)
            CHECK(raw[row * n + column] == w[(i + row) % k * n + column]);
          a[row * k + (i + row) % k] = 0.0F;
        }
      }
    }
  }
}

// Rounds to halves and returns them.
std::vector<std::uint16_t> narrowed(std::vector<float>* values) {
  std::vector<std::uint16_t> halves;
  for (float& value : *values) {
    halves.push_back(duologue::half_from_float(value));
    value = duologue::half_to_float(halves.back());
  }
  return halves;
}

void check_attend(const Kernels& kernels, Format cache, int queries, int head_dim, int capacity, int used,
                  int first, int visible) {
  const int value_stride = (head_dim + 15) / 16 * 16;
  const std::vector<float> q = gaussian(static_cast<std::size_t>(queries) * head_dim, 5, 0.3F);
  std::vector<float> keys = gaussian(static_cast<std::size_t>(capacity) * head_dim, 6);
  std::vector<float> values = gaussian(static_cast<std::size_t>(capacity) * value_stride, 7);
  std::vector<float> scores(static_cast<std::size_t>(queries) * capacity);
  std::vector<float> out(static_cast<std::size_t>(queries) * head_dim);
  const std::vector<int> firsts(static_cast<std::size_t>(queries), first);
  std::vector<int> counts;
  for (int i = 0; i < queries; ++i) counts.push_back(visible - (i == 0 && visible > 1 ? 1 : 0));
  AttendCall call;
  call.q = q.data();
  call.q_stride = head_dim;
  call.format = cache;
  call.keys = keys.data();
  call.values = values.data();
  std::vector<std::uint16_t> half_keys;
  std::vector<std::uint16_t> half_values;
  if (cache == Format::kFloat16) {
    half_keys = narrowed(&keys);
    half_values = narrowed(&values);
    call.keys = half_keys.data();
    call.values = half_values.data();
  }
  call.head_dim = head_dim;
  call.value_stride = value_stride;
  call.capacity = capacity;
  call.used = used;
  call.queries = queries;
  call.first_slot = firsts.data();
  call.visible = counts.data();
  call.scores = scores.data();
  call.out = out.data();
  call.out_stride = head_dim;
  kernels.attend(call);
  for (int query = 0; query < queries; ++query) {
    std::vector<double> weights(static_cast<std::size_t>(counts[query]));
    double total = 0.0;
    for (int i = 0; i < counts[query]; ++i) {
      const int slot = (first + i) % capacity;
      double score = 0.0;
      for (int d = 0; d < head_dim; ++d) {
        score +=
            static_cast<double>(q[query * head_dim + d]) * keys[(slot / 16 * head_dim + d) * 16 + slot % 16];
      }
      weights[i] = std::exp(score);
      total += weights[i];
    }
    for (int d = 0; d < head_dim; ++d) {
      double expected = 0.0;
      for (int i = 0; i < counts[query]; ++i) {
        expected += weights[i] / total * values[(first + i) % capacity * value_stride + d];
      }
      CHECK_NEAR(out[query * head_dim + d], expected, 2e-6);
    }
  }
}

void check_layer_norm(const Kernels& kernels, int rows, int n) {
  const std::vector<float> x = gaussian(static_cast<std::size_t>(rows) * n, 8, 3.0F);
  const std::vector<float> weight = gaussian(static_cast<std::size_t>(n), 9);
  const std::vector<float> bias = gaussian(static_cast<std::size_t>(n), 10);
  std::vector<float> out(x.size());
  kernels.layer_norm(x.data(), weight.data(), bias.data(), out.data(), rows, n);
  for (int row = 0; row < rows; ++row) {
    double mean = 0.0;
    double variance = 0.0;
    for (int i = 0; i < n; ++i) mean += x[row * n + i] / static_cast<double>(n);
    for (int i = 0; i < n; ++i) variance += std::pow(x[row * n + i] - mean, 2) / n;
    for (int i = 0; i < n; ++i) {
      const double expected = (x[row * n + i] - mean) / std::sqrt(variance + 1e-5) * weight[i] + bias[i];
      CHECK_NEAR(out[row * n + i], expected, 1e-5);
    }
  }
}

void check_activations(const Kernels& kernels) {
  const int n = 4001;
  std::vector<float> x(n);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(i - 2000) * 0.05F;
  for (Activation kind : {Activation::kElu, Activation::kGelu}) {
    const float one = 1.0F;
    const Packed packed = pack(kernels, x, std::vector<float>(n, 0.0F), 1, n, 1, {});
    std::vector<float> out(n);
    GemmCall call;
    call.w = packed.matrix;
    call.a = &one;
    call.a_stride = 1;
    call.rows = 1;
    call.activated = out.data();
    call.activation = kind;
    run(kernels, call);
    for (int i = 0; i < n; ++i)
      CHECK_NEAR(out[i], activate(kind, x[i]), 3e-7 * std::fmax(1.0, std::fabs(x[i])));
  }
}

void check_argmin(const Kernels& kernels) {
  for (int n : {1, 2, 7, 16, 33, 2048}) {
    std::vector<float> x = gaussian(static_cast<std::size_t>(n), 11);
    CHECK(kernels.argmin(x.data(), n) == std::min_element(x.begin(), x.end()) - x.begin());
    x[n - 1] = -100.0F;
    CHECK(kernels.argmin(x.data(), n) == n - 1);
    x[n / 3] = -100.0F;
    CHECK(kernels.argmin(x.data(), n) == n / 3);
  }
}

}  // namespace

int main() {
  for (const std::string& name : duologue::available_isas()) {
    std::printf("%s\n", name.c_str());
    const Kernels* kernels = nullptr;
    CHECK(duologue::select_kernels(name, &kernels).ok());
    for (const Tolerance& tolerance : kTolerances) {
      for (int rows : {1, 2, 3, 5, 11, 12, 13, 16, 25, 96}) {
        for (int n : {1, 15, 32, 33, 130, 257}) {
          check_gemm(*kernels, rows, 23, n, 7, Activation::kElu, tolerance);
          check_gemm(*kernels, rows, 64, n, 64, Activation::kGelu, tolerance);
        }
      }
      check_extremes(*kernels, tolerance.storage);
    }
    for (int k : {2, 64, 512}) check_float28(*kernels, k);
    for (Format cache : {Format::kFloat32, Format::kFloat16}) {
      for (int queries : {1, 2, 3}) {
        check_attend(*kernels, cache, queries, 64, 256, 256, 200, 250);
        check_attend(*kernels, cache, queries, 64, 256, 256, 3, 251);
        check_attend(*kernels, cache, queries, 6, 32, 32, 31, 20);
        check_attend(*kernels, cache, queries, 20, 96, 16, 0, 3);
        check_attend(*kernels, cache, queries, 32, 96, 80, 0, 70);
      }
    }
    for (int n : {1, 8, 36, 512}) check_layer_norm(*kernels, 2, n);
    check_activations(*kernels);
    check_argmin(*kernels);
  }
  const Kernels* kernels = nullptr;
  CHECK(!duologue::select_kernels("mmx", &kernels).ok());
  return duologue_test::report();
}
