#include "duologue/mimi_weights.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <string>
#include <utility>

#include "duologue/isa.h"
#include "layers.h"
#include "packer.h"

namespace duologue {
namespace {

// Walks the structure of a Mimi in the order in which a frame reads it.
class Builder {
 public:
  Builder(const MimiConfig& config, int num_codebooks, Precision precision, Packer* packer)
      : config_(config), num_codebooks_(num_codebooks), precision_(precision), packer_(*packer) {}

  void build(MimiLayers* layers) {
    encoder(layers);
    transformer("encoder_transformer.", &layers->encoder_transformer);
    resamplers(layers);
    quantizer(&layers->quantizer);
    transformer("decoder_transformer.", &layers->decoder_transformer);
    decoder(layers);
    packer_.refuse_leftovers();
  }

 private:
  // One or two rows read every weight once, so fewer bytes are less time. More rows are bound by arithmetic,
  // which only integer products make cheaper. The layers at the waveform are tiny and stay as they are.
  Storage storage(int rows, int channels) const {
    const bool is_narrow = rows <= kNarrowRows;
    if (precision_ == Precision::kFloat32 || channels == 1) return {};
    if (precision_ == Precision::kFloat16) return {is_narrow ? Format::kFloat16 : Format::kFloat32, 0};
    return {Format::kInt8, is_narrow ? 2 : 1};
  }

  ConvLayer conv(const std::string& name, int in, int out, int taps, int stride, int dilation, int out_rows,
                 bool has_bias = true) {
    ConvLayer layer;
    layer.in_channels = in;
    layer.out_channels = out;
    layer.taps = taps;
    layer.stride = stride;
    layer.dilation = dilation;
    layer.out_rows = out_rows;
    const Tensor weight = packer_.take(name + ".weight", {out, in, taps});
    const Tensor bias = has_bias ? packer_.take(name + ".bias", {out}) : Tensor();
    SourceLayout source;
    source.base = weight.data();
    source.inner_k = in;
    source.inner_n = out;
    source.outer_k_step = 1;
    source.inner_k_step = taps;
    source.inner_n_step = static_cast<std::ptrdiff_t>(in) * taps;
    layer.w = packer_.matrix(in * taps, out, out_rows, source, bias.data(), has_bias ? out : 0,
                             storage(out_rows, std::min(in, out)));
    return layer;
  }

  UpLayer up(const std::string& name, int in, int out, int stride, int in_rows) {
    UpLayer layer;
    layer.in_channels = in;
    layer.out_channels = out;
    layer.stride = stride;
    layer.in_rows = in_rows;
    const Tensor weight = packer_.take(name + ".weight", {in, out, 2 * stride});
    const Tensor bias = packer_.take(name + ".bias", {out});
    SourceLayout source;
    // Row block 0 multiplies x[t-1], which reaches the second half of the kernel.
    source.base = weight.data() != nullptr ? weight.data() + stride : nullptr;
    source.inner_k = in;
    source.inner_n = out;
    source.outer_k_step = -stride;
    source.inner_k_step = static_cast<std::ptrdiff_t>(out) * 2 * stride;
    source.outer_n_step = 1;
    source.inner_n_step = 2 * stride;
    layer.w = packer_.matrix(2 * in, stride * out, in_rows, source, bias.data(), out,
                             storage(in_rows, std::min(in, out)));
    return layer;
  }

  std::vector<ResidualBlock> residual_blocks(const std::string& prefix, int* index, int channels, int rows) {
    std::vector<ResidualBlock> blocks(static_cast<std::size_t>(config_.n_residual_layers));
    const int hidden = channels / config_.compress;
    int dilation = 1;
    for (ResidualBlock& block : blocks) {
      const std::string name = prefix + std::to_string((*index)++);
      block.wide = conv(name + ".block.1.conv.conv", channels, hidden, config_.residual_kernel_size, 1,
                        dilation, rows);
      block.narrow = conv(name + ".block.3.conv.conv", hidden, channels, 1, 1, 1, rows);
      block.has_shortcut = !config_.true_skip;
      if (block.has_shortcut)
        block.shortcut = conv(name + ".shortcut.conv.conv", channels, channels, 1, 1, 1, rows);
      dilation *= config_.dilation_base;
    }
    return blocks;
  }

  void encoder(MimiLayers* layers) {
    const std::string prefix = "encoder.model.";
    int index = 0;
    int channels = config_.n_filters;
    int rows = config_.frame_samples;
    layers->encoder_first =
        conv(prefix + std::to_string(index++) + ".conv.conv", 1, channels, config_.kernel_size, 1, 1, rows);
    for (std::size_t i = config_.ratios.size(); i-- > 0;) {
      EncoderStage stage;
      const int ratio = config_.ratios[i];
      stage.blocks = residual_blocks(prefix, &index, channels, rows);
      rows /= ratio;
      const std::string name = prefix + std::to_string(index + 1) + ".conv.conv";
      stage.down = conv(name, channels, 2 * channels, 2 * ratio, ratio, 1, rows);
      index += 2;
      channels *= 2;
      layers->encoder_stages.push_back(std::move(stage));
    }
    const std::string name = prefix + std::to_string(index + 1) + ".conv.conv";
    layers->encoder_last = conv(name, channels, config_.dimension, config_.last_kernel_size, 1, 1, rows);
  }

  void decoder(MimiLayers* layers) {
    const std::string prefix = "decoder.model.";
    int index = 0;
    int channels = config_.n_filters << config_.ratios.size();
    int rows = config_.steps();
    layers->decoder_first = conv(prefix + std::to_string(index++) + ".conv.conv", config_.dimension, channels,
                                 config_.kernel_size, 1, 1, rows);
    for (int ratio : config_.ratios) {
      DecoderStage stage;
      stage.up =
          up(prefix + std::to_string(index + 1) + ".convtr.convtr", channels, channels / 2, ratio, rows);
      index += 2;
      channels /= 2;
      rows *= ratio;
      stage.blocks = residual_blocks(prefix, &index, channels, rows);
      layers->decoder_stages.push_back(std::move(stage));
    }
    const std::string name = prefix + std::to_string(index + 1) + ".conv.conv";
    layers->decoder_last = waveform(name, channels, config_.last_kernel_size, rows);
  }

  // A convolution to one channel would leave a panel's other columns empty, so a row holds a panel of
  // samples: column i is the kernel, i input rows later.
  ConvLayer waveform(const std::string& name, int in, int taps, int samples) {
    const int panel = packer_.tall_panel();
    const int columns = samples % panel == 0 && samples / panel > kNarrowRows ? panel : 1;
    ConvLayer layer;
    layer.in_channels = in;
    layer.out_channels = columns;
    layer.taps = taps + columns - 1;
    layer.stride = columns;
    layer.out_rows = samples / columns;
    const Tensor weight = packer_.take(name + ".weight", {1, in, taps});
    const Tensor bias = packer_.take(name + ".bias", {1});
    const int depth = in * layer.taps;
    std::vector<float> band(packer_.packing() ? static_cast<std::size_t>(depth) * columns : 0);
    for (int column = 0; packer_.packing() && column < columns; ++column) {
      for (int tap = 0; tap < taps; ++tap) {
        for (int c = 0; c < in; ++c)
          band[column * depth + (column + tap) * in + c] = weight.data()[c * taps + tap];
      }
    }
    SourceLayout source;
    source.base = band.data();
    source.inner_k = depth;
    source.inner_n = columns;
    source.inner_k_step = 1;
    source.inner_n_step = depth;
    layer.w = packer_.matrix(depth, columns, layer.out_rows, source, bias.data(), 1, {});
    return layer;
  }

  PackedMatrix linear(const std::string& name, int in, int out,
                      const std::vector<std::string>& aliases = {}) {
    const Tensor weight = packer_.take(name, {out, in}, aliases);
    return packer_.linear(in, out, config_.steps(), weight.data(), storage(config_.steps(), in));
  }

  // A linear layer whose output is scaled per channel before it joins the residual stream.
  PackedMatrix scaled(const std::string& name, int in, int out, const std::string& scale_name,
                      const std::vector<std::string>& aliases = {}) {
    const Tensor weight = packer_.take(name, {out, in}, aliases);
    if (!config_.has_layer_scale)
      return packer_.linear(in, out, config_.steps(), weight.data(), storage(config_.steps(), in));
    const Tensor scale = packer_.take(scale_name, {out});
    std::vector<float> values = packer_.packing() ? weight.copy() : std::vector<float>();
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] *= scale.data()[i / static_cast<std::size_t>(in)];
    return packer_.linear(in, out, config_.steps(), values.data(), storage(config_.steps(), in));
  }

  const float* vector(const std::string& name, int n) {
    const Tensor tensor = packer_.take(name, {n});
    return packer_.vector(tensor.data(), n);
  }

  void transformer(const std::string& prefix, TransformerLayers* out) {
    const int width = config_.d_model;
    const bool is_projected = width != config_.dimension;
    if (is_projected) out->input = linear(prefix + "input_proj.weight", config_.dimension, width);
    for (int i = 0; i < config_.num_layers; ++i) {
      const std::string name = prefix + "transformer.layers." + std::to_string(i) + ".";
      const std::string attention = name + "self_attn.";
      TransformerLayer layer;
      layer.norm1_weight = vector(name + "norm1.weight", width);
      layer.norm1_bias = vector(name + "norm1.bias", width);
      layer.qkv = linear(attention + "in_proj_weight", width, 3 * width,
                         {attention + "in_projs.0.weight", attention + "in_proj.weight"});
      layer.out = scaled(attention + "out_proj.weight", width, width, name + "layer_scale_1.scale",
                         {attention + "out_projs.0.weight"});
      layer.norm2_weight = vector(name + "norm2.weight", width);
      layer.norm2_bias = vector(name + "norm2.bias", width);
      layer.up = linear(name + "linear1.weight", width, config_.dim_feedforward);
      layer.down =
          scaled(name + "linear2.weight", config_.dim_feedforward, width, name + "layer_scale_2.scale");
      out->layers.push_back(layer);
    }
    if (is_projected) out->output = linear(prefix + "output_projs.0.weight", width, config_.dimension);
  }

  void resamplers(MimiLayers* layers) {
    const int steps = config_.steps();
    const int width = config_.dimension;
    layers->downsample.taps = 0;
    if (steps == 1) return;
    layers->downsample = conv("downsample.conv.conv.conv", width, width, 2 * steps, steps, 1, 1, false);
    const Tensor weight = packer_.take("upsample.convtr.convtr.convtr.weight", {width, 1, 2 * steps});
    std::vector<float> taps_first(static_cast<std::size_t>(2 * steps * width));
    for (int tap = 0; packer_.packing() && tap < 2 * steps; ++tap) {
      for (int c = 0; c < width; ++c) taps_first[tap * width + c] = weight.data()[c * 2 * steps + tap];
    }
    layers->upsample = packer_.vector(taps_first.data(), 2 * steps * width);
  }

  CodebookLayer codebook(const std::string& name, bool is_kept) {
    const int width = config_.codebook_dim;
    const int bins = config_.cardinality;
    packer_.take(name + "_initialized", {1}, {name + "inited"});
    const Tensor usage = packer_.take(name + "cluster_usage", {bins}, {name + "cluster_size"});
    const Tensor sum =
        packer_.take(name + "embedding_sum", {bins, width}, {name + "embed_avg", name + "embed_sum"});
    if (!is_kept) return {};
    std::vector<float> centroids = packer_.packing() ? sum.copy() : std::vector<float>();
    for (std::size_t i = 0; i < centroids.size(); ++i)
      centroids[i] /= std::fmax(usage.data()[i / static_cast<std::size_t>(width)], 1e-5F);
    return packer_.codebook(width, bins, std::move(centroids));
  }

  void quantizer(QuantizerLayers* out) {
    const int width = config_.codebook_dim;
    const int outer = config_.dimension;
    const Tensor first_in = packer_.take("quantizer.rvq_first.input_proj.weight", {width, outer, 1});
    const Tensor rest_in = packer_.take("quantizer.rvq_rest.input_proj.weight", {width, outer, 1});
    std::vector<float> input = packer_.packing() ? first_in.copy() : std::vector<float>();
    const std::vector<float> input_rest = packer_.packing() ? rest_in.copy() : std::vector<float>();
    input.insert(input.end(), input_rest.begin(), input_rest.end());
    out->input = packer_.linear(outer, 2 * width, 1, input.data(), storage(1, outer));
    for (int i = 0; i < config_.total_codebooks; ++i) {
      const bool is_semantic = i < config_.semantic_codebooks;
      const int index = is_semantic ? i : i - config_.semantic_codebooks;
      const std::string name = std::string("quantizer.") + (is_semantic ? "rvq_first" : "rvq_rest") +
                               ".vq.layers." + std::to_string(index) + "._codebook.";
      const CodebookLayer packed = codebook(name, i < num_codebooks_);
      if (i < num_codebooks_) out->codebooks.push_back(packed);
    }
    const Tensor first_out = packer_.take("quantizer.rvq_first.output_proj.weight", {outer, width, 1});
    const Tensor rest_out = packer_.take("quantizer.rvq_rest.output_proj.weight", {outer, width, 1});
    std::vector<float> output(packer_.packing() ? static_cast<std::size_t>(2 * width) * outer : 0);
    for (int n = 0; packer_.packing() && n < outer; ++n) {
      for (int k = 0; k < width; ++k) {
        output[(2 * n) * width + k] = first_out.data()[n * width + k];
        output[(2 * n + 1) * width + k] = rest_out.data()[n * width + k];
      }
    }
    out->output = packer_.linear(2 * width, outer, 1, output.data(), storage(1, outer));
  }

  const MimiConfig& config_;
  int num_codebooks_;
  Precision precision_;
  Packer& packer_;
};

constexpr const char* kPrecisionNames[] = {"float32", "float16", "int8"};

}  // namespace

Status precision_from_name(const std::string& name, Precision* out) {
  for (int i = 0; i < 3; ++i) {
    if (name != kPrecisionNames[i]) continue;
    *out = static_cast<Precision>(i);
    return {};
  }
  return Status::config("precision is '" + name + "'; it must be float32, float16 or int8");
}

const char* precision_name(Precision precision) {
  return kPrecisionNames[static_cast<std::size_t>(precision)];
}

std::vector<TensorSpec> expected_tensors(const MimiConfig& config) {
  const SafetensorsFile none;
  const Kernels* kernels = nullptr;
  select_kernels("scalar", &kernels);
  Packer packer(none, *kernels);
  std::vector<TensorSpec> specs;
  packer.start_listing(&specs);
  MimiLayers layers;
  Builder(config, config.total_codebooks, Precision::kFloat32, &packer).build(&layers);
  return specs;
}

MimiWeights::MimiWeights() = default;
MimiWeights::~MimiWeights() = default;

const char* MimiWeights::isa() const {
  return kernels_->name;
}

Status MimiWeights::load(const std::string& path, const MimiConfig& config, int num_codebooks,
                         const std::string& isa, Precision precision,
                         std::shared_ptr<const MimiWeights>* out) {
  try {
    Status status = config.validate();
    if (!status.ok()) return status;
    if (num_codebooks < config.semantic_codebooks || num_codebooks > config.total_codebooks) {
      return Status::config("num_codebooks is " + std::to_string(num_codebooks) + "; this Mimi has " +
                            std::to_string(config.semantic_codebooks) + " to " +
                            std::to_string(config.total_codebooks));
    }
    std::shared_ptr<MimiWeights> weights(new MimiWeights());
    weights->config_ = config;
    weights->num_codebooks_ = num_codebooks;
    weights->precision_ = precision;
    status = select_kernels(isa, &weights->kernels_);
    if (!status.ok()) return status;
    SafetensorsFile file;
    status = file.open(path);
    if (!status.ok()) return status;
    Packer packer(file, *weights->kernels_);
    MimiLayers measured;
    Builder(config, num_codebooks, precision, &packer).build(&measured);
    if (!packer.status().ok()) return packer.status();
    weights->layers_ = std::make_unique<MimiLayers>();
    const std::size_t most_bytes = packer.bytes();
    if (!weights->layers_->arena.allocate(most_bytes)) {
      return Status::weights(path + ": no memory for " + std::to_string(most_bytes) + " bytes of weights");
    }
    packer.start_packing(weights->layers_->arena.data());
    Builder(config, num_codebooks, precision, &packer).build(weights->layers_.get());
    if (!packer.status().ok()) return packer.status();
    weights->packed_bytes_ = packer.bytes();
    weights->layers_->rounded_bytes = packer.rounded_bytes();
    *out = std::move(weights);
    return {};
  } catch (const std::bad_alloc&) {
    return Status::weights(path + ": no memory to read it");
  }
}

}  // namespace duologue
