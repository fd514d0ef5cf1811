/* shape.c: the shape rules of ops.def. Each checks a node's operands and fills its type, shape and strides. */
#include "core/tensor.h"

#include <stdio.h>
#include <string.h>

/* Records why t cannot be made, with its operands' names, types and shapes. Always false. */
static bool refuse(struct geul_tensor *t, const char *why)
{
    char text[GEUL_MAX_SRC][112] = {"", "", "", "", "", ""};
    char shape[96];
    for (int i = 0; i < t->n_src; i++)
        if (t->src[i])
            snprintf(text[i], sizeof text[i], "%s%s %s %s", i ? ", " : "", t->src[i]->name,
                     geul_type_name(t->src[i]->type), geul_shape_text(t->src[i], shape, sizeof shape));
    geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "%s(%s%s%s%s%s%s): %s", t->name, text[0], text[1], text[2], text[3], text[4],
              text[5], why);
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

static bool is_seq_pos(const struct geul_tensor *seq_pos, int64_t n_tokens)
{
    return seq_pos->type == GEUL_TYPE_I32 && seq_pos->n_dims == 2 && seq_pos->shape[0] == n_tokens &&
           seq_pos->shape[1] == 2;
}

/* Bytes from the first element to the end of the last one, whatever lies between; 0 for a tensor without elements. */
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

/* Checks a (M, K) and b (K, N) of a product, and their layouts. b is
 *   plain    of numbers, with packed rows or columns
 *   turned   of blocks, the transpose of a weight (N, K): the blocks lie along K and are multiplied as they are
 *   rows     of blocks, a weight (K, N) itself, as in gradients: the blocks lie along N, across the sum, so it has to
 *            be decoded, which GEUL_PRECISION_WEIGHTS does not do
 */
static bool factors(struct geul_tensor *t, const struct geul_tensor *a, const struct geul_tensor *b)
{
    if (a->n_dims != 2 || b->n_dims != 2 || a->shape[1] != b->shape[0])
        return refuse(t, "a (M, K) times (K, N) product needs the same K");
    if (!is_f32(a) || (a->stride[1] != sizeof(float) && a->stride[0] != sizeof(float)))
        return refuse(t, "the left side must be f32 with packed rows, or the transpose of such a tensor");
    size_t element = geul_type_bytes(b->type);
    bool exact = t->params.matmul.precision != GEUL_PRECISION_WEIGHTS;
    bool plain = geul_type_block(b->type) == 1 && (b->stride[0] == element || b->stride[1] == element);
    bool turned = b->block_dim == 0 && b->stride[0] == element, rows = exact && b->stride[1] == element;
    if (b->type == GEUL_TYPE_I32 || (!plain && !turned && !rows))
        return refuse(t, "the right side must have packed rows, or be the transpose of a weight that has");
    return true;
}

bool geul_shape_matmul(struct geul_tensor *t)
{
    const struct geul_tensor *a = t->src[0], *b = t->src[1], *bias = t->n_src > 2 ? t->src[2] : NULL;
    if (!factors(t, a, b))
        return false;
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
    if (x->n_dims != 3 || !is_seq_pos(t->src[1], x->shape[0]))
        return refuse(t, "x must be (T, H, D) and seq_pos i32 (T, 2)");
    if (n_rot < 0 || n_rot % 2 || n_rot > x->shape[2] || !(t->params.rope.base > 0))
        return refuse(t, "the rotary dimensions must be even and at most D, the base positive");
    return geul_shape_same(t);
}

bool geul_shape_store(struct geul_tensor *t)
{
    const struct geul_tensor *cache = t->src[0], *x = t->src[1];
    if (cache->n_dims != 4 || x->n_dims != 3 || cache->shape[1] != x->shape[1] || cache->shape[3] != x->shape[2])
        return refuse(t, "the cache must be (S, H, C, D) and x (T, H, D)");
    if (!is_f32(x) || !is_seq_pos(t->src[2], x->shape[0]))
        return refuse(t, "x must be f32 and seq_pos i32 (T, 2)");
    if (cache->type == GEUL_TYPE_I32 || !geul_is_contiguous(cache))
        return refuse(t, "the cache must be contiguous and hold numbers");
    return shaped(t, cache->type, 4, cache->shape);
}

static bool same_shape(const struct geul_tensor *a, const struct geul_tensor *b)
{
    bool same = a->n_dims == b->n_dims;
    for (int i = 0; same && i < a->n_dims; i++)
        same = a->shape[i] == b->shape[i];
    return same;
}

bool geul_shape_attention(struct geul_tensor *t)
{
    const struct geul_tensor *q = t->src[0], *k = t->src[1], *v = t->src[2];
    if (q->n_dims != 3 || !is_f32(q) || !is_seq_pos(t->src[3], q->shape[0]))
        return refuse(t, "q must be f32 (T, H, D) and seq_pos i32 (T, 2)");
    /* (T, H, D): the tokens' own keys, for training. (S, H, C, D): a cache. */
    bool same = k->type == v->type && k->type != GEUL_TYPE_I32 && same_shape(k, v);
    if (same && k->n_dims == 3)
        same = is_f32(k) && same_shape(k, q);
    else if (same)
        same = k->n_dims == 4 && k->shape[1] == q->shape[1] && k->shape[3] == q->shape[2];
    if (!same)
        return refuse(t, "k and v must be (S, H, C, D) of one type of numbers with q's H and D, or f32 in q's shape");
    return shaped(t, GEUL_TYPE_F32, 3, q->shape);
}

bool geul_shape_zero(struct geul_tensor *t)
{
    return shaped(t, GEUL_TYPE_F32, t->params.shape.n_dims, t->params.shape.shape);
}

bool geul_shape_dropout(struct geul_tensor *t)
{
    const struct geul_tensor *seed = t->src[1];
    if (seed->type != GEUL_TYPE_I32 || seed->n_dims != 1 || seed->shape[0] != 2)
        return refuse(t, "the seed must be i32 (2)");
    if (!(t->params.dropout.p >= 0 && t->params.dropout.p < 1))
        return refuse(t, "the share to drop must be at least 0 and less than 1");
    return geul_shape_same(t);
}

static bool is_ids(const struct geul_tensor *ids, int64_t n)
{
    return ids->type == GEUL_TYPE_I32 && ids->n_dims == 1 && ids->shape[0] == n;
}

bool geul_shape_loss(struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[0];
    if (x->n_dims != 2 || !is_f32(x) || !is_ids(t->src[1], x->shape[0]) || x->shape[1] < 1)
        return refuse(t, "the logits must be f32 (R, V) and the targets i32 (R)");
    if (!(t->params.loss.smoothing >= 0 && t->params.loss.smoothing < 1) || !(t->params.loss.z >= 0))
        return refuse(t, "the smoothing must be at least 0 and less than 1, the weight of z not negative");
    return shaped(t, GEUL_TYPE_F32, 1, x->shape);
}

/* --------------------------------------------------------------------------------- gradients -- */

bool geul_shape_twin(struct geul_tensor *t)
{
    if (!is_f32(t->src[1]) || !same_shape(t->src[0], t->src[1]))
        return refuse(t, "both must be f32 of the same shape");
    return geul_shape_same(t);
}

bool geul_shape_norm_back(struct geul_tensor *t)
{
    const struct geul_tensor *w = t->src[2];
    if (!is_f32(w) || w->n_dims != 1 || w->shape[0] != geul_cols(t->src[0]))
        return refuse(t, "the weight must be f32 and as long as a row");
    return geul_shape_twin(t);
}

bool geul_shape_norm_sums(struct geul_tensor *t)
{
    return geul_shape_twin(t) && shaped(t, GEUL_TYPE_F32, 2, (int64_t[]){2, geul_cols(t->src[0])});
}

bool geul_shape_attn_back(struct geul_tensor *t)
{
    const struct geul_tensor *q = t->src[2];
    if (q->n_dims != 3 || !is_seq_pos(t->src[5], q->shape[0]))
        return refuse(t, "q must be (T, H, D) and seq_pos i32 (T, 2)");
    for (int i = 0; i < 5; i++)
        if (!is_f32(t->src[i]) || !same_shape(t->src[i], q))
            return refuse(t, "dy, y, q, k and v must be f32 of one shape");
    return shaped(t, GEUL_TYPE_F32, 4, (int64_t[]){3, q->shape[0], q->shape[1], q->shape[2]});
}

bool geul_shape_loss_back(struct geul_tensor *t)
{
    const struct geul_tensor *x = t->src[0], *dy = t->src[1];
    if (x->n_dims != 2 || !is_f32(x) || !is_f32(dy) || dy->n_dims != 1 || dy->shape[0] != x->shape[0] ||
        !is_ids(t->src[2], x->shape[0]))
        return refuse(t, "the logits must be f32 (R, V), dy f32 (R) and the targets i32 (R)");
    return geul_shape_same(t);
}

/* ----------------------------------------------------------------------------- sums in place -- */

/* A result that is operand 0, for operations with the flag WRITES. */
static bool grown(struct geul_tensor *t)
{
    const struct geul_tensor *c = t->src[0];
    if (!is_f32(c) || !geul_is_contiguous(c))
        return refuse(t, "what is added to must be f32 and contiguous");
    return shaped(t, GEUL_TYPE_F32, c->n_dims, c->shape);
}

bool geul_shape_addmm(struct geul_tensor *t)
{
    const struct geul_tensor *c = t->src[0], *a = t->src[1], *b = t->src[2];
    if (!factors(t, a, b))
        return false;
    if (c->n_dims != 2 || c->shape[0] != a->shape[0] || c->shape[1] != b->shape[1])
        return refuse(t, "the sum must be (M, N)");
    return grown(t);
}

bool geul_shape_accumulate(struct geul_tensor *t)
{
    const struct geul_tensor *c = t->src[0], *x = t->src[1];
    bool suffix = is_f32(x) && c->n_dims <= x->n_dims;
    for (int i = 1; suffix && i <= c->n_dims; i++)
        suffix = c->shape[c->n_dims - i] == x->shape[x->n_dims - i];
    if (!suffix)
        return refuse(t, "the first shape must be the end of the second, which must be f32");
    return grown(t);
}

bool geul_shape_patch(struct geul_tensor *t)
{
    const struct geul_tensor *c = t->src[0], *x = t->src[1];
    struct geul_tensor region = *x; /* x's shape with the strides that it gets in c */
    size_t bytes, end;
    memcpy(region.stride, t->params.region.stride, sizeof region.stride);
    if (!is_f32(x) || !span(&region, &bytes) || !geul_add_size(bytes, t->params.region.offset, &end) ||
        (bytes > 0 && end > geul_tensor_bytes(c)))
        return refuse(t, "the region must lie inside what it is added to, x must be f32");
    return grown(t);
}

bool geul_shape_scatter(struct geul_tensor *t)
{
    const struct geul_tensor *c = t->src[0], *x = t->src[1];
    if (c->n_dims != 2 || x->n_dims != 2 || !is_f32(x) || c->shape[1] != x->shape[1] || !is_ids(t->src[2], x->shape[0]))
        return refuse(t, "c must be (V, C), x f32 (T, C) and the ids i32 (T)");
    return grown(t);
}

/* -------------------------------------------------------------------------------- optimizers -- */

bool geul_shape_norm2(struct geul_tensor *t)
{
    if (!is_f32(t->src[0]))
        return refuse(t, "the operand must be f32");
    return shaped(t, GEUL_TYPE_F32, 1, (int64_t[]){2});
}

/* The kinds of states that geul_optimizers.def names. */
enum state { STATE_NONE, STATE_WEIGHT, STATE_BLOCKS8, STATE_ROWS, STATE_COLUMNS };

/* The states that the optimizers keep, by their operations. */
static const enum state states[GEUL_OP_COUNT][GEUL_STATES_MAX] = {
#define OPTIMIZER(id, name, title, state0, state1, beta1, beta2, epsilon, weight_decay)                                \
    [GEUL_OP_##id] = {STATE_##state0, STATE_##state1},
#include "geul_optimizers.def"
#undef OPTIMIZER
};

/* What is wrong with a state that is not of its shape. */
static const char *const state_rules[] = {
    [STATE_NONE] = "the optimizer keeps fewer states",
    [STATE_WEIGHT] = "states must be f32 in the weight's shape",
    [STATE_BLOCKS8] = "8-bit states must be i32 (blocks of 256, 65)",
    [STATE_ROWS] = "the states must be f32: one value per row (1 for a vector) and one per column",
    [STATE_COLUMNS] = "the states must be f32: one value per row (1 for a vector) and one per column",
};

int geul_update_state(enum geul_op op, const struct geul_tensor *weight, int i, enum geul_type *type, int64_t shape[2])
{
    *type = GEUL_TYPE_F32;
    switch (i < GEUL_STATES_MAX ? states[op][i] : STATE_NONE) {
    case STATE_NONE:
        return 0;
    case STATE_BLOCKS8:
        *type = GEUL_TYPE_I32;
        shape[0] = (geul_tensor_elements(weight) + GEUL_STATE8_BLOCK - 1) / GEUL_STATE8_BLOCK;
        shape[1] = GEUL_STATE8_WORDS;
        return 2;
    case STATE_ROWS:
        shape[0] = weight->n_dims == 2 ? weight->shape[0] : 1;
        return 1;
    case STATE_COLUMNS:
        shape[0] = geul_cols(weight);
        return 1;
    case STATE_WEIGHT:
        break;
    }
    shape[0] = weight->shape[0];
    shape[1] = weight->shape[1];
    return weight->n_dims;
}

bool geul_shape_update(struct geul_tensor *t)
{
    /* operands: weight, gradient, states, hyper-parameters */
    const struct geul_tensor *weight = t->src[0], *hyper = t->src[t->n_src - 1];
    if (!is_f32(t->src[1]) || !same_shape(weight, t->src[1]) || weight->n_dims > 2)
        return refuse(t, "weight and gradient must be f32 of the same shape of at most 2 dimensions");
    for (int i = 0; i < t->n_src - 3; i++) {
        const struct geul_tensor *s = t->src[2 + i];
        enum geul_type type;
        int64_t shape[2];
        int n_dims = geul_update_state(t->op, weight, i, &type, shape);
        if (n_dims == 0 || s->type != type || s->n_dims != n_dims ||
            memcmp(s->shape, shape, (size_t)n_dims * sizeof *shape) != 0)
            return refuse(t, state_rules[states[t->op][i]]);
    }
    if (!is_f32(hyper) || hyper->n_dims != 1 || hyper->shape[0] != GEUL_HYPER_COUNT)
        return refuse(t, "the hyperparameters must be f32 (7)");
    return grown(t);
}
