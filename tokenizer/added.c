/* added.c: see added.h. */
#include "tokenizer/added.h"
#include "tokenizer/unicode.h"

bool geul_added_init(struct geul_context *ctx, struct geul_added_set *set, const struct geul_tok_added *added,
                     size_t n_bytes)
{
    *set = (struct geul_added_set){.added = added};
    set->item = geul_alloc(ctx, n_bytes + 1, sizeof *set->item);
    if (!set->item || !geul_pair_table_init(ctx, &set->edges, n_bytes))
        return false;
    set->item[0] = -1;
    set->n_nodes = 1;
    return true;
}

void geul_added_insert(struct geul_added_set *set, int32_t index, const char *s, size_t n)
{
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t byte = (unsigned char)s[i];
        const struct geul_pair *edge = geul_pair_find(&set->edges, node, byte);
        uint32_t next = edge ? edge->id : (uint32_t)set->n_nodes;
        if (!edge) {
            set->item[set->n_nodes++] = -1;
            geul_pair_table_set(&set->edges, (struct geul_pair){node, byte, 0, next});
        }
        node = next;
    }
    if (n) { /* the first to claim a text keeps it: build_added() inserts special tokens first */
        set->first[(unsigned char)s[0]] = true;
        if (set->item[node] < 0)
            set->item[node] = index;
    }
}

void geul_added_free(struct geul_context *ctx, struct geul_added_set *set)
{
    geul_free(ctx, set->item);
    geul_free(ctx, set->edges.slots);
    *set = (struct geul_added_set){0};
}

/* The longest token that begins at p: its index, and its end in *to; -1 when there is none. */
static int32_t longest(const struct geul_added_set *set, const char *p, const char *end, const char **to)
{
    int32_t found = -1;
    uint32_t node = 0;
    while (p < end) {
        const struct geul_pair *edge = geul_pair_find(&set->edges, node, (unsigned char)*p);
        if (!edge)
            break;
        node = edge->id;
        p++;
        if (set->item[node] >= 0) {
            found = set->item[node];
            *to = p;
        }
    }
    return found;
}

/* Whether a word character is directly before / after p. */
static bool word_before(const char *text, const char *p)
{
    int32_t c;
    return p > text && geul_utf8_decode_back(text, p, &c) > 0 && geul_is_word(c);
}

static bool word_after(const char *p, const char *end)
{
    int32_t c;
    return p < end && geul_utf8_decode(p, end, &c) > 0 && geul_is_word(c);
}

int32_t geul_added_next(const struct geul_added_set *set, struct geul_added_cursor *cursor, const char *text, size_t n,
                        bool special, size_t *from, size_t *to)
{
    const char *end = text + n, *stop = text;
    /* Two positions: search, the end of the last token's own bytes, and covered, which also counts the white space that
     * it took along. A token may begin inside of that white space. */
    for (const char *p = text + cursor->search; p < end;) {
        int32_t index = set->first[(unsigned char)*p] ? longest(set, p, end, &stop) : -1;
        if (index < 0) {
            p++;
            continue;
        }
        const char *start = p;
        p = stop;
        const struct geul_tok_added *a = &set->added[index];
        if ((a->special && !special) || (a->single_word && (word_before(text, start) || word_after(stop, end))))
            continue; /* behind it, as in Hugging Face: shorter tokens at the same position are not tried */
        int32_t c;
        int step;
        while (a->lstrip && start > text && (step = geul_utf8_decode_back(text, start, &c)) > 0 && geul_is_space(c))
            start -= step;
        while (a->rstrip && stop < end && (step = geul_utf8_decode(stop, end, &c)) > 0 && geul_is_space(c))
            stop += step;
        *from = cursor->covered; /* the token before may have taken the white space already */
        *to = (size_t)(start - text) > *from ? (size_t)(start - text) : *from;
        cursor->search = (size_t)(p - text);
        if ((size_t)(stop - text) > cursor->covered)
            cursor->covered = (size_t)(stop - text);
        return a->id;
    }
    *from = cursor->covered;
    *to = n;
    return -1;
}
