/* ops.c: the table of operations, out of ops.def. */
#include "core/ops.h"

#include "core/autodiff.h"
#include "core/shape.h"

/* A GPU column says N until its backend has a dispatch array; a Y before that does not compile. */
#define OP(id, name, src, opt, params, shape, layout, flags, backward, gpu1, gpu2)                                     \
    _Static_assert(GEUL_KERNEL_##gpu1 + GEUL_KERNEL_##gpu2 == 0, name " claims a kernel that nobody wrote");
enum { GEUL_KERNEL_N = 0 };
#include "core/ops.def"
#undef OP

static const struct geul_op_info infos[GEUL_OP_COUNT] = {
    [GEUL_OP_LEAF] = {.name = "leaf"},
#define OP(id, name, src, opt, params, shape, layout, flags, backward, gpu1, gpu2)                                     \
    [GEUL_OP_##id] = {                                                                                                 \
        name, src, opt, GEUL_LAYOUT_##layout, GEUL_FLAGS_##flags, geul_shape_##shape, geul_backward_##backward},
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
