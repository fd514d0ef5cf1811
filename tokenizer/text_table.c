/* text_table.c: see text_table.h. */
#include "tokenizer/text_table.h"

#include <string.h>

/* The exponent of the smallest power of two that leaves a table of count entries at most half full; -1: too many. With
 * empty slots left, every search ends. */
static int table_bits(size_t count)
{
    for (int bits = 2; bits < 31; bits++)
        if (count <= (size_t)1 << (bits - 1))
            return bits;
    return -1;
}

bool geul_text_table_init(struct geul_context *ctx, struct geul_text_table *t, size_t count)
{
    int bits = table_bits(count);
    if (bits < 0) {
        geul_fail(ctx, GEUL_ERROR_MEMORY, "tokenizer: %zu tokens are more than geul can hold", count);
        return false;
    }
    t->slots = geul_alloc(ctx, (size_t)1 << bits, sizeof *t->slots);
    if (!t->slots)
        return false;
    t->mask = (uint32_t)(((size_t)1 << bits) - 1);
    for (size_t i = 0; i <= t->mask; i++)
        t->slots[i].id = -1;
    return true;
}

/* One round of mixing: the high and the low half of a 128-bit product. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t low = a * b;
    return low ^ (low >> 29) ^ (a >> 31);
}

uint32_t geul_text_hash(const char *s, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15u, word = 0;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&word, s, 8);
        h = mix(h ^ word, 0xD6E8FEB86659FD93u);
    }
    word = 0;
    for (size_t i = 0; i < n; i++)
        word = word << 8 | (unsigned char)s[i];
    h = mix(h ^ word, 0xA0761D6478BD642Fu);
    h = mix(h, 0xE7037ED1A0B428DBu);
    return (uint32_t)(h >> 32);
}

static bool same(const struct geul_slice *a, const char *s, size_t n)
{
    return a->n == n && (n == 0 || memcmp(a->s, s, n) == 0);
}

int32_t geul_text_table_find(const struct geul_text_table *t, const struct geul_slice *texts, const char *s, size_t n)
{
    uint32_t hash = geul_text_hash(s, n);
    for (uint32_t i = hash;; i++) {
        const struct geul_text_slot *slot = &t->slots[i & t->mask];
        if (slot->id < 0)
            return -1;
        if (slot->hash == hash && same(&texts[slot->id], s, n))
            return slot->id;
    }
}

int32_t geul_text_table_add(struct geul_text_table *t, const struct geul_slice *texts, int32_t id)
{
    const struct geul_slice *text = &texts[id];
    uint32_t hash = geul_text_hash(text->s, text->n);
    for (uint32_t i = hash;; i++) {
        struct geul_text_slot *slot = &t->slots[i & t->mask];
        if (slot->id < 0) {
            *slot = (struct geul_text_slot){hash, id};
            return id;
        }
        if (slot->hash == hash && same(&texts[slot->id], text->s, text->n))
            return slot->id;
    }
}

bool geul_pair_table_init(struct geul_context *ctx, struct geul_pair_table *t, size_t count)
{
    int bits = table_bits(count);
    if (bits < 0) {
        geul_fail(ctx, GEUL_ERROR_MEMORY, "tokenizer: %zu merges are more than geul can hold", count);
        return false;
    }
    t->slots = geul_alloc(ctx, (size_t)1 << bits, sizeof *t->slots);
    if (!t->slots)
        return false;
    t->mask = (uint32_t)(((size_t)1 << bits) - 1);
    t->shift = 64 - bits;
    for (size_t i = 0; i <= t->mask; i++)
        t->slots[i].a = GEUL_PAIR_EMPTY;
    return true;
}

void geul_pair_table_set(struct geul_pair_table *t, struct geul_pair pair)
{
    uint32_t i = geul_pair_slot(t, pair.a, pair.b);
    while (t->slots[i & t->mask].a != GEUL_PAIR_EMPTY &&
           !(t->slots[i & t->mask].a == pair.a && t->slots[i & t->mask].b == pair.b))
        i++;
    t->slots[i & t->mask] = pair;
}
