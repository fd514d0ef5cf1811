/* op_embed.c: EMBED: rows of a table of any type, as float32; and SCATTER, its gradient. */
#include "backends/cpu/cpu_ops.h"

#include <math.h>

static void run_embed(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_tensor *table = t->src[0], *ids = t->src[1];
    size_t from, to;
    geul_cpu_share(run, (size_t)geul_rows(t), &from, &to);
    for (size_t r = from; r < to; r++) {
        float *out = geul_cpu_row(t, r);
        int32_t id = ((const int32_t *)ids->data)[r];
        if (id >= 0 && id < table->shape[0]) {
            geul_decode(table->type, geul_cpu_row(table, (size_t)id), out, geul_cols(t));
            continue;
        }
        for (int64_t i = 0; i < geul_cols(t); i++)
            out[i] = NAN;
    }
}

const struct geul_cpu_op geul_cpu_op_EMBED = {.run = run_embed};

/* Threads share columns, not tokens: a row that several tokens name takes their gradients in the order of the tokens,
 * and no two threads write it. */
static void run_scatter(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    enum { STRIP = 64 }; /* columns */
    const struct geul_tensor *x = t->src[1];
    const int32_t *ids = t->src[2]->data;
    size_t cols = (size_t)geul_cols(t), from, to;
    geul_cpu_share(run, (cols + STRIP - 1) / STRIP, &from, &to);
    from *= STRIP;
    to = to * STRIP < cols ? to * STRIP : cols;
    for (size_t r = 0; from < to && r < (size_t)x->shape[0]; r++) {
        if (ids[r] < 0 || ids[r] >= t->shape[0])
            continue;
        float *c = (float *)geul_cpu_row(t, (size_t)ids[r]) + from;
        run->kernels->add(c, c, (const float *)geul_cpu_row(x, r) + from, to - from);
    }
}

const struct geul_cpu_op geul_cpu_op_SCATTER = {.run = run_scatter};
