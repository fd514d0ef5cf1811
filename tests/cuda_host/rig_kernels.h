/* rig_kernels.h: small kernels for the tests of the rig, right and wrong ones. */
#ifndef GEUL_TESTS_RIG_KERNELS_H
#define GEUL_TESTS_RIG_KERNELS_H

#include "backends/cuda/stream.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out[row] = the sum of x[row][0..n_cols), n_rows rows. */
struct rig_row_sums {
    const float *x;
    float *out;
    int n_rows, n_cols;
};
int rig_launch_row_sums(struct cuda_stream *stream, const struct rig_row_sums *args);

/* out = x with the order of its n pieces of 16 bytes turned round in groups of 128, through shared memory. x and out
 * are 16-byte aligned; pieces of the last group that do not exist count as zeros and are not written. */
struct rig_turn {
    const uint32_t *x;
    uint32_t *out;
    int n;
};
int rig_launch_turn(struct cuda_stream *stream, const struct rig_turn *args);

/* out (m x n, row-major) = a (m x k) b^T (n x k); m a multiple of 16, n of 8, k of 32 (16 for halves, float out). */
struct rig_product {
    const void *a, *b;
    void *out;
    int m, n, k;
};
int rig_launch_product_int8(struct cuda_stream *stream, const struct rig_product *args);
int rig_launch_product_half(struct cuda_stream *stream, const struct rig_product *args);

#ifdef __cplusplus
}
#endif
#endif
