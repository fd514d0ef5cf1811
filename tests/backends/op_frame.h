/* op_frame.h: the frame of the tests of operations: a case builds nodes, computes them and gives what they should be.
 * The same cases run on the CPU, under every instruction set with several numbers of threads (test_cpu_ops.c), and on
 * devices with memory of their own (device_ops.h). */
#ifndef GEUL_TESTS_OP_FRAME_H
#define GEUL_TESTS_OP_FRAME_H

#include "tests/backends/cpu_cases.h"

/* One run of one case: a fresh context and the same random numbers each time. */
struct run {
    struct geul_context *ctx;
    struct geul_device *device;
    uint64_t seed;
    const char *what;
    float *kept; /* all results so far, to compare runs that must have the same bits */
    size_t n_kept, room;
    bool compare; /* against kept instead of a reference */
    size_t at;
    const char *other; /* how this run differs from the one that is compared with */
    /* Of a device whose memory is not the host's: */
    bool far;                  /* it is one */
    bool exact;                /* asked for when nodes are prepared */
    int unsupported;           /* computations that it does not do */
    double absolute, relative; /* what its results may be off by, in addition */
};

/* Computes t and what it needs; the results are in the host's memory. false (and a failed check) on failure; false too
 * when a far device has no kernel for one of the nodes. */
bool op_compute(struct run *r, struct geul_tensor *t);
/* Checks result t against want (row-major), or bits against an earlier run. */
void verify(struct run *r, const struct geul_tensor *t, const double *want, double absolute, double relative);

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
extern void (*const op_cases[GEUL_OP_COUNT])(struct run *);

#endif
