/* rope_store.h: rotary embedding, and storing keys and values in their caches; both in one launch. */
#ifndef GEUL_CUDA_ROPE_STORE_H
#define GEUL_CUDA_ROPE_STORE_H

#include "backends/cuda/heads.h"
#include "backends/cuda/stream.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The most parts, dimensions that rotate, and frequencies that are computed beforehand. */
enum { CUDA_ROPE_PARTS = 3, CUDA_ROPE_MOST = 8192, CUDA_ROPE_TABLE = 64 };

/* What becomes of one of Q, K and V: rotated or not, it goes to out, which may be x where nothing is stored, or to a
 * cache, encoded as the reference does it (geul_encode()), or both. */
struct cuda_rope_part {
    struct cuda_heads x, out; /* out.data NULL: not wanted */
    struct cuda_cache cache;  /* data NULL: not stored. Tokens outside of it are not */
    bool rotates;
};

struct cuda_rope_store {
    struct cuda_places places;
    int64_t n_tokens, n_heads, depth;
    int n_rot;
    bool back; /* rotates the other way */
    float base;
    /* base^(-2 i / n_rot), of the first pairs; the kernel computes those of more. */
    double frequency[CUDA_ROPE_TABLE];
    int n_parts;
    struct cuda_rope_part part[CUDA_ROPE_PARTS];
};
/* Fills in frequency from n_rot and base. */
void geul_cuda_rope_frequencies(struct cuda_rope_store *args);
int geul_cuda_launch_rope_store(struct cuda_stream *stream, const void *args);

#ifdef __cplusplus
}
#endif
#endif
