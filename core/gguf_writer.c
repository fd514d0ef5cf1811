/* gguf_writer.c: the GGUF writer. Keys and tensor declarations are collected in memory; the header is written before
 * the first data, and the data is streamed after it.
 *
 * The header has the offsets of tensors that are not written yet. They hold because each tensor is padded to ALIGNMENT
 * when its last byte has come (geul_gguf_write_data) and counted with that padding (make_header), and because a
 * tensor's size follows from its declaration. After the first failure nothing more is written. */
#include "core/gguf.h"

#include "core/bytes.h"
#include "core/os.h"
#include "core/tensor.h"

#include <string.h>

enum { ALIGNMENT = 32, VERSION = 3 };

struct declared {
    char name[GEUL_MAX_NAME];
    enum geul_type type;
    int n_dims;
    int64_t shape[GEUL_MAX_DIMS];
    size_t bytes;
};

struct geul_gguf_writer {
    struct geul_context *ctx;
    struct geul_outfile *file; /* NULL: only counts */
    enum geul_status status;
    struct geul_bytes keys; /* as they go into the file */
    size_t n_keys;
    struct declared *tensors;
    size_t n_tensors, tensor_capacity;
    bool header_written;
    size_t current; /* tensor that data goes to */
    size_t filled;  /* bytes of it that have come; less than its size */
};

static const uint32_t type_numbers[GEUL_TYPE_COUNT] = {
#define TYPE(id, name, gguf_id, block, bytes, codec) gguf_id,
#include "geul_types.def"
#undef TYPE
};

/* Records the first failure; its message is in the context. GEUL_OK changes nothing. */
static void fail(struct geul_gguf_writer *w, enum geul_status status)
{
    if (w->status == GEUL_OK)
        w->status = status;
}

/* Appends size bytes. */
static void put(struct geul_gguf_writer *w, struct geul_bytes *to, const void *data, size_t size)
{
    if (w->status == GEUL_OK && !geul_bytes_add(w->ctx, to, data, size))
        fail(w, GEUL_ERROR_MEMORY);
}

/* Appends a little-endian number of 1..8 bytes. */
static void put_number(struct geul_gguf_writer *w, struct geul_bytes *to, uint64_t v, size_t bytes)
{
    uint8_t b[8];
    for (size_t i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    put(w, to, b, bytes);
}

static void put_string(struct geul_gguf_writer *w, struct geul_bytes *to, const char *s, size_t length)
{
    put_number(w, to, length, 8);
    put(w, to, s, length);
}

/* Appends a key's name and type; its value follows. */
static void put_key(struct geul_gguf_writer *w, const char *key, enum geul_gguf_type type)
{
    if (w->header_written)
        fail(w, geul_fail(w->ctx, GEUL_ERROR_ARGUMENT, "key %s was set after the first tensor data", key));
    put_string(w, &w->keys, key, strlen(key));
    put_number(w, &w->keys, type, 4);
    w->n_keys++;
}

static void put_array(struct geul_gguf_writer *w, const char *key, enum geul_gguf_type type, size_t count)
{
    put_key(w, key, GEUL_GGUF_ARRAY);
    put_number(w, &w->keys, type, 4);
    put_number(w, &w->keys, count, 8);
}

/* A writer for path, or for counting when path is NULL; nothing appears before commit. NULL on failure. End it with
 * commit or abandon. */
struct geul_gguf_writer *geul_gguf_writer_new(struct geul_context *ctx, const char *path)
{
    struct geul_gguf_writer *w = geul_alloc(ctx, 1, sizeof *w);
    if (!w)
        return NULL;
    w->ctx = ctx;
    w->file = path ? geul_outfile_open(ctx, path) : NULL;
    if (w->file || !path)
        return w;
    geul_free(ctx, w);
    return NULL;
}

void geul_gguf_set_u16(struct geul_gguf_writer *w, const char *key, uint16_t v)
{
    put_key(w, key, GEUL_GGUF_U16);
    put_number(w, &w->keys, v, 2);
}

void geul_gguf_set_u32(struct geul_gguf_writer *w, const char *key, uint32_t v)
{
    put_key(w, key, GEUL_GGUF_U32);
    put_number(w, &w->keys, v, 4);
}

void geul_gguf_set_i32(struct geul_gguf_writer *w, const char *key, int32_t v)
{
    put_key(w, key, GEUL_GGUF_I32);
    put_number(w, &w->keys, (uint32_t)v, 4);
}

void geul_gguf_set_u64(struct geul_gguf_writer *w, const char *key, uint64_t v)
{
    put_key(w, key, GEUL_GGUF_U64);
    put_number(w, &w->keys, v, 8);
}

static void put_f32(struct geul_gguf_writer *w, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_number(w, &w->keys, bits, 4);
}

void geul_gguf_set_f32(struct geul_gguf_writer *w, const char *key, float v)
{
    put_key(w, key, GEUL_GGUF_F32);
    put_f32(w, v);
}

void geul_gguf_set_bool(struct geul_gguf_writer *w, const char *key, bool v)
{
    put_key(w, key, GEUL_GGUF_BOOL);
    put_number(w, &w->keys, v, 1);
}

void geul_gguf_set_string(struct geul_gguf_writer *w, const char *key, const char *s, size_t length)
{
    put_key(w, key, GEUL_GGUF_STRING);
    put_string(w, &w->keys, s, length);
}

void geul_gguf_set_i32s(struct geul_gguf_writer *w, const char *key, const int32_t *v, size_t count)
{
    put_array(w, key, GEUL_GGUF_I32, count);
    for (size_t i = 0; i < count; i++)
        put_number(w, &w->keys, (uint32_t)v[i], 4);
}

void geul_gguf_set_f32s(struct geul_gguf_writer *w, const char *key, const float *v, size_t count)
{
    put_array(w, key, GEUL_GGUF_F32, count);
    for (size_t i = 0; i < count; i++)
        put_f32(w, v[i]);
}

void geul_gguf_set_strings(struct geul_gguf_writer *w, const char *key, const char *const *s, const size_t *lengths,
                           size_t count)
{
    put_array(w, key, GEUL_GGUF_STRING, count);
    for (size_t i = 0; i < count; i++)
        put_string(w, &w->keys, s[i], lengths[i]);
}

void geul_gguf_copy_key(struct geul_gguf_writer *w, const struct geul_gguf *g, int64_t i)
{
    size_t bytes;
    const void *value = geul_gguf_key_value(g, i, &bytes);
    const char *name = geul_gguf_key_name(g, i);
    if (strcmp(name, "general.alignment") == 0) { /* this writer has its own */
        geul_gguf_set_u32(w, name, ALIGNMENT);
        return;
    }
    put_key(w, name, geul_gguf_key_type(g, i));
    put(w, &w->keys, value, bytes);
}

void geul_gguf_declare_tensor(struct geul_gguf_writer *w, const char *name, enum geul_type type, int n_dims,
                              const int64_t *shape)
{
    size_t length = strlen(name), bytes;
    if (w->status != GEUL_OK)
        return;
    if (w->header_written || length == 0 || length >= GEUL_MAX_NAME || n_dims < 1 || n_dims > GEUL_MAX_DIMS ||
        !geul_shape_bytes(type, n_dims, shape, &bytes)) {
        fail(w, geul_fail(w->ctx, GEUL_ERROR_ARGUMENT,
                          "tensor %.80s cannot be declared: it comes after data, its name is empty or longer than %d "
                          "bytes, or its shape does not fit type %s",
                          name, GEUL_MAX_NAME - 1, geul_type_name(type)));
        return;
    }
    if (!geul_reserve(w->ctx, &w->tensors, &w->tensor_capacity, w->n_tensors + 1, sizeof *w->tensors)) {
        fail(w, GEUL_ERROR_MEMORY);
        return;
    }
    struct declared *t = &w->tensors[w->n_tensors++];
    memset(t, 0, sizeof *t);
    memcpy(t->name, name, length);
    t->type = type;
    t->n_dims = n_dims;
    t->bytes = bytes;
    for (int i = 0; i < n_dims; i++)
        t->shape[i] = shape[i];
}

/* Refuses data for a writer that only counts. */
static void need_file(struct geul_gguf_writer *w)
{
    if (!w->file)
        fail(w, geul_fail(w->ctx, GEUL_ERROR_ARGUMENT, "a GGUF writer without a path takes no data"));
}

/* Writes to the file; sticky. */
static void emit(struct geul_gguf_writer *w, const void *data, size_t size)
{
    if (w->status == GEUL_OK && size > 0)
        fail(w, geul_outfile_write(w->file, data, size));
}

/* Zeros up to the next multiple of the alignment. */
static void emit_padding(struct geul_gguf_writer *w)
{
    static const uint8_t zeros[ALIGNMENT];
    emit(w, zeros, (size_t)((ALIGNMENT - geul_outfile_tell(w->file) % ALIGNMENT) % ALIGNMENT));
}

static uint64_t padded(uint64_t bytes)
{
    return bytes + (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT;
}

/* Header, keys and tensor table into *head, which the caller frees. Returns the bytes of all tensors with padding. */
static uint64_t make_header(struct geul_gguf_writer *w, struct geul_bytes *head)
{
    uint64_t offset = 0;
    put(w, head, "GGUF", 4);
    put_number(w, head, VERSION, 4);
    put_number(w, head, w->n_tensors, 8);
    put_number(w, head, w->n_keys, 8);
    put(w, head, w->keys.data, w->keys.length);
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct declared *t = &w->tensors[i];
        put_string(w, head, t->name, strlen(t->name));
        put_number(w, head, (uint64_t)t->n_dims, 4);
        for (int d = t->n_dims - 1; d >= 0; d--) /* innermost first */
            put_number(w, head, (uint64_t)t->shape[d], 8);
        put_number(w, head, type_numbers[t->type], 4);
        put_number(w, head, offset, 8);
        offset += padded(t->bytes);
    }
    return offset;
}

/* Everything before the tensors, if there is room for them. */
static void emit_header(struct geul_gguf_writer *w)
{
    struct geul_bytes head = {0};
    uint64_t tensors = make_header(w, &head);
    if (w->status == GEUL_OK)
        fail(w, geul_os_check_space(w->ctx, geul_outfile_path(w->file), padded(head.length) + tensors));
    emit(w, head.data, head.length);
    emit_padding(w);
    geul_free(w->ctx, head.data);
    w->header_written = true;
}

uint64_t geul_gguf_writer_bytes(struct geul_gguf_writer *w)
{
    struct geul_bytes head = {0};
    uint64_t tensors = make_header(w, &head);
    geul_free(w->ctx, head.data);
    return padded(head.length) + tensors;
}

void geul_gguf_write_data(struct geul_gguf_writer *w, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    need_file(w);
    if (!w->header_written && w->status == GEUL_OK)
        emit_header(w);
    while (bytes > 0 && w->status == GEUL_OK) { /* a piece may end inside a tensor or span several */
        if (w->current == w->n_tensors) {
            fail(w, geul_fail(w->ctx, GEUL_ERROR_ARGUMENT, "more data than the declared tensors hold"));
            return;
        }
        size_t rest = w->tensors[w->current].bytes - w->filled, n = bytes < rest ? bytes : rest;
        emit(w, from, n);
        from += n;
        bytes -= n;
        w->filled += n;
        if (w->filled == w->tensors[w->current].bytes) {
            emit_padding(w);
            w->current++;
            w->filled = 0;
        }
    }
}

enum geul_status geul_gguf_writer_status(const struct geul_gguf_writer *w)
{
    return w->status;
}

/* Frees everything but the file. */
static void free_writer(struct geul_gguf_writer *w)
{
    geul_free(w->ctx, w->keys.data);
    geul_free(w->ctx, w->tensors);
    geul_free(w->ctx, w);
}

enum geul_status geul_gguf_writer_finish(struct geul_gguf_writer *w)
{
    need_file(w);
    if (!w->header_written && w->status == GEUL_OK)
        emit_header(w);
    if (w->status == GEUL_OK && w->current < w->n_tensors)
        fail(w, geul_fail(w->ctx, GEUL_ERROR_ARGUMENT, "tensor %s was declared but its data did not come",
                          w->tensors[w->current].name));
    if (w->status == GEUL_OK)
        fail(w, geul_outfile_finish(w->file));
    return w->status;
}

const char *geul_gguf_writer_temporary(const struct geul_gguf_writer *w)
{
    return geul_outfile_temporary(w->file);
}

enum geul_status geul_gguf_writer_commit(struct geul_gguf_writer *w)
{
    enum geul_status status = geul_gguf_writer_finish(w);
    if (status == GEUL_OK)
        status = geul_outfile_commit(w->file);
    else
        geul_outfile_abandon(w->file);
    free_writer(w);
    return status;
}

void geul_gguf_writer_abandon(struct geul_gguf_writer *w)
{
    if (!w)
        return;
    geul_outfile_abandon(w->file);
    free_writer(w);
}
