/* imatrix.c: see imatrix.h. The .dat form, all numbers little-endian: int32 count of entries; per entry int32 length
 * and bytes of the name, int32 rows, int32 columns, float32 sums; then, unless the file ends there, int32 chunks, int32
 * length and bytes of the data set's name. */
#include "quantize/imatrix.h"

#include "core/file_kind.h"
#include "core/gguf.h"
#include "core/gguf_kind.h"
#include "core/os.h"
#include "core/tensor.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char sums_end[] = ".in_sum2", counts_end[] = ".counts";

enum { DAT_ENTRY_BYTES = 13 }; /* of an entry of a .dat file with a name of one byte, sums aside */

/* The file being read. */
struct cursor {
    struct geul_context *ctx;
    const char *path;
    const uint8_t *data;
    size_t size, pos;
};

static bool ends_early(const struct cursor *c, const char *what)
{
    geul_fail(
        c->ctx, GEUL_ERROR_FORMAT,
        "%s: ends within %s at byte %zu of %zu; an importance matrix begins with GGUF or is llama.cpp's .dat form",
        c->path, what, c->pos, c->size);
    return false;
}

/* The next int32, which must be in [low, INT32_MAX]. */
static bool read_i32(struct cursor *c, int32_t low, const char *what, size_t *out)
{
    if (c->size - c->pos < 4)
        return ends_early(c, what);
    const uint8_t *p = c->data + c->pos;
    uint32_t v = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    if (v > INT32_MAX || (int32_t)v < low) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: %s at byte %zu is %d; this is not an importance matrix", c->path,
                  what, c->pos, (int)(int32_t)v);
        return false;
    }
    c->pos += 4;
    *out = v;
    return true;
}

/* The next `length` bytes as a text; NULL after a failure. */
static char *read_text(struct cursor *c, size_t length, const char *what)
{
    if (c->size - c->pos < length) {
        ends_early(c, what);
        return NULL;
    }
    if (memchr(c->data + c->pos, 0, length)) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: %s at byte %zu holds a NUL byte", c->path, what, c->pos);
        return NULL;
    }
    char *text = geul_strndup(c->ctx, (const char *)c->data + c->pos, length);
    c->pos += length;
    return text;
}

/* Fills *e with copies: name, and `columns` little-endian floats at sums. false after a failure; *e owns what it
 * holds either way. */
static bool fill_entry(struct cursor *c, struct geul_imatrix_entry *e, size_t columns, double rows, const void *sums)
{
    if (!(rows >= 0) || !isfinite(rows)) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: %s was made from %g rows", c->path, e->name, rows);
        return false;
    }
    float *copy = geul_alloc(c->ctx, columns, sizeof *copy);
    if (!copy)
        return false;
    memcpy(copy, sums, columns * sizeof *copy);
    e->sums = copy;
    e->columns = (int64_t)columns;
    e->rows = rows;
    for (size_t i = 0; i < columns; i++)
        if (!(copy[i] >= 0) || !isfinite(copy[i])) {
            geul_fail(c->ctx, GEUL_ERROR_FORMAT,
                      "%s: column %zu of %s is %g; a sum of squares is finite and not negative", c->path, i, e->name,
                      (double)copy[i]);
            return false;
        }
    return true;
}

/* --------------------------------------------------------------------------------- .dat form -- */

static bool read_dat_entry(struct cursor *c, struct geul_imatrix_entry *e)
{
    size_t length, rows, columns;
    if (!read_i32(c, 1, "the length of a name", &length))
        return false;
    e->name = read_text(c, length, "the name of a tensor");
    if (!e->name || !read_i32(c, 0, "a number of rows", &rows) || !read_i32(c, 1, "a number of columns", &columns))
        return false;
    if ((c->size - c->pos) / sizeof(float) < columns)
        return ends_early(c, e->name);
    const void *sums = c->data + c->pos;
    c->pos += columns * sizeof(float);
    return fill_entry(c, e, columns, (double)rows, sums);
}

static bool read_dat(struct cursor *c, struct geul_imatrix *m)
{
    size_t n, length, chunks;
    const struct geul_file_kind *kind = geul_file_kind_of(c->data, c->size);
    if (kind && kind->file != GEUL_FILE_DAT) {
        geul_fail_kind(c->ctx, c->path, "an importance matrix", kind);
        return false;
    }
    if (!read_i32(c, 1, "the number of entries", &n))
        return false;
    if ((c->size - c->pos) / DAT_ENTRY_BYTES < n) { /* before memory is taken for so many */
        geul_fail(
            c->ctx, GEUL_ERROR_FORMAT,
            "%s: claims %zu entries, but %zu bytes follow; an importance matrix begins with GGUF or is llama.cpp's "
            ".dat form",
            c->path, n, c->size - c->pos);
        return false;
    }
    m->entries = geul_alloc(c->ctx, n, sizeof *m->entries);
    if (!m->entries)
        return false;
    while (m->n_entries < (int64_t)n) /* counted before it is read: what it owns is freed with m after a failure */
        if (!read_dat_entry(c, &m->entries[m->n_entries++]))
            return false;
    if (c->pos == c->size) /* the oldest files end here */
        return true;
    if (!read_i32(c, 0, "the number of chunks", &chunks) || !read_i32(c, 0, "the length of the data set", &length))
        return false;
    m->chunks = chunks;
    m->dataset = read_text(c, length, "the name of the data set");
    return m->dataset != NULL;
}

/* --------------------------------------------------------------------------------- GGUF form -- */

/* Whether name ends in `end`, with something before it. */
static bool has_end(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

/* Reads the entry whose sums are tensor t. */
static bool read_gguf_entry(struct cursor *c, const struct geul_gguf *g, const struct geul_gguf_tensor *t,
                            struct geul_imatrix_entry *e)
{
    /* the data is copied by memcpy: a GGUF in memory may lie at any address */
    char other[GEUL_MAX_NAME + sizeof counts_end];
    size_t length = strlen(t->name) - strlen(sums_end);
    int64_t columns = t->shape[t->n_dims - 1];
    float count;
    snprintf(other, sizeof other, "%.*s%s", (int)length, t->name, counts_end);
    const struct geul_gguf_tensor *counts = geul_gguf_find_tensor(g, other);
    if (!counts || counts->type != GEUL_TYPE_F32 || counts->bytes != sizeof count || t->type != GEUL_TYPE_F32 ||
        columns < 1 || t->bytes != (size_t)columns * sizeof(float)) {
        geul_fail(c->ctx, GEUL_ERROR_UNSUPPORTED,
                  "%s: %s is not one row of float32 sums with one count in %s; geul knows models without experts",
                  c->path, t->name, other);
        return false;
    }
    memcpy(&count, counts->data, sizeof count);
    e->name = geul_strndup(c->ctx, t->name, length);
    return e->name && fill_entry(c, e, (size_t)columns, (double)count, t->data);
}

/* The first data set that the file names, else "". NULL when memory is short. */
static char *read_dataset(struct cursor *c, const struct geul_gguf *g)
{
    struct geul_gguf_array sets;
    const char *s = "";
    size_t length = 0;
    if (geul_gguf_get_array(g, "imatrix.datasets", &sets) && sets.type == GEUL_GGUF_STRING)
        (void)geul_gguf_array_next(&sets, &s, &length);
    return geul_strndup(c->ctx, s, length);
}

static bool read_gguf(struct cursor *c, struct geul_imatrix *m)
{
    struct geul_gguf *g = geul_gguf_open_memory(c->ctx, c->data, c->size, c->path);
    const char *type = "";
    size_t length = 0;
    if (!g)
        return false;
    bool ok = geul_gguf_string(g, "general.type", &type, &length) && length == 7 && memcmp(type, "imatrix", 7) == 0;
    if (!ok)
        geul_fail_kind(c->ctx, c->path, "an importance matrix", geul_gguf_kind(g));
    geul_gguf_u64(g, "imatrix.chunk_count", &m->chunks);
    geul_gguf_u64(g, "imatrix.chunk_size", &m->chunk_size);
    if (ok)
        m->dataset = read_dataset(c, g);
    /* each entry is a pair of tensors: at most as many entries as tensors */
    int64_t n = geul_gguf_tensor_count(g);
    m->entries = ok && m->dataset ? geul_alloc(c->ctx, (size_t)n, sizeof *m->entries) : NULL;
    ok = m->entries != NULL;
    for (int64_t i = 0; ok && i < n; i++) {
        const struct geul_gguf_tensor *t = geul_gguf_tensor_at(g, i);
        if (has_end(t->name, sums_end))
            ok = read_gguf_entry(c, g, t, &m->entries[m->n_entries++]);
    }
    geul_gguf_close(g);
    return ok;
}

/* ------------------------------------------------------------------------------------ public -- */

struct geul_imatrix *geul_imatrix_parse(struct geul_context *ctx, const void *data, size_t size, const char *name)
{
    struct cursor c = {.ctx = ctx, .path = name, .data = data, .size = size};
    struct geul_imatrix *m = geul_alloc(ctx, 1, sizeof *m);
    if (!m)
        return NULL;
    m->ctx = ctx;
    bool ok = size >= 4 && memcmp(data, "GGUF", 4) == 0 ? read_gguf(&c, m) : read_dat(&c, m);
    if (ok && !m->dataset)
        ok = (m->dataset = geul_strndup(ctx, "", 0)) != NULL;
    if (ok && m->n_entries > 0)
        return m;
    if (ok)
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: holds no importance of any tensor", name);
    geul_imatrix_free(m);
    return NULL;
}

struct geul_imatrix *geul_imatrix_load(struct geul_context *ctx, const char *path)
{
    struct geul_map map;
    geul_error_clear(ctx);
    if (geul_os_map(ctx, path, &map) != GEUL_OK)
        return NULL;
    struct geul_imatrix *m = geul_imatrix_parse(ctx, map.data, map.size, path);
    if (m)
        m->map = map; /* everything is copied, but the file stays an input as long as m */
    else
        geul_os_unmap(&map);
    return m;
}

void geul_imatrix_free(struct geul_imatrix *m)
{
    if (!m)
        return;
    struct geul_context *ctx = m->ctx;
    geul_os_unmap(&m->map);
    for (int64_t i = 0; i < m->n_entries; i++) {
        geul_free(ctx, (void *)(uintptr_t)m->entries[i].name);
        geul_free(ctx, (void *)(uintptr_t)m->entries[i].sums);
    }
    geul_free(ctx, m->entries);
    geul_free(ctx, m->dataset);
    geul_free(ctx, m);
}

const struct geul_imatrix_entry *geul_imatrix_find(const struct geul_imatrix *m, const char *tensor)
{
    for (int64_t i = 0; i < m->n_entries; i++)
        if (strcmp(m->entries[i].name, tensor) == 0)
            return &m->entries[i];
    return NULL;
}

/* Declares the two tensors of every entry, in the order in which their data follow. */
static void declare_entries(struct geul_gguf_writer *w, const struct geul_imatrix *m)
{
    char name[2 * GEUL_MAX_NAME];
    for (int64_t i = 0; i < m->n_entries; i++) {
        const struct geul_imatrix_entry *e = &m->entries[i];
        snprintf(name, sizeof name, "%s%s", e->name, sums_end);
        geul_gguf_declare_tensor(w, name, GEUL_TYPE_F32, 2, (int64_t[]){1, e->columns});
        snprintf(name, sizeof name, "%s%s", e->name, counts_end);
        geul_gguf_declare_tensor(w, name, GEUL_TYPE_F32, 2, (int64_t[]){1, 1});
    }
}

enum geul_status geul_imatrix_save(struct geul_context *ctx, const struct geul_imatrix *m, const char *path)
{
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path);
    const char *dataset = m->dataset ? m->dataset : "";
    size_t length = strlen(dataset);
    if (!w)
        return geul_error_status(ctx);
    geul_gguf_set_string(w, "general.type", "imatrix", 7);
    geul_gguf_set_strings(w, "imatrix.datasets", &dataset, &length, 1);
    geul_gguf_set_u32(w, "imatrix.chunk_count", m->chunks < UINT32_MAX ? (uint32_t)m->chunks : UINT32_MAX);
    geul_gguf_set_u32(w, "imatrix.chunk_size", m->chunk_size < UINT32_MAX ? (uint32_t)m->chunk_size : UINT32_MAX);
    declare_entries(w, m);
    for (int64_t i = 0; i < m->n_entries; i++) {
        const struct geul_imatrix_entry *e = &m->entries[i];
        float count = (float)e->rows;
        geul_gguf_write_data(w, e->sums, (size_t)e->columns * sizeof *e->sums);
        geul_gguf_write_data(w, &count, sizeof count);
    }
    return geul_gguf_writer_commit(w);
}
