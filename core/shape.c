/* shape.c: the shape rules of ops.def. Each checks a node's operands and fills its type, shape and strides. */
#include "core/shape.h"

#include <stdio.h>
#include <string.h>

/* Records why t cannot be made, with its operands' names, types and shapes. Always false. */
static bool refuse(struct geul_tensor *t, const char *why)
{
    char text[4][112] = {"", "", "", ""};
    char shape[96];
    for (int i = 0; i < t->n_src; i++)
        if (t->src[i])
            snprintf(text[i], sizeof text[i], "%s%s %s %s", i ? ", " : "", t->src[i]->name,
                     geul_type_name(t->src[i]->type), geul_shape_text(t->src[i], shape, sizeof shape));
    geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "%s(%s%s%s%s): %s", t->name, text[0], text[1], text[2], text[3], why);
    return false;
}

/* Gives t a contiguous shape. */
static bool shaped(struct geul_tensor *t, enum geul_type type, int n_dims, const int64_t *shape)
{
    size_t bytes;
    if (!geul_shape_bytes(type, n_dims, shape, &bytes))
        return refuse(t, "the result would be too large");
    t->type = type;
    t->n_dims = n_dims;
    memcpy(t->shape, shape, (size_t)n_dims * sizeof *shape);
    geul_set_contiguous(t);
    return true;
}

static bool is_f32(const struct geul_tensor *t)
{
    return t->type == GEUL_TYPE_F32;
}

static bool is_place(const struct geul_tensor *place, int64_t n_tokens)
{
    return place->type == GEUL_TYPE_I32 && place->n_dims == 2 && place->shape[0] == n_tokens && place->shape[1] == 2;
}

/* Bytes from the first to the end of the last element. */
static bool span(const struct geul_tensor *t, size_t *bytes)
{
    size_t total = geul_type_bytes(t->type);
    for (int i = 0; i < t->n_dims; i++) {
        int64_t steps = t->shape[i];
        if (i == t->block_dim)
            steps /= geul_type_block(t->type);
        size_t reach;
        if (steps == 0)
            return *bytes = 0, true;
        if (!geul_mul_size((size_t)(steps - 1), t->stride[i], &reach) || !geul_add_size(total, reach, &total))
            return false;
    }
    *bytes = total;
    return true;
}

bool geul_shape_view(struct geul_tensor *t)
{
    size_t mine, whole, end;
    if (!span(t, &mine) || !span(t->src[0], &whole) || !geul_add_size(mine, t->params.view.offset, &end) ||
        (mine > 0 && end > whole))
        return refuse(t, "the view reaches outside its tensor");
    return true;
}

bool geul_shape_cont(struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[0];
    if (geul_type_block(x->type) > 1 && x->block_dim != x->n_dims - 1)
        return refuse(t, "blocks cannot be copied across their rows");
    if (x->type == GEUL_TYPE_I32)
        return refuse(t, "only numbers with a float value can be copied");
    return shaped(t, GEUL_TYPE_F32, x->n_dims, x->shape);
}

bool geul_shape_bcast(struct geul_tensor *t)
{
    const struct geul_tensor *a = t->src[0], *b = t->src[1];
    if (!is_f32(a) || !is_f32(b))
        return refuse(t, "both must be f32");
    bool suffix = b->n_dims <= a->n_dims;
    for (int i = 1; suffix && i <= b->n_dims; i++)
        suffix = b->shape[b->n_dims - i] == a->shape[a->n_dims - i];
    if (!suffix)
        return refuse(t, "the second shape must be the end of the first");
    return shaped(t, GEUL_TYPE_F32, a->n_dims, a->shape);
}

bool geul_shape_same(struct geul_tensor *t)
{
    if (!is_f32(t->src[0]))
        return refuse(t, "the operand must be f32");
    return shaped(t, GEUL_TYPE_F32, t->src[0]->n_dims, t->src[0]->shape);
}

bool geul_shape_norm(struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[0];
    for (int i = 1; i <= 2; i++)
        if (!is_f32(t->src[i]) || t->src[i]->n_dims != 1 || t->src[i]->shape[0] != geul_cols(x))
            return refuse(t, "weight and bias must be f32 and as long as a row");
    return geul_shape_same(t);
}

bool geul_shape_matmul(struct geul_tensor *t)
{
    const struct geul_tensor *a = t->src[0], *b = t->src[1], *bias = t->n_src > 2 ? t->src[2] : NULL;
    if (a->n_dims != 2 || b->n_dims != 2 || a->shape[1] != b->shape[0])
        return refuse(t, "a (M, K) times (K, N) product needs the same K");
    if (!is_f32(a) || a->stride[1] != sizeof(float))
        return refuse(t, "the left side must be f32 with packed rows");
    size_t element = geul_type_bytes(b->type);
    bool plain = geul_type_block(b->type) == 1 && (b->stride[0] == element || b->stride[1] == element);
    bool turned = b->block_dim == 0 && b->stride[0] == element;
    if (b->type == GEUL_TYPE_I32 || (!plain && !turned))
        return refuse(t, "the right side must have packed rows, or be the transpose of a weight that has");
    if (bias && (!is_f32(bias) || bias->n_dims != 1 || bias->shape[0] != b->shape[1]))
        return refuse(t, "the bias must be f32 and as long as a row of the result");
    return shaped(t, GEUL_TYPE_F32, 2, (int64_t[]){a->shape[0], b->shape[1]});
}

bool geul_shape_embed(struct geul_tensor *t)
{
    const struct geul_tensor *table = t->src[0], *ids = t->src[1];
    if (table->n_dims != 2 || table->type == GEUL_TYPE_I32)
        return refuse(t, "the table must have 2 dimensions and hold numbers");
    if (ids->type != GEUL_TYPE_I32 || ids->n_dims != 1)
        return refuse(t, "the ids must be i32 in 1 dimension");
    return shaped(t, GEUL_TYPE_F32, 2, (int64_t[]){ids->shape[0], table->shape[1]});
}

bool geul_shape_rope(struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[0];
    int n_rot = t->params.rope.n_rot;
    if (x->n_dims != 3 || !is_place(t->src[1], x->shape[0]))
        return refuse(t, "x must be (T, H, D) and place i32 (T, 2)");
    if (n_rot < 0 || n_rot % 2 || n_rot > x->shape[2] || !(t->params.rope.base > 0))
        return refuse(t, "the rotary dimensions must be even and at most D, the base positive");
    return geul_shape_same(t);
}

bool geul_shape_store(struct geul_tensor *t)
{
    const struct geul_tensor *cache = t->src[0], *x = t->src[1];
    if (cache->n_dims != 4 || x->n_dims != 3 || cache->shape[1] != x->shape[1] || cache->shape[3] != x->shape[2])
        return refuse(t, "the cache must be (S, H, C, D) and x (T, H, D)");
    if (!is_f32(x) || !is_place(t->src[2], x->shape[0]))
        return refuse(t, "x must be f32 and place i32 (T, 2)");
    if (cache->type == GEUL_TYPE_I32 || !geul_is_contiguous(cache))
        return refuse(t, "the cache must be contiguous and hold numbers");
    return shaped(t, cache->type, 4, cache->shape);
}

bool geul_shape_attention(struct geul_tensor *t)
{
    const struct geul_tensor *q = t->src[0], *k = t->src[1], *v = t->src[2];
    if (q->n_dims != 3 || !is_f32(q) || !is_place(t->src[3], q->shape[0]))
        return refuse(t, "q must be f32 (T, H, D) and place i32 (T, 2)");
    bool same = k->n_dims == 4 && v->n_dims == 4 && k->type == v->type && k->type != GEUL_TYPE_I32;
    for (int i = 0; same && i < 4; i++)
        same = k->shape[i] == v->shape[i];
    if (!same || k->shape[1] != q->shape[1] || k->shape[3] != q->shape[2])
        return refuse(t, "k and v must be (S, H, C, D) of one type of numbers with q's H and D");
    return shaped(t, GEUL_TYPE_F32, 3, q->shape);
}

/* A GPU column says N until its backend has a dispatch array; a Y before that does not compile. */
#define OP(id, name, src, opt, params, shape, layout, flags, backward, gpu1, gpu2)                                     \
    _Static_assert(GEUL_KERNEL_##gpu1 + GEUL_KERNEL_##gpu2 == 0, name " claims a kernel that nobody wrote");
enum { GEUL_KERNEL_N = 0 };
#include "core/ops.def"
#undef OP

static const struct geul_op_info infos[GEUL_OP_COUNT] = {
    [GEUL_OP_LEAF] = {.name = "leaf"},
#define OP(id, name, src, opt, params, shape, layout, flags, backward, gpu1, gpu2)                                     \
    [GEUL_OP_##id] = {                                                                                                 \
        name, src, opt, GEUL_LAYOUT_##layout, GEUL_FLAGS_##flags, geul_shape_##shape, GEUL_BACKWARD_##backward},
#define GEUL_FLAGS_0       0
#define GEUL_FLAGS_INPLACE GEUL_FLAG_INPLACE
#define GEUL_FLAGS_WRITES  GEUL_FLAG_WRITES
#include "core/ops.def"
#undef OP
};

const struct geul_op_info *geul_op_info(enum geul_op op)
{
    return &infos[op];
}

bool geul_layout_fits(const struct geul_tensor *t)
{
    enum geul_layout layout = infos[t->op].layout;
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
