// Chunks are done exactly once, whoever does them, however often the worker falls asleep.
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "check.h"
#include "team.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

constexpr int kChunks = 37;

struct Counts {
  std::atomic<int> done[kChunks];
};

void count(const void* context, int chunk) {
  const_cast<Counts*>(static_cast<const Counts*>(context))->done[chunk].fetch_add(1);
}

#if defined(__unix__) || defined(__APPLE__)
// Returns whether the child did every chunk once by itself and could take the team apart.
bool is_usable_after_fork() {
  auto team = std::make_unique<duologue::Team>();
  CHECK(team->start(2));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    Counts counts{};
    team->run(kChunks, count, &counts);
    bool is_done = true;
    for (const std::atomic<int>& done : counts.done) is_done = is_done && done.load() == 1;
    team.reset();
    _exit(is_done ? 0 : 1);
  }
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child);
  Counts counts{};
  team->run(kChunks, count, &counts);
  for (const std::atomic<int>& done : counts.done) CHECK(done.load() == 1);
  return status == 0;
}
#endif

}  // namespace

int main() {
#if defined(__unix__) || defined(__APPLE__)
  CHECK(is_usable_after_fork());
#endif
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
