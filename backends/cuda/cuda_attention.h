/* cuda_attention.h: causal softmax attention: three kernels, which take the same arguments.
 *
 * Token t attends to positions 0 .. its own of its sequence, in the caches. Without caches (n_positions 0) k and v are
 * float32 rows of the tokens themselves, of sequences one after the other: a token at position p attends to tokens
 * t - p to t. Tokens whose place is outside get rows of NaN. */
#ifndef GEUL_CUDA_CUDA_ATTENTION_H
#define GEUL_CUDA_CUDA_ATTENTION_H

#include "backends/cuda/heads.h"
#include "backends/cuda/matvec.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_attention {
    struct cuda_heads q;
    struct cuda_cache k, v; /* of one type */
    struct cuda_places places;
    int64_t n_tokens, n_heads, depth;
    float scale;
    float *y;                      /* (T, H * D), packed; never NULL */
    bool rounded_only;             /* nobody reads y, so it need not be stored */
    struct cuda_int8_rows rounded; /* of y, D a multiple of 32; q NULL: not wanted */
    /* How the cache is divided among blocks; below, parts is 0 or a form's own number, then there are memory for what
     * blocks leave to the last of them to end, and counters, 0 before and after. */
    int64_t parts;
    float *partial;
    uint32_t *counters;
};

/* Chunks of so many positions, for depths that are multiples of 8 up to 256. Scores, probabilities and sums are
 * float32. A token's bits depend on its own sequence alone, not on the other tokens nor on the size of the cache. parts
 * 0: a block takes all chunks of a token's head; else as many as the cache has chunks, a block each, with the same
 * bits: partial (T, H, parts, D + 2), counters (T, H). */
enum { CUDA_ATTENTION_CHUNK = 64 };
bool geul_cuda_attention_has_chunks(enum cuda_type type, int64_t depth);
int geul_cuda_launch_attention_chunks(struct cuda_stream *stream, const void *args);

/* Tiles of 64 tokens by tensor cores, for the depths that models have: 64, 80, 96, 128, 256. All that is multiplied is
 * float16: queries and probabilities are rounded, and so are keys and values but those of float16 caches (bfloat16 ones
 * are exact from 2^-14 to 2^16), each by at most 2^-11 of itself, or 2^-25 where it is below 2^-14. Scores, softmax and
 * sums are float32. A row that comes out as NaN or infinity, be it from numbers above 65504 or from another token's
 * NaN, is computed anew in float32. parts 0: a block takes a tile of tokens of a head; else up to so many do, of equal
 * parts of the positions, if there are enough: partial of parts times geul_cuda_attention_tile_partial() bytes,
 * counters (tiles, H). */
enum { CUDA_ATTENTION_TILE = 64 };
bool geul_cuda_attention_has_tiles(int64_t depth);
/* Bytes of shared memory of a block. */
size_t geul_cuda_attention_tile_shared(int64_t depth);
/* Bytes that one block of each tile and head leaves. */
size_t geul_cuda_attention_tile_partial(const struct cuda_attention *args);
int geul_cuda_launch_attention_tiles(struct cuda_stream *stream, const void *args);

/* Everything, a block to each head of a token; the other two launch it too where rows do not lie on 16 bytes. It has
 * the promises of the chunks. */
int geul_cuda_launch_attention_plain(struct cuda_stream *stream, const void *args);

#ifdef __cplusplus
}
#endif
#endif
