/* geul_tensor.h: contexts, tensors, graphs and the devices they run on.
 *
 *     struct geul_context *ctx = geul_context_new(NULL);
 *     struct geul_runtime *rt  = geul_runtime_new(ctx, NULL);             // the CPU, all cores
 *
 *     struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){4, 64}, "x");
 *     struct geul_tensor *y = geul_gelu(ctx, geul_add(ctx, x, x), GEUL_GELU_ERF);
 *     struct geul_graph  *g = geul_graph_new(ctx, &y, 1);                 // NULL if any builder failed
 *     if (!g || geul_runtime_plan(rt, g) != GEUL_OK || geul_tensor_write(x, data, sizeof data) != GEUL_OK ||
 *         geul_runtime_run(rt, g) != GEUL_OK || geul_tensor_read(y, out, sizeof out) != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *
 *     geul_runtime_free(rt);
 *     geul_context_free(ctx);                                             // tensors and graphs go with it
 *
 * Conventions  Row-major, shape[0] outermost (PyTorch's order), at most 4 dimensions, strides in bytes.
 * Lifetime     Tensors and graphs live in their context's arena. Contexts are cheap; use one per purpose.
 * Errors       Builders accept NULL operands and return NULL, so a chain of them is checked once, at geul_graph_new().
 *              Other calls return geul_status or NULL. The context keeps the FIRST failure; geul_error() names it.
 *              The library never aborts, exits or prints.
 * Threads      A context and what was made in it belong to one thread at a time. Different contexts are independent.
 */
#ifndef GEUL_TENSOR_H
#define GEUL_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GEUL_API __attribute__((visibility("default")))

/* ---------------------------------------------------------------------------------------------------- contexts -- */

enum geul_status {
    GEUL_OK = 0,
    GEUL_ERROR_ARGUMENT,    /* the caller asked for something that makes no sense */
    GEUL_ERROR_MEMORY,      /* an allocation failed or would exceed a limit */
    GEUL_ERROR_IO,          /* the operating system refused */
    GEUL_ERROR_FORMAT,      /* a file is not what it claims to be */
    GEUL_ERROR_UNSUPPORTED, /* valid, but this build or device cannot do it */
    GEUL_ERROR_CANCELLED,   /* a callback asked to stop */
};

enum geul_log_level { GEUL_LOG_DEBUG, GEUL_LOG_INFO, GEUL_LOG_WARN };

struct geul_context;

/* All fields may be zero. */
struct geul_context_options {
    /* Lua's allocator contract: size 0 frees ptr and returns NULL; ptr NULL allocates; otherwise reallocates.
     * NULL selects the C library. Must give memory aligned for any C type. That of a model's context is called from the
     * threads of its sessions too. */
    void *(*allocate)(void *user, void *ptr, size_t old_size, size_t size);
    void *allocate_user;
    /* Receives what the library would like a person to know. NULL: silence. text is one line without newline. */
    void (*log)(void *user, enum geul_log_level level, const char *text);
    void *log_user;
};

/* A new context, or NULL when memory is short. options may be NULL. Free with geul_context_free(). */
GEUL_API struct geul_context *geul_context_new(const struct geul_context_options *options);
/* A new context with parent's allocator and log. Independent of parent's lifetime. */
GEUL_API struct geul_context *geul_context_new_like(const struct geul_context *parent);
/* Frees ctx with all its tensors and graphs. NULL is allowed. */
GEUL_API void geul_context_free(struct geul_context *ctx);
/* Drops every tensor and graph of ctx but keeps the memory for the next ones; clears the error. */
GEUL_API void geul_context_reset(struct geul_context *ctx);
/* The first failure since the last clear: a message, "" when there is none. Valid until the next call on ctx. */
GEUL_API const char *geul_error(const struct geul_context *ctx);
GEUL_API enum geul_status geul_error_status(const struct geul_context *ctx);
GEUL_API void geul_error_clear(struct geul_context *ctx);

/* ------------------------------------------------------------------------------------------------------- types -- */

enum geul_type {
#define TYPE(id, name, gguf_id, block, bytes, codec) GEUL_TYPE_##id,
#include "geul_types.def"
#undef TYPE
    GEUL_TYPE_COUNT
};

/* "q4_0"; never NULL ("?" for a value outside the enum). */
GEUL_API const char *geul_type_name(enum geul_type type);
/* The type of that name, GEUL_TYPE_COUNT when there is none. Case does not matter. */
GEUL_API enum geul_type geul_type_from_name(const char *name);
/* Elements per block (1 for plain types) and bytes per block. */
GEUL_API int64_t geul_type_block(enum geul_type type);
GEUL_API size_t geul_type_bytes(enum geul_type type);

/* ----------------------------------------------------------------------------------------------------- tensors -- */

struct geul_tensor;

/* A tensor whose values the caller writes with geul_tensor_write() after the graph was planned. name is copied. */
GEUL_API struct geul_tensor *geul_input(struct geul_context *ctx, enum geul_type type, int n_dims, const int64_t *shape,
                                        const char *name);
GEUL_API enum geul_type geul_tensor_type(const struct geul_tensor *t);
GEUL_API int geul_tensor_dims(const struct geul_tensor *t);
/* Length of dimension i; i < 0 counts from the end as in PyTorch. 0 when out of range. */
GEUL_API int64_t geul_tensor_shape(const struct geul_tensor *t, int i);
GEUL_API int64_t geul_tensor_elements(const struct geul_tensor *t);
/* Bytes of the tensor when contiguous. */
GEUL_API size_t geul_tensor_bytes(const struct geul_tensor *t);
GEUL_API const char *geul_tensor_name(const struct geul_tensor *t);
/* Copies bytes into / out of a contiguous tensor that has memory. bytes must equal geul_tensor_bytes(). */
GEUL_API enum geul_status geul_tensor_write(struct geul_tensor *t, const void *src, size_t bytes);
GEUL_API enum geul_status geul_tensor_read(const struct geul_tensor *t, void *dst, size_t bytes);

/* ---------------------------------------------------------------------------------------------------- builders -- */
/* Each returns a new node of ctx, or NULL (with the reason in ctx unless an operand was NULL already). */

enum geul_gelu { GEUL_GELU_ERF, GEUL_GELU_TANH };
/* How products are computed: as the weights' type is fastest (blocks with activations rounded to int8, bf16 with
 * activations rounded to bf16), or with weights of any type taken as float32, or with both sides rounded to bf16. Sums
 * are float32. */
enum geul_precision { GEUL_PRECISION_WEIGHTS, GEUL_PRECISION_F32, GEUL_PRECISION_BF16 };

/* Same elements under another shape; t must be contiguous. */
GEUL_API struct geul_tensor *geul_reshape(struct geul_context *ctx, struct geul_tensor *t, int n_dims,
                                          const int64_t *shape);
/* Elements [start, start+length) of dimension dim; shares memory. */
GEUL_API struct geul_tensor *geul_narrow(struct geul_context *ctx, struct geul_tensor *t, int dim, int64_t start,
                                         int64_t length);
/* Last dimension (…, n*m) seen as (…, n, m); shares memory, also for strided rows. */
GEUL_API struct geul_tensor *geul_split_last(struct geul_context *ctx, struct geul_tensor *t, int64_t n);
/* Swaps two dimensions; shares memory. */
GEUL_API struct geul_tensor *geul_transpose(struct geul_context *ctx, struct geul_tensor *t, int dim0, int dim1);
/* A contiguous float32 copy of t, which may be strided and of any type. */
GEUL_API struct geul_tensor *geul_contiguous(struct geul_context *ctx, struct geul_tensor *t);
/* a + b; b is broadcast over a's leading dimensions (b's shape is a suffix of a's). float32. */
GEUL_API struct geul_tensor *geul_add(struct geul_context *ctx, struct geul_tensor *a, struct geul_tensor *b);
GEUL_API struct geul_tensor *geul_gelu(struct geul_context *ctx, struct geul_tensor *x, enum geul_gelu kind);
/* Rows of x (…, C) to mean 0 and variance 1, then * weight (C) + bias (C). */
GEUL_API struct geul_tensor *geul_layernorm(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *weight,
                                            struct geul_tensor *bias, float eps);
/* a (M, K) times b (K, N): (M, N) in float32. b is of a plain type, or the transpose of a (N, K) weight of
 * any type. */
GEUL_API struct geul_tensor *geul_matmul(struct geul_context *ctx, struct geul_tensor *a, struct geul_tensor *b);
/* x (T, K) times transposed weight (N, K), plus bias (N) unless has_bias is false: (T, N). */
GEUL_API struct geul_tensor *geul_linear(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *weight,
                                         struct geul_tensor *bias, bool has_bias);
/* Rows ids (T) of table (V, C): (T, C) in float32. Ids outside the table give rows of NaN. */
GEUL_API struct geul_tensor *geul_embed(struct geul_context *ctx, struct geul_tensor *table, struct geul_tensor *ids);
/* Rotates the first n_rot dims of every head of x (T, H, D) by the angle of its position; NeoX pairing.
 * place is int32 (T, 2): sequence, position. */
GEUL_API struct geul_tensor *geul_rope(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *place,
                                       int n_rot, float base);
/* Writes x (T, H, D) into cache (S, H, C, D), of a plain type or Q8_0, at place (T, 2) = sequence, position. The result
 * is the cache after the write; read it, not cache, so that the order is kept. Places outside the cache are not
 * written. */
GEUL_API struct geul_tensor *geul_store(struct geul_context *ctx, struct geul_tensor *cache, struct geul_tensor *x,
                                        struct geul_tensor *place);
/* Causal softmax attention of q (T, H, D) over k and v (S, H, C, D): token t sees positions 0..place[t][1] of sequence
 * place[t][0]. Scores are scaled by scale. Result (T, H, D). Memory does not grow with T * C.
 * With k and v (T, H, D) they are the tokens' own: sequences lie one after the other, so token t, at position
 * p = place[t][1], sees tokens t - p to t. This form has a gradient. */
GEUL_API struct geul_tensor *geul_attention(struct geul_context *ctx, struct geul_tensor *q, struct geul_tensor *k,
                                            struct geul_tensor *v, struct geul_tensor *place, float scale);
/* x * factor. float32. */
GEUL_API struct geul_tensor *geul_scale(struct geul_context *ctx, struct geul_tensor *x, float factor);
/* Sets a random share p of x's elements to 0 and divides the others by 1 - p. Which ones follows from seed, an i32 (2)
 * input, and salt, which should differ between the nodes of a graph. float32. */
GEUL_API struct geul_tensor *geul_dropout(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *seed,
                                          float p, uint32_t salt);
/* -log of the softmax of logits (R, V) at targets, i32 (R): (R), in nats. smoothing takes that share of the target's
 * probability and spreads it over all V; z adds z * log(denominator)^2. A target outside 0..V-1 gives 0. float32. */
GEUL_API struct geul_tensor *geul_cross_entropy(struct geul_context *ctx, struct geul_tensor *logits,
                                                struct geul_tensor *targets, float smoothing, float z);

/* ------------------------------------------------------------------------------------- automatic differentiation -- */

/* Gradients of nodes of ctx, as more nodes of ctx: they are planned, run and split over devices like any other.
 *
 *     struct geul_gradients *g = geul_gradients_new(ctx);
 *     geul_gradients_want(g, w, NULL);
 *     geul_gradients_flow(g, y, dy, NULL);                    // y was built from w
 *     struct geul_tensor *dw = geul_gradients_of(g, w);       // an output for geul_graph_new()
 */
struct geul_gradients;
/* In ctx's arena. NULL when memory is short. */
GEUL_API struct geul_gradients *geul_gradients_new(struct geul_context *ctx);
/* Asks for the gradient of t, a leaf of any context or a node of ctx; before the first flow. into, where t is a
 * leaf: a contiguous float32 leaf of its shape to which the gradient is added when the graph runs, or NULL: the gradient
 * is a tensor of its own. A failure shows in the flow. */
GEUL_API void geul_gradients_want(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *into);
/* Once called, only tensors named here, inputs and weights, and what was built after the last of them, are kept from the
 * forward pass; what else the gradients need is computed again from those. */
GEUL_API void geul_gradients_keep(struct geul_gradients *g, struct geul_tensor *t);
/* Adds dy, of y's shape (NULL: only what has arrived there so far), to y's gradient and carries it on to everything that
 * y was built from after `until` (NULL: everything) and that reaches a wanted tensor. Several flows may meet: what
 * reached a tensor waits there for the flow that begins with it. */
GEUL_API enum geul_status geul_gradients_flow(struct geul_gradients *g, struct geul_tensor *y, struct geul_tensor *dy,
                                              struct geul_tensor *until);
/* The gradient of a wanted tensor, or `into` after all sums, for the outputs of a graph. NULL when nothing flowed there
 * (not an error) or a builder failed. */
GEUL_API struct geul_tensor *geul_gradients_of(struct geul_gradients *g, struct geul_tensor *t);

/* ------------------------------------------------------------------------------------------- graphs and devices -- */

struct geul_graph;
struct geul_runtime;

/* The nodes that the outputs need, in order. NULL when a builder failed (ctx has the first reason). */
GEUL_API struct geul_graph *geul_graph_new(struct geul_context *ctx, struct geul_tensor *const *outputs, int n_outputs);
GEUL_API int geul_graph_nodes(const struct geul_graph *graph);

struct geul_runtime_options {
    int n_threads; /* CPU threads; 0: one per core this process may use */
};

/* The devices a graph runs on: today the CPU. options may be NULL. NULL on failure (ctx says why). */
GEUL_API struct geul_runtime *geul_runtime_new(struct geul_context *ctx, const struct geul_runtime_options *options);
GEUL_API void geul_runtime_free(struct geul_runtime *rt);
GEUL_API int geul_runtime_threads(const struct geul_runtime *rt);
/* Gives every node of graph a device and memory. A runtime holds the memory of one planned graph at a time. */
GEUL_API enum geul_status geul_runtime_plan(struct geul_runtime *rt, struct geul_graph *graph);
/* Computes the planned graph; returns when the outputs can be read. */
GEUL_API enum geul_status geul_runtime_run(struct geul_runtime *rt, struct geul_graph *graph);

#ifdef __cplusplus
}
#endif
#endif
