// One or two threads that share the chunks of a step.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

namespace duologue {

// The caller takes chunks from the front, the worker from the back, until they meet: a worker that is not
// scheduled costs nothing, because the caller then does every chunk itself; one that loses its processor in
// the middle of chunks so often that it costs more than it saves is left to rest for many jobs. An idle
// worker spins briefly and then sleeps. In a forked child, where the worker does not exist, the caller is
// alone.
class Team {
 public:
  using Chunk = void (*)(const void* context, int chunk);

  Team() = default;
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // False when the system starts no thread.
  bool start(int threads);
  int threads() const { return threads_; }
  // Returns when every chunk in [0, chunks) is done; chunks < 65536.
  void run(int chunks, Chunk work, const void* context);

 private:
  using Clock = std::chrono::steady_clock;
  bool claim(bool from_front);
  void finish(int chunks);
  bool is_resting();
  void work_loop();
  bool has_work() const;
  void wake();
  bool is_forked() const;

  struct Worker {
    std::thread thread;
    std::mutex mutex;
    std::condition_variable wakeup;
  };

  int threads_ = 1;
  Clock::duration credit_{};  // time the worker saved, less what was spent waiting for it
  int rest_ = 0;              // jobs of the last one
  int jobs_to_rest_ = 0;
  int jobs_since_rest_ = 0;
  long process_ = 0;
  std::unique_ptr<Worker> worker_;
  // generation << 32 | front << 16 | back: one word, so that a late worker cannot take a chunk of a newer
  // job.
  std::atomic<std::uint64_t> range_{0};
  std::atomic<Chunk> work_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<int> done_{0};
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> stopping_{false};
};

}  // namespace duologue
