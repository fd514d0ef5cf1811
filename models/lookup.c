/* lookup.c: see lookup.h. Positions whose last two tokens hash alike form a chain, from the latest to the first, as in
 * LZ77 compressors:
 *
 *     latest[hash of (a, b)] -> 9 -> 5 -> 1 -> -1      position    0 1 2 3 4 5 6 7 8 9
 *     before[9] = 5, before[5] = 1, before[1] = -1     token       a b c d a b e f a b
 *
 * Every position but 0 is in exactly one chain, and the last one is the head of its own. */
#include "models/lookup.h"

/* Positions of a chain that are looked at. Longer chains belong to pairs so common that older positions say little. */
enum { MOST_PLACES = 32 };

struct geul_lookup {
    struct geul_context *ctx;
    int n, size;
    int32_t *tokens;
    int32_t *before;  /* per position the one before it in its chain, -1: none */
    int32_t *latest;  /* per hash the head of its chain, -1: empty */
    uint32_t buckets; /* of latest; a power of two */
};

struct geul_lookup *geul_lookup_new(struct geul_context *ctx, int size)
{
    struct geul_lookup *l = geul_alloc(ctx, 1, sizeof *l);
    if (!l)
        return NULL;
    l->ctx = ctx;
    l->size = size;
    l->buckets = 64;
    while (l->buckets < (uint32_t)size)
        l->buckets *= 2;
    l->tokens = geul_alloc(ctx, (size_t)size, sizeof *l->tokens);
    l->before = geul_alloc(ctx, (size_t)size, sizeof *l->before);
    l->latest = geul_alloc(ctx, l->buckets, sizeof *l->latest);
    if (!l->tokens || !l->before || !l->latest) {
        geul_lookup_free(l);
        return NULL;
    }
    for (uint32_t i = 0; i < l->buckets; i++)
        l->latest[i] = -1;
    return l;
}

void geul_lookup_free(struct geul_lookup *l)
{
    if (!l)
        return;
    geul_free(l->ctx, l->tokens);
    geul_free(l->ctx, l->before);
    geul_free(l->ctx, l->latest);
    geul_free(l->ctx, l);
}

/* The head of the chain that position i > 0 belongs to. */
static int32_t *chain_of(const struct geul_lookup *l, int i)
{
    uint32_t h = (uint32_t)l->tokens[i - 1] * 0x9e3779b1u ^ (uint32_t)l->tokens[i] * 0x85ebca6bu;
    h ^= h >> 15;
    return &l->latest[(h * 0x2c1b3c6du >> 4) & (l->buckets - 1)];
}

void geul_lookup_push(struct geul_lookup *l, int32_t token)
{
    if (l->n == l->size)
        return;
    int i = l->n++;
    l->tokens[i] = token;
    if (i == 0)
        return;
    int32_t *chain = chain_of(l, i);
    l->before[i] = *chain;
    *chain = i;
}

/* Removes the last token. Its position is the head of its chain, so the one before becomes the head. */
static void pop(struct geul_lookup *l)
{
    if (l->n > 1)
        *chain_of(l, l->n - 1) = l->before[l->n - 1];
    l->n--;
}

void geul_lookup_set(struct geul_lookup *l, const int32_t *tokens, int n)
{
    int same = 0;
    while (same < l->n && same < n && l->tokens[same] == tokens[same])
        same++;
    while (l->n > same)
        pop(l);
    for (int i = same; i < n; i++)
        geul_lookup_push(l, tokens[i]);
}

int geul_lookup_length(const struct geul_lookup *l)
{
    return l->n;
}

int geul_lookup_find(const struct geul_lookup *l, int *next)
{
    int last = l->n - 1, longest = 0, at = last > 0 ? l->before[last] : -1;
    for (int places = 0; at > 0 && places < MOST_PLACES && longest < GEUL_LOOKUP_LONGEST; places++) {
        int same = 0; /* counted on the tokens: a hash may collide */
        while (same < GEUL_LOOKUP_LONGEST && same <= at && l->tokens[at - same] == l->tokens[last - same])
            same++;
        if (same >= GEUL_LOOKUP_SHORTEST && same > longest) {
            longest = same;
            *next = at + 1;
        }
        at = l->before[at];
    }
    return longest;
}

void geul_lookup_copy(const struct geul_lookup *l, int next, int n, int32_t *draft)
{
    for (int i = 0; i < n; i++)
        draft[i] = next + i < l->n ? l->tokens[next + i] : draft[next + i - l->n];
}
