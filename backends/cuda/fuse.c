/* fuse.c: which nodes are computed together, in the order in which the patterns are tried.
 *
 * A pattern takes nodes that follow each other and does not change what they mean: it computes the same sums in the
 * same order, and stores every result that somebody else reads. What it has to look out for is memory. The planner of
 * core gives a result memory that is free from its node on, perhaps the operand's own; where nodes run in one launch,
 * the later results are written while operands of the earlier nodes are still read:
 *
 *     node        reads      writes     memory
 *     MATMUL      x, w       h          h lies apart from x
 *     GELU        h          g          g may lie where x was: x is not read after MATMUL
 *     together    x, w       g          g must lie apart from x
 *
 * An operand that is read element by element, where the same thread then writes the result's element, may be the
 * result's memory; it must not overlap it in another way. */
#include "backends/cuda/cuda_matmul.h"
#include "backends/cuda/cuda_norm.h"
#include "backends/cuda/cuda_rope.h"

#include <string.h>

/* Node `at` when it is of that operation, else NULL. */
static const struct geul_tensor *node_of(const struct cuda_plan *plan, int at, enum geul_op op)
{
    return at < plan->n_nodes && plan->nodes[at]->op == op ? plan->nodes[at] : NULL;
}

/* Whether one node reads t and nobody else will ever ask for its values, so that it need not be stored. */
static bool is_passed_on(const struct cuda_plan *plan, const struct geul_tensor *t)
{
    return !t->kept && !t->output && geul_cuda_readers(plan, t) == 1;
}

static bool same_shape(const struct geul_tensor *a, const struct geul_tensor *b)
{
    bool same = a->n_dims == b->n_dims;
    for (int d = 0; same && d < a->n_dims; d++)
        same = a->shape[d] == b->shape[d];
    return same;
}

/* Whether result may be written where operand is read element by element. */
static bool may_cover(const struct geul_tensor *result, const struct geul_tensor *operand)
{
    bool same = result->data == operand->data && same_shape(result, operand);
    for (int d = 0; same && d < result->n_dims; d++)
        same = result->stride[d] == operand->stride[d];
    return same || geul_cuda_apart(result, operand);
}

/* Whether result may be written while product's operands are read. */
static bool is_apart_from_product(const struct geul_tensor *result, const struct geul_tensor *product)
{
    bool apart = true;
    for (int k = 0; k < product->n_src; k++)
        apart = apart && (!product->src[k] || geul_cuda_apart(result, product->src[k]));
    return apart;
}

/* What sum, an ADD, adds to t, which it must read as one of its two sides and in its own shape; NULL otherwise. */
static const struct geul_tensor *added_to(const struct geul_tensor *sum, const struct geul_tensor *t)
{
    for (int k = 0; k < 2; k++) {
        const struct geul_tensor *other = sum->src[1 - k];
        if (geul_cuda_same(sum->src[k], t) && same_shape(sum, t) && same_shape(sum, other) && sum->n_dims == 2)
            return other;
    }
    return NULL;
}

/* --------------------------------------------------------------------------------------- norms -- */

/* Two norms of one x: the sums are made once, and rows are read once. */
static int fuse_norms(struct cuda_plan *plan, int at)
{
    const struct geul_tensor *a = node_of(plan, at, GEUL_OP_LAYERNORM), *b = node_of(plan, at + 1, GEUL_OP_LAYERNORM);
    if (!a || !b || !geul_cuda_same(a->src[0], b->src[0]) ||
        memcmp(&a->params.norm.eps, &b->params.norm.eps, sizeof a->params.norm.eps) != 0)
        return 0;
    const struct geul_tensor *const pair[] = {a, b};
    for (int i = 0; i < 2; i++) {
        if (!may_cover(pair[i], a->src[0]))
            return 0;
        for (int k = 1; k < 3; k++)
            if (!geul_cuda_apart(pair[i], a->src[k]) || !geul_cuda_apart(pair[i], b->src[k]))
                return 0;
    }
    if (!geul_cuda_apart(a, b))
        return 0;
    plan->at = at + 1;
    geul_cuda_emit_norms(plan, pair, 2);
    return 2;
}

/* ------------------------------------------------------------------------------------ products -- */

/* A product and the GELU of it. */
static int fuse_gelu(struct cuda_plan *plan, int at)
{
    const struct geul_tensor *h = node_of(plan, at, GEUL_OP_MATMUL), *g = node_of(plan, at + 1, GEUL_OP_GELU);
    if (!h || !g || !geul_cuda_same(g->src[0], h) || !is_passed_on(plan, h) || !is_apart_from_product(g, h))
        return 0;
    plan->at = at + 1;
    const struct cuda_product product = {
        .node = h, .result = g, .activation = g->params.gelu.kind == GEUL_GELU_TANH ? CUDA_GELU_TANH : CUDA_GELU_ERF};
    geul_cuda_emit_product(plan, &product);
    return 2;
}

/* A product and what it is added to: the residual stream, or the product that an adapter changes. */
static int fuse_add(struct cuda_plan *plan, int at)
{
    const struct geul_tensor *f = node_of(plan, at, GEUL_OP_MATMUL), *sum = node_of(plan, at + 1, GEUL_OP_ADD);
    const struct geul_tensor *x = f && sum ? added_to(sum, f) : NULL;
    if (!x || geul_cuda_same(x, f) || !is_passed_on(plan, f) || !is_apart_from_product(sum, f) || !may_cover(sum, x))
        return 0;
    plan->at = at + 1;
    const struct cuda_product product = {.node = f, .result = sum, .add = x};
    geul_cuda_emit_product(plan, &product);
    return 2;
}

/* The end of a layer with parallel residual: the output product a, the down product f, and x + (f + a): two launches,
 * the second of which adds both as the nodes do. */
static int fuse_residual(struct cuda_plan *plan, int at)
{
    const struct geul_tensor *a = node_of(plan, at, GEUL_OP_MATMUL), *f = node_of(plan, at + 1, GEUL_OP_MATMUL);
    const struct geul_tensor *sum = node_of(plan, at + 2, GEUL_OP_ADD), *y = node_of(plan, at + 3, GEUL_OP_ADD);
    const struct geul_tensor *first = f && sum ? added_to(sum, f) : NULL, *x = first && y ? added_to(y, sum) : NULL;
    if (!a || !x || !geul_cuda_same(first, a) || !is_passed_on(plan, f) || !is_passed_on(plan, sum) ||
        geul_cuda_same(x, f) || geul_cuda_same(x, sum) || !is_apart_from_product(y, f) || !may_cover(y, a) ||
        !may_cover(y, x))
        return 0;
    const struct cuda_product out = {.node = a, .result = a}, down = {.node = f, .result = y, .add = a, .then_add = x};
    plan->at = at;
    geul_cuda_emit_product(plan, &out);
    plan->at = at + 3;
    geul_cuda_emit_product(plan, &down);
    return 4;
}

cuda_pattern *const geul_cuda_patterns[] = {
    fuse_norms, geul_cuda_fuse_rope_stores, fuse_residual, fuse_gelu, fuse_add, NULL,
};
