// Which instruction set the kernels use.
#pragma once

#include <string>
#include <vector>

#include "duologue/status.h"

namespace duologue {

struct Kernels;

// Names this build and this processor both have, slowest first: scalar; avx2, avx512, avx512vnni; neon,
// neondot.
std::vector<std::string> available_isas();

// Name of a table that select_kernels gave.
const char* kernels_name(const Kernels& kernels);

// Kernels by name; an empty name means the environment variable DUOLOGUE_ISA, or else the fastest.
Status select_kernels(const std::string& name, const Kernels** out);

}  // namespace duologue
