/* matmul.h: products of many rows of activations with a weight, by tensor cores.
 *
 * y (T, N) = x (T, K) times the transpose of weights (N, K). Tiles of weight rows and tokens are blocks; where there
 * are fewer of them than the card has room for, each is cut along K into `split` blocks, whose sums the last one of
 * them to end adds in order. */
#ifndef GEUL_CUDA_MATMUL_H
#define GEUL_CUDA_MATMUL_H

#include "backends/cuda/matvec.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How a product is cut. */
struct cuda_cut {
    int tokens;         /* of a tile: 16, 32, 64 or 128 */
    int split;          /* blocks along K */
    float *partial;     /* device memory, split * T * N floats; not used where split is 1 */
    uint32_t *counters; /* one for each tile, 0 before and after */
};
enum { CUDA_TILE_ROWS = 128 };

/* Of block types; x rounded to int8. The epilogue does not round. */
struct cuda_matmul {
    enum cuda_type type;
    const void *weights;
    int64_t row_bytes, n_tokens, n, k;
    struct cuda_int8_rows rounded; /* of x; q on 16 bytes */
    struct cuda_cut cut;
    struct cuda_epilogue out;
};
int geul_cuda_launch_matmul_int8(struct cuda_stream *stream, const void *args);

/* Of float16 or bfloat16; both sides packed along K, rows on 16 bytes (K a multiple of 8). */
struct cuda_matmul_half {
    bool bfloat;
    const uint16_t *weights, *x;
    int64_t weight_stride, x_stride; /* elements from row to row */
    int64_t n_tokens, n, k;
    const float *row_scale; /* (T): each row of the sums is multiplied by it first; NULL: none */
    struct cuda_cut cut;
    struct cuda_epilogue out;
};
int geul_cuda_launch_matmul_half(struct cuda_stream *stream, const void *args);

/* Bytes of shared memory that a block takes, for weights of block types, or F16 and BF16. */
size_t geul_cuda_tile_shared(enum cuda_type type, int tokens);

#ifdef __cplusplus
}
#endif
#endif
