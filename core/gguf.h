/* gguf.h: reading and writing GGUF v2/v3 files (little-endian), single or split.
 *
 * The file is mapped; keys and tensors point into the mapping. Every count, length and offset of the file is checked
 * against the bytes that remain before it is used. Shapes are handed out in row-major order (shape[0] outermost);
 * GGUF's reversed order stays in this module.
 */
#ifndef GEUL_GGUF_H
#define GEUL_GGUF_H

#include "core/context.h"

enum geul_gguf_type { /* as numbered in the format */
                      GEUL_GGUF_U8,
                      GEUL_GGUF_I8,
                      GEUL_GGUF_U16,
                      GEUL_GGUF_I16,
                      GEUL_GGUF_U32,
                      GEUL_GGUF_I32,
                      GEUL_GGUF_F32,
                      GEUL_GGUF_BOOL,
                      GEUL_GGUF_STRING,
                      GEUL_GGUF_ARRAY,
                      GEUL_GGUF_U64,
                      GEUL_GGUF_I64,
                      GEUL_GGUF_F64,
                      GEUL_GGUF_TYPE_COUNT
};

enum { GEUL_GGUF_QUANTIZATION_VERSION = 2 }; /* general.quantization_version: of the block formats that we write */

struct geul_gguf;

/* A key's array value; strings are walked with geul_gguf_array_next(). */
struct geul_gguf_array {
    enum geul_gguf_type type; /* of the elements; never ARRAY */
    uint64_t count;
    const uint8_t *data; /* packed little-endian elements, unaligned */
    size_t bytes;
    size_t cursor; /* used by geul_gguf_array_next() */
};

struct geul_gguf_tensor {
    const char *name; /* NUL-terminated */
    enum geul_type type;
    int n_dims;
    int64_t shape[4]; /* row-major */
    const void *data; /* in the mapping, aligned to general.alignment of the file, 32 when it has none */
    size_t bytes;
    int64_t part; /* the part of a split file that holds it, from 0 */
};

/* Open a GGUF file for reading; for the first part of a split file (-00001-of-0000N.gguf) all parts are opened.
 * The mapping lives until geul_gguf_close(). NULL when the file is missing, is not GGUF v2/v3, or claims more than it
 * holds; geul_error(ctx) then says which, with the offset. */
struct geul_gguf *geul_gguf_open(struct geul_context *ctx, const char *path);
/* The same over bytes in memory, which must stay until close. name is for messages. */
struct geul_gguf *geul_gguf_open_memory(struct geul_context *ctx, const void *data, size_t size, const char *name);
void geul_gguf_close(struct geul_gguf *g);
const char *geul_gguf_path(const struct geul_gguf *g);
/* Bytes of all parts together, and format version. */
uint64_t geul_gguf_file_bytes(const struct geul_gguf *g);
uint32_t geul_gguf_version(const struct geul_gguf *g);

/* Keys, in file order. Names are NUL-terminated and live as long as g. */
int64_t geul_gguf_key_count(const struct geul_gguf *g);
const char *geul_gguf_key_name(const struct geul_gguf *g, int64_t i);
enum geul_gguf_type geul_gguf_key_type(const struct geul_gguf *g, int64_t i);
/* The value of key i as it is in the file (strings with their length, arrays with type and count). */
const void *geul_gguf_key_value(const struct geul_gguf *g, int64_t i, size_t *bytes);
/* Values by name. false when the key is missing or its type does not fit; *out is then untouched.
 * u64 takes any integer type with a value >= 0; f64 takes any number; strings are not NUL-terminated. */
bool geul_gguf_has(const struct geul_gguf *g, const char *key);
bool geul_gguf_u64(const struct geul_gguf *g, const char *key, uint64_t *out);
bool geul_gguf_i64(const struct geul_gguf *g, const char *key, int64_t *out);
bool geul_gguf_f64(const struct geul_gguf *g, const char *key, double *out);
bool geul_gguf_bool(const struct geul_gguf *g, const char *key, bool *out);
bool geul_gguf_string(const struct geul_gguf *g, const char *key, const char **s, size_t *length);
bool geul_gguf_get_array(const struct geul_gguf *g, const char *key, struct geul_gguf_array *out);
/* The next string of a string array; false at the end. */
bool geul_gguf_array_next(struct geul_gguf_array *array, const char **s, size_t *length);
/* Element i of a numeric array. i must be < count. */
int64_t geul_gguf_array_i64(const struct geul_gguf_array *array, uint64_t i);
double geul_gguf_array_f64(const struct geul_gguf_array *array, uint64_t i);

/* Tensors of all parts. */
int64_t geul_gguf_tensor_count(const struct geul_gguf *g);
const struct geul_gguf_tensor *geul_gguf_tensor_at(const struct geul_gguf *g, int64_t i);
/* By name; NULL when there is none (not an error). */
const struct geul_gguf_tensor *geul_gguf_find_tensor(const struct geul_gguf *g, const char *name);

/* Writing: set keys, declare all tensors, then pass their data in declared order, in pieces of any size.
 * Failures are sticky: it is enough to check geul_gguf_writer_commit(). Nothing appears under path before commit. */
struct geul_gguf_writer;
/* path NULL: a writer that only counts; it takes keys and declarations, no data, and is abandoned. */
struct geul_gguf_writer *geul_gguf_writer_new(struct geul_context *ctx, const char *path);
void geul_gguf_set_u16(struct geul_gguf_writer *w, const char *key, uint16_t v);
void geul_gguf_set_u32(struct geul_gguf_writer *w, const char *key, uint32_t v);
void geul_gguf_set_i32(struct geul_gguf_writer *w, const char *key, int32_t v);
void geul_gguf_set_u64(struct geul_gguf_writer *w, const char *key, uint64_t v);
void geul_gguf_set_f32(struct geul_gguf_writer *w, const char *key, float v);
void geul_gguf_set_bool(struct geul_gguf_writer *w, const char *key, bool v);
void geul_gguf_set_string(struct geul_gguf_writer *w, const char *key, const char *s, size_t length);
void geul_gguf_set_i32s(struct geul_gguf_writer *w, const char *key, const int32_t *v, size_t count);
void geul_gguf_set_f32s(struct geul_gguf_writer *w, const char *key, const float *v, size_t count);
void geul_gguf_set_strings(struct geul_gguf_writer *w, const char *key, const char *const *s, const size_t *lengths,
                           size_t count);
/* Copies key i of g unchanged. */
void geul_gguf_copy_key(struct geul_gguf_writer *w, const struct geul_gguf *g, int64_t i);
void geul_gguf_declare_tensor(struct geul_gguf_writer *w, const char *name, enum geul_type type, int n_dims,
                              const int64_t *shape);
void geul_gguf_write_data(struct geul_gguf_writer *w, const void *data, size_t bytes);
/* Bytes of the whole file with the keys and tensors declared so far. */
uint64_t geul_gguf_writer_bytes(struct geul_gguf_writer *w);
/* The first failure so far, for callers with much left to write that want to stop early. */
enum geul_status geul_gguf_writer_status(const struct geul_gguf_writer *w);
/* Checks that all declared data came, and syncs: only the renaming is left for commit. For callers who write several
 * files that are to appear together. */
enum geul_status geul_gguf_writer_finish(struct geul_gguf_writer *w);
/* The name of the finished file until commit, so that it can be read back before it replaces another; valid as long as
 * w. */
const char *geul_gguf_writer_temporary(const struct geul_gguf_writer *w);
/* Finishes if need be, renames; frees w whatever happens. */
enum geul_status geul_gguf_writer_commit(struct geul_gguf_writer *w);
void geul_gguf_writer_abandon(struct geul_gguf_writer *w);

#endif
