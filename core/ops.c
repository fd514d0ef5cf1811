/* ops.c: the table of operations, out of ops.def. */
#include "core/ops.h"

#include "core/autodiff.h"
#include "core/shape.h"

static const struct geul_op_info infos[GEUL_OP_COUNT] = {
    [GEUL_OP_LEAF] = {.name = "leaf"},
#define OP(id, name, src, opt, params, shape, layout, flags, backward)                                                 \
    [GEUL_OP_##id] = {name,                                                                                            \
                      src,                                                                                             \
                      opt,                                                                                             \
                      sizeof((union geul_op_params *)NULL)->params,                                                    \
                      GEUL_LAYOUT_##layout,                                                                            \
                      GEUL_FLAGS_##flags,                                                                              \
                      geul_shape_##shape,                                                                              \
                      geul_backward_##backward},
#define GEUL_FLAGS_0       0
#define GEUL_FLAGS_INPLACE GEUL_FLAG_INPLACE
#define GEUL_FLAGS_WRITES  GEUL_FLAG_WRITES
#include "core/ops.def"
#undef OP
};

const struct geul_op_info *geul_op_info(enum geul_op op)
{
    return &infos[op];
}

bool geul_layout_fits(const struct geul_tensor *t)
{
    enum geul_layout layout = infos[t->op].layout;
    for (int i = 0; i < t->n_src; i++) {
        const struct geul_tensor *s = t->src[i];
        if (!s)
            continue;
        bool rows = s->stride[s->n_dims - 1] == geul_type_bytes(s->type) &&
                    (geul_type_block(s->type) == 1 || s->block_dim == s->n_dims - 1);
        if (layout == GEUL_LAYOUT_ROWS && !rows)
            return false;
        if (layout == GEUL_LAYOUT_DENSE && !geul_is_contiguous(s))
            return false;
    }
    return true;
}
