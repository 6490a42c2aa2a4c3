#include "team.h"

#include <algorithm>
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
constexpr int kFinishSpins = 2000;
// Below this many multiply-adds a second thread costs more than it brings.
constexpr double kMinShared = 100e3;

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

struct SharedGemm {
  const Kernels* kernels;
  const GemmCall* call;
  int row_groups;
  int group_rows;
};

void gemm_chunk(const void* context, int chunk) {
  const auto& job = *static_cast<const SharedGemm*>(context);
  GemmPart part;
  part.panel_begin = chunk / job.row_groups;
  part.panel_end = part.panel_begin + 1;
  part.row_begin = chunk % job.row_groups * job.group_rows;
  part.row_end = std::min(part.row_begin + job.group_rows, job.call->rows);
  job.kernels->gemm(*job.call, part);
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
  if (threads_ == 1 || chunks == 1 || is_forked()) {
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
  for (int spins = 0; done_.load(std::memory_order_acquire) != chunks; ++spins) {
    if (spins < kFinishSpins) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

void Team::work_loop() {
  while (!stopping_.load()) {
    for (int spins = 0; spins < kIdleSpins; ++spins) {
      if (claim(false)) spins = 0;
      relax();
    }
    std::unique_lock<std::mutex> lock(worker_->mutex);
    sleeping_.store(true);
    worker_->wakeup.wait(lock, [this] { return stopping_.load() || has_work(); });
    sleeping_.store(false);
  }
}

void run_gemm(const Kernels& kernels, Team* team, const GemmCall& call) {
  const int panels = call.w.panels();
  const double work = static_cast<double>(call.w.k) * call.w.n * call.rows;
  if (team->threads() == 1 || work < kMinShared) {
    kernels.gemm(call, {0, panels, 0, call.rows});
    return;
  }
  SharedGemm job{&kernels, &call, 1, call.rows};
  // With few panels the rows are split too, in whole register blocks.
  const int blocks = (call.rows + kernels.tall_rows - 1) / kernels.tall_rows;
  const int wanted = std::min(blocks, std::max(1, 16 / panels));
  job.group_rows = (blocks + wanted - 1) / wanted * kernels.tall_rows;
  job.row_groups = (call.rows + job.group_rows - 1) / job.group_rows;
  team->run(panels * job.row_groups, gemm_chunk, &job);
}

}  // namespace duologue
