/* source_tensor.c: see source_tensor.h. */
#include "formats/source_tensor.h"

#include "core/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------------------- element types -- */

static float read_f32(const uint8_t *p)
{
    float x;
    memcpy(&x, p, sizeof x);
    return x;
}

static float read_f64(const uint8_t *p)
{
    double x;
    memcpy(&x, p, sizeof x);
    return (float)x;
}

static float read_f16(const uint8_t *p)
{
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return geul_f16_to_f32(x);
}

static float read_bf16(const uint8_t *p)
{
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return geul_bf16_to_f32(x);
}

/* A sign, exponent bits, and `mantissa` bits. Every such number is a float32. (OCP 8-bit Floating Point Specification;
 * Open Compute Project 2023) */
static float small_float(unsigned v, int mantissa, int bias)
{
    int exponent = (int)(v & 0x7f) >> mantissa, fraction = (int)(v & ((1u << mantissa) - 1));
    int whole = exponent ? fraction + (1 << mantissa) : fraction;
    float x = ldexpf((float)whole, (exponent ? exponent : 1) - bias - mantissa);
    return v & 0x80 ? -x : x;
}

/* Of E4M3 only the largest code is a NaN, there is no infinity; E5M2 is like float16. */
static float read_e4m3(const uint8_t *p)
{
    return (*p & 0x7f) == 0x7f ? NAN : small_float(*p, 3, 7);
}

static float read_e5m2(const uint8_t *p)
{
    unsigned v = *p & 0x7fu;
    return v > 0x7c ? NAN : v == 0x7c ? (*p & 0x80 ? -INFINITY : INFINITY) : small_float(*p, 2, 15);
}

/* FNUZ: the code of -0 is the only NaN. */
static float read_e4m3fnuz(const uint8_t *p)
{
    return *p == 0x80 ? NAN : small_float(*p, 3, 8);
}

static float read_e5m2fnuz(const uint8_t *p)
{
    return *p == 0x80 ? NAN : small_float(*p, 2, 16);
}

/* A power of two. */
static float read_e8m0(const uint8_t *p)
{
    return *p == 0xff ? NAN : ldexpf(1, *p - 127);
}

static const struct geul_dtype_info dtypes[GEUL_DTYPE_COUNT] = {
#define X(id, name, storage, torch, bytes, type, read) {name, storage, torch, bytes, type, read},
    GEUL_DTYPES(X)
#undef X
};

const struct geul_dtype_info *geul_dtype_info(enum geul_dtype dtype)
{
    return &dtypes[dtype];
}

enum geul_dtype geul_dtype_from_name(const char *name)
{
    int i = 0;
    while (i < GEUL_DTYPE_COUNT && strcmp(dtypes[i].name, name) != 0)
        i++;
    return (enum geul_dtype)i;
}

enum geul_dtype geul_dtype_of_type(enum geul_type type)
{
    for (int i = 0; i < GEUL_DTYPE_COUNT; i++)
        if (dtypes[i].type == type)
            return (enum geul_dtype)i;
    return GEUL_DTYPE_F16;
}

/* ------------------------------------------------------------------------------------ lists -- */

enum geul_status geul_source_append(struct geul_context *ctx, struct geul_source_list *list,
                                    const struct geul_source_tensor *t)
{
    for (const char *c = t->name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return geul_fail(ctx, GEUL_ERROR_FORMAT, "tensor name number %zu holds the control character %d",
                             list->count + 1, *c);
    if (!geul_reserve(ctx, &list->items, &list->capacity, list->count + 1, sizeof *list->items))
        return GEUL_ERROR_MEMORY;
    struct geul_source_tensor *to = &list->items[list->count];
    *to = *t;
    to->name = geul_strndup(ctx, t->name, strlen(t->name));
    if (!to->name)
        return GEUL_ERROR_MEMORY;
    list->count++;
    return GEUL_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct geul_source_tensor *)a)->name, ((const struct geul_source_tensor *)b)->name);
}

enum geul_status geul_source_sort(struct geul_context *ctx, struct geul_source_list *list, const char *where)
{
    if (list->count > 1)
        qsort(list->items, list->count, sizeof *list->items, compare_names);
    for (size_t i = 1; i < list->count; i++)
        if (strcmp(list->items[i - 1].name, list->items[i].name) == 0)
            return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: tensor %.100s occurs twice", where, list->items[i].name);
    return GEUL_OK;
}

const struct geul_source_tensor *geul_source_find(const struct geul_source_list *list, const char *name)
{
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(list->items[middle].name, name);
        if (order == 0)
            return &list->items[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

void geul_source_free(struct geul_context *ctx, struct geul_source_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        geul_free(ctx, list->items[i].name);
    geul_free(ctx, list->items);
    *list = (struct geul_source_list){0};
}

/* --------------------------------------------------------------------------------- elements -- */

bool geul_source_is_float(const struct geul_source_tensor *t)
{
    return dtypes[t->dtype].read != NULL;
}

bool geul_source_is_plain(const struct geul_source_tensor *t)
{
    return dtypes[t->dtype].type != GEUL_TYPE_COUNT && !t->strided;
}

void geul_source_read(const struct geul_source_tensor *t, int64_t first, int64_t n, float *x)
{
    const struct geul_dtype_info *info = &dtypes[t->dtype];
    int64_t index[GEUL_SOURCE_DIMS] = {0}, rest = first;
    for (int d = t->n_dims - 1; d >= 0; d--) {
        index[d] = rest % t->shape[d];
        rest /= t->shape[d];
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t at = t->strided ? 0 : first + i;
        for (int d = 0; t->strided && d < t->n_dims; d++)
            at += index[d] * t->stride[d];
        x[i] = info->read(t->data + (size_t)at * info->bytes);
        for (int d = t->n_dims - 1; d >= 0 && ++index[d] == t->shape[d]; d--) /* the next index, innermost first */
            index[d] = 0;
    }
}

bool geul_source_bytes(enum geul_dtype dtype, int n_dims, const int64_t *shape, size_t *bytes)
{
    size_t n = dtypes[dtype].bytes;
    for (int i = 0; i < n_dims; i++)
        if (shape[i] < 0 || !geul_mul_size(n, (size_t)shape[i], &n))
            return false;
    *bytes = n;
    return true;
}

const char *geul_dims_text(int n_dims, const int64_t *shape, char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size, "(");
    for (int i = 0; i < n_dims && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (n < size)
        snprintf(text + n, size - n, ")");
    return text;
}
