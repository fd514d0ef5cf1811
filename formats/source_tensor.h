/* source_tensor.h: tensors as checkpoints hold them, and lists of them. */
#ifndef GEUL_SOURCE_TENSOR_H
#define GEUL_SOURCE_TENSOR_H

#include "core/context.h"

/* Element types of checkpoints: name in safetensors, storage class and dtype in PyTorch, bytes, geul's type (COUNT: it
 * has none), and the function of source_tensor.c that reads one as float32 (NULL: no type that a weight can have). */
/* clang-format off */
#define GEUL_DTYPES(X)                                                                                                 \
    X(F32,         "F32",         "FloatStorage",           "float32",         4,  GEUL_TYPE_F32,    read_f32)          \
    X(F16,         "F16",         "HalfStorage",            "float16",         2,  GEUL_TYPE_F16,    read_f16)          \
    X(BF16,        "BF16",        "BFloat16Storage",        "bfloat16",        2,  GEUL_TYPE_BF16,   read_bf16)         \
    X(F64,         "F64",         "DoubleStorage",          "float64",         8,  GEUL_TYPE_COUNT,  read_f64)          \
    X(F8_E4M3,     "F8_E4M3",     "Float8_e4m3fnStorage",   "float8_e4m3fn",   1,  GEUL_TYPE_COUNT,  read_e4m3)         \
    X(F8_E5M2,     "F8_E5M2",     "Float8_e5m2Storage",     "float8_e5m2",     1,  GEUL_TYPE_COUNT,  read_e5m2)         \
    X(F8_E4M3FNUZ, "F8_E4M3FNUZ", "Float8_e4m3fnuzStorage", "float8_e4m3fnuz", 1,  GEUL_TYPE_COUNT,  read_e4m3fnuz)     \
    X(F8_E5M2FNUZ, "F8_E5M2FNUZ", "Float8_e5m2fnuzStorage", "float8_e5m2fnuz", 1,  GEUL_TYPE_COUNT,  read_e5m2fnuz)     \
    X(F8_E8M0,     "F8_E8M0",     "Float8_e8m0fnuStorage",  "float8_e8m0fnu",  1,  GEUL_TYPE_COUNT,  read_e8m0)         \
    X(C64,         "C64",         "ComplexFloatStorage",    "complex64",       8,  GEUL_TYPE_COUNT,  NULL)              \
    X(C128,        "C128",        "ComplexDoubleStorage",   "complex128",      16, GEUL_TYPE_COUNT,  NULL)              \
    X(I64,         "I64",         "LongStorage",            "int64",           8,  GEUL_TYPE_COUNT,  NULL)              \
    X(I32,         "I32",         "IntStorage",             "int32",           4,  GEUL_TYPE_COUNT,  NULL)              \
    X(I16,         "I16",         "ShortStorage",           "int16",           2,  GEUL_TYPE_COUNT,  NULL)              \
    X(I8,          "I8",          "CharStorage",            "int8",            1,  GEUL_TYPE_COUNT,  NULL)              \
    X(U64,         "U64",         "UInt64Storage",          "uint64",          8,  GEUL_TYPE_COUNT,  NULL)              \
    X(U32,         "U32",         "UInt32Storage",          "uint32",          4,  GEUL_TYPE_COUNT,  NULL)              \
    X(U16,         "U16",         "UInt16Storage",          "uint16",          2,  GEUL_TYPE_COUNT,  NULL)              \
    X(U8,          "U8",          "ByteStorage",            "uint8",           1,  GEUL_TYPE_COUNT,  NULL)              \
    X(BOOL,        "BOOL",        "BoolStorage",            "bool",            1,  GEUL_TYPE_COUNT,  NULL)
/* clang-format on */

enum geul_dtype {
#define X(id, ...) GEUL_DTYPE_##id,
    GEUL_DTYPES(X)
#undef X
        GEUL_DTYPE_COUNT
};

struct geul_dtype_info {
    const char *name, *storage, *torch;
    size_t bytes;
    enum geul_type type;
    float (*read)(const uint8_t *p); /* one element at any address; NULL: not a real number, or an integer */
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
    int n_dims;                       /* 0: a scalar */
    int64_t shape[GEUL_SOURCE_DIMS];  /* row-major */
    const uint8_t *data;              /* the first element, in a mapping, any alignment */
    size_t bytes;                     /* of all elements; contiguous unless strided */
    bool strided;                     /* the elements lie apart or in another order: stride says where */
    int64_t stride[GEUL_SOURCE_DIMS]; /* in elements; only looked at when strided */
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
/* Whether a weight can have the tensor's type: a float of any size. */
bool geul_source_is_float(const struct geul_source_tensor *t);
/* Whether the bytes are what geul's own type has: they can be used as they are. */
bool geul_source_is_plain(const struct geul_source_tensor *t);
/* Reads n elements from the first-th on, in row-major order, as float32. The type has to be a float. */
void geul_source_read(const struct geul_source_tensor *t, int64_t first, int64_t n, float *x);
/* Product of the shape times the element's bytes; false when a dimension is negative or the product overflows. */
bool geul_source_bytes(enum geul_dtype dtype, int n_dims, const int64_t *shape, size_t *bytes);
/* "(3, 4)" into text; returns text. */
const char *geul_dims_text(int n_dims, const int64_t *shape, char *text, size_t size);

#endif
