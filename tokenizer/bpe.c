/* bpe.c: see bpe.h. */
#include "tokenizer/bpe.h"

#include <string.h>

#define NONE UINT32_MAX

static inline uint32_t rank_of(const struct geul_pair_table *merges, uint32_t a, uint32_t b, uint32_t *id)
{
    const struct geul_pair *p = geul_pair_find(merges, a, b);
    if (!p)
        return NONE;
    *id = p->id;
    return p->rank;
}

/* Few symbols: looks for the best pair again after each merge. rank[i] and made[i] belong to the pair (i, i + 1): its
 * rank, NONE when it cannot be merged, and the id it becomes. A merge changes the two pairs that it touches alone. */
static size_t merge_short(const struct geul_pair_table *merges, uint32_t *ids, size_t n)
{
    uint32_t rank[GEUL_BPE_SHORT], made[GEUL_BPE_SHORT];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = rank_of(merges, ids[i], ids[i + 1], &made[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NONE)
            break;
        ids[best] = made[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            rank[i] = rank[i + 1];
            made[i] = made[i + 1];
        }
        if (best + 1 < n)
            rank[best] = rank_of(merges, ids[best], ids[best + 1], &made[best]);
        if (best > 0)
            rank[best - 1] = rank_of(merges, ids[best - 1], ids[best], &made[best - 1]);
    }
    return n;
}

/* A long word: symbols in a linked list, pairs in a heap ordered by (rank, position). Symbols keep the position they
 * began at; a merge gives the left one the new id and unlinks the right one. Pairs are not removed from the heap: an
 * entry whose rank is no longer rank[position] is stale and skipped when it comes up. */
struct long_word {
    const struct geul_pair_table *merges;
    uint32_t *ids, *rank, *next, *previous; /* by position; NONE ends the list */
    uint64_t *heap;                         /* rank << 32 | position */
    size_t n_heap;
    uint64_t work;
};

static void heap_push(struct long_word *w, uint64_t key)
{
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > key; i = (i - 1) / 2, w->work++)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = key;
}

static uint64_t heap_pop(struct long_word *w)
{
    uint64_t top = w->heap[0], key = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child, w->work++) {
        if (child + 1 < w->n_heap && w->heap[child + 1] < w->heap[child])
            child++;
        if (w->heap[child] >= key)
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = key;
    return top;
}

/* Finds the rank of the pair that begins at position i and puts it on the heap. */
static void consider(struct long_word *w, uint32_t i)
{
    uint32_t id;
    w->work++;
    w->rank[i] = w->next[i] == NONE ? NONE : rank_of(w->merges, w->ids[i], w->ids[w->next[i]], &id);
    if (w->rank[i] != NONE)
        heap_push(w, (uint64_t)w->rank[i] << 32 | i);
}

static void merge_long(struct long_word *w)
{
    while (w->n_heap) {
        uint64_t top = heap_pop(w);
        uint32_t i = (uint32_t)top, after, id = 0;
        if (w->rank[i] != (uint32_t)(top >> 32)) /* stale. Equal: rank[i] decides, whichever push this was */
            continue;
        after = w->next[i];
        rank_of(w->merges, w->ids[i], w->ids[after], &id);
        w->ids[i] = id;
        w->rank[after] = NONE; /* not a symbol any more: its pairs on the heap are stale */
        w->next[i] = w->next[after];
        if (w->next[i] != NONE)
            w->previous[w->next[i]] = i;
        consider(w, i);
        if (w->previous[i] != NONE)
            consider(w, w->previous[i]);
    }
}

ptrdiff_t geul_bpe_merge(struct geul_context *ctx, const struct geul_pair_table *merges, uint32_t *ids, size_t n,
                         uint64_t *work)
{
    if (n <= GEUL_BPE_SHORT)
        return (ptrdiff_t)merge_short(merges, ids, n);
    if (n >= UINT32_MAX / 4) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "tokenizer: a word of %zu symbols is too long; split the text", n);
        return -1;
    }
    /* n - 1 pairs at first, and at most n - 1 merges push two each: 3n entries are enough */
    uint32_t *lists = geul_alloc(ctx, n, 3 * sizeof *lists);
    uint64_t *heap = lists ? geul_alloc(ctx, n, 3 * sizeof *heap) : NULL;
    if (!heap) {
        geul_free(ctx, lists);
        return -1;
    }
    struct long_word w = {
        .merges = merges, .ids = ids, .rank = lists, .next = lists + n, .previous = lists + 2 * n, .heap = heap};
    for (size_t i = 0; i < n; i++) {
        w.next[i] = i + 1 < n ? (uint32_t)i + 1 : NONE;
        w.previous[i] = i ? (uint32_t)i - 1 : NONE;
    }
    for (uint32_t i = 0; i < n; i++)
        consider(&w, i);
    merge_long(&w);
    size_t count = 0;
    for (uint32_t i = 0; i != NONE; i = w.next[i])
        ids[count++] = ids[i];
    if (work)
        *work += w.work;
    geul_free(ctx, heap);
    geul_free(ctx, lists);
    return (ptrdiff_t)count;
}
