// Binds the audio port and the resampler into the module.
#pragma once

#include <pybind11/pybind11.h>

namespace duologue {

void bind_audio(pybind11::module_& module);

}  // namespace duologue
