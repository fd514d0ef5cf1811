/* op_pending.c: operations whose kernels are being written beside this file; weak, so that those replace them. */
#include "backends/cpu/cpu_ops.h"
#define PENDING(id) __attribute__((weak)) const struct geul_cpu_op geul_cpu_op_##id = {.run = NULL};
PENDING(CROSS_ENTROPY) PENDING(ATTENTION_BACK) PENDING(LOSS_BACK) PENDING(ADDMM)
