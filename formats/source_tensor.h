/* source_tensor.h: tensors as checkpoints hold them, and lists of them. */
#ifndef GEUL_SOURCE_TENSOR_H
#define GEUL_SOURCE_TENSOR_H

#include "core/context.h"

/* Element types of checkpoints: name in safetensors, storage class in PyTorch, bytes, geul's type (or GEUL_TYPE_COUNT:
 * a buffer that no model weight can be). */
#define GEUL_DTYPES(X)                                                                                                 \
    X(F32, "F32", "FloatStorage", 4, GEUL_TYPE_F32)                                                                    \
    X(F16, "F16", "HalfStorage", 2, GEUL_TYPE_F16)                                                                     \
    X(BF16, "BF16", "BFloat16Storage", 2, GEUL_TYPE_BF16)                                                              \
    X(F64, "F64", "DoubleStorage", 8, GEUL_TYPE_COUNT)                                                                 \
    X(I64, "I64", "LongStorage", 8, GEUL_TYPE_COUNT)                                                                   \
    X(I32, "I32", "IntStorage", 4, GEUL_TYPE_COUNT)                                                                    \
    X(I16, "I16", "ShortStorage", 2, GEUL_TYPE_COUNT)                                                                  \
    X(I8, "I8", "CharStorage", 1, GEUL_TYPE_COUNT)                                                                     \
    X(U64, "U64", "UInt64Storage", 8, GEUL_TYPE_COUNT)                                                                 \
    X(U32, "U32", "UInt32Storage", 4, GEUL_TYPE_COUNT)                                                                 \
    X(U16, "U16", "UInt16Storage", 2, GEUL_TYPE_COUNT)                                                                 \
    X(U8, "U8", "ByteStorage", 1, GEUL_TYPE_COUNT)                                                                     \
    X(BOOL, "BOOL", "BoolStorage", 1, GEUL_TYPE_COUNT)                                                                 \
    X(F8_E4M3, "F8_E4M3", "Float8_e4m3fnStorage", 1, GEUL_TYPE_COUNT)                                                  \
    X(F8_E5M2, "F8_E5M2", "Float8_e5m2Storage", 1, GEUL_TYPE_COUNT)

enum geul_dtype {
#define X(id, name, storage, bytes, type) GEUL_DTYPE_##id,
    GEUL_DTYPES(X)
#undef X
        GEUL_DTYPE_COUNT
};

struct geul_dtype_info {
    const char *name, *storage;
    size_t bytes;
    enum geul_type type;
};
/* Row of the table above; dtype must be below GEUL_DTYPE_COUNT. */
const struct geul_dtype_info *geul_dtype_info(enum geul_dtype dtype);
/* By safetensors name; GEUL_DTYPE_COUNT when there is none. */
enum geul_dtype geul_dtype_from_name(const char *name);
/* The dtype that holds what a GGUF weight type does: F16 for the block types. */
enum geul_dtype geul_dtype_of_type(enum geul_type type);

#define GEUL_SOURCE_DIMS 8

struct geul_source_tensor {
    char *name;
    enum geul_dtype dtype;
    int n_dims;                      /* 0: a scalar */
    int64_t shape[GEUL_SOURCE_DIMS]; /* row-major; the data is contiguous */
    const uint8_t *data;             /* in a mapping, any alignment */
    size_t bytes;
};

struct geul_source_list {
    struct geul_source_tensor *items;
    size_t count, capacity;
};
/* Appends a copy of *t with a copy of its name, which may hold no control characters. */
enum geul_status geul_source_append(struct geul_context *ctx, struct geul_source_list *list,
                                    const struct geul_source_tensor *t);
/* Sorts by name; fails when a name occurs twice. where is for the message. */
enum geul_status geul_source_sort(struct geul_context *ctx, struct geul_source_list *list, const char *where);
/* By name in a sorted list; NULL when there is none. */
const struct geul_source_tensor *geul_source_find(const struct geul_source_list *list, const char *name);
void geul_source_free(struct geul_context *ctx, struct geul_source_list *list);
/* Product of the shape times the element's bytes; false when a dimension is negative or the product overflows. */
bool geul_source_bytes(enum geul_dtype dtype, int n_dims, const int64_t *shape, size_t *bytes);
/* "(3, 4)" into text; returns text. */
const char *geul_dims_text(int n_dims, const int64_t *shape, char *text, size_t size);

#endif
