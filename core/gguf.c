/* gguf.c: the GGUF reader. A file is hostile until shown otherwise: a cursor walks it once, and nothing is used or
 * allocated before the bytes that it needs are known to be there. All checks are made while opening; what reads values
 * later relies on them.
 *
 *   "GGUF" u32 version  u64 n_tensors  u64 n_keys
 *   keys:    string name, u32 type, value          (string: u64 length, bytes; array: u32 type, u64 count, elements)
 *   tensors: string name, u32 n_dims, u64 dims[] (innermost first), u32 type, u64 offset into the data
 *   padding to general.alignment, then the data
 */
#include "core/gguf.h"

#include "core/file_kind.h"
#include "core/os.h"
#include "core/tensor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_KEY_NAME = 65535, /* the specification's limit */
    MIN_KEY_BYTES = 8 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8,
    MIN_ALIGNMENT = 8,
    MAX_ALIGNMENT = 65536,
    DEFAULT_ALIGNMENT = 32,
};

struct key {
    char *name;
    enum geul_gguf_type type;
    const uint8_t *value; /* as in the file; strings with their length, arrays with type and count */
    size_t bytes;
};

struct geul_gguf {
    struct geul_context *ctx;
    char *path;
    uint32_t version;
    uint64_t file_bytes;
    struct geul_map *maps; /* the parts; none for open_memory */
    int64_t n_maps;
    struct key *keys; /* of the first part */
    int64_t n_keys;
    int64_t *key_order; /* indices sorted by name */
    struct geul_gguf_tensor *tensors;
    int64_t n_tensors;
    int64_t *tensor_order;
};

/* The part that is being read. pos <= size at all times, so size - pos, the bytes that remain, cannot wrap around:
 * every claim of the file is compared with that difference, never added to pos first. */
struct cursor {
    struct geul_context *ctx;
    const char *path;
    const uint8_t *data;
    size_t size, pos;
    uint32_t version;
    uint64_t n_keys, n_tensors;
    struct key *keys;
    int64_t keys_read;
    size_t alignment; /* a power of two; final once all keys are read */
};

/* Bytes of a value of each type; 0 where it varies. */
static const uint8_t value_bytes[GEUL_GGUF_TYPE_COUNT] = {
    [GEUL_GGUF_U8] = 1,  [GEUL_GGUF_I8] = 1,  [GEUL_GGUF_U16] = 2, [GEUL_GGUF_I16] = 2,
    [GEUL_GGUF_U32] = 4, [GEUL_GGUF_I32] = 4, [GEUL_GGUF_F32] = 4, [GEUL_GGUF_BOOL] = 1,
    [GEUL_GGUF_U64] = 8, [GEUL_GGUF_I64] = 8, [GEUL_GGUF_F64] = 8,
};

/* The format's tensor types, for telling a user what a file holds that geul cannot read. */
static const char *const format_types[] = {
    "f32",    "f16",      "q4_0",     "q4_1",     "q4_2",  "q4_3",  "q5_0",       "q5_1",       "q8_0",       "q8_1",
    "q2_K",   "q3_K",     "q4_K",     "q5_K",     "q6_K",  "q8_K",  "iq2_xxs",    "iq2_xs",     "iq3_xxs",    "iq1_s",
    "iq4_nl", "iq3_s",    "iq2_s",    "iq4_xs",   "i8",    "i16",   "i32",        "i64",        "f64",        "iq1_m",
    "bf16",   "q4_0_4_4", "q4_0_4_8", "q4_0_8_8", "tq1_0", "tq2_0", "iq4_nl_4_4", "iq4_nl_4_8", "iq4_nl_8_8", "mxfp4",
};

static uint64_t load_le(const uint8_t *p, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* ------------------------------------------------------------------------------------ cursor -- */

/* Records that the file ends too early. Returns false. */
static bool truncated(const struct cursor *c, const char *what)
{
    geul_fail(c->ctx, GEUL_ERROR_FORMAT,
              "%s: the file ends at byte %zu, inside %s at byte %zu; it is incomplete or damaged, fetch it again",
              c->path, c->size, what, c->pos);
    return false;
}

/* Reads an unsigned little-endian number of 1..8 bytes. */
static bool read_number(struct cursor *c, size_t bytes, uint64_t *out, const char *what)
{
    if (c->size - c->pos < bytes)
        return truncated(c, what);
    *out = load_le(c->data + c->pos, bytes);
    c->pos += bytes;
    return true;
}

/* Points *s to a string in the file, without NUL at its end; its length is checked against the bytes that remain. */
static bool read_string(struct cursor *c, const char **s, size_t *length, const char *what)
{
    uint64_t n;
    if (!read_number(c, 8, &n, what))
        return false;
    if (n > c->size - c->pos) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: %s at byte %zu claims a length of %llu bytes, %zu remain", c->path,
                  what, c->pos - 8, (unsigned long long)n, c->size - c->pos);
        return false;
    }
    *s = (const char *)c->data + c->pos;
    *length = (size_t)n;
    c->pos += *length;
    return true;
}

/* Reads a name of 1..limit bytes without control characters, and so without NUL: names may be compared with strcmp()
 * and printed. Returns a copy that the caller frees, NULL on failure. */
static char *read_name(struct cursor *c, size_t limit, const char *what)
{
    size_t start = c->pos, length;
    const char *s;
    if (!read_string(c, &s, &length, what))
        return NULL;
    bool clean = length > 0 && length <= limit;
    for (size_t i = 0; clean && i < length; i++)
        clean = (unsigned char)s[i] >= 0x20 && s[i] != 0x7f;
    if (!clean) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: %s at byte %zu is not a name of 1 to %zu printable bytes", c->path,
                  what, start, limit);
        return NULL;
    }
    return geul_strndup(c->ctx, s, length);
}

/* -------------------------------------------------------------------------------------- keys -- */

/* Steps over an array's elements. Arrays of arrays are refused: geul needs none, and each could hold another. */
static bool skip_array(struct cursor *c, const struct key *key)
{
    uint64_t type, count;
    if (!read_number(c, 4, &type, "an array") || !read_number(c, 8, &count, "an array"))
        return false;
    if (type >= GEUL_GGUF_TYPE_COUNT || type == GEUL_GGUF_ARRAY) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: key %.80s at byte %zu is an array of %s (type %llu)", c->path,
                  key->name, c->pos - 12, type == GEUL_GGUF_ARRAY ? "arrays" : "an unknown type",
                  (unsigned long long)type);
        return false;
    }
    /* Divided, since count * each may overflow. A string takes 8 bytes at least, so the loop below ends with the file.
     */
    size_t each = type == GEUL_GGUF_STRING ? 8 : value_bytes[type];
    if (count > (c->size - c->pos) / each) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: key %.80s at byte %zu claims %llu elements, %zu bytes remain",
                  c->path, key->name, c->pos - 8, (unsigned long long)count, c->size - c->pos);
        return false;
    }
    if (type != GEUL_GGUF_STRING) {
        c->pos += (size_t)count * each;
        return true;
    }
    const char *s;
    size_t length;
    for (uint64_t i = 0; i < count; i++)
        if (!read_string(c, &s, &length, "a string of an array"))
            return false;
    return true;
}

static bool skip_value(struct cursor *c, const struct key *key)
{
    const char *s;
    size_t length;
    uint64_t number;
    if (key->type == GEUL_GGUF_ARRAY)
        return skip_array(c, key);
    if (key->type == GEUL_GGUF_STRING)
        return read_string(c, &s, &length, "a string value");
    return read_number(c, value_bytes[key->type], &number, "a value");
}

/* Reads one key into *key; on failure key->name may be set, and is freed with the others. */
static bool read_key(struct cursor *c, struct key *key)
{
    uint64_t type;
    key->name = read_name(c, MAX_KEY_NAME, "the name of a key");
    if (!key->name || !read_number(c, 4, &type, "the type of a key"))
        return false;
    if (type >= GEUL_GGUF_TYPE_COUNT) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: key %.80s has the unknown type %llu at byte %zu", c->path, key->name,
                  (unsigned long long)type, c->pos - 4);
        return false;
    }
    key->type = (enum geul_gguf_type)type;
    key->value = c->data + c->pos;
    if (!skip_value(c, key))
        return false;
    key->bytes = (size_t)(c->data + c->pos - key->value);
    if (strcmp(key->name, "general.alignment") == 0) { /* the one key that changes how the rest is read */
        uint64_t a = key->type == GEUL_GGUF_U32 ? load_le(key->value, 4) : 0;
        if (a < MIN_ALIGNMENT || a > MAX_ALIGNMENT || (a & (a - 1)) != 0) {
            geul_fail(c->ctx, GEUL_ERROR_FORMAT,
                      "%s: general.alignment is %llu (value type %u); it must be a u32 power of two from %d to %d",
                      c->path, (unsigned long long)a, key->type, MIN_ALIGNMENT, MAX_ALIGNMENT);
            return false;
        }
        c->alignment = (size_t)a;
    }
    return true;
}

static void free_keys(struct geul_context *ctx, struct key *keys, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        geul_free(ctx, keys[i].name);
    geul_free(ctx, keys);
}

/* ----------------------------------------------------------------------------------- sorting -- */

/* Orders two items of a table: negative, 0, positive. */
typedef int (*compare_items)(const void *table, int64_t a, int64_t b);

static void sift_down(int64_t *order, int64_t root, int64_t n, const void *table, compare_items compare)
{
    for (int64_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && compare(table, order[child], order[child + 1]) < 0)
            child++;
        if (compare(table, order[root], order[child]) >= 0)
            return;
        int64_t t = order[root];
        order[root] = order[child];
        order[child] = t;
    }
}

/* The indices 0..n-1 in ascending order of their items; NULL when memory is short. Heap sort: n log n whatever a file
 * holds, and no memory that the context's allocator does not know of. */
static int64_t *sorted(struct geul_context *ctx, int64_t n, const void *table, compare_items compare)
{
    int64_t *order = geul_alloc(ctx, (size_t)n, sizeof *order);
    if (!order)
        return NULL;
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    for (int64_t i = n / 2; i-- > 0;)
        sift_down(order, i, n, table, compare);
    for (int64_t end = n - 1; end > 0; end--) {
        int64_t t = order[0];
        order[0] = order[end];
        order[end] = t;
        sift_down(order, 0, end, table, compare);
    }
    return order;
}

static int by_key_name(const void *table, int64_t a, int64_t b)
{
    const struct key *keys = table;
    return strcmp(keys[a].name, keys[b].name);
}

static int by_tensor_name(const void *table, int64_t a, int64_t b)
{
    const struct geul_gguf_tensor *t = table;
    return strcmp(t[a].name, t[b].name);
}

static int by_address(const void *table, int64_t a, int64_t b)
{
    const struct geul_gguf_tensor *t = table;
    uintptr_t x = (uintptr_t)t[a].data, y = (uintptr_t)t[b].data;
    return (x > y) - (x < y);
}

/* ----------------------------------------------------------------------------------- tensors -- */

/* The type with that number in GGUF files; GEUL_TYPE_COUNT when geul has none. */
static enum geul_type type_of_number(uint64_t number)
{
#define TYPE(id, name, gguf_id, block, bytes, codec)                                                                   \
    if (number == (gguf_id))                                                                                           \
        return GEUL_TYPE_##id;
#include "geul_types.def"
#undef TYPE
    return GEUL_TYPE_COUNT;
}

/* Reads the dimensions, innermost first in the file, into t->shape, outermost first. */
static bool read_dims(struct cursor *c, struct geul_gguf_tensor *t)
{
    uint64_t n_dims, d;
    if (!read_number(c, 4, &n_dims, "the dimensions of a tensor"))
        return false;
    if (n_dims < 1 || n_dims > GEUL_MAX_DIMS) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s has %llu dimensions at byte %zu; 1 to %d are possible",
                  c->path, t->name, (unsigned long long)n_dims, c->pos - 4, GEUL_MAX_DIMS);
        return false;
    }
    t->n_dims = (int)n_dims;
    for (int i = 0; i < GEUL_MAX_DIMS; i++)
        t->shape[i] = 1;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        if (!read_number(c, 8, &d, "the dimensions of a tensor"))
            return false;
        if (d < 1 || d > INT64_MAX) {
            geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s has a dimension of %llu at byte %zu", c->path, t->name,
                      (unsigned long long)d, c->pos - 8);
            return false;
        }
        t->shape[i] = (int64_t)d;
    }
    return true;
}

/* Reads type and offset; *offset is relative to the data section, which is not known yet. */
static bool read_tensor_offset(struct cursor *c, struct geul_gguf_tensor *t, uint64_t *offset)
{
    uint64_t number;
    if (!read_number(c, 4, &number, "the type of a tensor") || !read_number(c, 8, offset, "the offset of a tensor"))
        return false;
    /* What passes these checks has a size that neither overflows nor cuts a block. Whether the file has that many bytes
     * is checked by point_tensors(), which knows where the data begins. */
    t->type = type_of_number(number);
    if (t->type == GEUL_TYPE_COUNT) {
        const size_t known = sizeof format_types / sizeof *format_types;
        geul_fail(c->ctx, GEUL_ERROR_UNSUPPORTED,
                  "%s: tensor %s has type %s (number %llu), which geul does not read; convert or quantize the model "
                  "again, for instance to f16, q8_0 or q4_k",
                  c->path, t->name, number < known ? format_types[number] : "unknown", (unsigned long long)number);
        return false;
    }
    if (!geul_shape_bytes(t->type, t->n_dims, t->shape, &t->bytes)) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT,
                  "%s: tensor %s has an impossible shape for type %s: rows of %lld, blocks of %lld, or too large",
                  c->path, t->name, geul_type_name(t->type), (long long)t->shape[t->n_dims - 1],
                  (long long)geul_type_block(t->type));
        return false;
    }
    if (*offset % c->alignment != 0) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s lies at offset %llu, which is not a multiple of %zu",
                  c->path, t->name, (unsigned long long)*offset, c->alignment);
        return false;
    }
    return true;
}

/* Points the tensors at their data, which begins at the next multiple of the alignment. offsets belong to t[]. */
static bool point_tensors(const struct cursor *c, struct geul_gguf_tensor *t, const uint64_t *offsets, int64_t n)
{
    size_t base = c->pos + (c->alignment - c->pos % c->alignment) % c->alignment; /* may lie behind the end */
    for (int64_t i = 0; i < n; i++) {
        /* each difference is taken only after the comparison before it has shown that it is not negative */
        if (base > c->size || offsets[i] > c->size - base || t[i].bytes > c->size - base - (size_t)offsets[i]) {
            geul_fail(c->ctx, GEUL_ERROR_FORMAT,
                      "%s: tensor %s needs %zu bytes at byte %llu, but the file ends at byte %zu; it is incomplete or "
                      "damaged, fetch it again",
                      c->path, t[i].name, t[i].bytes, (unsigned long long)base + (unsigned long long)offsets[i],
                      c->size);
            return false;
        }
        t[i].data = c->data + base + (size_t)offsets[i];
    }
    return true;
}

/* Appends the part's tensors to g. */
static bool read_tensors(struct cursor *c, struct geul_gguf *g)
{
    int64_t n = (int64_t)c->n_tensors;
    uint64_t *offsets = geul_alloc(c->ctx, (size_t)n, sizeof *offsets);
    struct geul_gguf_tensor *tensors =
        offsets ? geul_realloc(c->ctx, g->tensors, (size_t)(g->n_tensors + n), sizeof *tensors) : NULL;
    if (!tensors) {
        geul_free(c->ctx, offsets);
        return false;
    }
    g->tensors = tensors;
    int64_t first = g->n_tensors;
    bool ok = true;
    for (int64_t i = 0; ok && i < n; i++) {
        struct geul_gguf_tensor *t = &tensors[first + i];
        memset(t, 0, sizeof *t); /* geul_realloc() leaves it undefined */
        t->part = g->n_maps > 0 ? g->n_maps - 1 : 0;
        t->name = read_name(c, GEUL_MAX_NAME - 1, "the name of a tensor");
        g->n_tensors += t->name != NULL; /* counted before the rest is read: close frees its name */
        ok = t->name && read_dims(c, t) && read_tensor_offset(c, t, &offsets[i]);
    }
    ok = ok && point_tensors(c, tensors + first, offsets, n);
    geul_free(c->ctx, offsets);
    return ok;
}

/* ------------------------------------------------------------------------------------- parts -- */

/* Reads magic, version and counts. */
static bool read_counts(struct cursor *c)
{
    uint64_t version;
    if (c->size == 0) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: the file is empty", c->path);
        return false;
    }
    if (c->size < 4 || memcmp(c->data, "GGUF", 4) != 0) {
        geul_fail_kind(c->ctx, c->path, "a GGUF file", geul_file_kind_of(c->data, c->size));
        return false;
    }
    c->pos = 4;
    if (!read_number(c, 4, &version, "the version"))
        return false;
    if (version != 2 && version != 3) {
        bool swapped = version != 0 && (version & 0xffff) == 0;
        geul_fail(c->ctx, GEUL_ERROR_UNSUPPORTED, "%s: GGUF version %llu%s; geul reads versions 2 and 3", c->path,
                  (unsigned long long)version, swapped ? " (a big-endian file)" : "");
        return false;
    }
    c->version = (uint32_t)version;
    if (!read_number(c, 8, &c->n_tensors, "the header") || !read_number(c, 8, &c->n_keys, "the header"))
        return false;
    /* The tables for keys and tensors are allocated from these counts before any is read. The shortest possible record
     * bounds them, so that a file cannot make geul allocate more than a few times its own size. */
    size_t rest = c->size - c->pos;
    if (c->n_keys > rest / MIN_KEY_BYTES || c->n_tensors > rest / MIN_TENSOR_BYTES) {
        geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: the header claims %llu keys and %llu tensors, but %zu bytes follow",
                  c->path, (unsigned long long)c->n_keys, (unsigned long long)c->n_tensors, rest);
        return false;
    }
    return true;
}

/* Reads one part: its tensors are appended to g, its keys left in c->keys for the caller. */
static bool read_part(struct cursor *c, struct geul_gguf *g)
{
    c->alignment = DEFAULT_ALIGNMENT;
    if (!read_counts(c))
        return false;
    c->keys = geul_alloc(c->ctx, (size_t)c->n_keys, sizeof *c->keys);
    if (!c->keys)
        return false;
    for (; c->keys_read < (int64_t)c->n_keys; c->keys_read++)
        if (!read_key(c, &c->keys[c->keys_read])) {
            c->keys_read++; /* its name may be set */
            return false;
        }
    return read_tensors(c, g);
}

/* Builds the indices and refuses what no honest writer makes: two keys or tensors of one name, which readers would
 * resolve differently, and tensors that overlap. Equal names are neighbours in name order. Of tensors in the order of
 * their addresses it is enough that none reaches into the next; all parts are checked together, since their mappings
 * are disjoint. */
static bool finish(struct geul_gguf *g)
{
    int64_t *places = sorted(g->ctx, g->n_tensors, g->tensors, by_address);
    g->key_order = sorted(g->ctx, g->n_keys, g->keys, by_key_name);
    g->tensor_order = sorted(g->ctx, g->n_tensors, g->tensors, by_tensor_name);
    bool ok = places && g->key_order && g->tensor_order;
    for (int64_t i = 1; ok && i < g->n_keys; i++)
        if (by_key_name(g->keys, g->key_order[i - 1], g->key_order[i]) == 0) {
            geul_fail(g->ctx, GEUL_ERROR_FORMAT, "%s: key %.80s occurs twice", g->path, g->keys[g->key_order[i]].name);
            ok = false;
        }
    for (int64_t i = 1; ok && i < g->n_tensors; i++) {
        const struct geul_gguf_tensor *a = &g->tensors[places[i - 1]], *b = &g->tensors[places[i]];
        if (by_tensor_name(g->tensors, g->tensor_order[i - 1], g->tensor_order[i]) == 0) {
            geul_fail(g->ctx, GEUL_ERROR_FORMAT, "%s: tensor %s occurs twice", g->path,
                      g->tensors[g->tensor_order[i]].name);
            ok = false;
        } else if ((uintptr_t)b->data - (uintptr_t)a->data < a->bytes) {
            geul_fail(g->ctx, GEUL_ERROR_FORMAT, "%s: the data of tensors %s and %s overlap", g->path, a->name,
                      b->name);
            ok = false;
        }
    }
    geul_free(g->ctx, places);
    return ok;
}

/* Maps and reads one file. Its keys become g's when it is the first. *split_count and *split_no are what the part says
 * of itself (1 and 0 by default). */
static bool open_part(struct geul_gguf *g, const char *path, uint64_t *split_count, uint64_t *split_no)
{
    struct geul_map *maps = geul_realloc(g->ctx, g->maps, (size_t)(g->n_maps + 1), sizeof *maps);
    if (!maps)
        return false;
    g->maps = maps;
    struct geul_map *map = &maps[g->n_maps];
    const struct geul_file_kind *directory = geul_file_kind_of_directory(path);
    if (directory) {
        geul_fail_kind(g->ctx, path, "a GGUF file", directory);
        return false;
    }
    if (geul_os_map(g->ctx, path, map) != GEUL_OK)
        return false;
    g->n_maps++;
    g->file_bytes += map->size;
    struct cursor c = {.ctx = g->ctx, .path = path, .data = map->data, .size = map->size};
    bool ok = read_part(&c, g);
    struct key *keys = c.keys;
    for (int64_t i = 0; ok && i < c.keys_read; i++) {
        bool is_count = strcmp(keys[i].name, "split.count") == 0, is_no = strcmp(keys[i].name, "split.no") == 0;
        if (is_count || is_no) /* a string or an array reads as 0: not split */
            *(is_count ? split_count : split_no) = load_le(keys[i].value, value_bytes[keys[i].type]);
    }
    if (g->n_maps == 1) { /* also after a failure: close frees what was read */
        g->version = c.version;
        g->keys = c.keys;
        g->n_keys = c.keys_read;
    } else {
        free_keys(g->ctx, c.keys, c.keys_read);
    }
    return ok;
}

/* Opens parts 2..count of a split file whose first part is open. Their paths are made from the first one's by number;
 * no name in a file is ever opened. */
static bool open_other_parts(struct geul_gguf *g, uint64_t count, uint64_t number)
{
    size_t length = strlen(g->path), tail = sizeof "-00001-of-00001.gguf" - 1;
    char end[48];
    snprintf(end, sizeof end, "-00001-of-%05llu.gguf", (unsigned long long)count);
    if (number != 0 || count > 65535 || length < tail || strcmp(g->path + length - tail, end) != 0) {
        geul_fail(g->ctx, GEUL_ERROR_ARGUMENT,
                  "%s: this is part %llu of %llu of a split model; keep the parts' names and give the first one, whose "
                  "name ends in %s",
                  g->path, (unsigned long long)number + 1, (unsigned long long)count, end);
        return false;
    }
    /* Numbers have 5 digits, so the names of all parts are equally long and are written over the first one's. Each part
     * has to say of itself what its name says: a renamed file is refused. */
    char *path = geul_strndup(g->ctx, g->path, length);
    bool ok = path != NULL;
    for (uint64_t i = 1; ok && i < count; i++) {
        uint64_t part_count = 1, part_no = 0;
        snprintf(end, sizeof end, "-%05llu-of-%05llu.gguf", (unsigned long long)i + 1, (unsigned long long)count);
        memcpy(path + length - tail, end, tail);
        ok = open_part(g, path, &part_count, &part_no);
        if (ok && (part_count != count || part_no != i)) {
            geul_fail(g->ctx, GEUL_ERROR_FORMAT, "%s: says it is part %llu of %llu; the parts do not belong together",
                      path, (unsigned long long)part_no + 1, (unsigned long long)part_count);
            ok = false;
        }
    }
    geul_free(g->ctx, path);
    return ok;
}

struct geul_gguf *geul_gguf_open(struct geul_context *ctx, const char *path)
{
    struct geul_gguf *g = geul_alloc(ctx, 1, sizeof *g);
    if (!g)
        return NULL;
    g->ctx = ctx;
    g->path = geul_strndup(ctx, path, strlen(path));
    uint64_t count = 1, number = 0, expected;
    bool ok = g->path && open_part(g, path, &count, &number) && (count <= 1 || open_other_parts(g, count, number)) &&
              finish(g);
    if (ok && count > 1 && geul_gguf_u64(g, "split.tensors.count", &expected) && expected != (uint64_t)g->n_tensors) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: the parts hold %lld tensors together, but %llu were expected", path,
                  (long long)g->n_tensors, (unsigned long long)expected);
        ok = false;
    }
    if (ok)
        return g;
    geul_gguf_close(g);
    return NULL;
}

struct geul_gguf *geul_gguf_open_memory(struct geul_context *ctx, const void *data, size_t size, const char *name)
{
    struct geul_gguf *g = geul_alloc(ctx, 1, sizeof *g);
    if (!g)
        return NULL;
    g->ctx = ctx;
    g->file_bytes = size;
    g->path = geul_strndup(ctx, name, strlen(name));
    struct cursor c = {.ctx = ctx, .path = name, .data = data, .size = size};
    bool ok = g->path && read_part(&c, g);
    g->version = c.version;
    g->keys = c.keys;
    g->n_keys = c.keys_read;
    if (ok && finish(g))
        return g;
    geul_gguf_close(g);
    return NULL;
}

void geul_gguf_close(struct geul_gguf *g)
{
    if (!g)
        return;
    for (int64_t i = 0; i < g->n_tensors; i++)
        geul_free(g->ctx, (void *)(uintptr_t)g->tensors[i].name);
    free_keys(g->ctx, g->keys, g->n_keys);
    for (int64_t i = 0; i < g->n_maps; i++)
        geul_os_unmap(&g->maps[i]);
    geul_free(g->ctx, g->maps);
    geul_free(g->ctx, g->tensors);
    geul_free(g->ctx, g->tensor_order);
    geul_free(g->ctx, g->key_order);
    geul_free(g->ctx, g->path);
    geul_free(g->ctx, g);
}

const char *geul_gguf_path(const struct geul_gguf *g)
{
    return g->path;
}

uint64_t geul_gguf_file_bytes(const struct geul_gguf *g)
{
    return g->file_bytes;
}

uint32_t geul_gguf_version(const struct geul_gguf *g)
{
    return g->version;
}

/* ------------------------------------------------------------------------------------ values -- */

int64_t geul_gguf_key_count(const struct geul_gguf *g)
{
    return g->n_keys;
}

const char *geul_gguf_key_name(const struct geul_gguf *g, int64_t i)
{
    return g->keys[i].name;
}

enum geul_gguf_type geul_gguf_key_type(const struct geul_gguf *g, int64_t i)
{
    return g->keys[i].type;
}

const void *geul_gguf_key_value(const struct geul_gguf *g, int64_t i, size_t *bytes)
{
    *bytes = g->keys[i].bytes;
    return g->keys[i].value;
}

static const struct key *find_key(const struct geul_gguf *g, const char *name)
{
    int64_t low = 0, high = g->n_keys;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(g->keys[g->key_order[middle]].name, name);
        if (order == 0)
            return &g->keys[g->key_order[middle]];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* A number of the file as int64 (U64 keeps its bits); floats give 0. */
static int64_t load_integer(enum geul_gguf_type type, const uint8_t *p)
{
    uint64_t v = load_le(p, value_bytes[type]);
    switch (type) {
    case GEUL_GGUF_I8:
        return (int8_t)v;
    case GEUL_GGUF_I16:
        return (int16_t)v;
    case GEUL_GGUF_I32:
        return (int32_t)v;
    case GEUL_GGUF_F32:
    case GEUL_GGUF_F64:
        return 0;
    default:
        return (int64_t)v;
    }
}

/* A number of any type as double. */
static double load_real(enum geul_gguf_type type, const uint8_t *p)
{
    if (type == GEUL_GGUF_F32) {
        uint32_t bits = (uint32_t)load_le(p, 4);
        float f;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    }
    if (type == GEUL_GGUF_F64) {
        uint64_t bits = load_le(p, 8);
        double d;
        memcpy(&d, &bits, sizeof d);
        return d;
    }
    int64_t v = load_integer(type, p);
    return type == GEUL_GGUF_U64 ? (double)(uint64_t)v : (double)v;
}

static bool is_integer(enum geul_gguf_type type)
{
    return value_bytes[type] != 0 && type != GEUL_GGUF_F32 && type != GEUL_GGUF_F64 && type != GEUL_GGUF_BOOL;
}

bool geul_gguf_has(const struct geul_gguf *g, const char *key)
{
    return find_key(g, key) != NULL;
}

bool geul_gguf_u64(const struct geul_gguf *g, const char *key, uint64_t *out)
{
    const struct key *k = find_key(g, key);
    if (!k || !is_integer(k->type))
        return false;
    int64_t v = load_integer(k->type, k->value);
    if (v < 0 && k->type != GEUL_GGUF_U64)
        return false;
    *out = (uint64_t)v;
    return true;
}

bool geul_gguf_i64(const struct geul_gguf *g, const char *key, int64_t *out)
{
    const struct key *k = find_key(g, key);
    if (!k || !is_integer(k->type))
        return false;
    int64_t v = load_integer(k->type, k->value);
    if (v < 0 && k->type == GEUL_GGUF_U64)
        return false;
    *out = v;
    return true;
}

bool geul_gguf_f64(const struct geul_gguf *g, const char *key, double *out)
{
    const struct key *k = find_key(g, key);
    if (!k || value_bytes[k->type] == 0 || k->type == GEUL_GGUF_BOOL)
        return false;
    *out = load_real(k->type, k->value);
    return true;
}

bool geul_gguf_bool(const struct geul_gguf *g, const char *key, bool *out)
{
    const struct key *k = find_key(g, key);
    if (!k || k->type != GEUL_GGUF_BOOL)
        return false;
    *out = *k->value != 0;
    return true;
}

bool geul_gguf_string(const struct geul_gguf *g, const char *key, const char **s, size_t *length)
{
    const struct key *k = find_key(g, key);
    if (!k || k->type != GEUL_GGUF_STRING)
        return false;
    *s = (const char *)k->value + 8;
    *length = k->bytes - 8;
    return true;
}

bool geul_gguf_get_array(const struct geul_gguf *g, const char *key, struct geul_gguf_array *out)
{
    const struct key *k = find_key(g, key);
    if (!k || k->type != GEUL_GGUF_ARRAY)
        return false;
    *out = (struct geul_gguf_array){
        .type = (enum geul_gguf_type)load_le(k->value, 4),
        .count = load_le(k->value + 4, 8),
        .data = k->value + 12,
        .bytes = k->bytes - 12,
    };
    return true;
}

bool geul_gguf_array_next(struct geul_gguf_array *array, const char **s, size_t *length)
{
    if (array->type != GEUL_GGUF_STRING || array->cursor >= array->bytes)
        return false;
    *length = (size_t)load_le(array->data + array->cursor, 8); /* checked when the file was opened */
    *s = (const char *)array->data + array->cursor + 8;
    array->cursor += 8 + *length;
    return true;
}

int64_t geul_gguf_array_i64(const struct geul_gguf_array *array, uint64_t i)
{
    return load_integer(array->type, array->data + i * value_bytes[array->type]);
}

double geul_gguf_array_f64(const struct geul_gguf_array *array, uint64_t i)
{
    return load_real(array->type, array->data + i * value_bytes[array->type]);
}

int64_t geul_gguf_tensor_count(const struct geul_gguf *g)
{
    return g->n_tensors;
}

const struct geul_gguf_tensor *geul_gguf_tensor_at(const struct geul_gguf *g, int64_t i)
{
    return &g->tensors[i];
}

const struct geul_gguf_tensor *geul_gguf_find_tensor(const struct geul_gguf *g, const char *name)
{
    int64_t low = 0, high = g->n_tensors;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const struct geul_gguf_tensor *t = &g->tensors[g->tensor_order[middle]];
        int order = strcmp(t->name, name);
        if (order == 0)
            return t;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
