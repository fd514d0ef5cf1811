/* ceilings.h: kernels that only read or only multiply, for the card's peak rates. */
#ifndef GEUL_CUDA_CEILINGS_H
#define GEUL_CUDA_CEILINGS_H

#include "backends/cuda/stream.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads bytes (a multiple of 16) from data, with 16-byte loads, by every multiprocessor. sink: at least 4 bytes of
 * device memory, which are in fact never written. */
struct cuda_read {
    const void *data;
    size_t bytes;
    uint32_t *sink;
    int n_sm;
};
int geul_cuda_launch_read(struct cuda_stream *stream, const void *args);

enum cuda_peak { CUDA_PEAK_F32, CUDA_PEAK_BF16, CUDA_PEAK_F16, CUDA_PEAK_INT8, CUDA_PEAKS };

/* Multiplies in registers, on every multiprocessor; sink as above. */
struct cuda_multiply {
    enum cuda_peak peak;
    int rounds, n_sm;
    uint32_t *sink;
};
int geul_cuda_launch_multiply(struct cuda_stream *stream, const void *args);
/* Multiply-adds of such a launch. */
double geul_cuda_multiply_macs(const struct cuda_multiply *args);

#ifdef __cplusplus
}
#endif
#endif
