// A ring of samples between one writing and one reading thread or process, without locks.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace duologue {

// Positions count samples from the start of the stream and never wrap; a position modulo the capacity is an
// index. All state lies in memory that processes can share, so there are no pointers and no locks in it.
class AudioRing {
 public:
  struct Spans {
    float* first;
    std::uint64_t first_count;
    float* second;
    std::uint64_t second_count;
  };

  // `capacity` is a power of two; `data` holds that many samples, at `data_offset` bytes from this object.
  void init(std::uint64_t capacity, std::int64_t data_offset) {
    capacity_ = capacity;
    data_offset_ = data_offset;
    reset();
  }
  // Only while neither side runs.
  void reset() {
    written_.store(0, std::memory_order_relaxed);
    read_.store(0, std::memory_order_release);
  }

  std::uint64_t capacity() const { return capacity_; }
  std::uint64_t written() const { return written_.load(std::memory_order_acquire); }
  std::uint64_t read() const { return read_.load(std::memory_order_acquire); }
  std::uint64_t fill() const {
    // The reader's position first: it only grows, so that the difference cannot turn negative.
    const std::uint64_t read = read_.load(std::memory_order_acquire);
    return written_.load(std::memory_order_acquire) - read;
  }

  // Writing side: room for at most `count` samples; publish them with commit_write.
  Spans acquire_write(std::uint64_t count) {
    const std::uint64_t at = written_.load(std::memory_order_relaxed);
    return spans(at, std::min(count, capacity_ - (at - read_.load(std::memory_order_acquire))));
  }
  void commit_write(std::uint64_t count) {
    written_.store(written_.load(std::memory_order_relaxed) + count, std::memory_order_release);
  }
  std::uint64_t write(const float* samples, std::uint64_t count) {
    const Spans to = acquire_write(count);
    std::memcpy(to.first, samples, to.first_count * sizeof(float));
    std::memcpy(to.second, samples + to.first_count, to.second_count * sizeof(float));
    commit_write(to.first_count + to.second_count);
    return to.first_count + to.second_count;
  }

  // Reading side: at most `count` samples; give their room back with commit_read.
  Spans acquire_read(std::uint64_t count) {
    const std::uint64_t at = read_.load(std::memory_order_relaxed);
    return spans(at, std::min(count, written_.load(std::memory_order_acquire) - at));
  }
  void commit_read(std::uint64_t count) {
    read_.store(read_.load(std::memory_order_relaxed) + count, std::memory_order_release);
  }
  std::uint64_t read(float* samples, std::uint64_t count) {
    const Spans from = acquire_read(count);
    std::memcpy(samples, from.first, from.first_count * sizeof(float));
    std::memcpy(samples + from.first_count, from.second, from.second_count * sizeof(float));
    commit_read(from.first_count + from.second_count);
    return from.first_count + from.second_count;
  }

 private:
  float* data() { return reinterpret_cast<float*>(reinterpret_cast<char*>(this) + data_offset_); }

  Spans spans(std::uint64_t position, std::uint64_t count) {
    const std::uint64_t index = position & (capacity_ - 1);
    const std::uint64_t first = std::min(count, capacity_ - index);
    return {data() + index, first, data(), count - first};
  }

  std::uint64_t capacity_ = 0;
  std::int64_t data_offset_ = 0;
  // Each position has a cache line of its own, so that the two sides do not slow each other.
  alignas(64) std::atomic<std::uint64_t> written_{0};
  alignas(64) std::atomic<std::uint64_t> read_{0};
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "the ring is shared between processes");

}  // namespace duologue
