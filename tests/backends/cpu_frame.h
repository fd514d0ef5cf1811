/* cpu_frame.h: the frame of the tests of operations: a case builds nodes, computes them and gives what they should be.
 * test_cpu_ops.c runs every case under every instruction set and several numbers of threads. */
#ifndef GEUL_TESTS_CPU_FRAME_H
#define GEUL_TESTS_CPU_FRAME_H

#include "tests/backends/cpu_cases.h"

/* One run of one case: a fresh context and the same random numbers each time. */
struct run {
    struct geul_context *ctx;
    struct geul_device *device;
    uint64_t seed;
    const char *what;
    float *kept; /* all results so far, to compare thread counts */
    size_t n_kept, room;
    bool compare; /* against kept instead of a reference */
    size_t at;
};

/* Checks result t against want (row-major), or bits against an earlier run with another thread count. */
static inline void verify(struct run *r, const struct geul_tensor *t, const double *want, double absolute,
                          double relative)
{
    int64_t n = geul_tensor_elements(t);
    float *got = malloc((size_t)(n + 1) * sizeof *got);
    for (int64_t i = 0; i < n; i++)
        got[i] = (float)cpu_value(t, i);
    if (r->compare) {
        CHECK_MSG(r->at + (size_t)n <= r->n_kept && memcmp(got, r->kept + r->at, (size_t)n * sizeof *got) == 0,
                  "%s %s: other bits with %d threads", r->what, t->name, r->device->n_threads);
        r->at += (size_t)n;
    } else {
        char what[160];
        snprintf(what, sizeof what, "%s %s", r->what, t->name);
        cpu_close(what, got, want, n, absolute, relative);
        r->kept = realloc(r->kept, (r->n_kept + (size_t)n + 1) * sizeof *r->kept);
        memcpy(r->kept + r->n_kept, got, (size_t)n * sizeof *got);
        r->n_kept += (size_t)n;
    }
    free(got);
}

static inline double *doubles(const struct run *r, int64_t n)
{
    return geul_arena(r->ctx, (size_t)n + 1, sizeof(double));
}

#define LEAF(type, spread, ...)                                                                                        \
    cpu_leaf(r->ctx, &r->seed, GEUL_TYPE_##type, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),            \
             (int64_t[]){__VA_ARGS__}, spread)

static inline struct geul_tensor *seq_positions(struct run *r, int64_t tokens)
{
    return LEAF(I32, 0, tokens, 2);
}

static inline void set_seq_pos(struct geul_tensor *seq_pos, int64_t token, int32_t seq, int32_t position)
{
    ((int32_t *)seq_pos->data)[2 * token] = seq;
    ((int32_t *)seq_pos->data)[2 * token + 1] = position;
}

static const int64_t sizes[] = {1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130, 1025};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

/* A view of columns [1, 1 + n) of x (rows, n + 3): strided rows that start off every boundary. */
static inline struct geul_tensor *strided(struct run *r, int64_t rows, int64_t n)
{
    return cpu_view(geul_narrow(r->ctx, LEAF(F32, 2, rows, n + 3), 1, 1, n));
}

/* Each operation of core/ops.def has its case; one without does not link. */
#define OP(id, ...) void case_##id(struct run *r);
#include "core/ops.def"
#undef OP

#endif
