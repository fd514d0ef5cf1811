/* attention.h: what attention and its gradients share. */
#ifndef GEUL_CPU_ATTENTION_H
#define GEUL_CPU_ATTENTION_H

#include "backends/cpu/cpu_ops.h"

static inline size_t geul_cpu_round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

/* What makes scores, still to be multiplied by scale, exponents of 2. */
static inline float geul_cpu_exponent(float scale)
{
    const double log2_e = 1.4426950408889634;
    return (float)((double)scale * log2_e);
}

#endif
