#include "transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "half.h"

namespace duologue {
namespace {

// Up to here angles are float products, as in moshi, so that both round alike; beyond, a float no longer
// holds position * frequency well enough and doubles take over.
constexpr std::int64_t kFloatPositions = 1 << 16;

int round_up(int value, int unit) {
  return (value + unit - 1) / unit * unit;
}

std::size_t size_of(Format cache) {
  return cache == Format::kFloat16 ? sizeof(std::uint16_t) : sizeof(float);
}

void* at_byte(void* base, std::ptrdiff_t offset) {
  return static_cast<unsigned char*>(base) + offset;
}

void keep(float value, float* to) {
  *to = value;
}

constexpr float kLargestHalf = 65504.0F;

void keep(float value, std::uint16_t* to) {
  *to = half_from_float(std::min(std::max(value, -kLargestHalf), kLargestHalf));
}

struct HeadJob {
  const Kernels* kernels;
  const AttendCall* first;
  std::ptrdiff_t ring_bytes;
  std::ptrdiff_t score_step;
};

void attend_head(const void* context, int head) {
  const auto& job = *static_cast<const HeadJob*>(context);
  AttendCall call = *job.first;
  call.q += static_cast<std::ptrdiff_t>(head) * call.head_dim;
  call.out += static_cast<std::ptrdiff_t>(head) * call.head_dim;
  call.keys = static_cast<const unsigned char*>(call.keys) + head * job.ring_bytes;
  call.values = static_cast<const unsigned char*>(call.values) + head * job.ring_bytes;
  call.scores += head * job.score_step;
  job.kernels->attend(call);
}

}  // namespace

void Transformer::build(Workspace* workspace, const MimiConfig& config, const TransformerLayers& layers,
                        Window window, Format cache, Stages stages) {
  layers_ = &layers;
  window_ = window;
  cache_ = cache;
  stages_ = stages;
  steps_ = config.steps();
  width_ = config.d_model;
  heads_ = config.num_heads;
  head_dim_ = config.head_dim();
  value_stride_ = round_up(head_dim_, kKeyBlock);
  context_ = config.context;
  // Room for the widest window of the frame's first step beside the steps the frame itself writes.
  capacity_ = round_up(context_ + steps_, kKeyBlock);
  feedforward_ = config.dim_feedforward;
  scale_ = 1.0F / std::sqrt(static_cast<float>(head_dim_));
  const float rate = static_cast<float>(-std::log(static_cast<double>(config.max_period)) * 2.0 / head_dim_);
  for (int i = 0; i < head_dim_ / 2; ++i) frequencies_.push_back(std::exp(static_cast<float>(i) * rate));
  first_slot_.resize(static_cast<std::size_t>(steps_));
  visible_.resize(static_cast<std::size_t>(steps_));

  const std::size_t rows = static_cast<std::size_t>(steps_);
  const std::size_t rings = static_cast<std::size_t>(config.num_layers) * static_cast<std::size_t>(heads_);
  position_ = reinterpret_cast<std::int64_t*>(workspace->scratch(2));
  cosines_ = workspace->scratch(rows * frequencies_.size());
  sines_ = workspace->scratch(rows * frequencies_.size());
  const std::size_t bytes = rings * static_cast<std::size_t>(ring_bytes());
  rings_ = workspace->scratch(bytes / sizeof(float));
  stream_ = workspace->scratch(rows * static_cast<std::size_t>(width_));
  normed_ = workspace->scratch(rows * static_cast<std::size_t>(width_));
  qkv_ = workspace->scratch(rows * 3 * static_cast<std::size_t>(width_));
  attended_ = workspace->scratch(rows * static_cast<std::size_t>(width_));
  hidden_ = workspace->scratch(rows * static_cast<std::size_t>(feedforward_));
  scores_ = workspace->scratch(rows * static_cast<std::size_t>(heads_) * static_cast<std::size_t>(capacity_));
  workspace->keep(position_, sizeof *position_);
  workspace->keep(rings_, bytes);
}

std::ptrdiff_t Transformer::key_bytes() const {
  return static_cast<std::ptrdiff_t>(capacity_) * head_dim_ * static_cast<std::ptrdiff_t>(size_of(cache_));
}

std::ptrdiff_t Transformer::ring_bytes() const {
  return key_bytes() + static_cast<std::ptrdiff_t>(capacity_) * value_stride_ *
                           static_cast<std::ptrdiff_t>(size_of(cache_));
}

void* Transformer::keys(int layer, int head) const {
  return at_byte(rings_, (static_cast<std::ptrdiff_t>(layer) * heads_ + head) * ring_bytes());
}

void* Transformer::values(int layer, int head) const {
  return at_byte(keys(layer, head), key_bytes());
}

// Angles and visible slots of this frame's steps; the same in every layer.
void Transformer::prepare_step() {
  const std::int64_t start = *position_;
  const std::int64_t end = start + steps_;
  used_ = static_cast<int>(std::min<std::int64_t>(
      round_up(static_cast<int>(std::min<std::int64_t>(end, capacity_)), kKeyBlock), capacity_));
  const int half = head_dim_ / 2;
  for (int step = 0; step < steps_; ++step) {
    const std::int64_t position = start + step;
    std::int64_t oldest = position - context_ + 1;
    if (window_ == Window::kRustymimi) oldest = position - context_;
    if (window_ == Window::kMoshi) oldest = std::max(oldest, end - context_);
    oldest = std::max<std::int64_t>(oldest, 0);
    first_slot_[static_cast<std::size_t>(step)] = static_cast<int>(oldest % capacity_);
    visible_[static_cast<std::size_t>(step)] = static_cast<int>(position - oldest + 1);
    for (int i = 0; i < half; ++i) {
      const float frequency = frequencies_[static_cast<std::size_t>(i)];
      if (position < kFloatPositions) {
        const float angle = frequency * static_cast<float>(position);
        cosines_[step * half + i] = std::cos(angle);
        sines_[step * half + i] = std::sin(angle);
      } else {
        const double angle = static_cast<double>(frequency) * static_cast<double>(position);
        cosines_[step * half + i] = static_cast<float>(std::cos(angle));
        sines_[step * half + i] = static_cast<float>(std::sin(angle));
      }
    }
  }
}

// Rotary embedding of one head, pairs interleaved.
void Transformer::rotate(const float* in, float scale, int step, float* out) const {
  const int half = head_dim_ / 2;
  const float* cosine = cosines_ + step * half;
  const float* sine = sines_ + step * half;
  for (int i = 0; i < half; ++i) {
    const float real = in[2 * i];
    const float imaginary = in[2 * i + 1];
    out[2 * i] = (real * cosine[i] - imaginary * sine[i]) * scale;
    out[2 * i + 1] = (real * sine[i] + imaginary * cosine[i]) * scale;
  }
}

// Turns the queries in place and writes the step's keys and values into the ring.
template <typename Cached>
void Transformer::store(int layer, int step, const float* qkv) {
  const int slot = static_cast<int>((*position_ + step) % capacity_);
  for (int head = 0; head < heads_; ++head) {
    float* q = qkv_ + (static_cast<std::ptrdiff_t>(step) * 3) * width_ + head * head_dim_;
    rotate(q, scale_, step, q);
    const float* k = qkv + width_ + head * head_dim_;
    float* rotated = normed_;  // free between the projection and the feed-forward norm
    rotate(k, 1.0F, step, rotated);
    auto* key = static_cast<Cached*>(keys(layer, head)) +
                static_cast<std::ptrdiff_t>(slot / kKeyBlock) * head_dim_ * kKeyBlock + slot % kKeyBlock;
    for (int i = 0; i < head_dim_; ++i) keep(rotated[i], key + i * kKeyBlock);
    const float* v = qkv + 2 * width_ + head * head_dim_;
    auto* value =
        static_cast<Cached*>(values(layer, head)) + static_cast<std::ptrdiff_t>(slot) * value_stride_;
    for (int i = 0; i < head_dim_; ++i) keep(v[i], value + i);
  }
}

void Transformer::attend(Runner* runner, int layer) {
  AttendCall call;
  call.q = qkv_;
  call.q_stride = 3 * static_cast<std::ptrdiff_t>(width_);
  call.format = cache_;
  call.keys = keys(layer, 0);
  call.values = values(layer, 0);
  call.head_dim = head_dim_;
  call.value_stride = value_stride_;
  call.capacity = capacity_;
  call.used = used_;
  call.queries = steps_;
  call.first_slot = first_slot_.data();
  call.visible = visible_.data();
  call.scores = scores_;
  call.out = attended_;
  call.out_stride = width_;
  const HeadJob job{&runner->kernels(), &call, ring_bytes(), static_cast<std::ptrdiff_t>(steps_) * capacity_};
  runner->count_bytes(static_cast<std::size_t>(heads_) * static_cast<std::size_t>(used_) *
                      static_cast<std::size_t>(head_dim_ + value_stride_) * size_of(cache_));
  runner->team().run(heads_, attend_head, &job);
}

void Transformer::project(Runner* runner, const PackedMatrix& w, const float* a, float* raw,
                          const float* residual, float* activated) const {
  GemmCall call;
  call.w = w;
  call.a = a;
  call.a_stride = w.k;
  call.rows = steps_;
  call.raw = raw;
  call.residual = residual;
  call.activated = activated;
  call.activation = activated != nullptr ? Activation::kGelu : Activation::kNone;
  runner->gemm(call);
}

void Transformer::run(Runner* runner, const float* x, float* out) {
  runner->enter(stages_.projections);
  prepare_step();
  const std::size_t bytes =
      static_cast<std::size_t>(steps_) * static_cast<std::size_t>(width_) * sizeof(float);
  if (layers_->input.k > 0) {
    project(runner, layers_->input, x, stream_, nullptr, nullptr);
  } else {
    std::memcpy(stream_, x, bytes);
  }
  for (std::size_t i = 0; i < layers_->layers.size(); ++i) {
    const TransformerLayer& layer = layers_->layers[i];
    runner->kernels().layer_norm(stream_, layer.norm1_weight, layer.norm1_bias, normed_, steps_, width_);
    project(runner, layer.qkv, normed_, qkv_, nullptr, nullptr);
    runner->enter(stages_.attention);
    for (int step = 0; step < steps_; ++step) {
      const float* qkv = qkv_ + static_cast<std::ptrdiff_t>(step) * 3 * width_;
      cache_ == Format::kFloat16 ? store<std::uint16_t>(static_cast<int>(i), step, qkv)
                                 : store<float>(static_cast<int>(i), step, qkv);
    }
    attend(runner, static_cast<int>(i));
    runner->enter(stages_.projections);
    project(runner, layer.out, attended_, stream_, stream_, nullptr);
    runner->kernels().layer_norm(stream_, layer.norm2_weight, layer.norm2_bias, normed_, steps_, width_);
    project(runner, layer.up, normed_, nullptr, nullptr, hidden_);
    project(runner, layer.down, hidden_, stream_, stream_, nullptr);
  }
  if (layers_->output.k > 0) {
    project(runner, layers_->output, stream_, out, nullptr, nullptr);
  } else {
    std::memcpy(out, stream_, bytes);
  }
  *position_ += steps_;
}

}  // namespace duologue
