// Whole streams of tiny codecs: no allocation after creation, equal results on every instruction set and
// thread count, exact snapshots.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "check.h"
#include "duologue/isa.h"
#include "duologue/mimi_stream.h"
#include "duologue/mimi_weights.h"
#include "random_weights.h"

namespace {
std::atomic<long> allocations{0};
}  // namespace

#ifdef DUOLOGUE_COUNT_ALLOCATIONS
extern "C" {
void* __real_malloc(std::size_t);
void* __real_calloc(std::size_t, std::size_t);
void* __real_realloc(void*, std::size_t);
int __real_posix_memalign(void**, std::size_t, std::size_t);
void* __real_aligned_alloc(std::size_t, std::size_t);
void* __real_mmap(void*, std::size_t, int, int, int, long);
void* __wrap_malloc(std::size_t n) {
  return ++allocations, __real_malloc(n);
}
void* __wrap_calloc(std::size_t n, std::size_t size) {
  return ++allocations, __real_calloc(n, size);
}
void* __wrap_realloc(void* p, std::size_t n) {
  return ++allocations, __real_realloc(p, n);
}
int __wrap_posix_memalign(void** p, std::size_t a, std::size_t n) {
  return ++allocations, __real_posix_memalign(p, a, n);
}
void* __wrap_aligned_alloc(std::size_t a, std::size_t n) {
  return ++allocations, __real_aligned_alloc(a, n);
}
void* __wrap_mmap(void* at, std::size_t n, int protection, int flags, int file, long offset) {
  return ++allocations, __real_mmap(at, n, protection, flags, file, offset);
}
}
void* operator new(std::size_t n) {
  ++allocations;
  void* p = __real_malloc(n);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
#endif

using duologue::MimiConfig;
using duologue::MimiStream;
using duologue::MimiWeights;
using duologue::Precision;
using duologue::Window;
using duologue_test::gaussian;
using duologue_test::write_weights;

namespace {

constexpr int kFrames = 30;
constexpr int kCodebooks = 4;

MimiConfig tiny_config() {
  MimiConfig config;
  config.frame_samples = 96;
  config.dimension = 20;
  config.n_filters = 6;
  config.n_residual_layers = 2;
  config.ratios = {4, 3, 2};
  config.codebook_dim = 10;
  config.cardinality = 50;
  config.total_codebooks = 5;
  config.d_model = 24;
  config.num_heads = 2;
  config.num_layers = 2;
  config.context = 10;
  config.dim_feedforward = 40;
  return config;
}

struct Run {
  std::vector<float> latents;
  std::vector<int32_t> codes;
  std::vector<float> audio;
};

std::unique_ptr<MimiStream> make_stream(const std::shared_ptr<const MimiWeights>& weights, int threads) {
  std::unique_ptr<MimiStream> stream;
  CHECK(MimiStream::create(weights, Window::kMoshi, threads, &stream).ok());
  return stream;
}

Run run(MimiStream* stream, const std::vector<float>& audio, bool wants_codes) {
  const MimiConfig& config = stream->weights().config();
  Run out;
  out.latents.resize(static_cast<std::size_t>(kFrames) * config.dimension);
  out.codes.resize(kFrames * kCodebooks);
  out.audio.resize(audio.size());
  const long before = allocations.load();
  for (int i = 0; i < kFrames; ++i) {
    const float* frame = audio.data() + i * config.frame_samples;
    int32_t* codes = out.codes.data() + i * kCodebooks;
    if (wants_codes) {
      CHECK(stream->encode(frame, codes).ok());
    } else {
      CHECK(stream->latent(frame, out.latents.data() + i * config.dimension).ok());
      for (int k = 0; k < kCodebooks; ++k) codes[k] = (7 * i + 13 * k) % config.cardinality;
    }
    CHECK(stream->decode(codes, out.audio.data() + i * config.frame_samples).ok());
  }
  CHECK(allocations.load() == before);
  return out;
}

double relative_error(const std::vector<float>& found, const std::vector<float>& expected) {
  double error = 0.0;
  double power = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(found[i] - expected[i], 2);
    power += std::pow(expected[i], 2);
  }
  return std::sqrt(error / power);
}

// Every instruction set and precision against float32 on the plain kernels; `limit` is of the RMS.
void check_isas(const std::string& path, const std::vector<float>& audio) {
  const struct {
    Precision precision;
    double limit;
  } cases[] = {{Precision::kFloat32, 1e-5}, {Precision::kFloat16, 2e-3}, {Precision::kInt8, 5e-2}};
  Run exact;
  for (const auto& each : cases) {
    for (const std::string& isa : duologue::available_isas()) {
      std::shared_ptr<const MimiWeights> weights;
      CHECK(MimiWeights::load(path, tiny_config(), kCodebooks, isa, each.precision, &weights).ok());
      const Run found = run(make_stream(weights, 1).get(), audio, false);
      const Run shared = run(make_stream(weights, 2).get(), audio, false);
      CHECK(found.latents == shared.latents && found.audio == shared.audio);
      if (exact.latents.empty()) exact = found;
      const double errors[] = {relative_error(found.latents, exact.latents),
                               relative_error(found.audio, exact.audio)};
      for (double error : errors) {
        CHECK(error < each.limit);
        CHECK(each.precision == Precision::kFloat32 || error > 0.0);
      }
    }
  }
}

void check_state(const std::string& path, const std::vector<float>& audio) {
  std::shared_ptr<const MimiWeights> weights;
  CHECK(MimiWeights::load(path, tiny_config(), kCodebooks, "", Precision::kFloat32, &weights).ok());
  const std::unique_ptr<MimiStream> stream = make_stream(weights, 1);
  const Run first = run(stream.get(), audio, true);
  std::vector<unsigned char> snapshot(stream->snapshot_bytes());
  stream->snapshot(snapshot.data());
  const Run second = run(stream.get(), audio, true);
  CHECK(first.audio != second.audio);
  stream->reset();
  CHECK(run(stream.get(), audio, true).audio == first.audio);
  const std::unique_ptr<MimiStream> other = make_stream(weights, 2);
  CHECK(other->restore(snapshot.data(), snapshot.size()).ok());
  const Run again = run(other.get(), audio, true);
  CHECK(again.audio == second.audio && again.codes == second.codes);
  CHECK(!other->restore(snapshot.data(), snapshot.size() - 1).ok());
  snapshot[3] ^= 1;
  CHECK(!other->restore(snapshot.data(), snapshot.size()).ok());
}

void check_refusals(const std::string& path) {
  std::shared_ptr<const MimiWeights> weights;
  CHECK(!MimiWeights::load(path, tiny_config(), 6, "", Precision::kFloat32, &weights).ok());
  MimiConfig other = tiny_config();
  other.dim_feedforward = 41;
  const duologue::Status status =
      MimiWeights::load(path, other, kCodebooks, "", Precision::kFloat32, &weights);
  CHECK(status.message.find("linear1.weight") != std::string::npos);
  CHECK(MimiWeights::load(path, tiny_config(), kCodebooks, "", Precision::kFloat32, &weights).ok());
  std::unique_ptr<MimiStream> stream = make_stream(weights, 1);
  std::vector<float> frame(96, 0.0F);
  std::vector<int32_t> codes(kCodebooks, 50);
  CHECK(!stream->decode(codes.data(), frame.data()).ok());
  codes[0] = -1;
  CHECK(!stream->decode(codes.data(), frame.data()).ok());
  frame[95] = NAN;
  CHECK(!stream->encode(frame.data(), codes.data()).ok());
  CHECK(!MimiStream::create(weights, Window::kMoshi, 3, &stream).ok());
}

}  // namespace

int main() {
  const char* folder = std::getenv("TMPDIR");
  const std::string path = write_weights(
      tiny_config(), std::string(folder != nullptr ? folder : "/tmp") + "/duologue_test_stream_" +
                         std::to_string(reinterpret_cast<std::uintptr_t>(&folder)) + ".safetensors");
  const std::vector<float> audio = gaussian(static_cast<std::size_t>(kFrames) * 96, 99, 0.3F);
  check_isas(path, audio);
  check_state(path, audio);
  check_refusals(path);
  std::remove(path.c_str());
#ifdef DUOLOGUE_COUNT_ALLOCATIONS
  CHECK(allocations.load() > 100);  // the counter does count
#endif
  return duologue_test::report();
}
