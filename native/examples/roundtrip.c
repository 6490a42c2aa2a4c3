/* Speech to codes and back: roundtrip WEIGHTS [mini] < in.f32 > out.f32
 *
 * Samples are raw float32 at 24 kHz. "mini" is the shape of the small codec that duologue trains; without it
 * the file must hold the released codec. */
#include <duologue/mimi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CODEBOOKS = 8 };

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

static void check(duologue_status status) {
  if (status == DUOLOGUE_OK) return;
  fprintf(stderr, "error: %s\n", duologue_last_error());
  exit(EXIT_FAILURE);
}

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s WEIGHTS [mini] < in.f32 > out.f32\n", argv[0]);
    return EXIT_FAILURE;
  }
  const duologue_mimi_config shape =
      argc > 2 && strcmp(argv[2], "mini") == 0 ? mini() : duologue_mimi_released();
  duologue_mimi* mimi = NULL;
  duologue_mimi_stream* stream = NULL;
  check(duologue_mimi_load(argv[1], &shape, CODEBOOKS, DUOLOGUE_FLOAT16, &mimi));
  check(duologue_mimi_stream_create(mimi, 1, &stream));
  duologue_mimi_free(mimi); /* the stream keeps the weights */

  const size_t length = (size_t)shape.frame_samples;
  float* frame = malloc(length * sizeof *frame);
  if (frame == NULL) return EXIT_FAILURE;
  int32_t codes[CODEBOOKS];
  long frames = 0;
  while (fread(frame, sizeof *frame, length, stdin) == length) {
    check(duologue_mimi_encode(stream, frame, codes));
    check(duologue_mimi_decode(stream, codes, frame));
    if (fwrite(frame, sizeof *frame, length, stdout) != length) return EXIT_FAILURE;
    ++frames;
  }
  fprintf(stderr, "%ld frames; the last one's codes begin with %d\n", frames,
          frames > 0 ? (int)codes[0] : -1);
  free(frame);
  duologue_mimi_stream_free(stream);
  return EXIT_SUCCESS;
}
