/* blas.h: products by NVIDIA's cuBLAS, where the machine has it: opened when a plan first asks, never linked. */
#ifndef GEUL_CUDA_BLAS_H
#define GEUL_CUDA_BLAS_H

#include "backends/cuda/cuda_types.h"
#include "backends/cuda/gpu.h"
#include "backends/cuda/stream.h"

#include <stdint.h>

/* Whether cuBLAS is there, with every function that is used, under one of the names in gpu.h's table; the same answer
 * as long as the process lives. Safe to call from any thread. *reason: why not; "" where it is there. */
bool geul_cuda_blas_there(const char **reason);
/* Bytes of device memory that a product is to be given to work in. With memory of ours cuBLAS allocates none, and gives
 * the same bits in every run. */
size_t geul_cuda_blas_workspace(const struct cuda_card *card);

/* y (M, N) = a (M, K) times b (K, N), or y += that; sums are float32, float32 factors are not rounded. */
struct cuda_blas_product {
    enum cuda_type type; /* of a and b: F32, F16 or BF16 */
    const void *a, *b;
    int64_t a_stride[2], b_stride[2]; /* elements; one of each is 1 */
    int64_t m, n, k;
    float *y;
    int64_t y_stride;
    bool adds;
    void *workspace;
    size_t workspace_bytes;
};
/* false: somebody else has to do it, for cuBLAS is not there, has failed on this stream before, or does not take these
 * sizes. Neither waits for the stream nor allocates, but for the first call on a stream, which must not be while a
 * graph is captured. */
bool geul_cuda_blas_multiply(struct cuda_stream *stream, const struct cuda_blas_product *p);

#endif
