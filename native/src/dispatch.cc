#include <cstdlib>

#include "duologue/isa.h"
#include "kernels.h"

#if defined(DUOLOGUE_NEON) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace duologue {
namespace {

std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> table = {scalar_kernels()};
#ifdef DUOLOGUE_X86
  __builtin_cpu_init();
  // Every processor with AVX2 converts halves (F16C), which not every compiler can ask about.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) table.push_back(avx2_kernels());
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("fma")) {
    table.push_back(avx512_kernels());
    if (__builtin_cpu_supports("avx512vnni")) table.push_back(avx512vnni_kernels());
  }
#endif
#ifdef DUOLOGUE_NEON
  table.push_back(neon_kernels());
#if defined(__linux__)
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) table.push_back(neondot_kernels());
#elif defined(__APPLE__)
  table.push_back(neondot_kernels());  // every Apple processor of this kind has dot products
#endif
#endif
  return table;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* kernels : usable_kernels()) names.emplace_back(kernels->name);
  return names;
}

const char* kernels_name(const Kernels& kernels) {
  return kernels.name;
}

Status select_kernels(const std::string& name, const Kernels** out) {
  const std::vector<const Kernels*> table = usable_kernels();
  std::string wanted = name;
  if (wanted.empty()) {
    const char* from_environment = std::getenv("DUOLOGUE_ISA");
    if (from_environment != nullptr) wanted = from_environment;
  }
  if (wanted.empty()) {
    *out = table.back();
    return {};
  }
  std::string known;
  for (const Kernels* kernels : table) {
    if (wanted == kernels->name) {
      *out = kernels;
      return {};
    }
    known += (known.empty() ? "" : ", ") + std::string(kernels->name);
  }
  return Status::config("instruction set '" + wanted + "' is not available here; use one of: " + known);
}

}  // namespace duologue
