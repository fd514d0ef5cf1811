/* op_norm.c: LAYERNORM. */
#include "backends/cpu/cpu_ops.h"

static void run_layernorm(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    size_t from, to;
    geul_cpu_share(run, (size_t)geul_rows(t), &from, &to);
    for (size_t r = from; r < to; r++)
        run->kernels->layernorm(geul_cpu_row(t, r), geul_cpu_row(t->src[0], r), t->src[1]->data, t->src[2]->data,
                                t->params.norm.eps, (size_t)geul_cols(t));
}

const struct geul_cpu_op geul_cpu_op_LAYERNORM = {.run = run_layernorm};
