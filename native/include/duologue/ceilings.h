// What this machine allows, for benchmarks to hold themselves against.
#pragma once

namespace duologue {

struct Kernels;

struct Ceilings {
  double gflop_s;  // float32 multiply-adds in registers, two operations each
  double gb_s;     // reading memory far larger than any cache, on huge pages where the system has them
};

// One thread, about half a second.
Ceilings measure_ceilings(const Kernels& kernels);

}  // namespace duologue
