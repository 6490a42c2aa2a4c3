// What every layer of a stream runs on: the kernels, the threads, scratch for rounding and the stage clock.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "duologue/mimi_stream.h"
#include "kernels.h"
#include "team.h"
#include "workspace.h"

namespace duologue {

class Runner {
 public:
  // False when the system starts no second thread.
  bool start(const Kernels& kernels, int threads, std::size_t rounded_bytes, Workspace* workspace);
  const Kernels& kernels() const { return *kernels_; }
  Team& team() { return team_; }

  // One product, shared between the threads.
  void gemm(GemmCall call);

  // Time from here on belongs to `stage`; nothing is measured before the clock is started.
  void enter(Stage stage);
  void start_clock();
  void count_bytes(std::size_t bytes) { figures().bytes += bytes; }
  const StageFigures& figures(Stage stage) const { return stages_[static_cast<std::size_t>(stage)]; }

 private:
  StageFigures& figures() { return stages_[static_cast<std::size_t>(stage_)]; }
  const Kernels* kernels_ = nullptr;
  Team team_;
  std::uint8_t* rounded_ = nullptr;
  bool is_timed_ = false;
  Stage stage_ = Stage::kOutside;
  std::chrono::steady_clock::time_point since_;
  std::array<StageFigures, kStages> stages_{};
};

}  // namespace duologue
