/* op_frame.c: see op_frame.h. */
#include "tests/backends/op_frame.h"

#include "tests/backends/device_ops.h"

void (*const op_cases[GEUL_OP_COUNT])(struct run *) = {
#define OP(id, ...) [GEUL_OP_##id] = case_##id,
#include "core/ops.def"
#undef OP
};

bool op_compute(struct run *r, struct geul_tensor *t)
{
    return r->far ? device_compute(r, t) : cpu_compute(r->ctx, r->device, t);
}

void verify(struct run *r, const struct geul_tensor *t, const double *want, double absolute, double relative)
{
    int64_t n = geul_tensor_elements(t);
    float *got = malloc((size_t)(n + 1) * sizeof *got);
    for (int64_t i = 0; i < n; i++)
        got[i] = (float)cpu_value(t, i);
    if (r->compare) {
        CHECK_MSG(r->at + (size_t)n <= r->n_kept && memcmp(got, r->kept + r->at, (size_t)n * sizeof *got) == 0,
                  "%s %s: other bits with %s", r->what, t->name, r->other);
        r->at += (size_t)n;
    } else {
        char what[160];
        snprintf(what, sizeof what, "%s %s", r->what, t->name);
        cpu_close(what, got, want, n, absolute + r->absolute, relative + r->relative);
        r->kept = realloc(r->kept, (r->n_kept + (size_t)n + 1) * sizeof *r->kept);
        memcpy(r->kept + r->n_kept, got, (size_t)n * sizeof *got);
        r->n_kept += (size_t)n;
    }
    free(got);
}
