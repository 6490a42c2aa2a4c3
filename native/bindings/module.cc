// The Python module duologue._native: the only place that raises.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <array>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "audio.h"
#include "duologue/ceilings.h"
#include "duologue/isa.h"
#include "duologue/mimi_stream.h"
#include "duologue/mimi_weights.h"

namespace py = pybind11;

namespace duologue {
namespace {

const char* error_class(StatusCode code) {
  switch (code) {
    case StatusCode::kWeights:
      return "WeightsError";
    case StatusCode::kStream:
      return "StreamError";
    case StatusCode::kAudio:
      return "AudioError";
    default:
      return "ConfigError";
  }
}

void raise_unless_ok(const Status& status) {
  if (status.ok()) return;
  const py::object errors = py::module_::import("duologue.errors");
  // A damaged file can put bytes that are no text into a tensor name.
  const py::object text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
      status.message.data(), static_cast<py::ssize_t>(status.message.size()), "backslashreplace"));
  PyErr_SetObject(py::object(errors.attr(error_class(status.code))).ptr(), text.ptr());
  throw py::error_already_set();
}

std::string describe(const py::handle& value) {
  if (!py::isinstance<py::array>(value))
    return "a " + std::string(py::str(py::type::of(value).attr("__name__")));
  const auto array = py::reinterpret_borrow<py::array>(value);
  return std::string(py::str(array.dtype())) + " of shape " + std::string(py::str(array.attr("shape")));
}

// A contiguous 1-D array of exactly T[count], or an error that says what came instead.
template <typename T>
py::array_t<T, py::array::c_style> checked(const py::object& value, py::ssize_t count, const char* what,
                                           const char* dtype, StatusCode code) {
  if (py::isinstance<py::array_t<T>>(value)) {
    const auto array = py::reinterpret_borrow<py::array>(value);
    if (array.ndim() == 1 && array.shape(0) == count) return py::array_t<T, py::array::c_style>(array);
  }
  raise_unless_ok({code, std::string(what) + " must be a NumPy array of " + dtype + ", shape (" +
                             std::to_string(count) + ",); got " + describe(value)});
  return {};
}

Precision parse_precision(const std::string& name) {
  Precision precision = Precision::kFloat32;
  raise_unless_ok(precision_from_name(name, &precision));
  return precision;
}

std::shared_ptr<const MimiWeights> load_weights(const std::string& path, const MimiConfig& config,
                                                int num_codebooks, const std::string& isa,
                                                const std::string& precision) {
  std::shared_ptr<const MimiWeights> weights;
  const Precision wanted = parse_precision(precision);
  Status status;
  {
    const py::gil_scoped_release release;
    status = MimiWeights::load(path, config, num_codebooks, isa, wanted, &weights);
  }
  raise_unless_ok(status);
  return weights;
}

// A MimiStream that refuses a second thread instead of corrupting its state.
class Stream {
 public:
  Stream(const std::shared_ptr<const MimiWeights>& weights, Window window, int threads) {
    raise_unless_ok(MimiStream::create(weights, window, threads, &stream_));
  }

  py::array_t<int32_t> encode_step(const py::object& frame) {
    const auto in = checked_frame(frame);
    py::array_t<int32_t> codes(weights().num_codebooks());
    int32_t* out = codes.mutable_data();
    run([&] { return stream_->encode(in.data(), out); });
    return codes;
  }

  py::array_t<float> latent_step(const py::object& frame) {
    const auto in = checked_frame(frame);
    py::array_t<float> latent(weights().config().dimension);
    float* out = latent.mutable_data();
    run([&] { return stream_->latent(in.data(), out); });
    return latent;
  }

  py::array_t<float> decode_step(const py::object& codes) {
    const auto in = checked<int32_t>(codes, weights().num_codebooks(), "codes", "int32", StatusCode::kConfig);
    py::array_t<float> frame(weights().config().frame_samples);
    float* out = frame.mutable_data();
    run([&] { return stream_->decode(in.data(), out); });
    return frame;
  }

  void start_clock() {
    run([&] {
      stream_->start_clock();
      return Status();
    });
  }

  // Stage name -> (seconds, multiply-adds, bytes).
  py::dict stages() {
    std::array<StageFigures, kStages> figures;
    run([&] {
      for (int i = 1; i < kStages; ++i) figures[i] = stream_->stage(static_cast<Stage>(i));
      return Status();
    });
    py::dict out;
    for (int i = 1; i < kStages; ++i) {
      out[stage_name(static_cast<Stage>(i))] =
          py::make_tuple(figures[i].seconds, figures[i].multiply_adds, figures[i].bytes);
    }
    return out;
  }

  void reset() {
    run([&] {
      stream_->reset();
      return Status();
    });
  }

  py::bytes snapshot() {
    std::string bytes(stream_->snapshot_bytes(), '\0');
    run([&] {
      stream_->snapshot(&bytes[0]);
      return Status();
    });
    return py::bytes(bytes);
  }

  void restore(const py::bytes& snapshot) {
    char* data = nullptr;
    py::ssize_t size = 0;
    if (PyBytes_AsStringAndSize(snapshot.ptr(), &data, &size) != 0) throw py::error_already_set();
    run([&] { return stream_->restore(data, static_cast<std::size_t>(size)); });
  }

 private:
  const MimiWeights& weights() const { return stream_->weights(); }

  py::array_t<float, py::array::c_style> checked_frame(const py::object& frame) const {
    return checked<float>(frame, weights().config().frame_samples, "a frame", "float32", StatusCode::kAudio);
  }

  template <typename Work>
  void run(Work work) {
    if (busy_.exchange(true)) {
      raise_unless_ok(
          Status::stream("this codec stream is in use by another thread; give each thread its own"));
    }
    Status status;
    {
      const py::gil_scoped_release release;
      status = work();
    }
    busy_.store(false);
    raise_unless_ok(status);
  }

  std::unique_ptr<MimiStream> stream_;
  std::atomic<bool> busy_{false};
};

Window parse_window(const std::string& name) {
  if (name == "moshi") return Window::kMoshi;
  if (name == "exact") return Window::kExact;
  if (name == "rustymimi") return Window::kRustymimi;
  raise_unless_ok(Status::config("window is '" + name + "'; it must be moshi, exact or rustymimi"));
  return Window::kMoshi;
}

std::string active_isa() {
  const Kernels* kernels = nullptr;
  raise_unless_ok(select_kernels("", &kernels));
  return kernels_name(*kernels);
}

py::tuple measured_ceilings(const std::string& isa) {
  const Kernels* kernels = nullptr;
  raise_unless_ok(select_kernels(isa, &kernels));
  const py::gil_scoped_release release;
  const Ceilings found = measure_ceilings(*kernels);
  const py::gil_scoped_acquire acquire;
  return py::make_tuple(found.gflop_s, found.gb_s);
}

MimiConfig make_config(int frame_samples, int dimension, int n_filters, int n_residual_layers, int compress,
                       int kernel_size, int residual_kernel_size, int last_kernel_size, int dilation_base,
                       bool true_skip, const std::vector<int>& ratios, int codebook_dim, int cardinality,
                       int total_codebooks, int semantic_codebooks, int d_model, int num_heads,
                       int num_layers, int context, int dim_feedforward, float max_period,
                       bool has_layer_scale) {
  MimiConfig config;
  config.frame_samples = frame_samples;
  config.dimension = dimension;
  config.n_filters = n_filters;
  config.n_residual_layers = n_residual_layers;
  config.compress = compress;
  config.kernel_size = kernel_size;
  config.residual_kernel_size = residual_kernel_size;
  config.last_kernel_size = last_kernel_size;
  config.dilation_base = dilation_base;
  config.true_skip = true_skip;
  config.ratios = ratios;
  config.codebook_dim = codebook_dim;
  config.cardinality = cardinality;
  config.total_codebooks = total_codebooks;
  config.semantic_codebooks = semantic_codebooks;
  config.d_model = d_model;
  config.num_heads = num_heads;
  config.num_layers = num_layers;
  config.context = context;
  config.dim_feedforward = dim_feedforward;
  config.max_period = max_period;
  config.has_layer_scale = has_layer_scale;
  raise_unless_ok(config.validate());
  return config;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "Native parts of duologue: the Mimi codec and the audio port.";
  module.def("isa", &active_isa, "Instruction set that new weights are packed for by default.");
  module.def("ceilings", &measured_ceilings, py::arg("isa") = "",
             "What one thread reaches here: (GFLOP/s of float32 multiply-adds, GB/s of reading memory).");
  module.def("available_isas", &available_isas,
             "Instruction sets of this build that this processor has, slowest first.");

  // Plain `type` as metaclass: these classes have no static properties and cannot be subclassed.
  const py::metaclass plain(reinterpret_cast<PyObject*>(&PyType_Type));
  py::class_<MimiConfig>(module, "MimiConfig", plain, py::is_final(), "The shape of a Mimi codec.")
      .def(py::init(&make_config), py::kw_only(), py::arg("frame_samples"), py::arg("dimension"),
           py::arg("n_filters"), py::arg("n_residual_layers"), py::arg("compress"), py::arg("kernel_size"),
           py::arg("residual_kernel_size"), py::arg("last_kernel_size"), py::arg("dilation_base"),
           py::arg("true_skip"), py::arg("ratios"), py::arg("codebook_dim"), py::arg("cardinality"),
           py::arg("total_codebooks"), py::arg("semantic_codebooks"), py::arg("d_model"),
           py::arg("num_heads"), py::arg("num_layers"), py::arg("context"), py::arg("dim_feedforward"),
           py::arg("max_period"), py::arg("has_layer_scale"));

  py::class_<MimiWeights, std::shared_ptr<MimiWeights>>(module, "MimiWeights", plain, py::is_final(),
                                                        "Immutable packed weights of one Mimi.")
      .def(py::init([](const std::string& path, const MimiConfig& config, int num_codebooks,
                       const std::string& isa, const std::string& precision) {
             return std::const_pointer_cast<MimiWeights>(
                 load_weights(path, config, num_codebooks, isa, precision));
           }),
           py::arg("path"), py::arg("config"), py::kw_only(), py::arg("num_codebooks"), py::arg("isa") = "",
           py::arg("precision") = "float32")
      .def_property_readonly("isa", [](const MimiWeights& self) { return std::string(self.isa()); })
      .def_property_readonly(
          "precision", [](const MimiWeights& self) { return std::string(precision_name(self.precision())); })
      .def_property_readonly("num_codebooks", &MimiWeights::num_codebooks)
      .def_property_readonly("packed_bytes", &MimiWeights::packed_bytes);

  py::class_<Stream>(module, "MimiStream", plain, py::is_final(),
                     "Encode and decode state of one conversation.")
      .def(py::init([](const std::shared_ptr<MimiWeights>& weights, const std::string& window, int threads) {
             return std::make_unique<Stream>(weights, parse_window(window), threads);
           }),
           py::arg("weights"), py::kw_only(), py::arg("window") = "moshi", py::arg("threads") = 1)
      .def("encode_step", &Stream::encode_step, py::arg("frame"))
      .def("latent_step", &Stream::latent_step, py::arg("frame"))
      .def("decode_step", &Stream::decode_step, py::arg("codes"))
      .def("start_clock", &Stream::start_clock)
      .def("stages", &Stream::stages)
      .def("reset", &Stream::reset)
      .def("snapshot", &Stream::snapshot)
      .def("restore", &Stream::restore, py::arg("snapshot"));

  bind_audio(module);
}

}  // namespace duologue
