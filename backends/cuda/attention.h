/* attention.h: causal softmax attention. */
#ifndef GEUL_CUDA_ATTENTION_H
#define GEUL_CUDA_ATTENTION_H

#include "backends/cuda/heads.h"
#include "backends/cuda/matvec.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Token t attends to positions 0 .. its own of its sequence, in the caches. Without caches (n_positions 0) k and v are
 * float32 rows of the tokens themselves, of sequences one after the other: a token at position p attends to tokens t -
 * p to t. Tokens whose place is outside get rows of NaN. */
struct cuda_attention {
    struct cuda_heads q;
    struct cuda_cache k, v; /* of one type */
    struct cuda_places places;
    int64_t n_tokens, n_heads, depth;
    int64_t longest; /* positions that a token can attend to: the cache's, or n_tokens */
    float scale;
    float *y;                      /* (T, H * D), packed; NULL where only the rounded form is wanted */
    struct cuda_int8_rows rounded; /* of y, D a multiple of 32; q NULL: not wanted. Of the chunked form only */
    /* The chunked form's: memory for partial results, and a counter for each head of each token, 0 before and after. */
    float *partial;
    uint32_t *counters;
};

/* Any type and depth: blocks take CUDA_ATTENTION_CHUNK positions of one head of one token, and the last of them to end
 * puts the parts together in order. A result does not depend on other tokens, nor on how large the cache is. */
enum { CUDA_ATTENTION_CHUNK = 128, CUDA_ATTENTION_DEPTH = 1024 /* the greatest depth */ };
int geul_cuda_launch_attention_chunks(struct cuda_stream *stream, const void *args);
size_t geul_cuda_attention_partial_bytes(const struct cuda_attention *args);

/* Tiles of 64 tokens by tensor cores, for caches of F16, Q8_0 and BF16 and depths 64, 80, 96, 128 and 256. Queries,
 * probabilities and q8_0 keys and values are rounded to float16 (2^-11); with a bfloat16 cache queries and
 * probabilities are split into two bfloat16 (2^-17). Scores and sums are float32. */
bool geul_cuda_attention_has_tiles(enum cuda_type type, int64_t depth);
size_t geul_cuda_attention_tile_shared(enum cuda_type type, int64_t depth);
int geul_cuda_launch_attention_tiles(struct cuda_stream *stream, const void *args);

#ifdef __cplusplus
}
#endif
#endif
