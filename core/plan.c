/* plan.c: memory planning by liveness. A value and those that take over its memory are one piece. Pieces are placed
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
 *
 * Where memory comes in blocks of limited size, they are laid end to end as one range, in which no piece crosses the
 * border of two blocks.
 */
#include "core/plan.h"

#include <stdlib.h>

/* What lives from step `first` to `last`, both included, at one offset of the whole range. */
struct piece {
    size_t bytes, offset;
    int first, last;
    bool front;
    int order; /* among the pieces, for sorting */
};

static int by_size(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    if (x->front != y->front)
        return x->front ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->order - y->order; /* no two are equal: every machine's qsort() gives the same plan */
}

/* Makes pieces of values; piece_of[i] gets the number of value i's. Returns how many, -1 when sizes are too large. */
static int make_pieces(struct geul_context *ctx, struct geul_plan_value *values, int n,
                       const struct geul_plan_limits *limits, struct piece *pieces, int *piece_of)
{
    size_t sum = 0;
    int count = 0;
    for (int i = 0; i < n; i++) {
        struct geul_plan_value *v = &values[i];
        if (v->bytes > SIZE_MAX / 4 || sum > SIZE_MAX / 4) { /* so that no sum below can overflow */
            geul_fail(ctx, GEUL_ERROR_MEMORY, "the graph needs more memory than can be addressed");
            return -1;
        }
        v->bytes = (v->bytes + limits->alignment - 1) & ~(limits->alignment - 1);
        if (v->bytes > limits->block) {
            geul_fail(ctx, GEUL_ERROR_MEMORY, "a value of %zu bytes is larger than a block of memory, %zu", v->bytes,
                      limits->block);
            return -1;
        }
        if (v->reuses >= 0) { /* an earlier value, so its piece exists */
            struct piece *p = &pieces[piece_of[i] = piece_of[v->reuses]];
            p->last = v->last > p->last ? v->last : p->last;
            continue;
        }
        sum += v->bytes;
        pieces[piece_of[i] = count] = (struct piece){v->bytes, 0, v->first, v->last, v->front, count};
        count++;
    }
    return count;
}

/* The lowest offset from `from` on at which bytes do not cross the border of two blocks. */
static size_t fit(size_t from, size_t bytes, size_t block)
{
    size_t in_block = from % block;
    return bytes > block - in_block ? from - in_block + block : from;
}

/* Places p below, between or above the n placed pieces, which are sorted by offset, and puts it among them. */
static void insert_piece(struct piece **placed, int n, struct piece *p, size_t block)
{
    /* The lowest offset that is free above all pieces seen that share a step with p. The first of those that begins at
     * least p's size higher ends the search: there is the gap. */
    size_t end = 0;
    int at = 0;
    for (; at < n; at++) {
        const struct piece *q = placed[at];
        if (q->last < p->first || q->first > p->last)
            continue;
        if (q->offset >= end && q->offset - end >= p->bytes)
            break;
        if (q->offset + q->bytes > end)
            end = fit(q->offset + q->bytes, p->bytes, block);
    }
    p->offset = end;
    /* Pieces of other steps may lie above `end` and before `at`. */
    while (at > 0 && placed[at - 1]->offset > end)
        at--;
    for (int i = n; i > at; i--)
        placed[i] = placed[i - 1];
    placed[at] = p;
}

enum geul_status geul_plan(struct geul_context *ctx, struct geul_plan_value *values, int n,
                           const struct geul_plan_limits *limits, int *n_blocks)
{
    struct piece *pieces = geul_alloc(ctx, (size_t)n, sizeof *pieces);
    struct piece **placed = geul_alloc(ctx, (size_t)n, sizeof(struct piece *));
    int *piece_of = geul_alloc(ctx, (size_t)n, sizeof *piece_of);
    size_t *offsets = geul_alloc(ctx, (size_t)n, sizeof *offsets);
    enum geul_status status = pieces && placed && piece_of && offsets ? GEUL_OK : GEUL_ERROR_MEMORY;
    int count = status == GEUL_OK ? make_pieces(ctx, values, n, limits, pieces, piece_of) : -1;
    /* A block that nothing could overflow is as good as an endless one. */
    size_t block = limits->block > SIZE_MAX / 4 ? SIZE_MAX : limits->block;
    *n_blocks = 0;
    if (count < 0)
        status = GEUL_ERROR_MEMORY;
    else
        qsort(pieces, (size_t)count, sizeof *pieces, by_size);
    for (int i = 0; i < count; i++) {
        insert_piece(placed, i, &pieces[i], block);
        offsets[pieces[i].order] = pieces[i].offset; /* sorting has moved the pieces; piece_of counts them as made */
    }
    for (int i = 0; status == GEUL_OK && i < n; i++) {
        struct geul_plan_value *v = &values[i];
        v->block = (int)(offsets[piece_of[i]] / block);
        v->offset = offsets[piece_of[i]] % block;
        *n_blocks = v->block >= *n_blocks ? v->block + 1 : *n_blocks;
    }
    geul_free(ctx, pieces);
    geul_free(ctx, placed);
    geul_free(ctx, piece_of);
    geul_free(ctx, offsets);
    return status;
}

size_t geul_plan_block_bytes(const struct geul_plan_value *values, int n, int block)
{
    size_t bytes = 0;
    for (int i = 0; i < n; i++)
        if (values[i].block == block && values[i].offset + values[i].bytes > bytes)
            bytes = values[i].offset + values[i].bytes;
    return bytes;
}
