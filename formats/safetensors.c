/* safetensors.c: see safetensors.h.
 *
 *   u64 n, little-endian | n bytes of JSON | data
 *   {"NAME": {"dtype": "F16", "shape": [2, 3], "data_offsets": [BEGIN, END]}, "__metadata__": {"format": "pt"}}
 *   Offsets are relative to the data, which ends with the file.
 */
#include "formats/safetensors.h"

#include "formats/json_file.h"
#include "core/file_kind.h"
#include "core/os.h"

#include <stdlib.h>
#include <string.h>

/* The format's own limit on the header. */
#define LARGEST_HEADER 100000000

/* What the entry `name` of the header says, or a failure. data and size are the data section. */
static enum geul_status read_entry(struct geul_context *ctx, const char *file, const char *name, const json_t *entry,
                                   const uint8_t *data, size_t size, struct geul_source_tensor *t)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
    char text[160], type_text[32];
    if (!dtype || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2 ||
        json_array_size(shape) > GEUL_SOURCE_DIMS)
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s: tensor %s needs a dtype, a shape of at most %d numbers and two data_offsets", file,
                         geul_printable(name, text, sizeof text), GEUL_SOURCE_DIMS);
    *t = (struct geul_source_tensor){.name = (char *)(uintptr_t)name, .dtype = geul_dtype_from_name(dtype)};
    if (t->dtype == GEUL_DTYPE_COUNT)
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: tensor %s has the unknown dtype %s", file,
                         geul_printable(name, text, sizeof text), geul_printable(dtype, type_text, sizeof type_text));
    t->n_dims = (int)json_array_size(shape);
    bool ok = true;
    for (int i = 0; i < t->n_dims; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        ok = ok && json_is_integer(d) && json_integer_value(d) >= 0;
        t->shape[i] = json_integer_value(d);
    }
    /* shape times element size has to be the length of the range, and the range has to lie in the data */
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    int64_t begin = json_integer_value(b), end = json_integer_value(e);
    ok = ok && json_is_integer(b) && json_is_integer(e) && geul_source_bytes(t->dtype, t->n_dims, t->shape, &t->bytes);
    if (!ok || begin < 0 || end < begin || (uint64_t)end > size || (uint64_t)(end - begin) != t->bytes)
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s: tensor %s, %s of shape %s, claims bytes %lld to %lld of %zu; the header does not fit the "
                         "data",
                         file, geul_printable(name, text, 100), dtype,
                         geul_dims_text(t->n_dims, t->shape, text + 100, sizeof text - 100), (long long)begin,
                         (long long)end, size);
    t->data = data + begin;
    return GEUL_OK;
}

/* At the same offset the shorter first, so that empty tensors come before one that begins there. */
static int by_data_offset(const void *a, const void *b)
{
    const struct geul_source_tensor *const *x = a, *const *y = b;
    int order = ((*x)->data > (*y)->data) - ((*x)->data < (*y)->data);
    return order ? order : ((*x)->bytes > (*y)->bytes) - ((*x)->bytes < (*y)->bytes);
}

/* Fails when two of the n tensors share a byte. In order of their offsets it is enough that each ends before the next
 * begins. Gaps are allowed. */
static enum geul_status check_overlap(struct geul_context *ctx, const char *file, const struct geul_source_tensor *t,
                                      size_t n)
{
    const struct geul_source_tensor **order = geul_alloc(ctx, n, sizeof(void *));
    enum geul_status status = order ? GEUL_OK : GEUL_ERROR_MEMORY;
    for (size_t i = 0; order && i < n; i++)
        order[i] = &t[i];
    if (order && n > 1)
        qsort(order, n, sizeof *order, by_data_offset);
    for (size_t i = 1; status == GEUL_OK && i < n; i++)
        if ((size_t)(order[i]->data - order[i - 1]->data) < order[i - 1]->bytes) {
            char a[100], b[100];
            status =
                geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: the data of tensors %s and %s overlap", file,
                          geul_printable(order[i - 1]->name, a, sizeof a), geul_printable(order[i]->name, b, sizeof b));
        }
    geul_free(ctx, order);
    return status;
}

enum geul_status geul_safetensors_read(struct geul_context *ctx, const char *name, const uint8_t *data, size_t size,
                                       struct geul_source_list *list)
{
    uint64_t length = 0;
    for (size_t i = 0; size >= 8 && i < 8; i++)
        length |= (uint64_t)data[i] << (8 * i);
    const struct geul_file_kind *kind = geul_file_kind_foreign(data, size, GEUL_FILE_SAFETENSORS);
    if (kind)
        return geul_fail_kind(ctx, name, "a safetensors file", kind);
    if (size < 8)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: %zu bytes are too few for a safetensors file%s", name, size,
                         size == 0 ? ": it is empty" : "");
    /* in this order nothing overflows: the header ends within the file, and its tensors within what follows it */
    if (length > size - 8 || length > LARGEST_HEADER)
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s: claims a header of %llu bytes, %zu follow; the file is incomplete or not safetensors",
                         name, (unsigned long long)length, size - 8);
    json_t *header = geul_json_parse_strict(ctx, name, data + 8, (size_t)length);
    if (!header)
        return geul_error_status(ctx);
    enum geul_status status = GEUL_OK;
    if (!json_is_object(header))
        status = geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: the header is not a JSON object", name);
    size_t first = list->count; /* other shards have added theirs: only this file's can overlap */
    const uint8_t *payload = data + 8 + length;
    for (void *it = json_object_iter(header); it && status == GEUL_OK; it = json_object_iter_next(header, it)) {
        struct geul_source_tensor t;
        if (strcmp(json_object_iter_key(it), "__metadata__") == 0)
            continue;
        status = read_entry(ctx, name, json_object_iter_key(it), json_object_iter_value(it), payload,
                            size - 8 - (size_t)length, &t);
        if (status == GEUL_OK)
            status = geul_source_append(ctx, list, &t);
    }
    json_decref(header);
    if (status != GEUL_OK || list->count == first)
        return status;
    return check_overlap(ctx, name, list->items + first, list->count - first);
}

/* ----------------------------------------------------------------------------------- writing -- */

struct geul_safetensors_writer {
    struct geul_context *ctx;
    struct geul_outfile *file;
    enum geul_status status;
    uint64_t expected; /* size of the file once all data is there */
};

/* The header as JSON, and through *bytes the size of the data. NULL when memory is short. */
static json_t *make_header(const struct geul_source_tensor *tensors, size_t count, uint64_t *bytes)
{
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    uint64_t offset = 0;
    bool ok = header != NULL;
    for (size_t i = 0; ok && i < count; i++) {
        const struct geul_source_tensor *t = &tensors[i];
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++)
            ok = json_array_append_new(shape, json_integer(t->shape[d])) == 0 && ok;
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", geul_dtype_info(t->dtype)->name, "shape", shape,
                                  "data_offsets", (json_int_t)offset, (json_int_t)(offset + t->bytes));
        ok = json_object_set_new(header, t->name, entry) == 0 && ok;
        offset += t->bytes;
    }
    *bytes = offset;
    if (ok)
        return header;
    json_decref(header);
    return NULL;
}

/* Writes the length and the header, padded with spaces so that the data begins at a multiple of 8. */
static void emit_header(struct geul_safetensors_writer *w, const char *json, uint64_t data_bytes)
{
    size_t length = strlen(json), padding = (8 - length % 8) % 8;
    uint64_t total = length + padding;
    uint8_t head[8];
    for (size_t i = 0; i < 8; i++)
        head[i] = (uint8_t)(total >> (8 * i));
    w->expected = 8 + total + data_bytes;
    w->status = geul_os_check_space(w->ctx, geul_outfile_path(w->file), w->expected);
    geul_safetensors_write(w, head, sizeof head);
    geul_safetensors_write(w, json, length);
    geul_safetensors_write(w, "        ", padding);
}

struct geul_safetensors_writer *geul_safetensors_writer_new(struct geul_context *ctx, const char *path,
                                                            const struct geul_source_tensor *tensors, size_t count)
{
    uint64_t bytes;
    json_t *header = make_header(tensors, count, &bytes);
    char *json = header ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    struct geul_safetensors_writer *w = json ? geul_alloc(ctx, 1, sizeof *w) : geul_fail_memory(ctx, count * 128);
    if (w) {
        w->ctx = ctx;
        w->file = geul_outfile_open(ctx, path);
        if (w->file)
            emit_header(w, json, bytes);
        if (!w->file || w->status != GEUL_OK) {
            geul_outfile_abandon(w->file);
            geul_free(ctx, w);
            w = NULL;
        }
    }
    free(json);
    return w;
}

void geul_safetensors_write(struct geul_safetensors_writer *w, const void *data, size_t bytes)
{
    if (w->status == GEUL_OK && bytes > 0)
        w->status = geul_outfile_write(w->file, data, bytes);
}

enum geul_status geul_safetensors_commit(struct geul_safetensors_writer *w)
{
    enum geul_status status = w->status;
    if (status == GEUL_OK && geul_outfile_tell(w->file) != w->expected)
        status = geul_fail(w->ctx, GEUL_ERROR_ARGUMENT, "%llu bytes were written where the header promises %llu",
                           (unsigned long long)geul_outfile_tell(w->file), (unsigned long long)w->expected);
    if (status == GEUL_OK)
        status = geul_outfile_commit(w->file);
    else
        geul_outfile_abandon(w->file);
    geul_free(w->ctx, w);
    return status;
}

void geul_safetensors_abandon(struct geul_safetensors_writer *w)
{
    if (!w)
        return;
    geul_outfile_abandon(w->file);
    geul_free(w->ctx, w);
}
