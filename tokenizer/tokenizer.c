/* tokenizer.c: texts to ids and back (geul.h). A tokenizer is read-only and can serve several threads; what a call
 * needs is in its struct encoder.
 *
 *     text -> added tokens cut out -> normalize -> added tokens of normalized text cut out -> split -> words -> merge
 *             (added_raw)                          (added_normal)
 *
 * Each stage calls the next for every piece, in order, so ids are appended in the order of the text. */
#include "tokenizer/bpe.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_parts.h"
#include "tokenizer/unicode.h"

#include <string.h>

#define CACHE_SLOTS 2048 /* words remembered within a call */
#define CACHE_WORD  24   /* bytes of a remembered word, at most */
#define CACHE_IDS   6    /* ids of a remembered word, at most */
#define CACHE_FROM  4096 /* bytes of text from which remembering pays */

/* A word and what it was merged to. */
struct cached {
    uint8_t length, count; /* length 0: empty */
    char word[CACHE_WORD];
    int32_t ids[CACHE_IDS];
};

/* One call of geul_tokenize(). */
struct encoder {
    struct geul_context *ctx;
    const struct geul_tokenizer *tok;
    bool special;
    int32_t *ids;
    size_t count, capacity;
    struct cached *cache; /* NULL: short text */
    struct geul_bytes buffers[2];
    uint64_t budget; /* what searching may still cost */
};

/* Room for n more ids. */
static bool room(struct encoder *e, size_t n)
{
    if (e->capacity - e->count >= n)
        return true;
    size_t capacity;
    if (!geul_add_size(e->capacity + e->capacity / 2, n, &capacity)) {
        geul_fail_memory(e->ctx, SIZE_MAX);
        return false;
    }
    int32_t *ids = geul_realloc(e->ctx, e->ids, capacity, sizeof *ids);
    if (!ids)
        return false;
    e->ids = ids;
    e->capacity = capacity;
    return true;
}

static bool push(struct encoder *e, uint32_t id)
{
    if (!room(e, 1))
        return false;
    e->ids[e->count++] = (int32_t)id;
    return true;
}

/* ---------------------------------------------------------------------------------- one word -- */

/* Appends the ids of the word's symbols where some bytes or characters may have none: these become the unknown token,
 * or <0xXX> tokens, or nothing. The unknown token is pushed late, so that several can become one. */
static bool push_symbols(struct encoder *e, const char *s, const char *end)
{
    const struct geul_tokenizer *tok = e->tok;
    bool unknown = false;
    for (int n; s < end; s += n) {
        int32_t c;
        n = tok->byte_level ? 1 : geul_utf8_decode(s, end, &c);
        bool broken = n == 0;
        n = broken ? 1 : n;
        uint32_t id = GEUL_TOK_NO_ID;
        if (tok->byte_level)
            id = tok->byte_id[(unsigned char)*s];
        else if (!broken)
            id = (uint32_t)geul_text_table_find(&tok->raw_table, tok->raw, s, (size_t)n); /* -1 is NO_ID */
        if (id != GEUL_TOK_NO_ID) {
            if ((unknown && !push(e, tok->unk)) || !push(e, id))
                return false;
            unknown = false;
            continue;
        }
        bool fallback = !tok->byte_level && tok->spec.byte_fallback;
        for (int i = 0; i < n; i++)
            fallback = fallback && tok->byte_id[(unsigned char)s[i]] != GEUL_TOK_NO_ID;
        for (int i = 0; fallback && i < n; i++)
            if (!push(e, tok->byte_id[(unsigned char)s[i]]))
                return false;
        if (fallback || tok->unk == GEUL_TOK_NO_ID)
            continue;
        if (unknown && !tok->spec.fuse_unk && !push(e, tok->unk))
            return false;
        unknown = true;
    }
    return !unknown || push(e, tok->unk);
}

/* Appends the ids of a word that has to be merged. */
static bool merge_word(struct encoder *e, const char *s, size_t n)
{
    const struct geul_tokenizer *tok = e->tok;
    size_t first = e->count;
    if (tok->byte_level && tok->all_bytes) { /* nothing can be unknown: one symbol per byte */
        if (!room(e, n))
            return false;
        for (size_t i = 0; i < n; i++)
            e->ids[first + i] = (int32_t)tok->byte_id[(unsigned char)s[i]];
        e->count += n;
    } else if (!push_symbols(e, s, s + n)) {
        return false;
    }
    if (e->count - first < 2)
        return true;
    ptrdiff_t merged = geul_bpe_merge(e->ctx, &tok->merges, (uint32_t *)e->ids + first, e->count - first, NULL);
    if (merged < 0)
        return false;
    e->count = first + (size_t)merged;
    return true;
}

/* The same through the cache of recent words: one slot per hash, the latest word wins. */
static bool cached_word(struct encoder *e, const char *s, size_t n)
{
    struct cached *slot = &e->cache[geul_text_hash(s, n) % CACHE_SLOTS];
    if (slot->length == n && memcmp(slot->word, s, n) == 0) {
        if (!room(e, CACHE_IDS)) /* all of the slot is copied: a fixed size is faster */
            return false;
        memcpy(e->ids + e->count, slot->ids, sizeof slot->ids);
        e->count += slot->count;
        return true;
    }
    size_t first = e->count;
    if (!merge_word(e, s, n))
        return false;
    size_t made = e->count - first;
    if (made <= CACHE_IDS) {
        slot->length = (uint8_t)n;
        slot->count = (uint8_t)made;
        memcpy(slot->word, s, n);
        memcpy(slot->ids, e->ids + first, made * sizeof *slot->ids);
    }
    return true;
}

/* Appends the ids of one word (n > 0); a geul_word_callback. Most words are one token, found here without merging. */
static bool encode_word(void *user, const char *s, size_t n)
{
    struct encoder *e = user;
    const struct geul_tokenizer *tok = e->tok;
    if (n <= tok->longest || !tok->byte_level) {
        int32_t id = tok->byte_level ? geul_text_table_find(&tok->table, tok->text, s, n)
                                     : geul_text_table_find(&tok->raw_table, tok->raw, s, n);
        if (id >= 0 && (tok->flags[id] & GEUL_TOK_IS_WHOLE))
            return push(e, (uint32_t)id);
    }
    return e->cache && n <= CACHE_WORD ? cached_word(e, s, n) : merge_word(e, s, n);
}

/* ---------------------------------------------------------------------------------- one text -- */

bool geul_tok_growth_fits(struct geul_context *ctx, size_t n, size_t now)
{
    if (now <= 4096 || now / 64 <= n)
        return true;
    geul_fail(ctx, GEUL_ERROR_FORMAT, "tokenizer: its steps let a text of %zu bytes grow to %zu and more", n, now);
    return false;
}

bool geul_tok_normalize(struct geul_context *ctx, const struct geul_tokenizer *tok, const char **s, size_t *n,
                        struct geul_bytes buffers[2], uint64_t *budget)
{
    size_t before = *n;
    for (size_t i = 0; i < tok->n_normal; i++) {
        struct geul_bytes *out = &buffers[i % 2];
        out->length = 0;
        if (!geul_normalize(ctx, &tok->normal[i], *s, *n, out, budget) ||
            !geul_tok_growth_fits(ctx, before, out->length))
            return false;
        *s = out->data ? out->data : "";
        *n = out->length;
    }
    return true;
}

static bool encode_plain(struct encoder *e, const char *s, size_t n)
{
    return geul_pretokenize(e->ctx, e->tok->split, e->tok->n_split, s, n, encode_word, e, &e->budget);
}

/* Cuts the added tokens of set out of a text; what is between them goes to rest. */
static bool cut_added(struct encoder *e, const struct geul_added_set *set, const char *s, size_t n,
                      bool (*rest)(struct encoder *, const char *, size_t))
{
    struct geul_added_cursor cursor = {0};
    for (;;) {
        size_t from, to;
        int32_t id = geul_added_next(set, &cursor, s, n, e->special, &from, &to);
        if (to > from && !rest(e, s + from, to - from))
            return false;
        if (id < 0)
            return true;
        if (!push(e, (uint32_t)id))
            return false;
    }
}

/* Encodes a text from which added_raw's tokens have been cut. */
static bool encode_piece(struct encoder *e, const char *s, size_t n)
{
    if (!geul_tok_normalize(e->ctx, e->tok, &s, &n, e->buffers, &e->budget))
        return false;
    if (!e->tok->has_added_normal)
        return encode_plain(e, s, n);
    return cut_added(e, &e->tok->added_normal, s, n, encode_plain);
}

/* Encodes a text; e->special says whether special tokens count in it. */
static bool encode_text(struct encoder *e, const char *s, size_t n)
{
    return e->tok->has_added_raw ? cut_added(e, &e->tok->added_raw, s, n, encode_piece) : encode_piece(e, s, n);
}

/* Makes e ready for a text of length bytes. */
static bool reserve_ids(struct encoder *e, size_t length)
{
    geul_error_clear(e->ctx);
    e->budget = geul_search_budget(length);
    if (!room(e, length / 3 + 16)) /* about what Korean needs at most */
        return false;
    if (length >= CACHE_FROM)
        e->cache = geul_alloc(e->ctx, CACHE_SLOTS, sizeof *e->cache);
    return e->cache || length < CACHE_FROM;
}

/* Frees what e worked with and hands over its ids; none when not ok. */
static enum geul_status finish(struct encoder *e, bool ok, int32_t **ids, size_t *count)
{
    geul_free(e->ctx, e->cache);
    geul_free(e->ctx, e->buffers[0].data);
    geul_free(e->ctx, e->buffers[1].data);
    if (!ok)
        geul_free(e->ctx, e->ids);
    *ids = ok ? e->ids : NULL;
    *count = ok ? e->count : 0;
    return ok ? GEUL_OK : geul_error_status(e->ctx);
}

enum geul_status geul_tokenize(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *text,
                               size_t length, bool parse_special, int32_t **ids, size_t *count)
{
    struct encoder e = {.ctx = ctx, .tok = tok, .special = parse_special};
    bool ok = reserve_ids(&e, length) && (length == 0 || encode_text(&e, text, length));
    return finish(&e, ok, ids, count);
}

/* Appends the ids of a short list. */
static bool push_list(struct encoder *e, const struct geul_tok_ids *list)
{
    for (int i = 0; i < list->n; i++)
        if (!push(e, (uint32_t)list->id[i]))
            return false;
    return true;
}

enum geul_status geul_tokenize_whole(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *text,
                                     size_t length, bool parse_special, bool open, int32_t **ids, size_t *count)
{
    struct encoder e = {.ctx = ctx, .tok = tok, .special = parse_special};
    bool ok = reserve_ids(&e, length) && push_list(&e, &tok->spec.before) &&
              (length == 0 || encode_text(&e, text, length)) && (open || push_list(&e, &tok->spec.after));
    return finish(&e, ok, ids, count);
}

/* Whether one of the spans from *at on contains [from, to); *at moves past those that end before it. */
static bool in_span(const struct geul_tok_span *spans, size_t n, size_t *at, size_t from, size_t to)
{
    while (*at < n && spans[*at].end < to)
        (*at)++;
    return *at < n && spans[*at].begin <= from;
}

/* Cuts the special tokens in own spans out of the text; between them e->special is false, and their text ordinary. */
static bool encode_spans(struct encoder *e, const char *text, size_t length, const struct geul_tok_span *own,
                         size_t n_own)
{
    const struct geul_tokenizer *tok = e->tok;
    struct geul_added_cursor cursor = {0};
    size_t start = 0, from, to, at = 0;
    int32_t id = -1;
    while (tok->has_added_raw &&
           (id = geul_added_next(&tok->added_raw, &cursor, text, length, true, &from, &to)) >= 0) {
        size_t end = cursor.search; /* of the token's own bytes */
        if (!(tok->flags[id] & GEUL_TOK_IS_SPECIAL) || !in_span(own, n_own, &at, end - tok->raw[id].n, end))
            continue;
        if ((to > start && !encode_text(e, text + start, to - start)) || !push(e, (uint32_t)id))
            return false;
        start = cursor.covered;
    }
    return start >= length || encode_text(e, text + start, length - start);
}

enum geul_status geul_tokenize_spans(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *text,
                                     size_t length, const struct geul_tok_span *own, size_t n_own, int32_t **ids,
                                     size_t *count)
{
    struct encoder e = {.ctx = ctx, .tok = tok};
    bool ok = reserve_ids(&e, length) && (length == 0 || encode_spans(&e, text, length, own, n_own));
    return finish(&e, ok, ids, count);
}

void geul_tokens_free(struct geul_context *ctx, int32_t *ids)
{
    geul_free(ctx, ids);
}

/* -------------------------------------------------------------------------------------- back -- */

int32_t geul_tokenizer_size(const struct geul_tokenizer *tok)
{
    return tok->n_ids;
}

const char *geul_token_text(const struct geul_tokenizer *tok, int32_t id, size_t *length)
{
    bool known = id >= 0 && id < tok->n_ids;
    *length = known ? tok->text[id].n : 0;
    return known ? tok->text[id].s : "";
}

bool geul_token_is_special(const struct geul_tokenizer *tok, int32_t id)
{
    return id >= 0 && id < tok->n_ids && (tok->flags[id] & GEUL_TOK_IS_SPECIAL);
}

int32_t geul_token_find(const struct geul_tokenizer *tok, const char *text, size_t length)
{
    return geul_text_table_find(&tok->table, tok->text, text, length);
}

int32_t geul_token_end(const struct geul_tokenizer *tok)
{
    return tok->spec.ends.n ? tok->spec.ends.id[0] : -1;
}

int geul_token_ends(const struct geul_tokenizer *tok, const int32_t **ids)
{
    *ids = tok->spec.ends.id;
    return tok->spec.ends.n;
}

bool geul_token_is_end(const struct geul_tokenizer *tok, int32_t id)
{
    return id >= 0 && id < tok->n_ids && (tok->flags[id] & GEUL_TOK_IS_END);
}

const struct geul_tokenizer_spec *geul_tokenizer_get_spec(const struct geul_tokenizer *tok)
{
    return &tok->spec;
}

/* Strip steps after a Fuse work on the whole text s: they narrow [*from, *to). */
static void strip_whole(const struct geul_tokenizer *tok, size_t *from, const char *s, size_t *to)
{
    const struct geul_tok_steps *steps = &tok->spec.stages[GEUL_TOK_STAGE_DECODE];
    bool fused = false;
    for (size_t i = 0; i < steps->count; i++) {
        const struct geul_tok_step *step = &steps->items[i];
        fused |= step->kind == GEUL_TOK_STEP_FUSE;
        if (!fused || step->kind != GEUL_TOK_STEP_STRIP_BACK)
            continue;
        const char *what = geul_tokenizer_spec_text(&tok->spec, step->text);
        size_t n = step->text.length;
        for (int32_t k = 0; n && k < step->left && *to - *from >= n && memcmp(s + *from, what, n) == 0; k++)
            *from += n;
        for (int32_t k = 0; n && k < step->right && *to - *from >= n && memcmp(s + *to - n, what, n) == 0; k++)
            *to -= n;
    }
}

char *geul_detokenize(struct geul_context *ctx, const struct geul_tokenizer *tok, const int32_t *ids, size_t count,
                      bool skip_special, size_t *length)
{
    struct geul_bytes out = {0};
    geul_error_clear(ctx);
    *length = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        size_t n;
        const char *s = geul_token_text(tok, ids[i], &n);
        if (!(skip_special && geul_token_is_special(tok, ids[i])))
            ok = geul_bytes_add(ctx, &out, s, n);
    }
    if (!ok || !geul_bytes_room(ctx, &out, 1)) {
        geul_free(ctx, out.data);
        return NULL;
    }
    size_t from = 0, to = out.length;
    strip_whole(tok, &from, out.data, &to);
    memmove(out.data, out.data + from, to - from);
    *length = to - from;
    out.data[*length] = '\0';
    return out.data;
}

void geul_text_free(struct geul_context *ctx, char *text)
{
    geul_free(ctx, text);
}

bool geul_nfc_applies(const struct geul_tokenizer *tok, enum geul_nfc nfc)
{
    bool normalizes = false;
    for (size_t i = 0; i < tok->n_normal; i++)
        normalizes |= tok->normal[i].kind == GEUL_TOK_STEP_NFC || tok->normal[i].kind == GEUL_TOK_STEP_NFD ||
                      tok->normal[i].kind == GEUL_TOK_STEP_NFKC || tok->normal[i].kind == GEUL_TOK_STEP_NFKD;
    return nfc == GEUL_NFC_ON || (nfc == GEUL_NFC_AUTO && !normalizes);
}
