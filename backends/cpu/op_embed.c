/* op_embed.c: EMBED: rows of a table of any type, as float32. */
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
