/* backward.c: the backward rules of ops.def: how the gradient dy of a node t becomes those of its operands.
 *
 * Shapes as in geul_tensor.h. A rule gets the values it reads from geul_gradients_value(), since they may have to be
 * recomputed, and adds gradients whether or not they are needed: geul_gradients_add*() ignore those that are not. */
#include "core/autodiff.h"

#include <string.h>

void geul_backward_nondiff(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    (void)dy;
    geul_fail(geul_gradients_context(g), GEUL_ERROR_UNSUPPORTED, "no gradient flows through %s (operation %s)", t->name,
              geul_op_info(t->op)->name);
    geul_gradients_add(g, t, NULL); /* ends the flow, as a failed builder does */
}

/* ------------------------------------------------------------------------------------- views -- */

/* The tensor whose memory t lies in, and where in it: bytes from its first element. */
static struct geul_tensor *base_of(struct geul_tensor *t, size_t *offset)
{
    *offset = 0;
    for (; t->op == GEUL_OP_VIEW; t = t->src[0])
        *offset += t->params.view.offset;
    return t;
}

/* When dy lies in its memory as t lies in base (a transposed product for a transposed weight, say): that memory in
 * base's shape. Otherwise NULL. */
static struct geul_tensor *same_view(struct geul_context *ctx, const struct geul_tensor *t, struct geul_tensor *base,
                                     size_t offset, struct geul_tensor *dy)
{
    size_t dy_offset;
    struct geul_tensor *whole = base_of(dy, &dy_offset);
    if (dy_offset != offset || !geul_is_contiguous(whole) || geul_tensor_bytes(whole) != geul_tensor_bytes(base) ||
        memcmp(dy->stride, t->stride, (size_t)t->n_dims * sizeof *t->stride) != 0)
        return NULL;
    return geul_reshape(ctx, whole, base->n_dims, base->shape);
}

/* Where the gradient of view t goes: to the contiguous tensor at the bottom of its chain of views, or to a view on the
 * way there that is wanted itself. NULL with a failure recorded when such a view is not contiguous, because the part of
 * its gradient that t is cannot be named by strides then. */
static struct geul_tensor *target_of(const struct geul_gradients *g, struct geul_tensor *t, size_t *offset)
{
    struct geul_tensor *bottom = base_of(t, offset);
    size_t above = 0; /* bytes from v's first element to t's */
    for (struct geul_tensor *v = t; v != bottom; v = v->src[0]) {
        if (v != t && geul_gradients_wanted(g, v)) {
            *offset = above;
            if (geul_is_contiguous(v))
                return v;
            geul_fail(geul_gradients_context(g), GEUL_ERROR_UNSUPPORTED,
                      "%s is a view that is not contiguous, and %s is a view of it: ask for the gradient of %s instead",
                      v->name, t->name, bottom->name);
            return NULL;
        }
        above += v->params.view.offset;
    }
    return bottom;
}

/* t may be a view of views: its gradient goes straight to base (target_of()). From cheap to general: dy's own memory
 * reshaped, a packed dy reshaped, dy added to part of a sum of base's shape. */
void geul_backward_view(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    struct geul_context *ctx = geul_gradients_context(g);
    size_t offset;
    struct geul_tensor *base = target_of(g, t, &offset);
    if (!base)
        geul_gradients_add(g, t, NULL); /* ends the flow, as a failed builder does */
    if (!geul_gradients_reach(g, base))
        return;
    bool whole = geul_tensor_bytes(t) == geul_tensor_bytes(base);
    struct geul_tensor *same = whole && base->type == GEUL_TYPE_F32 ? same_view(ctx, t, base, offset, dy) : NULL;
    if (same) {
        geul_gradients_add(g, base, same);
    } else if (whole && geul_is_contiguous(t)) {
        struct geul_tensor *packed = geul_is_contiguous(dy) ? dy : geul_contiguous(ctx, dy);
        geul_gradients_add(g, base, geul_reshape(ctx, packed, base->n_dims, base->shape));
    } else if (geul_type_block(base->type) > 1) {
        geul_backward_nondiff(g, t, dy);
    } else { /* the sum is float32, whatever base is */
        size_t element = geul_type_bytes(base->type);
        struct geul_params_region region = {.offset = offset / element * sizeof(float)};
        for (int i = 0; i < t->n_dims; i++)
            region.stride[i] = t->stride[i] / element * sizeof(float);
        geul_gradients_add_patch(g, base, dy, region);
    }
}

void geul_backward_cont(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    geul_gradients_add(g, t->src[0], dy);
}

/* ------------------------------------------------------------------------------- elementwise -- */

void geul_backward_add(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    geul_gradients_add(g, t->src[0], dy);
    if (t->src[1]->n_dims < t->n_dims)
        geul_gradients_add_rows(g, t->src[1], dy);
    else
        geul_gradients_add(g, t->src[1], dy);
}

void geul_backward_scale(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    geul_gradients_add(g, t->src[0], geul_scale(geul_gradients_context(g), dy, t->params.scale.factor));
}

/* The same seed and salt drop the same elements. */
void geul_backward_dropout(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    struct geul_params_dropout p = t->params.dropout;
    geul_gradients_add(g, t->src[0], geul_dropout(geul_gradients_context(g), dy, t->src[1], p.p, p.salt));
}

void geul_backward_gelu(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    struct geul_tensor *x = geul_gradients_value(g, t->src[0]);
    geul_gradients_add(g, t->src[0], geul_gelu_back(geul_gradients_context(g), dy, x, t->params.gelu.kind));
}

/* ------------------------------------------------------------------------- rows and products -- */

void geul_backward_layernorm(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    struct geul_context *ctx = geul_gradients_context(g);
    struct geul_tensor *x = geul_gradients_value(g, t->src[0]), *weight = t->src[1], *bias = t->src[2];
    float eps = t->params.norm.eps;
    if (geul_gradients_reach(g, t->src[0]))
        geul_gradients_add(g, t->src[0], geul_norm_back(ctx, dy, x, geul_gradients_value(g, weight), eps));
    if (!geul_gradients_reach(g, weight) && !geul_gradients_reach(g, bias))
        return;
    struct geul_tensor *sums = geul_norm_sums(ctx, dy, x, eps); /* (2, C) */
    struct geul_tensor *dweight = geul_narrow(ctx, sums, 0, 0, 1), *dbias = geul_narrow(ctx, sums, 0, 1, 1);
    geul_gradients_add(g, weight, geul_reshape(ctx, dweight, 1, weight->shape));
    geul_gradients_add(g, bias, geul_reshape(ctx, dbias, 1, bias->shape));
}

/* y = a b + bias: da = dy b', db = a' dy, dbias = the sum of dy's rows. */
void geul_backward_matmul(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    struct geul_context *ctx = geul_gradients_context(g);
    struct geul_tensor *a = t->src[0], *b = t->src[1];
    enum geul_precision precision = t->params.matmul.precision;
    /* Here WEIGHTS would round dy to int8, and b's blocks lie across the sum. */
    if (geul_type_block(b->type) > 1 && precision == GEUL_PRECISION_WEIGHTS)
        precision = GEUL_PRECISION_F32;
    if (geul_gradients_reach(g, a))
        geul_gradients_add_product(g, a, dy, geul_transpose(ctx, geul_gradients_value(g, b), 0, 1), precision);
    if (geul_gradients_reach(g, b))
        geul_gradients_add_product(g, b, geul_transpose(ctx, geul_gradients_value(g, a), 0, 1), dy, precision);
    if (t->n_src > 2 && t->src[2])
        geul_gradients_add_rows(g, t->src[2], dy);
}

void geul_backward_embed(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    geul_gradients_add_scattered(g, t->src[0], dy, t->src[1]);
}

/* ------------------------------------------------------------------------ attention and loss -- */

void geul_backward_rope(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    union geul_op_params p = t->params;
    p.rope.back = !p.rope.back;
    struct geul_tensor *const src[] = {dy, t->src[1]};
    geul_gradients_add(g, t->src[0], geul_node(geul_gradients_context(g), GEUL_OP_ROPE, src, 2, &p));
}

void geul_backward_attention(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    if (t->src[1]->n_dims != 3) { /* what wrote the keys of a cache is not in this graph */
        geul_backward_nondiff(g, t, dy);
        return;
    }
    struct geul_context *ctx = geul_gradients_context(g);
    struct geul_tensor *value[3];
    for (int i = 0; i < 3; i++)
        value[i] = geul_gradients_value(g, t->src[i]);
    struct geul_tensor *d = geul_attention_back(ctx, dy, geul_gradients_value(g, t), value[0], value[1], value[2],
                                                t->src[3], t->params.attention.scale); /* (3, T, H, D) */
    for (int i = 0; i < 3; i++)
        geul_gradients_add(g, t->src[i], geul_reshape(ctx, geul_narrow(ctx, d, 0, i, 1), 3, t->shape));
}

void geul_backward_cross_entropy(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy)
{
    struct geul_tensor *logits = geul_gradients_value(g, t->src[0]);
    geul_gradients_add(g, t->src[0], geul_loss_back(geul_gradients_context(g), logits, dy, t->src[1], t->params.loss));
}
