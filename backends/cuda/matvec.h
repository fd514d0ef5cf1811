/* matvec.h: products of few rows of activations with a weight: as fast as the weight can be read. And rows of
 * activations rounded to int8 for them.
 *
 * y (T, N) = x (T, K) times the transpose of weights (N, K). The order in which a result's products are summed depends
 * on the type and K alone: a token's results have the same bits with any number of other tokens. */
#ifndef GEUL_CUDA_MATVEC_H
#define GEUL_CUDA_MATVEC_H

#include "backends/cuda/cuda_types.h"
#include "backends/cuda/results.h"
#include "backends/cuda/stream.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Rounds x (n_rows, n_cols), n_cols a multiple of 32, stride floats from row to row. */
struct cuda_round {
    const float *x;
    int64_t stride, n_rows, n_cols;
    struct cuda_int8_rows out;
};
int geul_cuda_launch_round(struct cuda_stream *stream, const void *args);

struct cuda_matvec {
    enum cuda_type type; /* of the weights */
    const void *weights;
    int64_t row_bytes; /* from one weight row to the next */
    int64_t n_tokens, n, k;
    struct cuda_int8_rows rounded; /* of x: for block types */
    const float *x;                /* for plain types; rows packed, x_stride floats apart */
    int64_t x_stride;
    bool bfloat; /* plain types: x is rounded to bfloat16 first */
    struct cuda_epilogue out;
};
int geul_cuda_launch_matvec(struct cuda_stream *stream, const void *args);

/* Weight rows in the types of geul_types.def as floats. */
struct cuda_dequantize {
    enum cuda_type type;
    const void *weights;
    int64_t row_bytes, n_rows, n_cols;
    enum cuda_type to; /* CUDA_F32, _F16 or _BF16 */
    void *out;         /* (n_rows, n_cols) packed, on 16 bytes */
};
int geul_cuda_launch_dequantize(struct cuda_stream *stream, const void *args);

#ifdef __cplusplus
}
#endif
#endif
