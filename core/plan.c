/* plan.c: memory planning by liveness. A value and those that take over its memory are one block. Blocks are placed
 * from the largest to the smallest, each at the lowest offset that is free throughout its lifetime: this leaves fewer
 * holes than placing them in order of birth (Pisarchyk, Lee 2020: greedy by size).
 *
 *   offset 5 |          +-----------+            A is the largest. B lives in step 2 as A does, so it lies above A;
 *          4 |          |     B     |            C lives after A and fits below B.
 *          3 |  +-------+---+-------+
 *          2 |  |           |
 *          1 |  |     A     |   +-------+
 *          0 +--+-----------+---+---C---+-->
 *     step        0   1   2   3   4   5
 */
#include "core/plan.h"

#include <stdlib.h>

#define ALIGNMENT 64

/* What lives from step `first` to `last`, both included, at one offset. */
struct block {
    size_t bytes, offset;
    int first, last;
    int order; /* among the blocks, for sorting */
};

static int by_size(const void *a, const void *b)
{
    const struct block *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->order - y->order; /* no two are equal: every machine's qsort() gives the same plan */
}

/* Makes blocks of values; block_of[i] gets the number of value i's. Returns how many, -1 when sizes are too large. */
static int make_blocks(struct geul_context *ctx, struct geul_plan_value *values, int n, struct block *blocks,
                       int *block_of)
{
    size_t sum = 0;
    int count = 0;
    for (int i = 0; i < n; i++) {
        struct geul_plan_value *v = &values[i];
        if (v->bytes > SIZE_MAX / 4 || sum > SIZE_MAX / 4) { /* so that no sum below can overflow */
            geul_fail(ctx, GEUL_ERROR_MEMORY, "the graph needs more memory than can be addressed");
            return -1;
        }
        v->bytes = (v->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        if (v->reuses >= 0) { /* an earlier value, so its block exists */
            struct block *b = &blocks[block_of[i] = block_of[v->reuses]];
            b->last = v->last > b->last ? v->last : b->last;
            continue;
        }
        sum += v->bytes;
        blocks[block_of[i] = count] = (struct block){v->bytes, 0, v->first, v->last, count};
        count++;
    }
    return count;
}

/* Places b below, between or above the n placed blocks, which are sorted by offset, and puts it among them. */
static void insert_block(struct block **placed, int n, struct block *b)
{
    /* The lowest offset that is free above all blocks seen that share a step with b. The first of those that begins at
     * least b's size higher ends the search: there is the gap. */
    size_t end = 0;
    int at = 0;
    for (; at < n; at++) {
        const struct block *p = placed[at];
        if (p->last < b->first || p->first > b->last)
            continue;
        if (p->offset >= end && p->offset - end >= b->bytes)
            break;
        end = p->offset + p->bytes > end ? p->offset + p->bytes : end;
    }
    b->offset = end;
    /* Blocks of other steps may lie above `end` and before `at`. */
    while (at > 0 && placed[at - 1]->offset > end)
        at--;
    for (int i = n; i > at; i--)
        placed[i] = placed[i - 1];
    placed[at] = b;
}

enum geul_status geul_plan(struct geul_context *ctx, struct geul_plan_value *values, int n, size_t *total)
{
    struct block *blocks = geul_alloc(ctx, (size_t)n, sizeof *blocks);
    struct block **placed = geul_alloc(ctx, (size_t)n, sizeof(struct block *));
    int *block_of = geul_alloc(ctx, (size_t)n, sizeof *block_of);
    size_t *offsets = geul_alloc(ctx, (size_t)n, sizeof *offsets);
    enum geul_status status = blocks && placed && block_of && offsets ? GEUL_OK : GEUL_ERROR_MEMORY;
    int count = status == GEUL_OK ? make_blocks(ctx, values, n, blocks, block_of) : -1;
    *total = 0;
    if (count < 0)
        status = GEUL_ERROR_MEMORY;
    else
        qsort(blocks, (size_t)count, sizeof *blocks, by_size);
    for (int i = 0; i < count; i++) {
        struct block *b = &blocks[i];
        insert_block(placed, i, b);
        offsets[b->order] = b->offset; /* sorting has moved the blocks; block_of counts them as they were made */
        *total = b->offset + b->bytes > *total ? b->offset + b->bytes : *total;
    }
    for (int i = 0; status == GEUL_OK && i < n; i++)
        values[i].offset = offsets[block_of[i]];
    geul_free(ctx, blocks);
    geul_free(ctx, placed);
    geul_free(ctx, block_of);
    geul_free(ctx, offsets);
    return status;
}
