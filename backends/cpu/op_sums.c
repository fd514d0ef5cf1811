/* op_sums.c: ACCUMULATE and PATCH: sums accumulated in place. No two threads write the same element, and every element
 * takes its terms in the order of memory. */
#include "backends/cpu/cpu_ops.h"

#include <string.h>

enum { SEGMENT = 1024, STRIP = 256 };

/* x's leading dimensions repeat c's shape: its rows r, r + rows of c, ... go to row r of c. */
static void accumulate_segment(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t row,
                               size_t start, size_t n)
{
    const struct geul_tensor *x = t->src[1];
    float *c = (float *)geul_cpu_row(t, row) + start;
    for (size_t r = row; r < (size_t)geul_rows(x); r += (size_t)geul_rows(t))
        kernels->add(c, c, (const float *)geul_cpu_row(x, r) + start, n);
}

/* Where several rows go into one, there are few elements and much work for each: smaller pieces, so that all threads
 * have some. */
static void run_accumulate(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    bool same = geul_rows(t) == geul_rows(t->src[1]);
    geul_cpu_each_segment(run, t, same ? SEGMENT : STRIP, accumulate_segment);
}

/* t looks like the region, its operand 1 is x. */
static void patch_segment(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t row, size_t start,
                          size_t n)
{
    const float *x = (const float *)geul_cpu_row(t->src[1], row) + start;
    size_t stride = t->stride[t->n_dims - 1];
    uint8_t *c = (uint8_t *)geul_cpu_row(t, row) + start * stride;
    if (stride == sizeof(float)) {
        kernels->add((float *)(void *)c, (float *)(void *)c, x, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        *(float *)(void *)(c + i * stride) += x[i];
}

static void run_patch(struct geul_cpu_run *run, const struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[1];
    struct geul_tensor region = *t;
    region.n_dims = x->n_dims;
    region.data = (uint8_t *)t->data + t->params.region.offset;
    memcpy(region.shape, x->shape, sizeof region.shape);
    memcpy(region.stride, t->params.region.stride, sizeof region.stride);
    geul_cpu_each_segment(run, &region, SEGMENT, patch_segment);
}

const struct geul_cpu_op geul_cpu_op_ACCUMULATE = {.run = run_accumulate};
const struct geul_cpu_op geul_cpu_op_PATCH = {.run = run_patch};
