/* plan.h: memory planning: places in blocks of memory for values with known lifetimes. */
#ifndef GEUL_PLAN_H
#define GEUL_PLAN_H

#include "core/context.h"

/* What the memory is like. */
struct geul_plan_limits {
    size_t alignment; /* of every offset: a power of 2 */
    size_t block;     /* bytes of the largest block, a multiple of alignment; SIZE_MAX: one block holds everything */
};

struct geul_plan_value {
    size_t bytes;    /* becomes a multiple of the alignment */
    int first, last; /* steps during which the value exists, both included */
    int reuses;      /* index of an earlier value whose memory it takes over at `first` (same size), or -1 */
    bool front;      /* lies before all others: at offset 0 of block 0 if it is the first of these */
    int block;       /* result */
    size_t offset;   /* result: in the block */
};

/* Fills blocks and offsets so that no two values alive at the same step overlap, and each lies in one block; *n_blocks
 * gets how many there are. Values must be ordered by first, and none may be larger than a block. */
enum geul_status geul_plan(struct geul_context *ctx, struct geul_plan_value *values, int n,
                           const struct geul_plan_limits *limits, int *n_blocks);
/* Bytes of a block that the planned values take. */
size_t geul_plan_block_bytes(const struct geul_plan_value *values, int n, int block);

#endif
