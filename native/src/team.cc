#include "team.h"

#include <algorithm>
#include <chrono>
#include <system_error>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace duologue {
namespace {

constexpr int kIdleSpins = 4000;
// A chunk takes tens of microseconds. Whoever waits longer than this for one waits for a thread that has lost
// its processor, and is better off alone for a while: some dozens of frames, more each time it happens again
// soon.
constexpr int kFinishSpins = 2000;
constexpr auto kStall = std::chrono::microseconds(300);
constexpr int kFirstRest = 8000;
constexpr int kLongestRest = 64000;
constexpr int kForgetAfter = 20000;
void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

long process_id() {
#if defined(__unix__) || defined(__APPLE__)
  return static_cast<long>(getpid());
#else
  return 0;  // no fork, one process
#endif
}

std::uint64_t front_of(std::uint64_t range) {
  return range >> 16 & 0xFFFFU;
}
std::uint64_t back_of(std::uint64_t range) {
  return range & 0xFFFFU;
}

}  // namespace

Team::Team() : next_rest_(kFirstRest) {}

Team::~Team() {
  if (threads_ == 1) return;
  if (is_forked()) {
    // Neither the thread nor what it slept on can be destroyed without waiting for it for ever.
    (void)worker_.release();
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(worker_->mutex);
    stopping_.store(true);
  }
  worker_->wakeup.notify_one();
  worker_->thread.join();
}

bool Team::start(int threads) {
  if (threads <= 1) return true;
  worker_ = std::make_unique<Worker>();
  try {
    worker_->thread = std::thread([this] { work_loop(); });
  } catch (const std::system_error&) {
    return false;
  }
  process_ = process_id();
  threads_ = 2;
  return true;
}

bool Team::is_forked() const {
  return process_ != process_id();
}

bool Team::has_work() const {
  const std::uint64_t range = range_.load();
  return front_of(range) < back_of(range);
}

bool Team::claim(bool from_front) {
  std::uint64_t range = range_.load(std::memory_order_acquire);
  while (front_of(range) < back_of(range)) {
    const Chunk work = work_.load(std::memory_order_relaxed);
    const void* context = context_.load(std::memory_order_relaxed);
    const std::uint64_t next = from_front ? range + (std::uint64_t{1} << 16) : range - 1;
    if (range_.compare_exchange_weak(range, next, std::memory_order_acq_rel)) {
      work(context, static_cast<int>(from_front ? front_of(range) : back_of(range) - 1));
      done_.fetch_add(1, std::memory_order_release);
      return true;
    }
  }
  return false;
}

void Team::wake() {
  if (!sleeping_.exchange(false)) return;
  {
    const std::lock_guard<std::mutex> lock(worker_->mutex);
  }
  worker_->wakeup.notify_one();
}

void Team::run(int chunks, Chunk work, const void* context) {
  if (threads_ == 1 || chunks == 1 || is_resting() || is_forked()) {
    for (int chunk = 0; chunk < chunks; ++chunk) work(context, chunk);
    return;
  }
  work_.store(work, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  const std::uint64_t generation = (range_.load(std::memory_order_relaxed) >> 32) + 1;
  range_.store(generation << 32 | static_cast<std::uint64_t>(chunks));
  wake();
  while (claim(true)) {
  }
  finish(chunks);
}

void Team::finish(int chunks) {
  for (int spins = 0; spins < kFinishSpins; ++spins) {
    if (done_.load(std::memory_order_acquire) == chunks) return;
    relax();
  }
  const auto since = std::chrono::steady_clock::now();
  while (done_.load(std::memory_order_acquire) != chunks) std::this_thread::yield();
  if (std::chrono::steady_clock::now() - since < kStall) return;
  jobs_to_rest_ = next_rest_;
  next_rest_ = std::min(2 * next_rest_, kLongestRest);
  jobs_since_rest_ = 0;
}

bool Team::is_resting() {
  if (jobs_to_rest_ > 0) {
    --jobs_to_rest_;
    return true;
  }
  if (++jobs_since_rest_ >= kForgetAfter) {
    jobs_since_rest_ = 0;
    next_rest_ = kFirstRest;
  }
  return false;
}

void Team::work_loop() {
  while (!stopping_.load()) {
    for (int spins = 0; spins < kIdleSpins; ++spins) {
      if (claim(false)) spins = 0;
      relax();
    }
    std::unique_lock<std::mutex> lock(worker_->mutex);
    while (!stopping_.load()) {
      // Said anew before every sleep: a caller that was quicker than this thread has taken it back.
      sleeping_.store(true);
      if (has_work()) break;
      worker_->wakeup.wait(lock);
    }
    sleeping_.store(false);
  }
}

}  // namespace duologue
