/* cuda_ops.c: which kernels there are: the dispatch array over core/ops.def. A family of kernels has a row for each of
 * its operations; those without one run on the CPU. */
#include "backends/cuda/prepare.h"

/* Those that have kernels. */
#define KERNELS(X)                                                                                                     \
    X(CONT)                                                                                                            \
    X(ZERO)                                                                                                            \
    X(ADD)                                                                                                             \
    X(SCALE)                                                                                                           \
    X(DROPOUT)                                                                                                         \
    X(GELU)                                                                                                            \
    X(LAYERNORM)                                                                                                       \
    X(MATMUL)                                                                                                          \
    X(ADDMM)                                                                                                           \
    X(EMBED)                                                                                                           \
    X(ROPE)                                                                                                            \
    X(STORE)                                                                                                           \
    X(ATTENTION)                                                                                                       \
    X(CROSS_ENTROPY)                                                                                                   \
    X(GELU_BACK)                                                                                                       \
    X(NORM_BACK)                                                                                                       \
    X(LOSS_BACK)                                                                                                       \
    X(ACCUMULATE)                                                                                                      \
    X(PATCH)

#define DECLARE(id) extern const struct cuda_op geul_cuda_op_##id;
KERNELS(DECLARE)
static const struct cuda_op *const ops[GEUL_OP_COUNT] = {
#define ROW(id) [GEUL_OP_##id] = &geul_cuda_op_##id,
    KERNELS(ROW)};

static const struct cuda_kernels kernels = {.ops = ops, .patterns = geul_cuda_patterns, .round = geul_cuda_emit_round};
const struct cuda_kernels *geul_cuda_kernels = &kernels;

const struct cuda_op *geul_cuda_op(enum geul_op op)
{
    return geul_cuda_kernels->ops[op];
}

/* From the table, without the shape and gradient rules that core's own has. */
static const struct {
    const char *name;
    unsigned flags;
} known[GEUL_OP_COUNT] = {
    {"leaf", 0},
#define INPLACE                                                        GEUL_FLAG_INPLACE
#define WRITES                                                         GEUL_FLAG_WRITES
#define OP(id, name, src, opt, params, shape, layout, flags, backward) {name, flags},
#include "core/ops.def"
#undef OP
#undef INPLACE
#undef WRITES
};

const char *geul_cuda_op_name(enum geul_op op)
{
    return known[op].name;
}

unsigned geul_cuda_op_flags(enum geul_op op)
{
    return known[op].flags;
}
