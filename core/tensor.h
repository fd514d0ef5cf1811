/* tensor.h: the tensor behind the public handle, and what ops.def makes of itself. */
#ifndef GEUL_TENSOR_INTERNAL_H
#define GEUL_TENSOR_INTERNAL_H

#include "core/context.h"

#define GEUL_MAX_DIMS 4
#define GEUL_MAX_SRC  4
#define GEUL_MAX_NAME 64

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
struct geul_params_rope {
    int n_rot;
    float base;
};
struct geul_params_attention {
    float scale;
};

union geul_op_params {
    struct geul_params_none none;
    struct geul_params_view view;
    struct geul_params_gelu gelu;
    struct geul_params_norm norm;
    struct geul_params_rope rope;
    struct geul_params_attention attention;
};

enum geul_layout { GEUL_LAYOUT_ANY, GEUL_LAYOUT_ROWS, GEUL_LAYOUT_DENSE, GEUL_LAYOUT_VIEW };
enum { GEUL_FLAG_INPLACE = 1, GEUL_FLAG_WRITES = 2 };

/* The backward column: what is known about an op's gradient. A name that is not here does not compile. */
enum geul_backward {
    GEUL_BACKWARD_todo,    /* comes with the training issue; a graph that needs it is refused */
    GEUL_BACKWARD_nondiff, /* writes a cache; no gradient flows through it */
};

struct geul_buffer;

struct geul_tensor {
    enum geul_type type;
    enum geul_op op;
    int n_dims;
    int n_src;
    int64_t shape[GEUL_MAX_DIMS]; /* shape[0] outermost; unused dimensions are 1 */
    size_t stride[GEUL_MAX_DIMS]; /* bytes from one index to the next; for block_dim of a block type, bytes
                                     per BLOCK */
    int block_dim; /* the dimension that the blocks of a block type lie along: the last, until a transpose moves it */
    struct geul_tensor *src[GEUL_MAX_SRC];
    union geul_op_params params;
    struct geul_buffer *buffer; /* where the values are; NULL before planning */
    void *data;                 /* address of the first element in the buffer's device; only that backend may
                                   dereference it */
    struct geul_context *ctx;
    struct geul_tensor *previous; /* the tensor made before this one in ctx */
    uint32_t mark;                /* scratch of graph.c; while planning, its index in the graph */
    bool input;                   /* a leaf whose place comes from planning and whose values come from the caller */
    bool output;                  /* values must survive until the run ends */
    char name[GEUL_MAX_NAME];
};

/* One row of ops.def. */
struct geul_op_info {
    const char *name;
    int n_src;
    int n_optional; /* operands at the end that may be absent */
    enum geul_layout layout;
    unsigned flags;
    bool (*shape)(struct geul_tensor *t); /* checks t->src, fills type/shape/stride; records the failure */
    enum geul_backward backward;
};
const struct geul_op_info *geul_op_info(enum geul_op op);

/* A leaf that lives at data in buffer (weights, caches). Strides are contiguous. */
struct geul_tensor *geul_leaf(struct geul_context *ctx, enum geul_type type, int n_dims, const int64_t *shape,
                              const char *name, struct geul_buffer *buffer, void *data);
/* The general builder: allocates a node, runs the shape rule. NULL when a required operand is NULL or the rule fails.*/
struct geul_tensor *geul_node(struct geul_context *ctx, enum geul_op op, struct geul_tensor *const *src, int n_src,
                              const union geul_op_params *params);
/* Renames t (printf style); returns t; NULL is passed through. */
struct geul_tensor *geul_named(struct geul_tensor *t, const char *format, ...) GEUL_PRINTF(2, 3);

/* Bytes of a contiguous tensor of that type and shape. false on overflow, negative sizes or a last dimension that is
 * not a multiple of the block. */
bool geul_shape_bytes(enum geul_type type, int n_dims, const int64_t *shape, size_t *bytes);
/* Fills stride[] for a contiguous layout. */
void geul_set_contiguous(struct geul_tensor *t);
bool geul_is_contiguous(const struct geul_tensor *t);
/* Whether t's operands satisfy the layout column of its op. */
bool geul_layout_fits(const struct geul_tensor *t);
/* The last dimension, and the product of the others. */
int64_t geul_cols(const struct geul_tensor *t);
int64_t geul_rows(const struct geul_tensor *t);
/* "(4, 64)" into text; returns text. */
const char *geul_shape_text(const struct geul_tensor *t, char *text, size_t size);

/* codec.c, the reference of every block type: n elements, a multiple of the block. */
void geul_decode(enum geul_type type, const void *src, float *dst, int64_t n);
void geul_encode(enum geul_type type, const float *src, void *dst, int64_t n);
/* Exact IEEE conversions (round to nearest even). */
float geul_f16_to_f32(uint16_t h);
uint16_t geul_f32_to_f16(float f);
float geul_bf16_to_f32(uint16_t h);
uint16_t geul_f32_to_bf16(float f);

#endif
