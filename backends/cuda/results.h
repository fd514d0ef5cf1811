/* results.h: what becomes of the results of a product; for every family of products. */
#ifndef GEUL_CUDA_RESULTS_H
#define GEUL_CUDA_RESULTS_H

#include <stdint.h>

/* Rows (T, N) rounded to int8 as the CPU rounds them (q = x * 127 / amax to nearest, ties to even, in groups of 32
 * values), N a multiple of 32: to be read by products of block types, or to be left by an epilogue. */
struct cuda_int8_rows {
    int8_t *q;    /* (T, N) */
    float *scale; /* (T, N / 32): amax / 127 */
    int32_t *sum; /* (T, N / 32): of the group's q, for types with a minimum */
};

enum cuda_activation { CUDA_NO_ACTIVATION, CUDA_GELU_ERF, CUDA_GELU_TANH };

/* What happens to a sum: bias, then the activation, then rows of one or two other tensors are added; it is stored, or
 * left rounded, or both. */
struct cuda_epilogue {
    const float *bias; /* (N); NULL: none */
    enum cuda_activation activation;
    const float *add; /* (T, N); NULL: nothing. May be y */
    int64_t add_stride;
    float *y; /* (T, N); NULL: not stored */
    int64_t y_stride;
    struct cuda_int8_rows rounded; /* (T, N), N a multiple of 32; q NULL: not rounded */
    const float *then_add;         /* as add, after it */
    int64_t then_add_stride;
};

#endif
