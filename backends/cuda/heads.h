/* heads.h: heads of tokens, and caches of keys and values, as kernels see them. */
#ifndef GEUL_CUDA_HEADS_H
#define GEUL_CUDA_HEADS_H

#include "backends/cuda/cuda_types.h"

#include <stdint.h>

/* float32 (T, H, D), the last dimension packed; strides in floats. */
struct cuda_heads {
    float *data;
    int64_t token_stride, head_stride;
};

/* (S, H, P, D) of F32, F16, BF16 or Q8_0, the last dimension packed; strides in bytes. data NULL: none. */
struct cuda_cache {
    void *data;
    enum cuda_type type;
    int64_t n_sequences, n_positions;
    int64_t sequence_stride, head_stride, position_stride;
};

/* int32 (T, 2): sequence and position of each token; stride in int32 from token to token. */
struct cuda_places {
    const int32_t *data;
    int64_t stride;
};

#endif
