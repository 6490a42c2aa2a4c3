#include "runner.h"

#include <algorithm>

namespace duologue {
namespace {

// Below this many multiply-adds a second thread costs more than it brings.
constexpr double kMinShared = 100e3;

// Few enough that each is worth claiming, many enough that two threads end together; a chunk of weights
// begins with a cold read, so it should be long.
constexpr int kChunks = 12;
constexpr std::ptrdiff_t kMinChunkBytes = 160 * 1024;

struct SharedGemm {
  const Kernels* kernels;
  const GemmCall* call;
  int chunks;
  bool by_rows;
};

// Many rows are split by rows: the thread that wrote them then reads them in the next layer. Few rows are
// split by panels, so that every weight is read once.
void gemm_chunk(const void* context, int chunk) {
  const auto& job = *static_cast<const SharedGemm*>(context);
  const int panels = job.call->w.panels();
  const int blocks = job.call->w.blocks(job.call->rows);
  const int whole = job.by_rows ? blocks : panels;
  const int begin = chunk * whole / job.chunks;
  const int end = (chunk + 1) * whole / job.chunks;
  job.kernels->gemm(*job.call,
                    job.by_rows ? GemmPart{0, panels, begin, end} : GemmPart{begin, end, 0, blocks});
}

void round_chunk(const void* context, int chunk) {
  const auto& job = *static_cast<const SharedGemm*>(context);
  job.kernels->round(*job.call, chunk);
}

}  // namespace

bool Runner::start(const Kernels& kernels, int threads, std::size_t rounded_bytes, Workspace* workspace) {
  kernels_ = &kernels;
  rounded_ = reinterpret_cast<std::uint8_t*>(workspace->scratch(rounded_bytes / sizeof(float)));
  return team_.start(threads);
}

void Runner::gemm(GemmCall call) {
  const int panels = call.w.panels();
  const int blocks = call.w.blocks(call.rows);
  const double work = static_cast<double>(call.w.k) * call.w.n * call.rows;
  figures().multiply_adds += work;
  figures().bytes += static_cast<std::size_t>(panels) * static_cast<std::size_t>(call.w.panel_bytes());
  call.rounded = rounded_;
  if (team_.threads() == 1 || work < kMinShared) {
    for (int block = 0; call.w.planes > 0 && block < blocks; ++block) kernels_->round(call, block);
    kernels_->gemm(call, {0, panels, 0, blocks});
    return;
  }
  SharedGemm job{kernels_, &call, 0, blocks >= kChunks};
  const int wanted = static_cast<int>(panels * call.w.panel_bytes() / kMinChunkBytes);
  job.chunks = job.by_rows ? kChunks : std::min(panels, std::max(2, std::min(kChunks, wanted)));
  if (call.w.planes > 0) team_.run(blocks, round_chunk, &job);
  team_.run(job.chunks, gemm_chunk, &job);
}

void Runner::start_clock() {
  stages_ = {};
  is_timed_ = true;
  since_ = std::chrono::steady_clock::now();
}

void Runner::enter(Stage stage) {
  if (is_timed_) {
    const auto now = std::chrono::steady_clock::now();
    figures().seconds += std::chrono::duration<double>(now - since_).count();
    since_ = now;
  }
  stage_ = stage;
}

}  // namespace duologue
