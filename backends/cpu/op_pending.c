/* op_pending.c: operations whose kernels are being written beside this file; weak, so that those replace them. */
#include "backends/cpu/cpu_ops.h"
#define PENDING(id) __attribute__((weak)) const struct geul_cpu_op geul_cpu_op_##id = {.run = NULL};
PENDING(ZERO)
PENDING(SCALE) PENDING(DROPOUT) PENDING(CROSS_ENTROPY) PENDING(GELU_BACK) PENDING(NORM_BACK) PENDING(NORM_SUMS)
    PENDING(ATTENTION_BACK) PENDING(LOSS_BACK) PENDING(ACCUMULATE) PENDING(PATCH) PENDING(SCATTER) PENDING(NORM2)
        PENDING(SGD) PENDING(ADAMW) PENDING(ADAMW8) PENDING(ADAFACTOR)
