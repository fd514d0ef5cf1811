/* narrow.h: what lies around a product of 16-bit numbers: activations made narrow before it, and what is left to do
 * with its sums where the product itself cannot do it (cuBLAS). */
#ifndef GEUL_CUDA_NARROW_H
#define GEUL_CUDA_NARROW_H

#include "backends/cuda/matvec.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of x (n_rows, n_cols) as bfloat16, or as float16 times a power of 2 for each row, by which the largest value of
 * the row becomes 2^8 to 2^9: so none is infinite, nor are the small ones denormal, and each is rounded by at most
 * 2^-11 of itself (of 2^-22 of the row's largest). The sums of a row are to be multiplied by scale, which is exact. A
 * row with NaN or infinity has the scale NaN. */
struct cuda_narrow {
    const float *x;
    int64_t stride, n_rows, n_cols;
    bool bfloat;
    uint16_t *out; /* rows out_stride elements apart, zeros behind n_cols */
    int64_t out_stride;
    float *scale; /* (n_rows); not written where bfloat */
};
int geul_cuda_launch_narrow(struct cuda_stream *stream, const void *args);

/* sums (n_rows, n_cols): times scale of the row (NULL: none), then the epilogue, which may store in place. */
struct cuda_finish {
    const float *sums;
    int64_t stride, n_rows, n_cols;
    const float *scale;
    struct cuda_epilogue out;
};
int geul_cuda_launch_finish(struct cuda_stream *stream, const void *args);

/* A matrix in another layout and type: out (n_rows, n_cols) packed along n_cols, zeros behind. From float32 to float16
 * values may become infinite; NaN stays. */
struct cuda_pack {
    enum cuda_type from, to; /* plain types */
    const void *x;
    int64_t stride[2]; /* elements, of n_rows and n_cols; one is 1 */
    int64_t n_rows, n_cols;
    void *out;
    int64_t out_stride; /* elements, n_cols or more */
};
int geul_cuda_launch_pack(struct cuda_stream *stream, const void *args);

/* y (M, N) = a (M, K) b (K, N), by plain float32 arithmetic and with any strides; each sum in the order of K. */
struct cuda_matmul_plain {
    const float *a;
    int64_t a_stride[2]; /* in elements, of M and K */
    enum cuda_type type; /* of b: F32, F16 or BF16 */
    const void *b;
    int64_t b_stride[2]; /* of K and N */
    int64_t m, n, k;
    struct cuda_epilogue out;
};
int geul_cuda_launch_matmul_plain(struct cuda_stream *stream, const void *args);

#ifdef __cplusplus
}
#endif
#endif
