/* rounded.c: rows of activations rounded to int8 (struct cuda_int8_rows): once for all products that read them, and by
 * the kernel that computes them where it can.
 *
 * Rounding is by groups of 32 values in memory's order, so a contiguous tensor and another shape of it have the same
 * block: it is kept under the tensor that has no view below it. Any other view has a block of its own. */
#include "backends/cuda/matvec.h"
#include "backends/cuda/prepare.h"

enum { GROUP = 32 };

size_t geul_cuda_rounded_bytes(int64_t n_rows, int64_t n_cols)
{
    size_t n = (size_t)n_rows * (size_t)n_cols;
    return n + n / GROUP * (sizeof(float) + sizeof(int32_t));
}

struct cuda_int8_rows geul_cuda_rounded_at(void *block, int64_t n_rows, int64_t n_cols)
{
    size_t n = (size_t)n_rows * (size_t)n_cols, groups = n / GROUP * sizeof(float);
    uint8_t *q = block;
    return (struct cuda_int8_rows){(int8_t *)q, (float *)(void *)(q + n), (int32_t *)(void *)(q + n + groups)};
}

/* The tensor under which rows of x are kept. */
static const struct geul_tensor *below(const struct geul_tensor *x)
{
    while (x->op == GEUL_OP_VIEW && geul_is_contiguous(x) && geul_is_contiguous(x->src[0]) &&
           geul_cols(x->src[0]) % GROUP == 0 && geul_tensor_bytes(x) == geul_tensor_bytes(x->src[0]))
        x = x->src[0];
    return x;
}

/* The block of rows of x, which is below() something; NULL when they are not there. */
static void *find_block(const struct cuda_plan_state *s, const struct geul_tensor *x)
{
    for (size_t i = 0; i < s->n_rows; i++)
        if (geul_cuda_same(s->rows[i].x, x))
            return s->rows[i].block;
    return NULL;
}

/* A new block for rows of x, kept up to the last reader of x. */
static void *new_block(struct cuda_plan *plan, const struct geul_tensor *x)
{
    struct cuda_plan_state *s = plan->state;
    int last = geul_cuda_last_reader(plan, x);
    void *block =
        geul_cuda_scratch(plan, geul_cuda_rounded_bytes(geul_rows(x), geul_cols(x)), last > plan->at ? last : plan->at);
    if (!geul_reserve(s->ctx, &s->rows, &s->most_rows, s->n_rows + 1, sizeof *s->rows))
        s->failed = true;
    else
        s->rows[s->n_rows++] = (struct cuda_kept_rows){x, block};
    return block;
}

void geul_cuda_emit_round(struct cuda_plan *plan, const struct geul_tensor *x, struct cuda_int8_rows out)
{
    bool packed = geul_is_contiguous(x);
    if (!packed && x->n_dims != 2) {
        geul_cuda_refuse(plan, GEUL_ERROR_UNSUPPORTED, "%s has %d dimensions with gaps: copy it first", x->name,
                         x->n_dims);
        return;
    }
    int64_t stride = packed ? geul_cols(x) : (int64_t)(x->stride[0] / sizeof(float));
    struct cuda_round args = {x->data, stride, geul_rows(x), geul_cols(x), out};
    geul_cuda_step(plan, "round", geul_cuda_launch_round, &args, sizeof args);
}

/* Remembers that the group of the present node reads x rounded. */
static void note_asked(struct cuda_plan_state *s, const struct geul_tensor *x)
{
    if (!geul_reserve(s->ctx, &s->asked, &s->most_asked, s->n_asked + 1, sizeof *s->asked))
        s->failed = true;
    else
        s->asked[s->n_asked++] = (struct cuda_asked){x, s->group};
}

struct cuda_int8_rows geul_cuda_round(struct cuda_plan *plan, const struct geul_tensor *x)
{
    struct cuda_plan_state *s = plan->state;
    const struct geul_tensor *kept = below(x);
    if (s->pass == CUDA_ASK)
        note_asked(s, kept);
    void *block = find_block(s, kept);
    if (block)
        return geul_cuda_rounded_at(block, geul_rows(x), geul_cols(x));
    struct cuda_int8_rows out = geul_cuda_rounded_at(new_block(plan, kept), geul_rows(x), geul_cols(x));
    s->kernels->round(plan, x, out);
    return out;
}

/* Whether node number i, a reader of t, has asked for t rounded, and reads it in no other way. */
static bool reads_rounded(const struct cuda_plan *plan, int i, const struct geul_tensor *t)
{
    const struct cuda_plan_state *s = plan->state;
    const struct geul_tensor *node = plan->nodes[i];
    if (node->op != GEUL_OP_MATMUL)
        return false;
    for (int k = 1; k < node->n_src; k++)
        if (node->src[k] && geul_cuda_is_view_of(node->src[k], t))
            return false;
    for (size_t a = 0; a < s->n_asked; a++)
        if (s->asked[a].group == s->group_of[i] && geul_cuda_same(s->asked[a].x, t))
            return true;
    return false;
}

void *geul_cuda_leave_rounded(struct cuda_plan *plan, const struct geul_tensor *t, bool *only)
{
    struct cuda_plan_state *s = plan->state;
    *only = false;
    bool wanted = false;
    for (size_t a = 0; a < s->n_asked && s->pass != CUDA_ASK; a++)
        wanted = wanted || geul_cuda_same(s->asked[a].x, t);
    if (!wanted || geul_cols(t) % GROUP)
        return NULL;
    *only = !t->kept && !t->output;
    for (int i = 0; i < plan->n_nodes && *only; i++)
        for (int k = 0; k < plan->nodes[i]->n_src; k++)
            if (plan->nodes[i]->src[k] && geul_cuda_is_view_of(plan->nodes[i]->src[k], t))
                *only = *only && reads_rounded(plan, i, t);
    void *block = find_block(s, t);
    return block ? block : new_block(plan, t);
}

/* The tensor whose memory t lives in. */
static const struct geul_tensor *root_of(const struct geul_tensor *t)
{
    while (t->op == GEUL_OP_VIEW || (geul_cuda_op_flags(t->op) & GEUL_FLAG_WRITES))
        t = t->src[0];
    return t;
}

void geul_cuda_forget_rows(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct cuda_plan_state *s = plan->state;
    if (!(geul_cuda_op_flags(node->op) & GEUL_FLAG_WRITES))
        return;
    size_t kept = 0;
    for (size_t i = 0; i < s->n_rows; i++)
        if (!geul_cuda_same(root_of(s->rows[i].x), root_of(node)))
            s->rows[kept++] = s->rows[i];
    s->n_rows = kept;
}
