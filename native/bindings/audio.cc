// Python's view of the audio port and the variable resampler.
#include "audio.h"

#include <pybind11/numpy.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "duologue/audio_port.h"
#include "duologue/audio_resampler.h"

namespace py = pybind11;

namespace duologue {
namespace {

using Samples = py::array_t<float, py::array::c_style>;

[[noreturn]] void fail(const char* error_class, const std::string& message) {
  const py::object errors = py::module_::import("duologue.errors");
  PyErr_SetString(py::object(errors.attr(error_class)).ptr(), message.c_str());
  throw py::error_already_set();
}

Samples checked_samples(const py::object& value) {
  if (py::isinstance<py::array_t<float>>(value) && py::reinterpret_borrow<py::array>(value).ndim() == 1) {
    return Samples(py::reinterpret_borrow<py::array>(value));
  }
  fail("AudioError", "samples must be a NumPy array of float32, shape (n,); got " +
                         std::string(py::str(py::type::of(value))));
}

Samples to_array(const std::vector<float>& values) {
  return Samples(static_cast<py::ssize_t>(values.size()), values.data());
}

py::dict durations(const DurationCounts& from) {
  py::array_t<std::uint64_t> counts(DurationCounts::kBins);
  for (int i = 0; i < DurationCounts::kBins; ++i) counts.mutable_at(i) = from.counts[i].load();
  py::dict out;
  out["counts"] = counts;
  out["max_ns"] = from.max_ns.load();
  return out;
}

py::dict callback_counts(const CallbackCounts& from) {
  static const char* const kFlags[] = {"input_underflow", "input_overflow", "output_underflow",
                                       "output_overflow", "priming_output"};
  py::dict out;
  out["calls"] = from.calls.load();
  out["late"] = from.late.load();
  out["flagged"] = from.flagged.load();
  out["last_ns"] = from.last_ns.load();
  for (int i = 0; i < 5; ++i) out[kFlags[i]] = from.flags[i].load();
  out["gap"] = durations(from.gap);
  out["body"] = durations(from.body);
  return out;
}

// Keeps the memory it lives in; the port itself belongs to whoever shares that memory.
class Port {
 public:
  Port(const py::object& memory, std::uint64_t capacity)
      : buffer_(py::reinterpret_borrow<py::buffer>(memory).request(true)) {
    const auto size = static_cast<std::size_t>(buffer_.size * buffer_.itemsize);
    port_ =
        capacity > 0 ? AudioPort::create(buffer_.ptr, size, capacity) : AudioPort::attach(buffer_.ptr, size);
    if (port_ == nullptr && capacity > 0) {
      fail("ConfigError", "capacity must be a power of two and the memory " +
                              std::to_string(AudioPort::bytes(capacity)) + " bytes, aligned to 64; got " +
                              std::to_string(size));
    }
    if (port_ == nullptr) fail("StreamError", "this memory holds no audio port; create one with a capacity");
    // A page first touched by the driver's thread would cost it a fault there.
    for (std::size_t at = 0; at < size; at += 4096) {
      static_cast<void>(static_cast<const volatile char*>(buffer_.ptr)[at]);
    }
  }

  void configure(double input_hz, double output_hz, int input_channels, int output_channels) {
    const bool is_valid = input_hz > 0 && output_hz > 0 && input_channels >= 1 && output_channels >= 1 &&
                          input_channels <= AudioPort::kMaxChannels &&
                          output_channels <= AudioPort::kMaxChannels;
    if (!is_valid) {
      fail("ConfigError",
           "rates must be positive and channels between 1 and " + std::to_string(AudioPort::kMaxChannels));
    }
    input_channels_ = input_channels;
    output_channels_ = output_channels;
    port_->configure(input_hz, output_hz, input_channels, output_channels);
  }

  Samples read_input(std::uint64_t limit) {
    const std::uint64_t count = std::min(limit, port_->input.fill());
    Samples out(static_cast<py::ssize_t>(count));
    port_->input.read(out.mutable_data(), count);
    return out;
  }

  // The newest `keep` samples stay; returns how many older ones were dropped.
  std::uint64_t drop_input(std::uint64_t keep) {
    const std::uint64_t fill = port_->input.fill();
    const std::uint64_t drop = fill > keep ? fill - keep : 0;
    port_->input.commit_read(drop);
    return drop;
  }

  std::uint64_t write_output(const py::object& value) {
    const Samples samples = checked_samples(value);
    return port_->output.write(samples.data(), static_cast<std::uint64_t>(samples.size()));
  }

  // Sleeps in steps of a millisecond until `count` samples wait or the time is over; the driver wakes nobody,
  // because that could cost it time.
  std::uint64_t wait_input(std::uint64_t count, double timeout_s) {
    const py::gil_scoped_release release;
    const std::int64_t until_ns = monotonic_ns() + static_cast<std::int64_t>(timeout_s * 1e9);
    while (port_->input.fill() < count && monotonic_ns() < until_ns) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return port_->input.fill();
  }

  py::tuple clocks() const {
    std::uint64_t input = 0;
    std::uint64_t output = 0;
    std::int64_t input_ns = 0;
    std::int64_t output_ns = 0;
    // A duplex callback publishes both with one stamp; a pair read between the two is read again.
    for (int attempt = 0; attempt < 3; ++attempt) {
      port_->input_clock.get(&input, &input_ns);
      port_->output_clock.get(&output, &output_ns);
      if (input_ns == output_ns) break;
    }
    return py::make_tuple(input, input_ns, output, output_ns);
  }

  // One driver call, as a sound device would make it. `now_ns` 0 is the real clock.
  py::object drive(const py::object& input, std::uint64_t output_samples, std::int64_t now_ns,
                   unsigned long flags) {
    Samples in;
    std::uint64_t samples = output_samples;
    if (!input.is_none()) {
      in = checked_samples(input);
      const auto count = static_cast<std::uint64_t>(in.size()) / static_cast<std::uint64_t>(input_channels_);
      if (output_samples != 0 && output_samples != count)
        fail("ConfigError", "a duplex call has one block size");
      samples = count;
    }
    Samples out(static_cast<py::ssize_t>(output_samples * static_cast<std::uint64_t>(output_channels_)));
    const float* from = input.is_none() ? nullptr : in.data();
    float* to = output_samples > 0 ? out.mutable_data() : nullptr;
    {
      const py::gil_scoped_release release;
      if (now_ns != 0) {
        port_->run(from, to, samples, flags, now_ns);
      } else {
        const DuologueStreamTimes times{0, 0, 0};
        duologue_audio_callback(from, to, samples, &times, flags, port_);
      }
    }
    return output_samples > 0 ? py::object(out) : py::object(py::none());
  }

  py::dict counters() const {
    py::dict out;
    out["lost_input"] = port_->lost_input.load();
    out["lost_input_events"] = port_->lost_input_events.load();
    out["concealed_output"] = port_->concealed_output.load();
    out["concealed_output_events"] = port_->concealed_output_events.load();
    out["silenced_output"] = port_->silenced_output.load();
    out["input_latency_s"] = port_->input_latency_s.load();
    out["output_latency_s"] = port_->output_latency_s.load();
    out["callbacks"] =
        py::make_tuple(callback_counts(port_->callbacks[0]), callback_counts(port_->callbacks[1]));
    return out;
  }

  // The real calls of one driver thread from number `since` on, as far as they are still known: the number to
  // ask from next time, and one row (begun_ns, body_ns, flags) a call.
  py::tuple calls_since(int thread, std::uint64_t since) const {
    if (thread != 0 && thread != 1) fail("ConfigError", "there are two driver threads at most: 0 and 1");
    std::vector<CallbackLog::Call> calls(CallbackLog::kCapacity);
    std::uint64_t next = 0;
    calls.resize(port_->callbacks[thread].log.read(since, calls.data(), &next));
    py::array_t<std::int64_t> rows({static_cast<py::ssize_t>(calls.size()), py::ssize_t{3}});
    for (py::ssize_t row = 0; row < rows.shape(0); ++row) {
      const CallbackLog::Call& call = calls[static_cast<std::size_t>(row)];
      rows.mutable_at(row, 0) = call.begun_ns;
      rows.mutable_at(row, 1) = call.body_ns;
      rows.mutable_at(row, 2) = call.flags;
    }
    return py::make_tuple(next, rows);
  }

  // Of the driver thread that has been silent longest; 0 before the first call.
  std::int64_t last_call_ns() const {
    const std::int64_t first = port_->callbacks[0].last_ns.load(std::memory_order_acquire);
    const std::int64_t second = port_->callbacks[1].last_ns.load(std::memory_order_acquire);
    return first == 0 || second == 0 ? std::max(first, second) : std::min(first, second);
  }
  std::uint64_t calls() const { return port_->callbacks[0].calls.load() + port_->callbacks[1].calls.load(); }
  AudioPort& port() const { return *port_; }

 private:
  py::buffer_info buffer_;
  AudioPort* port_ = nullptr;
  int input_channels_ = 1;
  int output_channels_ = 1;
};

Samples resample_process(VariableResampler& resampler, const py::object& value) {
  const Samples samples = checked_samples(value);
  std::vector<float> output;
  {
    const py::gil_scoped_release release;
    resampler.process(samples.data(), static_cast<std::size_t>(samples.size()), &output);
  }
  return to_array(output);
}

// Plain `type` as metaclass: these classes have no static properties and cannot be subclassed.
py::metaclass plain() {
  return py::metaclass(reinterpret_cast<PyObject*>(&PyType_Type));
}

void bind_port(py::module_& module) {
  module.def("audio_port_bytes", &AudioPort::bytes,
             "Memory that a port with rings of `capacity` samples needs.", py::arg("capacity"));
  py::class_<Port>(module, "AudioPort", plain(), py::is_final(),
                   "Two sample rings and the driver callback between them, in shared memory.")
      .def(py::init<const py::object&, std::uint64_t>(), py::arg("memory"), py::kw_only(),
           py::arg("capacity") = 0)
      .def("configure", &Port::configure, py::kw_only(), py::arg("input_hz"), py::arg("output_hz"),
           py::arg("input_channels") = 1, py::arg("output_channels") = 1)
      .def("read_input", &Port::read_input, py::arg("limit"))
      .def("drop_input", &Port::drop_input, py::arg("keep"))
      .def("write_output", &Port::write_output, py::arg("samples"))
      .def("wait_input", &Port::wait_input, py::arg("count"), py::arg("timeout_s"))
      .def("silence_queued",
           [](Port& self) {
             const SampleRange range = self.port().silence_queued();
             return std::make_pair(range.first, range.until);
           })
      .def("clocks", &Port::clocks)
      .def("counters", &Port::counters)
      .def("calls_since", &Port::calls_since, py::arg("thread"), py::arg("since"))
      .def("drive", &Port::drive, py::arg("input"), py::arg("output_samples"), py::kw_only(),
           py::arg("now_ns") = 0, py::arg("flags") = 0)
      .def_property_readonly("address",
                             [](const Port& self) { return reinterpret_cast<std::uintptr_t>(&self.port()); })
      .def_property_readonly("input_hz", [](const Port& self) { return self.port().input_hz; })
      .def_property_readonly("output_hz", [](const Port& self) { return self.port().output_hz; })
      .def_property_readonly("input_fill", [](const Port& self) { return self.port().input.fill(); })
      .def_property_readonly("output_fill", [](const Port& self) { return self.port().output.fill(); })
      .def_property_readonly("input_read", [](const Port& self) { return self.port().input.read(); })
      .def_property_readonly("output_written", [](const Port& self) { return self.port().output.written(); })
      .def_property_readonly("lost_input", [](const Port& self) { return self.port().lost_input.load(); })
      .def_property_readonly("concealed_output",
                             [](const Port& self) { return self.port().concealed_output.load(); })
      .def_property_readonly("latencies_s",
                             [](const Port& self) {
                               return std::make_pair(self.port().input_latency_s.load(),
                                                     self.port().output_latency_s.load());
                             })
      .def_property_readonly("capacity", [](const Port& self) { return self.port().input.capacity(); })
      .def_property_readonly("calls", &Port::calls)
      .def_property_readonly("last_call_ns", &Port::last_call_ns)
      .def_property(
          "is_muted", [](const Port& self) { return self.port().is_muted.load(); },
          [](Port& self, bool value) { self.port().is_muted.store(value); });
}

}  // namespace

void bind_audio(py::module_& module) {
  bind_port(module);
  module.def(
      "audio_callback_address", [] { return reinterpret_cast<std::uintptr_t>(&duologue_audio_callback); },
      "Address of the stream callback to hand to PortAudio, with an AudioPort's address as its user data.");
  module.def("monotonic_ns", &monotonic_ns, "The clock of every stamp in an AudioPort.");
  py::class_<VariableResampler>(module, "VariableResampler", plain(), py::is_final(),
                                "Sample-rate conversion whose ratio may change at any time without a click.")
      .def(py::init([](double from_hz, double to_hz) {
             const bool is_valid = from_hz >= 4000 && from_hz <= 384000 && to_hz >= 4000 && to_hz <= 384000;
             if (!is_valid) fail("ConfigError", "a sample rate is out of range; use 4000 to 384000 Hz");
             return std::make_unique<VariableResampler>(from_hz, to_hz);
           }),
           py::arg("from_hz"), py::arg("to_hz"))
      .def("process", &resample_process, py::arg("samples"))
      .def("set_speed", &VariableResampler::set_speed, py::arg("relative"))
      .def("reset", &VariableResampler::reset)
      .def_property_readonly("lookahead", &VariableResampler::lookahead);
}

}  // namespace duologue
