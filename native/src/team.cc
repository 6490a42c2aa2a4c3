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
// A chunk takes tens of microseconds: a longer wait for one is a wait for a thread that lost its processor.
constexpr int kFinishSpins = 2000;
constexpr auto kMostCredit = std::chrono::milliseconds(5);
// Jobs that a useless worker rests, a frame or two at first and twice as many each time it is useless again
// within as many: a neighbour that never rests costs a stall in some dozens of frames.
constexpr int kFirstRest = 200;
constexpr int kLongestRest = 8000;

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
  const auto begin = Clock::now();
  int own = 0;
  while (claim(true)) ++own;
  const auto end = Clock::now();
  finish(chunks);
  // A third of what the chunks of the worker would have taken here: two threads share the memory.
  credit_ = std::min<Clock::duration>(credit_ + (end - begin) * (chunks - own) / (3 * std::max(own, 1)),
                                      kMostCredit);
}

void Team::finish(int chunks) {
  for (int spins = 0; spins < kFinishSpins; ++spins) {
    if (done_.load(std::memory_order_acquire) == chunks) return;
    relax();
  }
  const auto since = Clock::now();
  while (done_.load(std::memory_order_acquire) != chunks) std::this_thread::yield();
  credit_ -= Clock::now() - since;
  if (credit_ >= Clock::duration::zero()) return;
  credit_ = Clock::duration::zero();
  rest_ = jobs_since_rest_ < rest_ ? std::min(2 * rest_, kLongestRest) : kFirstRest;
  jobs_to_rest_ = rest_;
  jobs_since_rest_ = 0;
}

bool Team::is_resting() {
  if (jobs_to_rest_ > 0) {
    --jobs_to_rest_;
    return true;
  }
  jobs_since_rest_ = std::min(jobs_since_rest_ + 1, kLongestRest);
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
