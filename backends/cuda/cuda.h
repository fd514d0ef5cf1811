/* cuda.h: what the C files of the CUDA backend share: the card, and the plan that a segment of nodes becomes.
 *
 *   device.c     cards, memory, queues, events: the backend's struct geul_backend
 *   gpu.h        the few calls to CUDA that the C files need, as a table: runtime.cu fills it with the CUDA runtime's,
 *                tests/cuda_host/ with the CPU's; and struct cuda_card
 *   prepare.c    nodes -> plan: walks the nodes, tries the patterns of fuse.c, else emits each node by itself; scratch
 *   replay.c     runs plans; captures the steps as a CUDA graph
 *   rounded.c    which rows are rounded to int8 by whom, once for all that read them
 *   cuda_ops.c   the dispatch array over core/ops.def
 *   cuda_*.c     per family: which nodes the kernels take, and the steps that a node becomes; with it
 *   *.cu, *.h    the kernels of that family, which know no tensor: a struct of pointers, strides and sizes, and an
 *                extern "C" function that launches
 */
#ifndef GEUL_CUDA_H
#define GEUL_CUDA_H

#include "backends/backend.h"
#include "backends/cuda/gpu.h"
#include "backends/cuda/results.h"
#include "backends/cuda/stream.h"

/* ------------------------------------------------------------------------------------- plans -- */

/* One launch, or one call of a library that launches. args is the plan's copy. Returns 0 or an error number. */
typedef int cuda_launch(struct cuda_stream *stream, const void *args);

/* What a segment becomes. Nodes are emitted more than once, by the same code: to see what is wanted rounded, to count
 * steps and scratch, and with the memory there. So emitting depends on the nodes and the card alone, and does not look
 * at addresses (geul_cuda_apart() may). */
struct cuda_plan {
    const struct cuda_card *card;
    bool exact; /* every product and sum has one order whatever the batch */
    struct geul_tensor *const *nodes;
    int n_nodes;
    int at;                        /* the node that is being emitted, or the last one of the pattern */
    struct cuda_plan_state *state; /* prepare.c's own */
};

/* Appends a launch with a copy of args, which are plain data. what: the kernel's name, for messages and counts; a
 * literal. */
void geul_cuda_step(struct cuda_plan *plan, const char *what, cuda_launch *launch, const void *args, size_t bytes);
/* Device memory for the steps from now on up to those of node number `until` (plan->at: of this node alone), 256-byte
 * aligned, not set. Never NULL: what fails is recorded in the plan, and its steps are never launched. */
void *geul_cuda_scratch(struct cuda_plan *plan, size_t bytes, int until);
/* As geul_cuda_scratch(), zero before the first run and not shared with anything: counters that kernels leave at 0. */
void *geul_cuda_zeros(struct cuda_plan *plan, size_t bytes);
/* Records why plan->nodes[plan->at] cannot be emitted after all: the plan fails. */
void geul_cuda_refuse(struct cuda_plan *plan, enum geul_status status, const char *format, ...) GEUL_PRINTF(3, 4);
/* Whether a and b are the same result or leaf. Not always the same struct: a node that reads what another device has
 * computed is a twin of itself in the plan, while those that read it point to the original. */
bool geul_cuda_same(const struct geul_tensor *a, const struct geul_tensor *b);
/* Whether t is x, or views of it, one or more. */
bool geul_cuda_is_view_of(const struct geul_tensor *t, const struct geul_tensor *x);
/* Whether the memory of a and b does not overlap. The planner of core lets a node's result take over memory that is not
 * read after that node: who computes several nodes in one launch asks this of each result that he stores and each
 * operand that he still reads then. true while there are no addresses. */
bool geul_cuda_apart(const struct geul_tensor *a, const struct geul_tensor *b);
/* The number of the last node of the plan that reads t or a view of it; -1: none. And how many nodes do. */
int geul_cuda_last_reader(const struct cuda_plan *plan, const struct geul_tensor *t);
int geul_cuda_readers(const struct cuda_plan *plan, const struct geul_tensor *t);

/* ------------------------------------------------------------------------------- operations -- */

struct cuda_op {
    /* Whether the kernels take node's types and shapes; NULL: all that the layout column of ops.def lets through. */
    bool (*supports)(const struct cuda_card *card, const struct geul_tensor *node);
    void (*emit)(struct cuda_plan *plan, const struct geul_tensor *node);
};
/* NULL where there is no kernel. */
const struct cuda_op *geul_cuda_op(enum geul_op op);

/* Nodes plan->nodes[at] and following that one launch can do: emits it and returns how many nodes that were, 0 when the
 * pattern is not there. plan->at is set to the last node that a pattern takes before it emits. */
typedef int cuda_pattern(struct cuda_plan *plan, int at);
/* fuse.c: tried in this order; NULL after the last. */
extern cuda_pattern *const geul_cuda_patterns[];

/* ------------------------------------------------------------------- rows rounded to int8 -- */

/* Rows of activations as the products of block types read them (results.h: struct cuda_int8_rows), in one block of
 * memory: q, then scale, then sum. */
/* Bytes of the block, and its parts. */
size_t geul_cuda_rounded_bytes(int64_t n_rows, int64_t n_cols);
struct cuda_int8_rows geul_cuda_rounded_at(void *block, int64_t n_rows, int64_t n_cols);
/* The rounded form of x (rows of float32), made by a step before unless it is there already: from a kernel that
 * computed x (geul_cuda_leave_rounded()), or for an earlier node. Kept up to x's last reader. A view that only shapes
 * the rows of a contiguous tensor anew shares its block with it. */
struct cuda_int8_rows geul_cuda_round(struct cuda_plan *plan, const struct geul_tensor *x);
/* Whether a product of this plan will want t, a contiguous result, rounded; then the block that the kernel which
 * computes t fills in its epilogue, kept up to t's last reader. NULL: nobody wants it. t's float32 values are not
 * needed when *only: every reader is a product (MATMUL) that asked for the rounded form, and nobody else reads them
 * later. */
void *geul_cuda_leave_rounded(struct cuda_plan *plan, const struct geul_tensor *t, bool *only);

#endif
