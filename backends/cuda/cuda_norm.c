/* cuda_norm.c: LAYERNORM and NORM_BACK; and two norms of one x, a pattern of fuse.c. */
#include "backends/cuda/cuda_norm.h"

#include "backends/cuda/cuda_shapes.h"
#include "backends/cuda/norm.h"

/* Where node's result goes: into memory, or rounded to where the products that read it look for it, or both. */
static struct cuda_norm_result result_of(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct cuda_norm_result r = {.weight = node->src[1]->data, .bias = node->src[2]->data, .y = node->data};
    bool only;
    void *block = geul_cuda_leave_rounded(plan, node, &only);
    if (block)
        r.rounded = geul_cuda_rounded_at(block, geul_rows(node), geul_cols(node));
    if (block && only)
        r.y = NULL;
    return r;
}

void geul_cuda_emit_norms(struct cuda_plan *plan, const struct geul_tensor *const *nodes, int n)
{
    const struct geul_tensor *x = nodes[0]->src[0];
    struct cuda_norm args = {
        .x = x->data, .n_rows = geul_rows(x), .n_cols = geul_cols(x), .eps = nodes[0]->params.norm.eps, .n_results = n};
    geul_cuda_rows(x, sizeof(float), &args.leading, args.stride);
    for (int i = 0; i < n; i++)
        args.result[i] = result_of(plan, nodes[i]);
    geul_cuda_step(plan, n == 1 ? "norm" : "norm pair", geul_cuda_launch_norm, &args, sizeof args);
}

static void emit_norm(struct cuda_plan *plan, const struct geul_tensor *node)
{
    geul_cuda_emit_norms(plan, &node, 1);
}

static void emit_norm_back(struct cuda_plan *plan, const struct geul_tensor *node)
{
    const struct geul_tensor *dy = node->src[0], *x = node->src[1];
    struct cuda_norm_back args = {.dy = {.data = dy->data, .step = 1},
                                  .x = {.data = x->data, .step = 1},
                                  .weight = node->src[2]->data,
                                  .dx = node->data,
                                  .n_rows = geul_rows(x),
                                  .n_cols = geul_cols(x),
                                  .eps = node->params.norm.eps};
    geul_cuda_rows(dy, sizeof(float), &args.leading, args.dy.stride);
    geul_cuda_rows(x, sizeof(float), &args.leading, args.x.stride);
    geul_cuda_step(plan, "norm_back", geul_cuda_launch_norm_back, &args, sizeof args);
}

const struct cuda_op geul_cuda_op_LAYERNORM = {.emit = emit_norm};
const struct cuda_op geul_cuda_op_NORM_BACK = {.emit = emit_norm_back};
