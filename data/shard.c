/* shard.c: see shard.h.
 *
 * Files are not trusted. Opening checks the header, its count against the bytes that are there, and every token;
 * reading checks tokens again, because another process may write to a mapped file. So an id that leaves this file is
 * always in [0, n_vocab), and indexes an embedding safely. */
#include "data/shard.h"

#include "core/bytes.h"
#include "core/file_kind.h"
#include "core/os.h"
#include "data/shard_set.h"

#include <string.h>

enum { VERSION = 1, CHECK_TOKENS = 4096 };

static const char magic[8] = {'g', 'e', 'u', 'l', 's', 'h', 'r', 'd'};

struct geul_shard {
    struct geul_context *ctx;
    char *name;
    struct geul_map map; /* data is NULL over a caller's memory */
    const unsigned char *tokens;
    uint64_t count;
    int bytes; /* of a token */
    struct geul_shard_kind kind;
};

/* -------------------------------------------------------------------------------------- kind -- */

struct geul_shard_kind geul_shard_kind_of(const struct geul_tokenizer *tok)
{
    struct geul_shard_kind kind = {geul_tokenizer_size(tok), geul_token_end(tok), GEUL_HASH_START};
    for (int32_t id = 0; id < kind.n_vocab; id++) {
        size_t n;
        const char *text = geul_token_text(tok, id, &n);
        kind.hash = geul_hash_bytes(kind.hash, text, n);
        kind.hash = geul_hash_bytes(kind.hash, "\xff", 1); /* "a", "bc" is not "ab", "c" */
    }
    return kind;
}

bool geul_shard_kinds_equal(const struct geul_shard_kind *a, const struct geul_shard_kind *b)
{
    return a->n_vocab == b->n_vocab && a->end == b->end && a->hash == b->hash;
}

/* ----------------------------------------------------------------------------------- numbers -- */

static void put_number(unsigned char *out, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        out[i] = (unsigned char)(v >> 8 * i);
}

static uint64_t get_number(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

int geul_shard_token_bytes(int32_t n_vocab)
{
    return n_vocab <= 65536 ? 2 : 4;
}

void geul_shard_write_header(const struct geul_shard_kind *kind, uint64_t count,
                             unsigned char out[GEUL_SHARD_HEADER_BYTES])
{
    memcpy(out, magic, sizeof magic);
    put_number(out + 8, VERSION, 4);
    put_number(out + 12, (uint32_t)kind->n_vocab, 4);
    put_number(out + 16, (uint32_t)kind->end, 4);
    put_number(out + 20, (uint64_t)geul_shard_token_bytes(kind->n_vocab), 4);
    put_number(out + 24, count, 8);
    put_number(out + 32, kind->hash, 8);
}

void geul_shard_write_tokens(const int32_t *ids, size_t n, int bytes, unsigned char *out)
{
    for (size_t i = 0; i < n; i++)
        put_number(out + i * (size_t)bytes, (uint32_t)ids[i], bytes);
}

/* Decodes the n tokens at p. A number above INT32_MAX becomes negative, which the callers' range check finds. */
static void get_tokens(const unsigned char *p, size_t n, int bytes, int32_t *ids)
{
    if (bytes == 2)
        for (size_t i = 0; i < n; i++)
            ids[i] = p[2 * i] | p[2 * i + 1] << 8;
    else
        for (size_t i = 0; i < n; i++)
            ids[i] = (int32_t)(uint32_t)get_number(p + 4 * i, 4);
}

/* ----------------------------------------------------------------------------------- reading -- */

/* Checks every token: the one slow step of opening, at memory speed. */
static enum geul_status check_tokens(const struct geul_shard *s)
{
    int32_t ids[CHECK_TOKENS];
    for (uint64_t first = 0; first < s->count; first += CHECK_TOKENS) {
        size_t n = s->count - first < CHECK_TOKENS ? (size_t)(s->count - first) : CHECK_TOKENS;
        get_tokens(s->tokens + first * (uint64_t)s->bytes, n, s->bytes, ids);
        for (size_t i = 0; i < n; i++)
            if (ids[i] < 0 || ids[i] >= s->kind.n_vocab)
                return geul_fail(s->ctx, GEUL_ERROR_FORMAT,
                                 "%s is damaged: token %llu is %lld, but its vocabulary has %d; write it again",
                                 s->name, (unsigned long long)(first + i), (long long)(uint32_t)ids[i],
                                 s->kind.n_vocab);
    }
    return GEUL_OK;
}

/* Checks the header and fills s. */
static enum geul_status parse(struct geul_shard *s, const unsigned char *data, size_t size)
{
    if (size < sizeof magic || memcmp(data, magic, sizeof magic) != 0)
        return geul_fail_kind(s->ctx, s->name, "a token shard", geul_file_kind_of(data, size));
    if (size < GEUL_SHARD_HEADER_BYTES)
        return geul_fail(s->ctx, GEUL_ERROR_FORMAT, "%s ends within its header at byte %zu of %d", s->name, size,
                         GEUL_SHARD_HEADER_BYTES);
    uint64_t version = get_number(data + 8, 4), n_vocab = get_number(data + 12, 4), end = get_number(data + 16, 4);
    uint64_t bytes = get_number(data + 20, 4), rest = size - GEUL_SHARD_HEADER_BYTES;
    if (version != VERSION)
        return geul_fail(s->ctx, GEUL_ERROR_FORMAT, "%s has version %llu of the format; %d is known", s->name,
                         (unsigned long long)version, VERSION);
    if (n_vocab < 1 || n_vocab > INT32_MAX || end >= n_vocab ||
        bytes != (uint64_t)geul_shard_token_bytes((int32_t)n_vocab))
        return geul_fail(s->ctx, GEUL_ERROR_FORMAT,
                         "%s is damaged: a vocabulary of %llu, end token %llu and %llu bytes per token do not go "
                         "together",
                         s->name, (unsigned long long)n_vocab, (unsigned long long)end, (unsigned long long)bytes);
    /* bytes is 2 or 4 from here on; count is compared by division, as count * bytes could overflow */
    s->bytes = (int)bytes;
    s->count = get_number(data + 24, 8);
    s->kind = (struct geul_shard_kind){(int32_t)n_vocab, (int32_t)end, get_number(data + 32, 8)};
    s->tokens = data + GEUL_SHARD_HEADER_BYTES;
    if (s->count < 1 || rest % bytes || rest / bytes != s->count)
        return geul_fail(s->ctx, GEUL_ERROR_FORMAT,
                         "%s names %llu tokens of %llu bytes, but %llu bytes follow the header; write it again",
                         s->name, (unsigned long long)s->count, (unsigned long long)bytes, (unsigned long long)rest);
    return check_tokens(s);
}

struct geul_shard *geul_shard_open_memory(struct geul_context *ctx, const void *data, size_t size, const char *name)
{
    struct geul_shard *s = geul_alloc(ctx, 1, sizeof *s);
    if (!s)
        return NULL;
    s->ctx = ctx;
    s->name = geul_strndup(ctx, name, strlen(name));
    if (s->name && parse(s, data, size) == GEUL_OK)
        return s;
    geul_shard_close(s);
    return NULL;
}

struct geul_shard *geul_shard_open(struct geul_context *ctx, const char *path)
{
    struct geul_map map;
    if (geul_os_map(ctx, path, &map) != GEUL_OK)
        return NULL;
    struct geul_shard *s = NULL;
    if (geul_shard_set_check(ctx, path, map.size) == GEUL_OK)
        s = geul_shard_open_memory(ctx, map.data, map.size, path);
    if (s)
        s->map = map;
    else
        geul_os_unmap(&map);
    return s;
}

void geul_shard_close(struct geul_shard *s)
{
    if (!s)
        return;
    geul_os_unmap(&s->map);
    geul_free(s->ctx, s->name);
    geul_free(s->ctx, s);
}

const char *geul_shard_name(const struct geul_shard *s)
{
    return s->name;
}

const struct geul_shard_kind *geul_shard_get_kind(const struct geul_shard *s)
{
    return &s->kind;
}

uint64_t geul_shard_count(const struct geul_shard *s)
{
    return s->count;
}

void geul_shard_read(const struct geul_shard *s, uint64_t first, size_t n, int32_t *ids)
{
    get_tokens(s->tokens + first * (uint64_t)s->bytes, n, s->bytes, ids);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->kind.n_vocab)
            ids[i] = 0;
}
