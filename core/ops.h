/* ops.h: what is generated from ops.def: the operations, the declarations of their rules, and the table; and the
 * parameters of operations. */
#ifndef GEUL_OPS_H
#define GEUL_OPS_H

#include "core/context.h"

#define GEUL_MAX_DIMS 4

struct geul_gradients;

enum geul_op {
    GEUL_OP_LEAF, /* weights, caches, inputs: values come from outside the graph */
#define OP(id, ...) GEUL_OP_##id,
#include "core/ops.def"
#undef OP
    GEUL_OP_COUNT
};

struct geul_params_none {
    char unused;
};
struct geul_params_view {
    size_t offset;
}; /* bytes from the operand's first element */
struct geul_params_gelu {
    enum geul_gelu kind;
};
struct geul_params_norm {
    float eps;
};
struct geul_params_shape {
    int n_dims;
    int64_t shape[GEUL_MAX_DIMS];
};
struct geul_params_scale {
    float factor;
};
struct geul_params_dropout {
    float p;       /* share of elements that become 0; the others are divided by 1 - p */
    uint32_t salt; /* distinguishes the nodes of one graph */
};
struct geul_params_matmul {
    enum geul_precision precision;
};
struct geul_params_loss {
    float smoothing; /* share of the target's probability that is spread over all classes */
    float z;         /* weight of the squared logarithm of the softmax's denominator */
};
struct geul_params_region {
    size_t offset; /* bytes from operand 0's first element; shape is operand 1's */
    size_t stride[GEUL_MAX_DIMS];
};
struct geul_params_update {
    bool decay; /* whether weight decay applies */
};
struct geul_params_rope {
    int n_rot;
    float base;
    bool back; /* rotates the other way */
};
struct geul_params_attention {
    float scale;
};

union geul_op_params {
    struct geul_params_none none;
    struct geul_params_view view;
    struct geul_params_shape shape;
    struct geul_params_scale scale;
    struct geul_params_dropout dropout;
    struct geul_params_gelu gelu;
    struct geul_params_norm norm;
    struct geul_params_matmul matmul;
    struct geul_params_loss loss;
    struct geul_params_region region;
    struct geul_params_update update;
    struct geul_params_rope rope;
    struct geul_params_attention attention;
};

enum geul_layout { GEUL_LAYOUT_ANY, GEUL_LAYOUT_ROWS, GEUL_LAYOUT_DENSE, GEUL_LAYOUT_VIEW };
enum { GEUL_FLAG_INPLACE = 1, GEUL_FLAG_WRITES = 2 };

/* The rules, each of which may serve several rows (declaring it again does no harm). A shape rule checks t->src and
 * fills type, shape and strides; false with the reason in t's context (shape.c). A backward rule turns dy, the gradient
 * of t, into those of t's operands (backward.c, with the calls of autodiff.h). */
#define OP(id, name, src, opt, params, shape, layout, flags, backward)                                                 \
    bool geul_shape_##shape(struct geul_tensor *t);                                                                    \
    void geul_backward_##backward(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy);
#include "core/ops.def"
#undef OP

/* One row of ops.def. */
struct geul_op_info {
    const char *name;
    int n_src;
    int n_optional;      /* operands at the end that may be absent */
    size_t params_bytes; /* of its member of union geul_op_params */
    enum geul_layout layout;
    unsigned flags;
    bool (*shape)(struct geul_tensor *t);
    void (*backward)(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *dy);
};
const struct geul_op_info *geul_op_info(enum geul_op op);

#endif
