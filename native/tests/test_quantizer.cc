// The search through bytes against every distance in double precision.
#include "quantizer.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "arena.h"
#include "check.h"
#include "duologue/isa.h"
#include "packer.h"
#include "safetensors.h"

using namespace duologue;
using duologue_test::gaussian;

namespace {

constexpr int kWidth = 40;
constexpr int kBins = 300;
constexpr int kCodebooks = 3;
constexpr int kVectors = 200;

std::vector<float> identity(int n) {
  std::vector<float> values(static_cast<std::size_t>(n) * n, 0.0F);
  for (int i = 0; i < n; ++i) values[static_cast<std::size_t>(i) * n + i] = 1.0F;
  return values;
}

// Centroids in clusters of eight that differ by `spread`, one dead one, and some with a value far larger than
// the rest, which makes the steps of their bytes coarse.
std::vector<float> clustered(unsigned seed, float spread) {
  const std::vector<float> middles = gaussian(kBins * kWidth, seed);
  std::vector<float> centroids = gaussian(kBins * kWidth, seed + 1, spread);
  for (int i = 0; i < kBins; ++i) {
    for (int c = 0; c < kWidth; ++c) centroids[i * kWidth + c] += middles[i / 8 * kWidth + c];
    if (i % 50 == 7) centroids[i * kWidth + i % kWidth] *= 10.0F;
  }
  std::fill(centroids.begin() + kWidth, centroids.begin() + 2 * kWidth, 0.0F);
  return centroids;
}

double distance(const float* x, const float* centroid) {
  double sum = 0.0;
  for (int c = 0; c < kWidth; ++c) {
    const double difference = static_cast<double>(x[c]) - centroid[c];
    sum += difference * difference;
  }
  return sum;
}

// How much nearer than the code's another centroid is, at most.
double lost(const std::vector<float>& centroids, const float* x, int code) {
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kBins; ++i) least = std::min(least, distance(x, centroids.data() + i * kWidth));
  return distance(x, centroids.data() + code * kWidth) - least;
}

// Returns how often the bytes alone would have been wrong.
int check_search(const Kernels& kernels, float spread, float size) {
  std::vector<std::vector<float>> codebooks;
  for (unsigned i = 0; i < kCodebooks; ++i) codebooks.push_back(clustered(10 * i + 1, spread));
  const std::vector<float> same = identity(2 * kWidth);
  QuantizerLayers layers;
  Arena arena;
  const SafetensorsFile none;
  Packer packer(none, kernels);
  for (int pass = 0; pass < 2; ++pass) {
    layers = {};
    layers.input = packer.linear(2 * kWidth, 2 * kWidth, 1, same.data(), {});
    for (const std::vector<float>& centroids : codebooks)
      layers.codebooks.push_back(
          packer.codebook(kWidth, kBins, pass == 0 ? std::vector<float>() : centroids));
    if (pass > 0) break;
    CHECK(arena.allocate(packer.bytes()));
    packer.start_packing(arena.data());
  }
  MimiConfig config;
  config.codebook_dim = kWidth;
  config.cardinality = kBins;
  Workspace workspace;
  Runner runner;
  CHECK(runner.start(kernels, 1, packer.rounded_bytes(), &workspace));
  Quantizer quantizer;
  quantizer.build(&workspace, config, layers);
  const double allowed = 1e-4;  // |c|^2 / 2, up to some hundreds, is kept as a float
  int changed = 0;
  for (unsigned i = 0; i < kVectors; ++i) {
    const std::vector<float> latent = gaussian(2 * kWidth, 1000 + i, size);
    int32_t codes[kCodebooks];
    quantizer.encode(&runner, latent.data(), codes);
    CHECK(lost(codebooks[0], latent.data(), codes[0]) <= allowed);
    std::vector<float> residual(latent.begin() + kWidth, latent.end());
    for (int level = 1; level < kCodebooks; ++level) {
      const std::vector<float>& centroids = codebooks[static_cast<std::size_t>(level)];
      CHECK(lost(centroids, residual.data(), codes[level]) <= allowed);
      for (int c = 0; c < kWidth; ++c) residual[c] -= centroids[codes[level] * kWidth + c];
    }
    std::vector<float> rough(kBins);
    GemmCall call;
    call.w = layers.codebooks[0].rough;
    call.a = latent.data();
    call.a_stride = kWidth;
    call.rows = 1;
    call.raw = rough.data();
    runner.gemm(call);
    changed += kernels.argmin(rough.data(), kBins) != codes[0];
  }
  return changed;
}

}  // namespace

int main() {
  for (const std::string& isa : available_isas()) {
    const Kernels* kernels = nullptr;
    CHECK(select_kernels(isa, &kernels).ok());
    int changed = 0;
    for (float spread : {1.0F, 0.1F, 1e-3F}) {
      for (float size : {1.0F, 1e-3F, 50.0F}) changed += check_search(*kernels, spread, size);
    }
    CHECK(changed > 100);
  }
  return duologue_test::report();
}
