/* cuda_elementwise.c: ADD, SCALE, GELU, GELU_BACK, DROPOUT, CONT, ZERO, ACCUMULATE and PATCH. */
#include "backends/cuda/cuda_shapes.h"
#include "backends/cuda/elementwise.h"
#include "backends/cuda/embed.h"

#include <string.h>

/* The step that computes `out`, of node's shape or a view of it, from a and b (NULL: not read). */
static void emit(struct cuda_plan *plan, const char *what, struct cuda_elementwise *args, const struct geul_tensor *out,
                 const struct geul_tensor *a, const struct geul_tensor *b)
{
    const struct geul_tensor *const tensors[] = {out, a, b};
    struct cuda_shape s = geul_cuda_shape(tensors, !a ? 1 : !b ? 2 : 3);
    args->leading = s.leading;
    args->n_rows = s.n_rows;
    args->n_cols = s.n_cols;
    args->out = s.operand[0];
    args->a = s.operand[1];
    args->b = s.operand[2];
    geul_cuda_step(plan, what, geul_cuda_launch_elementwise, args, sizeof *args);
}

static void emit_add(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct cuda_elementwise args = {.kind = CUDA_ADD};
    emit(plan, "add", &args, node, node->src[0], node->src[1]);
}

static void emit_scale(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct cuda_elementwise args = {.kind = CUDA_SCALE, .factor = node->params.scale.factor};
    emit(plan, "scale", &args, node, node->src[0], NULL);
}

static enum cuda_activation activation_of(const struct geul_tensor *node)
{
    return node->params.gelu.kind == GEUL_GELU_TANH ? CUDA_GELU_TANH : CUDA_GELU_ERF;
}

static void emit_gelu(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct cuda_elementwise args = {.kind = CUDA_GELU, .activation = activation_of(node)};
    bool only;
    void *block = geul_cuda_leave_rounded(plan, node, &only);
    if (block)
        args.rounded = geul_cuda_rounded_at(block, geul_rows(node), geul_cols(node));
    args.no_out = block && only;
    emit(plan, "gelu", &args, node, node->src[0], NULL);
}

static void emit_gelu_back(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct cuda_elementwise args = {.kind = CUDA_GELU_BACK, .activation = activation_of(node)};
    emit(plan, "gelu_back", &args, node, node->src[0], node->src[1]);
}

static void emit_dropout(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct geul_params_dropout p = node->params.dropout;
    struct cuda_elementwise args = {.kind = CUDA_DROPOUT,
                                    .factor = 1 / (1 - p.p),
                                    .seed = node->src[1]->data,
                                    .salt = p.salt,
                                    .limit = (uint32_t)((double)p.p * 0x1p32)};
    emit(plan, "dropout", &args, node, node->src[0], NULL);
}

static void emit_zero(struct cuda_plan *plan, const struct geul_tensor *node)
{
    struct cuda_elementwise args = {.kind = CUDA_ZERO};
    emit(plan, "zero", &args, node, NULL, NULL);
}

static void emit_cont(struct cuda_plan *plan, const struct geul_tensor *node)
{
    const struct geul_tensor *x = node->src[0];
    if (geul_type_block(x->type) == 1) {
        struct cuda_elementwise args = {.kind = CUDA_COPY, .type = (enum cuda_type)x->type};
        emit(plan, "copy", &args, node, x, NULL);
        return;
    }
    struct cuda_embed args = {.type = (enum cuda_type)x->type,
                              .table = x->data,
                              .n_rows = geul_rows(x),
                              .n_cols = geul_cols(x),
                              .out = node->data};
    geul_cuda_rows(x, 1, &args.leading, args.stride);
    geul_cuda_step(plan, "copy blocks", geul_cuda_launch_embed, &args, sizeof args);
}

/* x's leading dimensions repeat c's shape. */
static void emit_accumulate(struct cuda_plan *plan, const struct geul_tensor *node)
{
    const struct geul_tensor *c = node->src[0], *x = node->src[1];
    struct geul_tensor one = *x, over = *x; /* one of the terms, and their numbers as rows of one column */
    int more = x->n_dims - c->n_dims;
    one.n_dims = c->n_dims;
    memmove(one.shape, x->shape + more, (size_t)c->n_dims * sizeof *one.shape);
    memmove(one.stride, x->stride + more, (size_t)c->n_dims * sizeof *one.stride);
    over.n_dims = more + 1;
    over.shape[more] = 1;
    const struct geul_tensor *const tensors[] = {c, &one};
    struct cuda_shape s = geul_cuda_shape(tensors, 2);
    struct cuda_accumulate args = {.leading = s.leading,
                                   .n_rows = s.n_rows,
                                   .n_cols = s.n_cols,
                                   .times = geul_rows(&over),
                                   .out = s.operand[0],
                                   .x = s.operand[1]};
    geul_cuda_rows(&over, sizeof(float), &args.over, args.over_stride);
    geul_cuda_step(plan, "accumulate", geul_cuda_launch_accumulate, &args, sizeof args);
}

static void emit_patch(struct cuda_plan *plan, const struct geul_tensor *node)
{
    const struct geul_tensor *x = node->src[1];
    struct geul_tensor region = *x;
    region.data = (uint8_t *)node->data + node->params.region.offset;
    memcpy(region.stride, node->params.region.stride, sizeof region.stride);
    struct cuda_elementwise args = {.kind = CUDA_ADD};
    emit(plan, "patch", &args, &region, &region, x);
}

const struct cuda_op geul_cuda_op_ADD = {.emit = emit_add};
const struct cuda_op geul_cuda_op_SCALE = {.emit = emit_scale};
const struct cuda_op geul_cuda_op_GELU = {.emit = emit_gelu};
const struct cuda_op geul_cuda_op_GELU_BACK = {.emit = emit_gelu_back};
const struct cuda_op geul_cuda_op_DROPOUT = {.emit = emit_dropout};
const struct cuda_op geul_cuda_op_ZERO = {.emit = emit_zero};
const struct cuda_op geul_cuda_op_CONT = {.emit = emit_cont};
const struct cuda_op geul_cuda_op_ACCUMULATE = {.emit = emit_accumulate};
const struct cuda_op geul_cuda_op_PATCH = {.emit = emit_patch};
