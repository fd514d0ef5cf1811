/* prepare.h: what nodes become: steps with their arguments, and the memory that they work in; and the state of a plan
 * while it is made. Between prepare.c, rounded.c, replay.c and the tests. */
#ifndef GEUL_CUDA_PREPARE_H
#define GEUL_CUDA_PREPARE_H

#include "backends/cuda/device.h"

struct cuda_step {
    const char *what; /* the kernel */
    cuda_launch *launch;
    const void *args;
    int node; /* whose step it is, or the last of its pattern */
};

struct geul_prepared {
    struct geul_tensor *const *nodes;
    int n_nodes;
    struct cuda_step *steps;
    int n_steps;
    uint8_t *args;
    void *memory; /* on the card: zeros, then scratch; NULL: none */
    size_t bytes;
    /* replay.c's */
    void *graph;       /* NULL: not captured */
    bool not_captured; /* and will not be */
    long runs, launches;
};

/* What the emitting of nodes is for. */
enum cuda_pass {
    CUDA_ASK,   /* which rows are wanted rounded */
    CUDA_COUNT, /* how many steps, how much scratch */
    CUDA_EMIT   /* the steps, with addresses */
};

/* Memory that was asked for. Lifetimes are counted in groups: a node, or the nodes that a pattern took together. */
struct cuda_piece {
    size_t bytes, offset;
    int first, until; /* the first group, and the last NODE, whose steps use it */
    bool zero;        /* lives always */
};

/* A group that reads the rows of x rounded. */
struct cuda_asked {
    const struct geul_tensor *x;
    int group;
};

/* Rows that are there rounded. */
struct cuda_kept_rows {
    const struct geul_tensor *x;
    void *block;
};

struct cuda_plan_state {
    struct geul_context *ctx; /* memory and messages */
    const struct cuda_kernels *kernels;
    enum cuda_pass pass;
    bool failed; /* recorded */
    int group;
    int *group_of; /* node */
    struct cuda_piece *pieces;
    size_t n_pieces, most_pieces;
    size_t next; /* in CUDA_EMIT: the piece that is asked for next */
    struct cuda_asked *asked;
    size_t n_asked, most_asked;
    struct cuda_kept_rows *rows;
    size_t n_rows, most_rows;
    size_t n_steps, args_bytes;
    size_t zero_bytes, total_bytes; /* of memory */
    struct geul_prepared *out;      /* in CUDA_EMIT */
};

/* rounded.c: the step that rounds the rows of x, for struct cuda_kernels. */
void geul_cuda_emit_round(struct cuda_plan *plan, const struct geul_tensor *x, struct cuda_int8_rows out);
/* rounded.c, between nodes: rows of what node changes in place are no longer there rounded. */
void geul_cuda_forget_rows(struct cuda_plan *plan, const struct geul_tensor *node);
/* A name of the node's operation, and its flags (core/ops.def). */
const char *geul_cuda_op_name(enum geul_op op);
unsigned geul_cuda_op_flags(enum geul_op op);

#endif
