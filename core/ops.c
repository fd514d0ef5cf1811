/* ops.c: the table of operations, generated from ops.def. */
#include "core/ops.h"

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
