/* op_elementwise.c: ADD, SCALE, DROPOUT, GELU, GELU_BACK, CONT and ZERO: every element by itself. */
#include "backends/cpu/cpu_ops.h"
#include "core/random.h"

#include <string.h>

enum { SEGMENT = 1024 }; /* elements that one thread takes at a time, so that threads can share one long row */

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
        geul_cpu_each_segment(run, t, SEGMENT, add_segment);
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
    geul_cpu_each_segment(run, t, SEGMENT, gelu_segment);
}

static void gelu_back_segment(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t row,
                              size_t start, size_t n)
{
    float *out = (float *)geul_cpu_row(t, row) + start;
    const float *dy = (const float *)geul_cpu_row(t->src[0], row) + start;
    const float *x = (const float *)geul_cpu_row(t->src[1], row) + start;
    if (t->params.gelu.kind == GEUL_GELU_TANH)
        kernels->gelu_tanh_back(out, dy, x, n);
    else
        kernels->gelu_erf_back(out, dy, x, n);
}

static void run_gelu_back(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    geul_cpu_each_segment(run, t, SEGMENT, gelu_back_segment);
}

static void scale_segment(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t row, size_t start,
                          size_t n)
{
    float *out = (float *)geul_cpu_row(t, row) + start;
    const float *x = (const float *)geul_cpu_row(t->src[0], row) + start;
    if (out != x)
        memcpy(out, x, n * sizeof *out);
    kernels->scale(out, t->params.scale.factor, n);
}

static void run_scale(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    geul_cpu_each_segment(run, t, SEGMENT, scale_segment);
}

/* Whether element i of the row-major order is dropped depends on seed, salt and i alone: the number of the SEGMENT that
 * i is in gives a key, its index there the rest. So pieces end where such segments do, whatever the rows are. */
static void dropout_segment(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t row,
                            size_t start, size_t n)
{
    float *out = (float *)geul_cpu_row(t, row) + start;
    const float *x = (const float *)geul_cpu_row(t->src[0], row) + start;
    const uint32_t *seed = t->src[1]->data;
    struct geul_params_dropout p = t->params.dropout;
    uint64_t key = geul_random_key((uint64_t)seed[1] << 32 | seed[0], p.salt);
    uint32_t limit = (uint32_t)((double)p.p * 0x1p32);
    for (size_t done = 0; done < n;) {
        size_t i = row * (size_t)geul_cols(t) + start + done, first = i % SEGMENT, part = SEGMENT - first;
        part = part < n - done ? part : n - done;
        kernels->dropout(out + done, x + done, geul_random_key(key, i / SEGMENT), (uint32_t)first, limit, 1 / (1 - p.p),
                         part);
        done += part;
    }
}

static void run_dropout(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    geul_cpu_each_segment(run, t, SEGMENT, dropout_segment);
}

static void run_zero(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    size_t from, to;
    geul_cpu_share(run, (size_t)geul_tensor_elements(t), &from, &to);
    if (to > from)
        memset((float *)t->data + from, 0, (to - from) * sizeof(float));
}

/* Row by row when rows are packed, otherwise element by element (plain types only: the shape rule makes sure of it). */
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
const struct geul_cpu_op geul_cpu_op_SCALE = {.run = run_scale};
const struct geul_cpu_op geul_cpu_op_DROPOUT = {.run = run_dropout};
const struct geul_cpu_op geul_cpu_op_GELU = {.run = run_gelu};
const struct geul_cpu_op geul_cpu_op_GELU_BACK = {.run = run_gelu_back};
const struct geul_cpu_op geul_cpu_op_CONT = {.run = run_cont};
const struct geul_cpu_op geul_cpu_op_ZERO = {.run = run_zero};
