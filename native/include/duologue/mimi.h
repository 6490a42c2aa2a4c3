/* The Mimi codec for C: weights that any number of streams share, and streams of one conversation each.
 *
 * Every function may be called from any thread, but a stream belongs to one thread at a time. Nothing is
 * thrown and no step allocates. A call that fails changes nothing but duologue_last_error(). */
#ifndef DUOLOGUE_MIMI_H
#define DUOLOGUE_MIMI_H

#include <stdint.h>

#if defined(_WIN32)
#define DUOLOGUE_API
#else
#define DUOLOGUE_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  DUOLOGUE_OK = 0,
  DUOLOGUE_CONFIG_ERROR = 1,  /* a number, a name or a code that cannot be */
  DUOLOGUE_WEIGHTS_ERROR = 2, /* the file is missing, damaged or of another shape */
  DUOLOGUE_STREAM_ERROR = 3,  /* no memory or no thread for a stream */
  DUOLOGUE_AUDIO_ERROR = 4    /* samples that are NaN or infinite */
} duologue_status;

/* How weights are kept. Codebooks are always float32. */
typedef enum { DUOLOGUE_FLOAT32 = 0, DUOLOGUE_FLOAT16 = 1, DUOLOGUE_INT8 = 2 } duologue_precision;

/* The shape of a codec, under the names of its configuration file; start from duologue_mimi_released(). */
typedef struct {
  int frame_samples;
  int dimension;
  int n_filters;
  int n_residual_layers;
  int compress;
  int kernel_size;
  int residual_kernel_size;
  int last_kernel_size;
  int dilation_base;
  int true_skip;
  int ratios[8]; /* in decoder order; 0 ends the list */
  int codebook_dim;
  int cardinality;
  int total_codebooks;
  int semantic_codebooks;
  int d_model;
  int num_heads;
  int num_layers;
  int context;
  int dim_feedforward;
  float max_period;
  int has_layer_scale;
} duologue_mimi_config;

typedef struct duologue_mimi duologue_mimi;
typedef struct duologue_mimi_stream duologue_mimi_stream;

/* The released codec: 24 kHz, frames of 1920 samples, 32 codebooks of 2048 entries. */
DUOLOGUE_API duologue_mimi_config duologue_mimi_released(void);

/* Reads a safetensors file in moshi's layout and packs it for this processor; NULL is the released shape. */
DUOLOGUE_API duologue_status duologue_mimi_load(const char* path, const duologue_mimi_config* config,
                                                int num_codebooks, duologue_precision precision,
                                                duologue_mimi** out);
/* Streams that are still open keep what they need. */
DUOLOGUE_API void duologue_mimi_free(duologue_mimi* mimi);

/* `threads` is 1 or 2; the second one starts here and ends with the stream. */
DUOLOGUE_API duologue_status duologue_mimi_stream_create(const duologue_mimi* mimi, int threads,
                                                         duologue_mimi_stream** out);
/* samples[frame_samples] -> codes[num_codebooks] */
DUOLOGUE_API duologue_status duologue_mimi_encode(duologue_mimi_stream* stream, const float* samples,
                                                  int32_t* codes);
/* codes[num_codebooks] -> samples[frame_samples] */
DUOLOGUE_API duologue_status duologue_mimi_decode(duologue_mimi_stream* stream, const int32_t* codes,
                                                  float* samples);
/* Back to the state of a new stream. */
DUOLOGUE_API duologue_status duologue_mimi_reset(duologue_mimi_stream* stream);
DUOLOGUE_API void duologue_mimi_stream_free(duologue_mimi_stream* stream);

/* What the last call of this thread that failed has to say; never NULL, valid until the next one that fails.
 */
DUOLOGUE_API const char* duologue_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
