/* tensor.h: the tensor behind the public handle, and the builders that gradients and optimizers need. */
#ifndef GEUL_TENSOR_INTERNAL_H
#define GEUL_TENSOR_INTERNAL_H

#include "core/ops.h"

#define GEUL_MAX_SRC  6
#define GEUL_MAX_NAME 64

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
    void *mirror; /* of an input: host memory that each run copies to the device; NULL: data is written itself */
    struct geul_context *ctx;
    struct geul_tensor *previous; /* the tensor made before this one in ctx */
    uint32_t serial;              /* how many were made before it */
    uint32_t mark;                /* scratch of graph.c; while planning, its index in the graph */
    bool input;                   /* a leaf whose memory comes from planning and whose values come from the caller */
    bool output;                  /* values must survive until the run ends */
    bool kept;                    /* while planned: not only nodes of its own segment read its values */
    char name[GEUL_MAX_NAME];
};

/* A leaf that lives at data in buffer (weights, caches). Strides are contiguous. */
struct geul_tensor *geul_leaf(struct geul_context *ctx, enum geul_type type, int n_dims, const int64_t *shape,
                              const char *name, struct geul_buffer *buffer, void *data);
/* What a weight update reads besides its tensors: a float32 input of GEUL_HYPER_COUNT values. */
enum geul_hyper {
    GEUL_HYPER_RATE,  /* learning rate */
    GEUL_HYPER_BETA1, /* this and the next three: as geul_optimizers.def says of each optimizer */
    GEUL_HYPER_BETA2,
    GEUL_HYPER_EPSILON,
    GEUL_HYPER_DECAY,
    GEUL_HYPER_STEP,           /* from 1 */
    GEUL_HYPER_GRADIENT_SCALE, /* gradients are multiplied by it first (clipping) */
    GEUL_HYPER_COUNT
};
/* An 8-bit state: values per block, and 32-bit words that a block takes (256 codes of a byte and a float32 scale). */
enum { GEUL_STATE8_BLOCK = 256, GEUL_STATE8_WORDS = 65 };
/* States of a weight that an optimizer keeps at most. */
enum { GEUL_STATES_MAX = 2 };
/* Type and shape of state i of a weight of at most 2 dimensions, for the optimizer whose operation is op. Returns the
 * number of dimensions, 0 when it keeps fewer states. */
int geul_update_state(enum geul_op op, const struct geul_tensor *weight, int i, enum geul_type *type, int64_t shape[2]);

/* Builders that only gradients and optimizers need; as those of geul_tensor.h. */
/* A tensor of zeros that nodes with the flag WRITES may add to. float32. */
struct geul_tensor *geul_zero(struct geul_context *ctx, int n_dims, const int64_t *shape);
/* dy (…) times the derivative of GELU at x (…). */
struct geul_tensor *geul_gelu_back(struct geul_context *ctx, struct geul_tensor *dy, struct geul_tensor *x,
                                   enum geul_gelu kind);
/* The gradient of x (…, C) in layernorm(x, weight, bias), given that of the result. */
struct geul_tensor *geul_norm_back(struct geul_context *ctx, struct geul_tensor *dy, struct geul_tensor *x,
                                   struct geul_tensor *weight, float eps);
/* The gradients of weight and bias there: (2, C). */
struct geul_tensor *geul_norm_sums(struct geul_context *ctx, struct geul_tensor *dy, struct geul_tensor *x, float eps);
/* The gradients of q, k and v (T, H, D) in y = attention(q, k, v, seq_pos, scale) over the tokens' own keys: (3, T, H,
 * D). Memory does not grow with T * T. */
struct geul_tensor *geul_attention_back(struct geul_context *ctx, struct geul_tensor *dy, struct geul_tensor *y,
                                        struct geul_tensor *q, struct geul_tensor *k, struct geul_tensor *v,
                                        struct geul_tensor *seq_pos, float scale);
/* The gradient of logits (R, V) in cross_entropy(), dy (R) being that of the losses. Rows whose dy is 0 are 0. */
struct geul_tensor *geul_loss_back(struct geul_context *ctx, struct geul_tensor *logits, struct geul_tensor *dy,
                                   struct geul_tensor *targets, struct geul_params_loss params);
/* c (M, N) += a (M, K) times b (K, N). Operands as matmul's; c float32, contiguous. These and the next three return c
 * after the sum: read it, not c, so that the order is kept. */
struct geul_tensor *geul_addmm(struct geul_context *ctx, struct geul_tensor *c, struct geul_tensor *a,
                               struct geul_tensor *b, enum geul_precision precision);
/* c += x, summed over x's leading dimensions where it has more than c (c's shape is a suffix of x's). */
struct geul_tensor *geul_accumulate(struct geul_context *ctx, struct geul_tensor *c, struct geul_tensor *x);
/* The part of contiguous c that region describes, in x's shape, += x. */
struct geul_tensor *geul_patch(struct geul_context *ctx, struct geul_tensor *c, struct geul_tensor *x,
                               struct geul_params_region region);
/* Rows ids (T) of c (V, C) += the rows of x (T, C), in order; ids outside of c are skipped. */
struct geul_tensor *geul_scatter(struct geul_context *ctx, struct geul_tensor *c, struct geul_tensor *x,
                                 struct geul_tensor *ids);
/* (2): the Euclidean norm of x over its finite values, and how many are not finite. */
struct geul_tensor *geul_norm2(struct geul_context *ctx, struct geul_tensor *x);
/* A step of an optimizer: changes weight and states, which are 0 before the first step, and sets gradient to 0. states
 * are as geul_update_state() says; those that op does not keep are not read. hyper is f32 (GEUL_HYPER_COUNT), read when
 * the graph runs. decay: whether weight decay applies. The arithmetic is that of torch.optim in float32, with every
 * decay decoupled; the bits are the same for every number of threads and instruction set of the CPU. */
struct geul_tensor *geul_update(struct geul_context *ctx, enum geul_op op, struct geul_tensor *weight,
                                struct geul_tensor *gradient, struct geul_tensor *const states[GEUL_STATES_MAX],
                                struct geul_tensor *hyper, bool decay);
/* geul_matmul() and geul_linear() at a chosen precision. */
struct geul_tensor *geul_matmul_at(struct geul_context *ctx, enum geul_precision precision, struct geul_tensor *a,
                                   struct geul_tensor *b);
struct geul_tensor *geul_linear_at(struct geul_context *ctx, enum geul_precision precision, struct geul_tensor *x,
                                   struct geul_tensor *weight, struct geul_tensor *bias, bool has_bias);

/* The general builder: allocates a node, runs the shape rule. NULL when a required operand is NULL or the rule fails.*/
struct geul_tensor *geul_node(struct geul_context *ctx, enum geul_op op, struct geul_tensor *const *src, int n_src,
                              const union geul_op_params *params);
/* A node that computes what t does, from src instead of t's operands; src are laid out as those. */
struct geul_tensor *geul_node_clone(struct geul_context *ctx, const struct geul_tensor *t,
                                    struct geul_tensor *const *src);
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
/* How many of the n values x, encoded as that type, are not finite numbers: those that were none before, and those that
 * the type cannot hold, which take their whole block along when it is the scale that is too large. */
int64_t geul_count_lost(enum geul_type type, const float *x, const void *encoded, int64_t n);
/* Whether weights may be of that type: all but i32. */
bool geul_type_is_weight(enum geul_type type);

#endif
