/* cuda_rope.c: ROPE and STORE, alone and together (cuda_rope.h). */
#include "backends/cuda/cuda_rope.h"

#include "backends/cuda/rope_store.h"

#include <string.h>

struct cuda_heads geul_cuda_heads(const struct geul_tensor *t)
{
    return (struct cuda_heads){t->data, (int64_t)(t->stride[0] / sizeof(float)),
                               (int64_t)(t->stride[1] / sizeof(float))};
}

struct cuda_cache geul_cuda_cache(const struct geul_tensor *t)
{
    struct cuda_cache c = {.data = t->data, .type = (enum cuda_type)t->type};
    if (t->n_dims == 3) {
        c.position_stride = (int64_t)t->stride[0];
        c.head_stride = (int64_t)t->stride[1];
        return c;
    }
    c.n_sequences = t->shape[0];
    c.n_positions = t->shape[2];
    c.sequence_stride = (int64_t)t->stride[0];
    c.head_stride = (int64_t)t->stride[1];
    c.position_stride = (int64_t)t->stride[2];
    return c;
}

struct cuda_places geul_cuda_places(const struct geul_tensor *t)
{
    return (struct cuda_places){t->data, (int64_t)(t->stride[0] / sizeof(int32_t))};
}

/* Tokens of x (T, H, D), nothing rotated yet. */
static struct cuda_rope_store args_of(const struct geul_tensor *x, const struct geul_tensor *seq_pos)
{
    return (struct cuda_rope_store){
        .places = geul_cuda_places(seq_pos), .n_tokens = x->shape[0], .n_heads = x->shape[1], .depth = x->shape[2]};
}

static void rotate_by(struct cuda_rope_store *args, struct geul_params_rope p)
{
    args->n_rot = p.n_rot;
    args->base = p.base;
    args->back = p.back;
    geul_cuda_rope_frequencies(args);
}

/* A block is a token and some of its heads. */
static bool fits_grid(const struct geul_tensor *x)
{
    return x->shape[0] <= INT32_MAX && x->shape[1] <= INT32_MAX / CUDA_ROPE_PARTS && x->shape[2] <= INT32_MAX;
}

/* ---------------------------------------------------------------------------------- each alone -- */

static bool rope_supports(const struct cuda_card *card, const struct geul_tensor *t)
{
    (void)card;
    return fits_grid(t) && t->params.rope.n_rot <= CUDA_ROPE_MOST;
}

static void emit_rope(struct cuda_plan *plan, const struct geul_tensor *t)
{
    struct cuda_rope_store args = args_of(t, t->src[1]);
    rotate_by(&args, t->params.rope);
    args.n_parts = 1;
    args.part[0] = (struct cuda_rope_part){.x = geul_cuda_heads(t->src[0]), .out = geul_cuda_heads(t), .rotates = true};
    geul_cuda_step(plan, "rope", geul_cuda_launch_rope_store, &args, sizeof args);
}

/* Types that a cache has and the kernel encodes. */
static bool has_encoder(enum geul_type type)
{
    return type == GEUL_TYPE_F32 || type == GEUL_TYPE_F16 || type == GEUL_TYPE_BF16 || type == GEUL_TYPE_Q8_0;
}

static bool store_supports(const struct cuda_card *card, const struct geul_tensor *t)
{
    (void)card;
    return has_encoder(t->src[0]->type) && fits_grid(t->src[1]);
}

static void emit_store(struct cuda_plan *plan, const struct geul_tensor *t)
{
    struct cuda_rope_store args = args_of(t->src[1], t->src[2]);
    args.n_parts = 1;
    args.part[0] = (struct cuda_rope_part){.x = geul_cuda_heads(t->src[1]), .cache = geul_cuda_cache(t)};
    geul_cuda_step(plan, "store", geul_cuda_launch_rope_store, &args, sizeof args);
}

const struct cuda_op geul_cuda_op_ROPE = {.supports = rope_supports, .emit = emit_rope};
const struct cuda_op geul_cuda_op_STORE = {.supports = store_supports, .emit = emit_store};

/* ------------------------------------------------------------------------------------ together -- */

/* The nodes of the pattern. */
struct rope_stores {
    const struct geul_tensor *q, *k, *store_k, *store_v;
};

static bool same_rotation(const struct geul_tensor *a, const struct geul_tensor *b)
{
    const struct geul_params_rope *x = &a->params.rope, *y = &b->params.rope;
    return x->n_rot == y->n_rot && memcmp(&x->base, &y->base, sizeof x->base) == 0 && x->back == y->back;
}

static bool same_heads(const struct geul_tensor *a, const struct geul_tensor *b)
{
    return a->shape[0] == b->shape[0] && a->shape[1] == b->shape[1] && a->shape[2] == b->shape[2];
}

static bool find_rope_stores(const struct cuda_plan *plan, int at, struct rope_stores *f)
{
    static const enum geul_op ops[] = {GEUL_OP_ROPE, GEUL_OP_ROPE, GEUL_OP_STORE, GEUL_OP_STORE};
    enum { N = sizeof ops / sizeof *ops };
    for (int i = 0; i < N; i++)
        if (at + i >= plan->n_nodes || plan->nodes[at + i]->op != ops[i])
            return false;
    *f = (struct rope_stores){plan->nodes[at], plan->nodes[at + 1], plan->nodes[at + 2], plan->nodes[at + 3]};
    const struct geul_tensor *v = f->store_v->src[1], *places = f->q->src[1];
    return same_rotation(f->q, f->k) && same_heads(f->q, f->k) && same_heads(f->q, v) &&
           geul_cuda_same(f->k->src[1], places) && geul_cuda_same(f->store_k->src[2], places) &&
           geul_cuda_same(f->store_v->src[2], places) && geul_cuda_same(f->store_k->src[1], f->k) &&
           !geul_cuda_is_view_of(v, f->q) && !geul_cuda_is_view_of(v, f->k) && geul_cuda_readers(plan, f->k) == 1 &&
           !f->k->kept && !f->k->output;
}

/* Whether Q may be written while everything else is still read: it lies apart, or takes its own operand's place. */
static bool q_may_be_written(const struct rope_stores *f)
{
    const struct geul_tensor *x = f->q->src[0];
    bool in_place = f->q->data == x->data && f->q->stride[0] == x->stride[0] && f->q->stride[1] == x->stride[1];
    return (in_place || geul_cuda_apart(f->q, x)) && geul_cuda_apart(f->q, f->k->src[0]) &&
           geul_cuda_apart(f->q, f->store_v->src[1]) && geul_cuda_apart(f->store_k, f->store_v);
}

int geul_cuda_fuse_rope_stores(struct cuda_plan *plan, int at)
{
    struct rope_stores f;
    if (!find_rope_stores(plan, at, &f) || !q_may_be_written(&f))
        return 0;
    struct cuda_rope_store args = args_of(f.q, f.q->src[1]);
    rotate_by(&args, f.q->params.rope);
    args.n_parts = 3;
    args.part[0] =
        (struct cuda_rope_part){.x = geul_cuda_heads(f.q->src[0]), .out = geul_cuda_heads(f.q), .rotates = true};
    args.part[1] = (struct cuda_rope_part){
        .x = geul_cuda_heads(f.k->src[0]), .cache = geul_cuda_cache(f.store_k), .rotates = true};
    args.part[2] =
        (struct cuda_rope_part){.x = geul_cuda_heads(f.store_v->src[1]), .cache = geul_cuda_cache(f.store_v)};
    plan->at = at + 3;
    geul_cuda_step(plan, "rope and stores", geul_cuda_launch_rope_store, &args, sizeof args);
    return 4;
}
