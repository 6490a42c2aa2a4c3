/* The C interface, from C: round trips, resets, and refusals that leave everything as it was. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "duologue/mimi.h"

enum { CODEBOOKS = 8, FRAMES = 6, SAMPLES = 1920 };

static int failures = 0;

#define CHECK(condition)                                             \
  do {                                                               \
    if (!(condition)) {                                              \
      printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                    \
    }                                                                \
  } while (0)

static duologue_mimi_config mini(void) {
  duologue_mimi_config shape = duologue_mimi_released();
  shape.dimension = shape.d_model = 256;
  shape.n_filters = 16;
  shape.codebook_dim = 64;
  shape.cardinality = 1024;
  shape.total_codebooks = 8;
  shape.num_heads = 4;
  shape.num_layers = 2;
  shape.dim_feedforward = 1024;
  return shape;
}

static void run(duologue_mimi_stream* stream, int32_t* codes, float* out) {
  float frame[SAMPLES];
  int i, t;
  for (i = 0; i < FRAMES; ++i) {
    for (t = 0; t < SAMPLES; ++t) frame[t] = 0.3F * (float)sin(0.05 * (i * SAMPLES + t) * (1 + 0.1 * i));
    CHECK(duologue_mimi_encode(stream, frame, codes + i * CODEBOOKS) == DUOLOGUE_OK);
    CHECK(duologue_mimi_decode(stream, codes + i * CODEBOOKS, out + i * SAMPLES) == DUOLOGUE_OK);
  }
}

static void check_precision(const char* path, duologue_precision precision) {
  const duologue_mimi_config shape = mini();
  static float first[FRAMES * SAMPLES], second[FRAMES * SAMPLES];
  int32_t codes[FRAMES * CODEBOOKS], again[FRAMES * CODEBOOKS];
  duologue_mimi* mimi = NULL;
  duologue_mimi_stream* stream = NULL;
  double power = 0.0;
  int i;
  CHECK(duologue_mimi_load(path, &shape, CODEBOOKS, precision, &mimi) == DUOLOGUE_OK);
  CHECK(duologue_mimi_stream_create(mimi, 2, &stream) == DUOLOGUE_OK);
  duologue_mimi_free(mimi);
  run(stream, codes, first);
  CHECK(duologue_mimi_reset(stream) == DUOLOGUE_OK);
  run(stream, again, second);
  CHECK(memcmp(codes, again, sizeof codes) == 0 && memcmp(first, second, sizeof first) == 0);
  for (i = 0; i < FRAMES * SAMPLES; ++i) power += (double)first[i] * first[i];
  CHECK(power > 0.0);
  duologue_mimi_stream_free(stream);
}

static void check_refusals(const char* path) {
  duologue_mimi_config shape = mini();
  duologue_mimi* mimi = NULL;
  duologue_mimi_stream* stream = NULL;
  static float frame[SAMPLES];
  int32_t codes[CODEBOOKS] = {0};
  CHECK(duologue_mimi_load("missing", &shape, CODEBOOKS, DUOLOGUE_FLOAT32, &mimi) == DUOLOGUE_WEIGHTS_ERROR);
  CHECK(strstr(duologue_last_error(), "missing") != NULL && mimi == NULL);
  CHECK(duologue_mimi_load(path, NULL, CODEBOOKS, DUOLOGUE_FLOAT32, &mimi) == DUOLOGUE_WEIGHTS_ERROR);
  CHECK(duologue_mimi_load(path, &shape, 9, DUOLOGUE_FLOAT32, &mimi) == DUOLOGUE_CONFIG_ERROR);
  CHECK(duologue_mimi_load(path, &shape, 8, (duologue_precision)7, &mimi) == DUOLOGUE_CONFIG_ERROR);
  CHECK(duologue_mimi_load(NULL, &shape, 8, DUOLOGUE_FLOAT32, &mimi) == DUOLOGUE_CONFIG_ERROR);
  CHECK(duologue_mimi_load(path, &shape, 8, DUOLOGUE_FLOAT32, &mimi) == DUOLOGUE_OK);
  CHECK(duologue_mimi_stream_create(mimi, 3, &stream) == DUOLOGUE_CONFIG_ERROR && stream == NULL);
  CHECK(duologue_mimi_stream_create(NULL, 1, &stream) == DUOLOGUE_CONFIG_ERROR);
  CHECK(duologue_mimi_stream_create(mimi, 1, &stream) == DUOLOGUE_OK);
  frame[7] = NAN;
  CHECK(duologue_mimi_encode(stream, frame, codes) == DUOLOGUE_AUDIO_ERROR);
  CHECK(strstr(duologue_last_error(), "sample 7") != NULL);
  codes[3] = 1024;
  CHECK(duologue_mimi_decode(stream, codes, frame) == DUOLOGUE_CONFIG_ERROR);
  CHECK(duologue_mimi_decode(NULL, codes, frame) == DUOLOGUE_CONFIG_ERROR);
  CHECK(duologue_mimi_encode(stream, NULL, codes) == DUOLOGUE_CONFIG_ERROR);
  CHECK(duologue_mimi_reset(NULL) == DUOLOGUE_CONFIG_ERROR);
  duologue_mimi_stream_free(stream);
  duologue_mimi_stream_free(NULL);
  duologue_mimi_free(mimi);
  duologue_mimi_free(NULL);
}

int main(int argc, char** argv) {
  if (argc != 2) return EXIT_FAILURE;
  check_precision(argv[1], DUOLOGUE_FLOAT32);
  check_precision(argv[1], DUOLOGUE_FLOAT16);
  check_precision(argv[1], DUOLOGUE_INT8);
  check_refusals(argv[1]);
  printf(failures == 0 ? "ok\n" : "failed\n");
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
