/* elementwise.h: what every element goes through by itself: sums, scaling, GELU, dropout, and copies that make rows of
 * any strides and type packed float32. And sums of rows. */
#ifndef GEUL_CUDA_ELEMENTWISE_H
#define GEUL_CUDA_ELEMENTWISE_H

#include "backends/cuda/cuda_types.h"
#include "backends/cuda/results.h"
#include "backends/cuda/cuda_rows.h"
#include "backends/cuda/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

enum cuda_elementwise_kind {
    CUDA_ADD,       /* a + b */
    CUDA_SCALE,     /* a * factor */
    CUDA_GELU,      /* of a, as `activation` says */
    CUDA_GELU_BACK, /* a times the slope of GELU at b */
    CUDA_DROPOUT,   /* a * factor, or 0 */
    CUDA_COPY,      /* a */
    CUDA_ZERO,      /* 0 */
    CUDA_ELEMENTWISE_KINDS
};

/* out may be a; it is float32. Operands that the kind does not read are zeros. */
struct cuda_elementwise {
    enum cuda_elementwise_kind kind;
    struct cuda_leading leading;
    int64_t n_rows, n_cols;
    struct cuda_operand out, a, b;
    enum cuda_type type; /* of a: float32, and of copies also float16 and bfloat16 */
    float factor;
    enum cuda_activation activation;
    struct cuda_int8_rows rounded; /* of CUDA_GELU: the packed result rounded, n_cols a multiple of 32; q NULL: not */
    int no_out;                    /* and only that */
    const uint32_t *seed;          /* of CUDA_DROPOUT: two words; elements are numbered as core/random.h says */
    uint32_t salt, limit;          /* dropped: those whose random number is below */
    int aligned;                   /* the launch's own */
};
int geul_cuda_launch_elementwise(struct cuda_stream *stream, const void *args);

/* out (n_rows, n_cols) += the sum of `times` such matrices: x's leading dimensions `over` number them. Terms are added
 * in their order. */
struct cuda_accumulate {
    struct cuda_leading leading, over;
    int64_t n_rows, n_cols, times;
    struct cuda_operand out, x;
    int64_t over_stride[CUDA_LEADING]; /* of x */
    int aligned;
};
int geul_cuda_launch_accumulate(struct cuda_stream *stream, const void *args);

#ifdef __cplusplus
}
#endif
#endif
