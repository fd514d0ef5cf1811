/* loss.h: the loss of rows of logits, and its gradient (backends/cpu/op_loss.c has the formulas). */
#ifndef GEUL_CUDA_LOSS_H
#define GEUL_CUDA_LOSS_H

#include "backends/cuda/stream.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_loss {
    const float *x; /* (n_rows, n), stride floats apart */
    int64_t stride, n_rows, n;
    const int32_t *targets;
    float smoothing, z;
    float *loss; /* (n_rows) */
    int aligned; /* the launch's own */
};
struct cuda_loss_back {
    struct cuda_loss of; /* without loss */
    const float *dy;     /* (n_rows) */
    float *dx;           /* (n_rows, n) packed; may be x */
};
int geul_cuda_launch_loss(struct cuda_stream *stream, const void *args);
int geul_cuda_launch_loss_back(struct cuda_stream *stream, const void *args);

#ifdef __cplusplus
}
#endif
#endif
