/* text_table.h: the two tables of the tokenizer: texts to ids, pairs of ids to what they make. */
#ifndef GEUL_TEXT_TABLE_H
#define GEUL_TEXT_TABLE_H

#include "core/bytes.h"

/* Texts to their index in an array of slices that the table does not own. Open addressing, linear probing, at most half
 * full. */
struct geul_text_slot {
    uint32_t hash;
    int32_t id; /* -1: empty */
};
struct geul_text_table {
    struct geul_text_slot *slots;
    uint32_t mask;
};
/* A table with room for count texts. */
bool geul_text_table_init(struct geul_context *ctx, struct geul_text_table *t, size_t count);
uint32_t geul_text_hash(const char *s, size_t n);
/* The id of the text, -1 when it is not there. */
int32_t geul_text_table_find(const struct geul_text_table *t, const struct geul_slice *texts, const char *s, size_t n);
/* Adds texts[id]; returns the id that holds the same text already, otherwise id. */
int32_t geul_text_table_add(struct geul_text_table *t, const struct geul_slice *texts, int32_t id);

/* Pairs of numbers to two numbers: merges (left, right -> rank, id) and tries (node, byte -> node). */
struct geul_pair {
    uint32_t a, b;
    uint32_t rank, id;
};
#define GEUL_PAIR_EMPTY UINT32_MAX /* as a: no pair */
struct geul_pair_table {
    struct geul_pair *slots;
    uint32_t mask;
    int shift;
};
bool geul_pair_table_init(struct geul_context *ctx, struct geul_pair_table *t, size_t count);
/* Adds or replaces; the caller keeps to the count given to init. */
void geul_pair_table_set(struct geul_pair_table *t, struct geul_pair pair);

static inline uint32_t geul_pair_slot(const struct geul_pair_table *t, uint32_t a, uint32_t b)
{
    return (uint32_t)((((uint64_t)a << 32 | b) * 0x9E3779B97F4A7C15u) >> t->shift);
}
/* The pair, NULL when it is not there. */
static inline const struct geul_pair *geul_pair_find(const struct geul_pair_table *t, uint32_t a, uint32_t b)
{
    for (uint32_t i = geul_pair_slot(t, a, b);; i++) {
        const struct geul_pair *p = &t->slots[i & t->mask];
        if (p->a == a && p->b == b)
            return p;
        if (p->a == GEUL_PAIR_EMPTY)
            return NULL;
    }
}

#endif
