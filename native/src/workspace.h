// Memory of one stream: taken once at creation, with the parts that a snapshot must hold marked.
#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>
#include <vector>

#include "arena.h"

namespace duologue {

class Workspace {
 public:
  struct Region {
    void* data;
    std::size_t bytes;
  };

  // Zeroed scratch. Throws std::bad_alloc; only stream creation calls it.
  float* scratch(std::size_t floats) {
    const std::size_t needed =
        (floats + 31) / 16 * 16;  // a spare line keeps buffers off one another's cache sets
    if (free_ < needed) {
      const std::size_t block = std::max(needed, kBlockFloats);
      Arena arena;
      if (!arena.allocate(block * sizeof(float))) throw std::bad_alloc();
      next_ = static_cast<float*>(arena.data());
      free_ = block;
      blocks_.push_back(std::move(arena));
    }
    float* out = next_;
    next_ += needed;
    free_ -= needed;
    return out;
  }

  // Marks memory as state of the encode or the decode direction.
  void keep(void* data, std::size_t bytes) { regions_.push_back({data, bytes}); }
  const std::vector<Region>& regions() const { return regions_; }

 private:
  static constexpr std::size_t kBlockFloats = std::size_t{1} << 18;
  std::vector<Arena> blocks_;
  float* next_ = nullptr;
  std::size_t free_ = 0;
  std::vector<Region> regions_;
};

}  // namespace duologue
