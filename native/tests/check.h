// Checks that name the line and the values, and count.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace duologue_test {

inline int failures = 0;

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      ++duologue_test::failures;                                          \
    }                                                                     \
  } while (false)

#define CHECK_NEAR(found, expected, tolerance)                                                            \
  do {                                                                                                    \
    const double found_value = (found);                                                                   \
    const double expected_value = (expected);                                                             \
    if (!(std::fabs(found_value - expected_value) <= (tolerance))) {                                      \
      std::printf("%s:%d: found %.9g, expected %.9g\n", __FILE__, __LINE__, found_value, expected_value); \
      ++duologue_test::failures;                                                                          \
    }                                                                                                     \
  } while (false)

inline std::vector<float> gaussian(std::size_t count, unsigned seed, float scale = 1.0F) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

inline int report() {
  std::printf(failures == 0 ? "ok\n" : "%d checks failed\n", failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace duologue_test
