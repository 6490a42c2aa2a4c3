// The ring under two threads: every sample arrives once and in order.
#include "duologue/audio_ring.h"

#include <cstddef>
#include <thread>
#include <vector>

#include "check.h"

namespace {

struct Storage {
  alignas(64) duologue::AudioRing ring;
  float data[1024];
  Storage() { ring.init(1024, reinterpret_cast<char*>(data) - reinterpret_cast<char*>(&ring)); }
};

void wraps_and_refuses_what_does_not_fit() {
  Storage storage;
  std::vector<float> samples(800, 1.0F);
  CHECK(storage.ring.write(samples.data(), 800) == 800);
  CHECK(storage.ring.write(samples.data(), 800) == 224);
  CHECK(storage.ring.fill() == 1024);
  CHECK(storage.ring.read(samples.data(), 600) == 600);
  samples.assign(800, 2.0F);
  CHECK(storage.ring.write(samples.data(), 500) == 500);
  std::vector<float> out(1024);
  CHECK(storage.ring.read(out.data(), 1024) == 924);
  CHECK(out[423] == 1.0F && out[424] == 2.0F && out[923] == 2.0F);
  CHECK(storage.ring.read(out.data(), 1) == 0);
}

void two_threads_lose_nothing() {
  constexpr int kTotal = 1 << 20;
  Storage storage;
  std::thread writer([&] {
    std::vector<float> block(97);
    for (int sent = 0; sent < kTotal;) {
      for (int i = 0; i < 97; ++i) block[i] = static_cast<float>(sent + i);
      const int want = sent + 97 <= kTotal ? 97 : kTotal - sent;
      const int accepted = static_cast<int>(storage.ring.write(block.data(), want));
      sent += accepted;
      if (accepted == 0) std::this_thread::yield();
    }
  });
  std::vector<float> block(61);
  for (int got = 0; got < kTotal;) {
    const int count = static_cast<int>(storage.ring.read(block.data(), 61));
    for (int i = 0; i < count; ++i) CHECK(block[i] == static_cast<float>(got + i));
    got += count;
    if (count == 0) std::this_thread::yield();
  }
  writer.join();
  CHECK(storage.ring.fill() == 0);
}

}  // namespace

int main() {
  wraps_and_refuses_what_does_not_fit();
  two_threads_lose_nothing();
  return duologue_test::report();
}
