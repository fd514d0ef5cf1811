/* cuda_embed.c: EMBED, and the losses: operations that look rows up. */
#include "backends/cuda/cuda.h"
#include "backends/cuda/embed.h"
#include "backends/cuda/loss.h"

static void emit_embed(struct cuda_plan *plan, const struct geul_tensor *node)
{
    const struct geul_tensor *table = node->src[0], *ids = node->src[1];
    struct cuda_embed args = {.type = (enum cuda_type)table->type,
                              .table = table->data,
                              .ids = ids->data,
                              .n_table = table->shape[0],
                              .row_bytes = (int64_t)table->stride[0],
                              .n_rows = geul_rows(node),
                              .n_cols = geul_cols(node),
                              .out = node->data};
    geul_cuda_step(plan, "embed", geul_cuda_launch_embed, &args, sizeof args);
}

static struct cuda_loss loss_of(const struct geul_tensor *node, const struct geul_tensor *targets)
{
    const struct geul_tensor *x = node->src[0];
    return (struct cuda_loss){.x = x->data,
                              .stride = (int64_t)(x->stride[0] / sizeof(float)),
                              .n_rows = x->shape[0],
                              .n = x->shape[1],
                              .targets = targets->data,
                              .smoothing = node->params.loss.smoothing,
                              .z = node->params.loss.z};
}

static void emit_loss(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct cuda_loss args = loss_of(node, node->src[1]);
    args.loss = node->data;
    geul_cuda_step(plan, "cross_entropy", geul_cuda_launch_loss, &args, sizeof args);
}

static void emit_loss_back(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct cuda_loss_back args = {.of = loss_of(node, node->src[2]), .dy = node->src[1]->data, .dx = node->data};
    geul_cuda_step(plan, "loss_back", geul_cuda_launch_loss_back, &args, sizeof args);
}

const struct cuda_op geul_cuda_op_EMBED = {.emit = emit_embed};
const struct cuda_op geul_cuda_op_CROSS_ENTROPY = {.emit = emit_loss};
const struct cuda_op geul_cuda_op_LOSS_BACK = {.emit = emit_loss_back};
