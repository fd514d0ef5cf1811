/* tensor.c: types, tensors, views and the builders of the public header. */
#include "core/tensor.h"

#include "backends/backend.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    int64_t block;
    size_t bytes;
} types[GEUL_TYPE_COUNT] = {
#define TYPE(id, name, gguf_id, block, bytes, codec) {name, block, bytes},
#include "geul_types.def"
#undef TYPE
};

const char *geul_type_name(enum geul_type type)
{
    return (unsigned)type < GEUL_TYPE_COUNT ? types[type].name : "?";
}

enum geul_type geul_type_from_name(const char *name)
{
    unsigned i = 0;
    while (i < GEUL_TYPE_COUNT && strcasecmp(name, types[i].name) != 0)
        i++;
    return (enum geul_type)i;
}

int64_t geul_type_block(enum geul_type type)
{
    return (unsigned)type < GEUL_TYPE_COUNT ? types[type].block : 0;
}

size_t geul_type_bytes(enum geul_type type)
{
    return (unsigned)type < GEUL_TYPE_COUNT ? types[type].bytes : 0;
}

/* ------------------------------------------------------------------------------------ shapes -- */

bool geul_shape_bytes(enum geul_type type, int n_dims, const int64_t *shape, size_t *bytes)
{
    if ((unsigned)type >= GEUL_TYPE_COUNT || n_dims < 1 || n_dims > GEUL_MAX_DIMS)
        return false;
    size_t total = types[type].bytes;
    for (int i = 0; i < n_dims; i++) {
        int64_t n = shape[i];
        if (n < 0)
            return false;
        if (i == n_dims - 1) {
            if (n % types[type].block != 0)
                return false;
            n /= types[type].block;
        }
        if (!geul_mul_size(total, (size_t)n, &total))
            return false;
    }
    if (total > (size_t)INT64_MAX)
        return false;
    *bytes = total;
    return true;
}

/* Stride of dimension dim in a contiguous tensor of t's type and shape. */
static size_t contiguous_stride(const struct geul_tensor *t, int dim)
{
    size_t stride = types[t->type].bytes;
    for (int i = t->n_dims - 1; i > dim; i--)
        stride *= (size_t)(i == t->n_dims - 1 ? t->shape[i] / types[t->type].block : t->shape[i]);
    return stride;
}

void geul_set_contiguous(struct geul_tensor *t)
{
    for (int i = 0; i < t->n_dims; i++)
        t->stride[i] = contiguous_stride(t, i);
    for (int i = t->n_dims; i < GEUL_MAX_DIMS; i++)
        t->shape[i] = 1;
    t->block_dim = t->n_dims - 1;
}

bool geul_is_contiguous(const struct geul_tensor *t)
{
    if (types[t->type].block > 1 && t->block_dim != t->n_dims - 1)
        return false;
    for (int i = 0; i < t->n_dims; i++)
        if (t->shape[i] != 1 && t->stride[i] != contiguous_stride(t, i))
            return false;
    return true;
}

int64_t geul_cols(const struct geul_tensor *t)
{
    return t->shape[t->n_dims - 1];
}

int64_t geul_rows(const struct geul_tensor *t)
{
    int64_t rows = 1;
    for (int i = 0; i < t->n_dims - 1; i++)
        rows *= t->shape[i];
    return rows;
}

const char *geul_shape_text(const struct geul_tensor *t, char *text, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < t->n_dims && used < size; i++) {
        int n = snprintf(text + used, size - used, "%s%lld", i ? ", " : "(", (long long)t->shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used + 1 < size)
        strcpy(text + used, ")");
    return text;
}

enum geul_type geul_tensor_type(const struct geul_tensor *t)
{
    return t->type;
}

int geul_tensor_dims(const struct geul_tensor *t)
{
    return t->n_dims;
}

int64_t geul_tensor_shape(const struct geul_tensor *t, int i)
{
    i = i < 0 ? i + t->n_dims : i;
    return i >= 0 && i < t->n_dims ? t->shape[i] : 0;
}

int64_t geul_tensor_elements(const struct geul_tensor *t)
{
    return geul_rows(t) * geul_cols(t);
}

size_t geul_tensor_bytes(const struct geul_tensor *t)
{
    size_t bytes = 0;
    (void)geul_shape_bytes(t->type, t->n_dims, t->shape, &bytes); /* was valid when t was made */
    return bytes;
}

const char *geul_tensor_name(const struct geul_tensor *t)
{
    return t->name;
}

/* ---------------------------------------------------------------------------------- transfer -- */

/* Whether bytes may be copied into or out of t; records why not. */
static enum geul_status check_transfer(const struct geul_tensor *t, size_t bytes)
{
    if (!t->buffer || !t->buffer->device)
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "%s has no memory: plan its graph first", t->name);
    if (!geul_is_contiguous(t))
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "%s is a strided view: copy it with geul_contiguous()", t->name);
    uintptr_t from = (uintptr_t)t->buffer->base, at = (uintptr_t)t->data;
    if (at < from || at - from > t->buffer->size || geul_tensor_bytes(t) > t->buffer->size - (at - from))
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "%s has lost its memory to another graph: plan its graph again",
                         t->name);
    if (bytes != geul_tensor_bytes(t))
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "%s holds %zu bytes, not %zu", t->name, geul_tensor_bytes(t),
                         bytes);
    return GEUL_OK;
}

enum geul_status geul_tensor_write(struct geul_tensor *t, const void *src, size_t bytes)
{
    enum geul_status status = check_transfer(t, bytes);
    if (status == GEUL_OK && t->mirror)
        memcpy(t->mirror, src, bytes);
    else if (status == GEUL_OK)
        status = t->buffer->device->backend->upload(t->ctx, t->buffer, t->data, src, bytes);
    return status;
}

enum geul_status geul_tensor_read(const struct geul_tensor *t, void *dst, size_t bytes)
{
    enum geul_status status = check_transfer(t, bytes);
    if (status == GEUL_OK && t->mirror)
        memcpy(dst, t->mirror, bytes);
    else if (status == GEUL_OK)
        status = t->buffer->device->backend->download(t->ctx, t->buffer, t->data, dst, bytes);
    return status;
}

/* ---------------------------------------------------------------------------------- creation -- */

static struct geul_tensor *new_tensor(struct geul_context *ctx, const char *name)
{
    struct geul_tensor *t = geul_arena(ctx, 1, sizeof *t);
    if (!t)
        return NULL;
    t->ctx = ctx;
    snprintf(t->name, sizeof t->name, "%s", name);
    struct geul_tensor **last = geul_context_last_tensor(ctx);
    t->previous = *last;
    t->serial = *last ? (*last)->serial + 1 : 0;
    *last = t;
    return t;
}

struct geul_tensor *geul_named(struct geul_tensor *t, const char *format, ...)
{
    if (!t)
        return NULL;
    va_list args;
    va_start(args, format);
    vsnprintf(t->name, sizeof t->name, format, args);
    va_end(args);
    return t;
}

struct geul_tensor *geul_leaf(struct geul_context *ctx, enum geul_type type, int n_dims, const int64_t *shape,
                              const char *name, struct geul_buffer *buffer, void *data)
{
    size_t bytes;
    if (!geul_shape_bytes(type, n_dims, shape, &bytes)) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                  "tensor %s: a shape needs 1 to 4 dimensions, none negative, the last a multiple of %lld for %s", name,
                  (long long)geul_type_block(type), geul_type_name(type));
        return NULL;
    }
    struct geul_tensor *t = new_tensor(ctx, name);
    if (!t)
        return NULL;
    t->type = type;
    t->n_dims = n_dims;
    memcpy(t->shape, shape, (size_t)n_dims * sizeof *shape);
    geul_set_contiguous(t);
    t->input = !buffer;
    t->buffer = buffer;
    t->data = data;
    return t;
}

struct geul_tensor *geul_input(struct geul_context *ctx, enum geul_type type, int n_dims, const int64_t *shape,
                               const char *name)
{
    return geul_leaf(ctx, type, n_dims, shape, name, NULL, NULL);
}

struct geul_tensor *geul_node(struct geul_context *ctx, enum geul_op op, struct geul_tensor *const *src, int n_src,
                              const union geul_op_params *params)
{
    /* A missing operand is a builder that failed before and left its reason: NULL passes through to the end. */
    const struct geul_op_info *info = geul_op_info(op);
    for (int i = 0; i < info->n_src - info->n_optional; i++)
        if (i >= n_src || !src[i])
            return NULL;
    struct geul_tensor *t = new_tensor(ctx, info->name);
    if (!t)
        return NULL;
    t->op = op;
    t->n_src = n_src;
    if (n_src)
        memcpy(t->src, src, (size_t)n_src * sizeof *src);
    if (params)
        memcpy(&t->params, params, info->params_bytes);
    return info->shape(t) ? t : NULL;
}

struct geul_tensor *geul_node_clone(struct geul_context *ctx, const struct geul_tensor *t,
                                    struct geul_tensor *const *src)
{
    /* No shape rule: src have the shapes and strides that t's rule has checked. */
    struct geul_tensor *again = new_tensor(ctx, t->name);
    if (!again)
        return NULL;
    again->op = t->op;
    again->type = t->type;
    again->n_dims = t->n_dims;
    again->n_src = t->n_src;
    again->block_dim = t->block_dim;
    again->params = t->params;
    memcpy(again->shape, t->shape, sizeof t->shape);
    memcpy(again->stride, t->stride, sizeof t->stride);
    memcpy(again->src, src, (size_t)t->n_src * sizeof *src);
    return again;
}

bool geul_layout_fits(const struct geul_tensor *t)
{
    enum geul_layout layout = geul_op_info(t->op)->layout;
    for (int i = 0; i < t->n_src; i++) {
        const struct geul_tensor *s = t->src[i];
        if (!s)
            continue;
        bool rows = s->stride[s->n_dims - 1] == geul_type_bytes(s->type) &&
                    (geul_type_block(s->type) == 1 || s->block_dim == s->n_dims - 1);
        if (layout == GEUL_LAYOUT_ROWS && !rows)
            return false;
        if (layout == GEUL_LAYOUT_DENSE && !geul_is_contiguous(s))
            return false;
    }
    return true;
}

/* Elements of dimension dim that cannot be separated: a block, or 1. */
static int64_t unit_of(const struct geul_tensor *t, int dim)
{
    return dim == t->block_dim ? types[t->type].block : 1;
}

/* A view of t with the given shape and strides (NULL: contiguous), offset bytes from t's first element. */
static struct geul_tensor *view(struct geul_context *ctx, struct geul_tensor *t, int n_dims, const int64_t *shape,
                                const size_t *stride, int block_dim, size_t offset)
{
    struct geul_tensor *v = new_tensor(ctx, t->name);
    if (!v)
        return NULL;
    v->op = GEUL_OP_VIEW;
    v->n_src = 1;
    v->src[0] = t;
    v->params.view.offset = offset;
    v->type = t->type;
    v->n_dims = n_dims;
    for (int i = 0; i < GEUL_MAX_DIMS; i++)
        v->shape[i] = i < n_dims ? shape[i] : 1;
    if (stride) {
        memcpy(v->stride, stride, (size_t)n_dims * sizeof *stride);
        v->block_dim = block_dim;
    } else {
        geul_set_contiguous(v);
    }
    return geul_op_info(GEUL_OP_VIEW)->shape(v) ? v : NULL;
}

/* Records why t cannot be viewed as the caller wants. Always NULL. */
static struct geul_tensor *refuse_view(struct geul_context *ctx, const struct geul_tensor *t, const char *what)
{
    char text[96];
    geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s %s of %s: %s", t->name, geul_shape_text(t, text, sizeof text),
              geul_type_name(t->type), what);
    return NULL;
}

struct geul_tensor *geul_reshape(struct geul_context *ctx, struct geul_tensor *t, int n_dims, const int64_t *shape)
{
    size_t bytes;
    if (!t)
        return NULL;
    if (!geul_is_contiguous(t))
        return refuse_view(ctx, t, "only contiguous tensors can be reshaped; use geul_contiguous() first");
    if (!geul_shape_bytes(t->type, n_dims, shape, &bytes) || bytes != geul_tensor_bytes(t))
        return refuse_view(ctx, t, "the new shape does not hold the same elements");
    return view(ctx, t, n_dims, shape, NULL, 0, 0);
}

struct geul_tensor *geul_narrow(struct geul_context *ctx, struct geul_tensor *t, int dim, int64_t start, int64_t length)
{
    if (!t)
        return NULL;
    if (dim < 0 || dim >= t->n_dims || start < 0 || length < 0 || start > t->shape[dim] - length)
        return refuse_view(ctx, t, "the range to narrow to lies outside");
    int64_t unit = unit_of(t, dim);
    if (start % unit || length % unit)
        return refuse_view(ctx, t, "a range must begin and end at a block");
    int64_t shape[GEUL_MAX_DIMS];
    memcpy(shape, t->shape, sizeof shape);
    shape[dim] = length;
    /* the stride of a blocked dimension is that of its blocks */
    return view(ctx, t, t->n_dims, shape, t->stride, t->block_dim, (size_t)(start / unit) * t->stride[dim]);
}

struct geul_tensor *geul_split_last(struct geul_context *ctx, struct geul_tensor *t, int64_t n)
{
    if (!t)
        return NULL;
    int last = t->n_dims - 1;
    int64_t unit = unit_of(t, last);
    if (t->n_dims == GEUL_MAX_DIMS || n < 1 || t->shape[last] % n || t->shape[last] / n % unit)
        return refuse_view(ctx, t, "the last dimension cannot be split like this");
    int64_t shape[GEUL_MAX_DIMS] = {0};
    size_t stride[GEUL_MAX_DIMS] = {0};
    memcpy(shape, t->shape, sizeof shape);
    memcpy(stride, t->stride, sizeof stride);
    /* (…, n * m) as (…, n, m): m keeps the stride, and n steps over m elements, or over m / unit blocks. */
    shape[last] = n;
    shape[last + 1] = t->shape[last] / n;
    stride[last + 1] = t->stride[last];
    stride[last] = (size_t)(shape[last + 1] / unit) * t->stride[last];
    return view(ctx, t, t->n_dims + 1, shape, stride, t->block_dim + (t->block_dim == last), 0);
}

struct geul_tensor *geul_transpose(struct geul_context *ctx, struct geul_tensor *t, int dim0, int dim1)
{
    if (!t)
        return NULL;
    if (dim0 < 0 || dim0 >= t->n_dims || dim1 < 0 || dim1 >= t->n_dims)
        return refuse_view(ctx, t, "it has no such dimension to transpose");
    int64_t shape[GEUL_MAX_DIMS];
    size_t stride[GEUL_MAX_DIMS];
    memcpy(shape, t->shape, sizeof shape);
    memcpy(stride, t->stride, sizeof stride);
    shape[dim0] = t->shape[dim1], shape[dim1] = t->shape[dim0];
    stride[dim0] = t->stride[dim1], stride[dim1] = t->stride[dim0];
    int block_dim = t->block_dim == dim0 ? dim1 : t->block_dim == dim1 ? dim0 : t->block_dim;
    return view(ctx, t, t->n_dims, shape, stride, block_dim, 0);
}

/* ---------------------------------------------------------------------------------- builders -- */

/* geul_node() with its operands written out. */
#define NODE(ctx, op, params, ...)                                                                                     \
    geul_node(ctx, op, (struct geul_tensor *const[]){__VA_ARGS__},                                                     \
              (int)(sizeof((struct geul_tensor *const[]){__VA_ARGS__}) / sizeof(struct geul_tensor *)), params)

struct geul_tensor *geul_contiguous(struct geul_context *ctx, struct geul_tensor *t)
{
    return NODE(ctx, GEUL_OP_CONT, NULL, t);
}

struct geul_tensor *geul_add(struct geul_context *ctx, struct geul_tensor *a, struct geul_tensor *b)
{
    return NODE(ctx, GEUL_OP_ADD, NULL, a, b);
}

struct geul_tensor *geul_gelu(struct geul_context *ctx, struct geul_tensor *x, enum geul_gelu kind)
{
    union geul_op_params p = {.gelu = {kind}};
    return NODE(ctx, GEUL_OP_GELU, &p, x);
}

struct geul_tensor *geul_layernorm(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *weight,
                                   struct geul_tensor *bias, float eps)
{
    union geul_op_params p = {.norm = {eps}};
    return NODE(ctx, GEUL_OP_LAYERNORM, &p, x, weight, bias);
}

struct geul_tensor *geul_matmul_at(struct geul_context *ctx, enum geul_precision precision, struct geul_tensor *a,
                                   struct geul_tensor *b)
{
    union geul_op_params p = {.matmul = {precision}};
    return NODE(ctx, GEUL_OP_MATMUL, &p, a, b);
}

struct geul_tensor *geul_matmul(struct geul_context *ctx, struct geul_tensor *a, struct geul_tensor *b)
{
    return geul_matmul_at(ctx, GEUL_PRECISION_WEIGHTS, a, b);
}

struct geul_tensor *geul_linear_at(struct geul_context *ctx, enum geul_precision precision, struct geul_tensor *x,
                                   struct geul_tensor *weight, struct geul_tensor *bias, bool has_bias)
{
    union geul_op_params p = {.matmul = {precision}};
    if (!x || !weight || (has_bias && !bias))
        return NULL;
    if (weight->n_dims != 2)
        return refuse_view(ctx, weight, "a linear layer's weight has 2 dimensions");
    struct geul_tensor *columns = geul_transpose(ctx, weight, 0, 1);
    return has_bias ? NODE(ctx, GEUL_OP_MATMUL, &p, x, columns, bias) : NODE(ctx, GEUL_OP_MATMUL, &p, x, columns);
}

struct geul_tensor *geul_linear(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *weight,
                                struct geul_tensor *bias, bool has_bias)
{
    return geul_linear_at(ctx, GEUL_PRECISION_WEIGHTS, x, weight, bias, has_bias);
}

struct geul_tensor *geul_embed(struct geul_context *ctx, struct geul_tensor *table, struct geul_tensor *ids)
{
    return NODE(ctx, GEUL_OP_EMBED, NULL, table, ids);
}

struct geul_tensor *geul_rope(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *seq_pos, int n_rot,
                              float base)
{
    union geul_op_params p = {.rope = {n_rot, base, false}};
    return NODE(ctx, GEUL_OP_ROPE, &p, x, seq_pos);
}

struct geul_tensor *geul_store(struct geul_context *ctx, struct geul_tensor *cache, struct geul_tensor *x,
                               struct geul_tensor *seq_pos)
{
    return NODE(ctx, GEUL_OP_STORE, NULL, cache, x, seq_pos);
}

struct geul_tensor *geul_attention(struct geul_context *ctx, struct geul_tensor *q, struct geul_tensor *k,
                                   struct geul_tensor *v, struct geul_tensor *seq_pos, float scale)
{
    union geul_op_params p = {.attention = {scale}};
    return NODE(ctx, GEUL_OP_ATTENTION, &p, q, k, v, seq_pos);
}

struct geul_tensor *geul_scale(struct geul_context *ctx, struct geul_tensor *x, float factor)
{
    union geul_op_params p = {.scale = {factor}};
    return NODE(ctx, GEUL_OP_SCALE, &p, x);
}

struct geul_tensor *geul_dropout(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *seed, float p,
                                 uint32_t salt)
{
    union geul_op_params params = {.dropout = {p, salt}};
    return NODE(ctx, GEUL_OP_DROPOUT, &params, x, seed);
}

struct geul_tensor *geul_cross_entropy(struct geul_context *ctx, struct geul_tensor *logits,
                                       struct geul_tensor *targets, float smoothing, float z)
{
    union geul_op_params p = {.loss = {smoothing, z}};
    return NODE(ctx, GEUL_OP_CROSS_ENTROPY, &p, logits, targets);
}

/* -------------------------------------------------------------- for gradients and optimizers -- */

struct geul_tensor *geul_zero(struct geul_context *ctx, int n_dims, const int64_t *shape)
{
    union geul_op_params p = {.shape = {.n_dims = n_dims}};
    memcpy(p.shape.shape, shape, (size_t)n_dims * sizeof *shape);
    return geul_node(ctx, GEUL_OP_ZERO, NULL, 0, &p);
}

struct geul_tensor *geul_gelu_back(struct geul_context *ctx, struct geul_tensor *dy, struct geul_tensor *x,
                                   enum geul_gelu kind)
{
    union geul_op_params p = {.gelu = {kind}};
    return NODE(ctx, GEUL_OP_GELU_BACK, &p, dy, x);
}

struct geul_tensor *geul_norm_back(struct geul_context *ctx, struct geul_tensor *dy, struct geul_tensor *x,
                                   struct geul_tensor *weight, float eps)
{
    union geul_op_params p = {.norm = {eps}};
    return NODE(ctx, GEUL_OP_NORM_BACK, &p, dy, x, weight);
}

struct geul_tensor *geul_norm_sums(struct geul_context *ctx, struct geul_tensor *dy, struct geul_tensor *x, float eps)
{
    union geul_op_params p = {.norm = {eps}};
    return NODE(ctx, GEUL_OP_NORM_SUMS, &p, dy, x);
}

struct geul_tensor *geul_attention_back(struct geul_context *ctx, struct geul_tensor *dy, struct geul_tensor *y,
                                        struct geul_tensor *q, struct geul_tensor *k, struct geul_tensor *v,
                                        struct geul_tensor *seq_pos, float scale)
{
    union geul_op_params p = {.attention = {scale}};
    return NODE(ctx, GEUL_OP_ATTENTION_BACK, &p, dy, y, q, k, v, seq_pos);
}

struct geul_tensor *geul_loss_back(struct geul_context *ctx, struct geul_tensor *logits, struct geul_tensor *dy,
                                   struct geul_tensor *targets, struct geul_params_loss params)
{
    union geul_op_params p = {.loss = params};
    return NODE(ctx, GEUL_OP_LOSS_BACK, &p, logits, dy, targets);
}

struct geul_tensor *geul_addmm(struct geul_context *ctx, struct geul_tensor *c, struct geul_tensor *a,
                               struct geul_tensor *b, enum geul_precision precision)
{
    union geul_op_params p = {.matmul = {precision}};
    return NODE(ctx, GEUL_OP_ADDMM, &p, c, a, b);
}

struct geul_tensor *geul_accumulate(struct geul_context *ctx, struct geul_tensor *c, struct geul_tensor *x)
{
    return NODE(ctx, GEUL_OP_ACCUMULATE, NULL, c, x);
}

struct geul_tensor *geul_patch(struct geul_context *ctx, struct geul_tensor *c, struct geul_tensor *x,
                               struct geul_params_region region)
{
    union geul_op_params p = {.region = region};
    return NODE(ctx, GEUL_OP_PATCH, &p, c, x);
}

struct geul_tensor *geul_scatter(struct geul_context *ctx, struct geul_tensor *c, struct geul_tensor *x,
                                 struct geul_tensor *ids)
{
    return NODE(ctx, GEUL_OP_SCATTER, NULL, c, x, ids);
}

struct geul_tensor *geul_norm2(struct geul_context *ctx, struct geul_tensor *x)
{
    return NODE(ctx, GEUL_OP_NORM2, NULL, x);
}

struct geul_tensor *geul_update(struct geul_context *ctx, enum geul_op op, struct geul_tensor *weight,
                                struct geul_tensor *gradient, struct geul_tensor *const states[GEUL_STATES_MAX],
                                struct geul_tensor *hyper, bool decay)
{
    union geul_op_params p = {.update = {decay}};
    int n_states = geul_op_info(op)->n_src - 3;
    struct geul_tensor *src[GEUL_MAX_SRC] = {weight, gradient};
    for (int i = 0; i < n_states; i++)
        src[2 + i] = states[i];
    src[2 + n_states] = hyper;
    return geul_node(ctx, op, src, 3 + n_states, &p);
}
