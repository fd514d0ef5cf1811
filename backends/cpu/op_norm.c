/* op_norm.c: LAYERNORM and its gradients. */
#include "backends/cpu/cpu_ops.h"

#include <string.h>

enum { CHUNKS = 128 };

static void run_layernorm(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    size_t from, to;
    geul_cpu_share(run, (size_t)geul_rows(t), &from, &to);
    for (size_t r = from; r < to; r++)
        run->kernels->layernorm(geul_cpu_row(t, r), geul_cpu_row(t->src[0], r), t->src[1]->data, t->src[2]->data,
                                t->params.norm.eps, (size_t)geul_cols(t));
}

static void run_norm_back(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    size_t from, to;
    geul_cpu_share(run, (size_t)geul_rows(t), &from, &to);
    for (size_t r = from; r < to; r++)
        run->kernels->layernorm_back(geul_cpu_row(t, r), geul_cpu_row(t->src[0], r), geul_cpu_row(t->src[1], r),
                                     t->src[2]->data, t->params.norm.eps, (size_t)geul_cols(t));
}

/* Rows are summed in so many chunks, whatever the number of threads, and then the chunks in order: the bits of the sums
 * do not depend on the threads. */
static size_t chunks_of(const struct geul_tensor *t)
{
    int64_t rows = geul_rows(t->src[0]);
    return rows < CHUNKS ? (size_t)rows : CHUNKS;
}

/* A (2, C) for each chunk: sums for the gradients of weight and bias. */
static bool sums_scratch(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, int n_threads,
                         size_t *bytes)
{
    (void)kernels, (void)n_threads;
    return geul_mul_size(geul_tensor_bytes(t), chunks_of(t), bytes);
}

static void run_norm_sums(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    size_t cols = (size_t)geul_cols(t), chunks = chunks_of(t), from, to;
    geul_cpu_share(run, chunks, &from, &to);
    for (size_t i = from; i < to; i++) {
        float *sums = (float *)(void *)run->scratch + i * 2 * cols;
        size_t first, end;
        memset(sums, 0, 2 * cols * sizeof *sums);
        geul_cpu_part((size_t)geul_rows(t->src[0]), chunks, i, &first, &end);
        for (size_t r = first; r < end; r++)
            run->kernels->layernorm_sums(sums, sums + cols, geul_cpu_row(t->src[0], r), geul_cpu_row(t->src[1], r),
                                         t->params.norm.eps, cols);
    }
    geul_cpu_barrier(run);
    /* Now threads share the columns, each adding the chunks in order. */
    geul_cpu_share(run, 2 * cols, &from, &to);
    float *out = (float *)t->data + from;
    memset(out, 0, (to - from) * sizeof *out);
    for (size_t i = 0; i < chunks; i++)
        run->kernels->add(out, out, (const float *)(void *)run->scratch + i * 2 * cols + from, to - from);
}

const struct geul_cpu_op geul_cpu_op_LAYERNORM = {.run = run_layernorm};
const struct geul_cpu_op geul_cpu_op_NORM_BACK = {.run = run_norm_back};
const struct geul_cpu_op geul_cpu_op_NORM_SUMS = {.scratch = sums_scratch, .run = run_norm_sums};
