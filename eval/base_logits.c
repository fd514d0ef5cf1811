/* base_logits.c: see base_logits.h. */
#include "eval/base_logits.h"

#include "core/bytes.h"
#include "core/file_kind.h"
#include "core/os.h"

#include <string.h>

static const char magic[8] = {'g', 'e', 'u', 'l', 'b', 'a', 's', 'e'};

/* The header as in the file (little-endian, as all machines that geul runs on). */
struct header {
    char magic[8];
    uint32_t version, n_vocab, method, n_context, stride, zero;
    uint64_t n_tokens, n_windows, hash;
};
_Static_assert(sizeof(struct header) == 56, "the header has no gaps");

enum { VERSION = 1, MOST_VOCAB = 1 << 24, MOST_CONTEXT = 1 << 24, DROP_BYTES = 64 << 20 };

/* ------------------------------------------------------------------------------------- sizes -- */

/* Numbers of 4 bytes are padded to an even count, so that rows begin at multiples of 8 and are read where they are. */
static size_t even(size_t n)
{
    return n + n % 2;
}

/* Bytes of a row: nats and logits, a multiple of 8. */
static size_t row_bytes(int n_vocab)
{
    return sizeof(double) + even((size_t)n_vocab) * sizeof(float);
}

/* Bytes of a whole file; false when they are too many to count. */
static bool file_bytes(size_t n_tokens, size_t n_rows, int n_vocab, size_t *bytes)
{
    size_t ids, rows;
    return n_tokens < SIZE_MAX && geul_mul_size(even(n_tokens), sizeof(int32_t), &ids) &&
           geul_mul_size(n_rows, row_bytes(n_vocab), &rows) && geul_add_size(ids, rows, bytes) &&
           geul_add_size(*bytes, sizeof(struct header), bytes);
}

uint64_t geul_base_logits_bytes(const struct geul_windows *w, int n_vocab)
{
    size_t bytes;
    return file_bytes(w->n_tokens, w->n_scored, n_vocab, &bytes) ? bytes : UINT64_MAX;
}

static uint64_t hash_of(const struct header *h, const int32_t *ids)
{
    uint64_t hash = geul_hash_bytes(GEUL_HASH_START, h, offsetof(struct header, hash));
    return geul_hash_bytes(hash, ids, (size_t)h->n_tokens * sizeof *ids);
}

/* ----------------------------------------------------------------------------------- writing -- */

struct geul_base_writer {
    struct geul_context *ctx;
    struct geul_outfile *file;
    size_t n_rows, done;
    int n_vocab;
};

struct geul_base_writer *geul_base_writer_new(struct geul_context *ctx, const char *path, const struct geul_windows *w,
                                              const int32_t *ids, int n_vocab)
{
    static const int32_t zero;
    struct header h = {.version = VERSION,
                       .n_vocab = (uint32_t)n_vocab,
                       .method = (uint32_t)(w->method - GEUL_WINDOWS_STRIDE),
                       .n_context = (uint32_t)w->n_context,
                       .stride = (uint32_t)w->stride,
                       .n_tokens = w->n_tokens,
                       .n_windows = w->n_windows};
    memcpy(h.magic, magic, sizeof magic);
    h.hash = hash_of(&h, ids);
    struct geul_base_writer *writer = geul_alloc(ctx, 1, sizeof *writer);
    if (!writer)
        return NULL;
    *writer = (struct geul_base_writer){.ctx = ctx, .n_rows = w->n_scored, .n_vocab = n_vocab};
    writer->file = geul_outfile_open(ctx, path);
    if (writer->file && geul_outfile_write(writer->file, &h, sizeof h) == GEUL_OK &&
        geul_outfile_write(writer->file, ids, w->n_tokens * sizeof *ids) == GEUL_OK &&
        geul_outfile_write(writer->file, &zero, w->n_tokens % 2 * sizeof zero) == GEUL_OK)
        return writer;
    geul_base_writer_abandon(writer);
    return NULL;
}

enum geul_status geul_base_writer_add(struct geul_base_writer *w, double nats, const float *logits)
{
    static const float zero;
    w->done++;
    geul_outfile_write(w->file, &nats, sizeof nats);
    geul_outfile_write(w->file, logits, (size_t)w->n_vocab * sizeof *logits);
    return geul_outfile_write(w->file, &zero, (size_t)(w->n_vocab % 2) * sizeof zero);
}

enum geul_status geul_base_writer_commit(struct geul_base_writer *w)
{
    struct geul_context *ctx = w->ctx;
    if (w->done != w->n_rows) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%zu of %zu rows of logits were written", w->done, w->n_rows);
        geul_base_writer_abandon(w);
        return geul_error_status(ctx);
    }
    enum geul_status status = geul_outfile_commit(w->file);
    geul_free(ctx, w);
    return status;
}

void geul_base_writer_abandon(struct geul_base_writer *w)
{
    if (!w)
        return;
    geul_outfile_abandon(w->file);
    geul_free(w->ctx, w);
}

/* ----------------------------------------------------------------------------------- reading -- */

struct geul_base_map {
    struct geul_map map; /* data is NULL over a caller's memory */
    size_t dropped;      /* rows whose pages were discarded */
};

/* Checks everything but the logits, and fills b. The header determines all sizes, so the file has exactly one possible
 * length. The hash covers header and ids; a logit that is not finite fails where it is compared. */
static enum geul_status parse(struct geul_context *ctx, const unsigned char *data, size_t size, const char *name,
                              struct geul_base_logits *b)
{
    struct header h;
    if (size < sizeof h || memcmp(data, magic, sizeof magic) != 0)
        return geul_fail_kind(ctx, name, "a file of logits of a base model, which an evaluation of that model writes",
                              geul_file_kind_of(data, size));
    memcpy(&h, data, sizeof h);
    if (h.version != VERSION)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s has version %u of the format; %d is known", name, h.version,
                         VERSION);
    if (h.n_vocab < 1 || h.n_vocab > MOST_VOCAB || h.method > GEUL_WINDOWS_LLAMA - GEUL_WINDOWS_STRIDE ||
        h.n_context > MOST_CONTEXT || h.stride > MOST_CONTEXT || h.n_windows < 1 ||
        h.n_tokens > (size - sizeof h) / sizeof(int32_t))
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: a number of the header is out of range", name);
    /* without a context: what it would say is about a user's options */
    if (geul_windows_make(NULL, (enum geul_windows_method)(h.method + GEUL_WINDOWS_STRIDE), (size_t)h.n_tokens,
                          (int)h.n_context, (int)h.stride, (size_t)h.n_windows, &b->windows) != GEUL_OK)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: the windows of the header do not fit its text", name);
    size_t bytes;
    if (b->windows.n_windows != h.n_windows || b->windows.stride != (int)h.stride ||
        !file_bytes((size_t)h.n_tokens, b->windows.n_scored, (int)h.n_vocab, &bytes) || bytes != size)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s has %zu bytes, which does not fit its header: write it again",
                         name, size);
    b->n_vocab = (int)h.n_vocab;
    b->ids = (const int32_t *)(const void *)(data + sizeof h);
    b->rows = data + sizeof h + even((size_t)h.n_tokens) * sizeof(int32_t);
    if (hash_of(&h, b->ids) != h.hash)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s is damaged: its token ids do not have the hash that it names",
                         name);
    for (size_t i = 0; i < h.n_tokens; i++)
        if (b->ids[i] < 0 || b->ids[i] >= b->n_vocab)
            return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: token %zu is %d, but there are %d ids", name, i, b->ids[i],
                             b->n_vocab);
    return GEUL_OK;
}

struct geul_base_logits *geul_base_logits_open_memory(struct geul_context *ctx, const void *data, size_t size,
                                                      const char *name)
{
    struct geul_base_logits *b = geul_alloc(ctx, 1, sizeof *b);
    if (!b)
        return NULL;
    b->map = geul_alloc(ctx, 1, sizeof *b->map);
    if (b->map && parse(ctx, data, size, name, b) == GEUL_OK)
        return b;
    geul_base_logits_close(ctx, b);
    return NULL;
}

struct geul_base_logits *geul_base_logits_open(struct geul_context *ctx, const char *path)
{
    struct geul_map map;
    if (geul_os_map(ctx, path, &map) != GEUL_OK)
        return NULL;
    struct geul_base_logits *b = geul_base_logits_open_memory(ctx, map.data, map.size, path);
    if (b)
        b->map->map = map;
    else
        geul_os_unmap(&map);
    return b;
}

void geul_base_logits_close(struct geul_context *ctx, struct geul_base_logits *b)
{
    if (!b)
        return;
    if (b->map && b->map->map.data)
        geul_os_unmap(&b->map->map);
    geul_free(ctx, b->map);
    geul_free(ctx, b);
}

const float *geul_base_logits_row(const struct geul_base_logits *b, size_t i, double *nats)
{
    size_t bytes = row_bytes(b->n_vocab);
    struct geul_base_map *m = b->map;
    if (m->map.data && i > m->dropped && (i - m->dropped) * bytes >= DROP_BYTES) {
        geul_os_map_discard(b->rows + m->dropped * bytes, (i - m->dropped) * bytes);
        m->dropped = i;
    }
    const unsigned char *row = b->rows + i * bytes;
    memcpy(nats, row, sizeof *nats);
    return (const float *)(const void *)(row + sizeof *nats);
}
