/* fuse.c: which nodes are computed together, in the order in which the patterns are tried.
 *
 * A pattern takes nodes that follow each other and does not change what they mean: it computes the same sums in the
 * same order, and stores every result that somebody else reads. What it has to look out for is memory. The planner of
 * core gives a result memory that is free from its node on, for one it is the operand's own; where nodes run in one
 * launch the later results are written while operands of the earlier nodes are still read:
 *
 *     node        reads      writes     memory
 *     MATMUL      x, w       h          h lies apart from x
 *     GELU        h          g          g may lie where x was: x is not read after MATMUL
 *     together    x, w       g          g must lie apart from x
 *
 * An operand that is read element by element, where the same thread writes the result's element afterwards, may be the
 * result's memory; it must not overlap it in another way. */
#include "backends/cuda/cuda_norm.h"

#include <string.h>

/* Node `at` when it is of that operation, else NULL. */
static const struct geul_tensor *node_of(const struct cuda_plan *plan, int at, enum geul_op op)
{
    return at < plan->n_nodes && plan->nodes[at]->op == op ? plan->nodes[at] : NULL;
}

static bool same_place(const struct geul_tensor *a, const struct geul_tensor *b)
{
    bool same = a->data == b->data && a->n_dims == b->n_dims;
    for (int d = 0; same && d < a->n_dims; d++)
        same = a->shape[d] == b->shape[d] && a->stride[d] == b->stride[d];
    return same;
}

/* Whether result may be written where operand is read element by element. */
static bool may_cover(const struct geul_tensor *result, const struct geul_tensor *operand)
{
    return same_place(result, operand) || geul_cuda_apart(result, operand);
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

cuda_pattern *const geul_cuda_patterns[] = {fuse_norms, NULL};
