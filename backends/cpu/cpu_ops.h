/* cpu_ops.h: what an operation is to the CPU backend, and what it may use while it runs. */
#ifndef GEUL_CPU_OPS_H
#define GEUL_CPU_OPS_H

#include "backends/cpu/kernels.h"

#include <stdatomic.h>

/* Shared by the threads of one run. Each member that changes often has its own cache line, so that waiting on one does
 * not slow the others.
 *
 * A cancel: geul_cpu_take() notices it and hands out nothing more, so that a long node ends early; the last thread that
 * arrives at a barrier notices it too and sets stopped. Only there, while all others wait, may it change: after each
 * barrier all threads see the same, and stop at the same node. */
struct geul_cpu_shared {
    const struct geul_run_watch *watch; /* NULL: none */
    atomic_bool noticed;                /* work was withheld: the cancel counts even if it is withdrawn now */
    bool stopped;                       /* the run ends after this node */
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int generation;
    _Alignas(64) atomic_size_t next[2]; /* work counters of even and odd nodes */
};

/* One thread's view of a run. */
struct geul_cpu_run {
    int thread, n_threads;
    const struct geul_cpu_kernels *kernels;
    struct geul_cpu_shared *shared;
    uint8_t *scratch;                    /* of this node; all threads see the same, aligned to 64 */
    uint8_t *kept;                       /* the same, but its contents stay from node to node of one run */
    atomic_size_t *next;                 /* this node's work counter, 0 at its start */
    const struct geul_tensor *following; /* the product that comes after this node, or NULL */
    /* What the rotary table in kept was made for. Every thread walks the same nodes, so all hold the same. */
    const struct geul_tensor *rope_seq_pos;
    struct geul_params_rope rope_params;
};

/* One operation. Kernels cannot fail: everything was checked when the graph was built and planned. */
struct geul_cpu_op {
    /* Whether types and strides are handled; shapes and the layout column were checked by core. NULL: always. */
    bool (*supports)(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t);
    /* Bytes of scratch, and of kept memory, for n_threads threads. false on overflow. NULL: none. */
    bool (*scratch)(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, int n_threads, size_t *bytes);
    bool (*kept)(const struct geul_tensor *t, size_t *bytes);
    /* Computes this thread's part. NULL: nothing to compute. */
    void (*run)(struct geul_cpu_run *run, const struct geul_tensor *t);
};

/* The operation's row. */
const struct geul_cpu_op *geul_cpu_op(enum geul_op op);

/* Waits until all threads of the run are here. */
void geul_cpu_barrier(struct geul_cpu_run *run);
/* Waits until another thread of the run has stored value in *counter. */
void geul_cpu_await(atomic_int *counter, int value);
/* The next piece of work that no thread has taken yet: 0, 1, 2... GEUL_CPU_NOTHING, more than any node has, once the
 * run is cancelled: what the node computes then does not matter, but it must come to its end. */
#define GEUL_CPU_NOTHING ((size_t)1 << 40)
size_t geul_cpu_take(struct geul_cpu_run *run);
/* Whether the run is cancelled, for loops that take no pieces. Threads may see it at different times. */
bool geul_cpu_cancelled(struct geul_cpu_run *run);
/* Part i of n pieces shared evenly among parts: [*from, *to). */
void geul_cpu_part(size_t n, size_t parts, size_t i, size_t *from, size_t *to);
/* This thread's even share of n pieces. */
void geul_cpu_share(const struct geul_cpu_run *run, size_t n, size_t *from, size_t *to);
/* Address of row number row of t: rows run over all dimensions but the last, in order. */
void *geul_cpu_row(const struct geul_tensor *t, size_t row);
/* This thread's share of t, whose rows are cut into pieces of at most length elements: calls body(kernels, t, row,
 * first column, columns) for each. */
typedef void geul_cpu_segment(const struct geul_cpu_kernels *kernels, const struct geul_tensor *t, size_t row,
                              size_t start, size_t n);
void geul_cpu_each_segment(struct geul_cpu_run *run, const struct geul_tensor *t, size_t length,
                           geul_cpu_segment *body);

#define OP(id, ...) extern const struct geul_cpu_op geul_cpu_op_##id;
#include "core/ops.def"
#undef OP

#endif
