/* plan.h: memory planning: offsets in one block of memory for values with known lifetimes. */
#ifndef GEUL_PLAN_H
#define GEUL_PLAN_H

#include "core/context.h"

struct geul_plan_value {
    size_t bytes;
    int first, last; /* steps during which the value exists, both included */
    int reuses;      /* index of an earlier value whose memory it takes over at `first` (same size), or -1 */
    size_t offset;   /* result; multiple of 64 */
};

/* Fills the offsets so that no two values alive at the same step overlap; *total gets the size of the block.
 * Values must be ordered by first. */
enum geul_status geul_plan(struct geul_context *ctx, struct geul_plan_value *values, int n, size_t *total);

#endif
