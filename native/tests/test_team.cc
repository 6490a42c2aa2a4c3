// Chunks are done exactly once, whoever does them, however often the worker falls asleep.
#include <atomic>
#include <chrono>
#include <thread>

#include "check.h"
#include "team.h"

namespace {

constexpr int kChunks = 37;

struct Counts {
  std::atomic<int> done[kChunks];
};

void count(const void* context, int chunk) {
  const_cast<Counts*>(static_cast<const Counts*>(context))->done[chunk].fetch_add(1);
}

}  // namespace

int main() {
  for (int threads : {1, 2}) {
    duologue::Team team;
    CHECK(team.start(threads));
    CHECK(team.threads() == threads);
    for (int round = 0; round < 3000; ++round) {
      Counts counts{};
      const int chunks = 1 + round % kChunks;
      team.run(chunks, count, &counts);
      for (int i = 0; i < kChunks; ++i) CHECK(counts.done[i].load() == (i < chunks ? 1 : 0));
      if (round % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  return duologue_test::report();
}
