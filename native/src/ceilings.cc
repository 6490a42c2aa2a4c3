#include "duologue/ceilings.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "arena.h"
#include "kernels.h"

namespace duologue {
namespace {

constexpr std::size_t kReadBytes = std::size_t{192} << 20;
constexpr int kRounds = 1 << 18;
constexpr int kTries = 6;

template <typename Work>
double best_seconds(Work work) {
  double best = 1e9;
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

Ceilings measure_ceilings(const Kernels& kernels) {
  Ceilings found{};
  double operations = 0.0;
  found.gflop_s = best_seconds([&] { operations = kernels.multiply_adds(kRounds); });
  found.gflop_s = operations / found.gflop_s / 1e9;
  Arena arena;
  if (!arena.allocate(kReadBytes)) return found;
  std::memset(arena.data(), 1, kReadBytes);
  const double seconds =
      best_seconds([&] { kernels.read(static_cast<const float*>(arena.data()), kReadBytes / 4); });
  found.gb_s = static_cast<double>(kReadBytes) / seconds / 1e9;
  return found;
}

}  // namespace duologue
