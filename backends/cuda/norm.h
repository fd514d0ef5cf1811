/* norm.h: layer normalization: one of a row, or two with weights of their own, whose results may also be left rounded
 * for the products that read them; and the gradient of its operand. */
#ifndef GEUL_CUDA_NORM_H
#define GEUL_CUDA_NORM_H

#include "backends/cuda/results.h"
#include "backends/cuda/cuda_rows.h"
#include "backends/cuda/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One result. y, which may be x, and the rounded rows are packed; y NULL: not wanted. */
struct cuda_norm_result {
    const float *weight, *bias; /* (n_cols) */
    float *y;
    struct cuda_int8_rows rounded; /* n_cols is a multiple of 32; q NULL: not wanted */
};

struct cuda_norm {
    const float *x;
    int64_t stride[CUDA_LEADING];
    struct cuda_leading leading;
    int64_t n_rows, n_cols;
    float eps;
    int n_results; /* 1 or 2 */
    struct cuda_norm_result result[2];
    int aligned; /* the launch's own: all quads lie on 16 bytes */
};

/* The gradient of x, given that of the result. dx is packed and may be dy. */
struct cuda_norm_back {
    struct cuda_operand dy, x;
    const float *weight; /* (n_cols) */
    float *dx;
    struct cuda_leading leading;
    int64_t n_rows, n_cols;
    float eps;
    int aligned;
};

int geul_cuda_launch_norm(struct cuda_stream *stream, const void *args);
int geul_cuda_launch_norm_back(struct cuda_stream *stream, const void *args);

#ifdef __cplusplus
}
#endif
#endif
