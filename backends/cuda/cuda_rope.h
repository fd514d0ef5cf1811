/* cuda_rope.h: rotary embedding and stores as nodes: what fuse.c and cuda_ops.c take from cuda_rope.c. */
#ifndef GEUL_CUDA_ROPE_H
#define GEUL_CUDA_ROPE_H

#include "backends/cuda/cuda.h"
#include "backends/cuda/heads.h"

/* A node (T, H, D) of float32 as kernels see it, a cache (S, H, P, D), and sequences and positions (T, 2). Keys or
 * values (T, H, D) of the tokens themselves are a cache without positions. */
struct cuda_heads geul_cuda_heads(const struct geul_tensor *t);
struct cuda_cache geul_cuda_cache(const struct geul_tensor *t);
struct cuda_places geul_cuda_places(const struct geul_tensor *t);

/* The pattern of every layer: Q and K rotated, K and V stored, in one launch. The nodes are ROPE (of Q), ROPE (of K),
 * STORE (of the second) and STORE (of V), one after the other. K's rotated form is not left in its node, which nobody
 * else may read. */
cuda_pattern geul_cuda_fuse_rope_stores;

#endif
