/* op_elementwise.c: ADD, GELU and CONT: every element by itself. */
#include "backends/cpu/cpu_ops.h"

#include <string.h>

enum { SEGMENT = 1024 }; /* elements that one thread takes at a time, so that one long row has work for all */

/* This thread's pieces of t: calls body(t, row, first column, columns) for each. */
static void each_segment(struct geul_cpu_run *run, const struct geul_tensor *t,
                         void (*body)(const struct geul_cpu_kernels *, const struct geul_tensor *, size_t, size_t,
                                      size_t))
{
    size_t rows = (size_t)geul_rows(t), cols = (size_t)geul_cols(t), per_row = (cols + SEGMENT - 1) / SEGMENT;
    size_t from, to;
    geul_cpu_share(run, rows * per_row, &from, &to);
    for (size_t i = from; i < to; i++) {
        size_t start = i % per_row * SEGMENT, left = cols - start;
        body(run->kernels, t, i / per_row, start, left < SEGMENT ? left : SEGMENT);
    }
}

static void add_segment(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t row, size_t start,
                        size_t n)
{
    const struct geul_tensor *a = t->src[0], *b = t->src[1];
    const float *pa = geul_cpu_row(a, row);
    /* b's dimensions are the last ones of a's, so its rows repeat. */
    const float *pb = geul_cpu_row(b, row % (size_t)geul_rows(b));
    kernels->add((float *)geul_cpu_row(t, row) + start, pa + start, pb + start, n);
}

static void run_add(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    if (geul_rows(t) > 0)
        each_segment(run, t, add_segment);
}

static void gelu_segment(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t row, size_t start,
                         size_t n)
{
    float *out = (float *)geul_cpu_row(t, row) + start;
    const float *x = (const float *)geul_cpu_row(t->src[0], row) + start;
    if (t->params.gelu.kind == GEUL_GELU_TANH)
        kernels->gelu_tanh(out, x, n);
    else
        kernels->gelu_erf(out, x, n);
}

static void run_gelu(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    each_segment(run, t, gelu_segment);
}

/* Row by row when rows are packed, otherwise element by element (plain types only: the shape rule sees to it). */
static void run_cont(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[0];
    size_t stride = x->stride[x->n_dims - 1], from, to;
    geul_cpu_share(run, (size_t)geul_rows(t), &from, &to);
    for (size_t r = from; r < to; r++) {
        const uint8_t *src = geul_cpu_row(x, r);
        float *dst = geul_cpu_row(t, r);
        if (stride == geul_type_bytes(x->type)) {
            geul_decode(x->type, src, dst, geul_cols(t));
            continue;
        }
        for (int64_t i = 0; i < geul_cols(t); i++)
            geul_decode(x->type, src + (size_t)i * stride, dst + i, 1);
    }
}

const struct geul_cpu_op geul_cpu_op_ADD = {.run = run_add};
const struct geul_cpu_op geul_cpu_op_GELU = {.run = run_gelu};
const struct geul_cpu_op geul_cpu_op_CONT = {.run = run_cont};
