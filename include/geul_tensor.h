/* geul_tensor.h: contexts, tensors, graphs and the devices they run on.
 *
 *     float data[4 * 64] = {0}, out[4 * 64];
 *     struct geul_context *ctx = geul_context_new(NULL);
 *     struct geul_runtime *rt  = geul_runtime_new(ctx, NULL);             // the CPU, all cores
 *
 *     struct geul_tensor *x = geul_input(ctx, GEUL_TYPE_F32, 2, (int64_t[]){4, 64}, "x");
 *     struct geul_tensor *y = geul_gelu(ctx, geul_add(ctx, x, x), GEUL_GELU_ERF);
 *     struct geul_graph  *g = geul_graph_new(ctx, &y, 1);                 // NULL if any builder failed
 *     if (!rt || !g || geul_runtime_plan(rt, g) != GEUL_OK || geul_tensor_write(x, data, sizeof data) != GEUL_OK ||
 *         geul_runtime_run(rt, g) != GEUL_OK || geul_tensor_read(y, out, sizeof out) != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *
 *     geul_runtime_free(rt);
 *     geul_context_free(ctx);                                             // frees its tensors and graphs too
 *
 * Conventions  Row-major, shape[0] outermost (PyTorch's order), 1 to 4 dimensions, strides in bytes. Results are
 *              float32 unless their builder says otherwise.
 * Lifetime     Tensors and graphs live in their context's arena. Contexts are cheap; use one per purpose. _free()
 *              functions accept NULL.
 * Errors       Builders accept NULL operands and return NULL, so a chain of them is checked once, at geul_graph_new().
 *              Other calls return geul_status or NULL. The context keeps the FIRST failure; geul_error() returns it.
 *              The library never aborts, exits or prints.
 * Threads      A context and what was made in it belong to one thread at a time; only geul_context_cancel() may be
 *              called from others. Different contexts are independent. A runtime's threads are its own: several
 *              runtimes, each used by one thread, compute at the same time.
 * Stability    A line below each section's title, in the terms that geul.h defines.
 */
#ifndef GEUL_TENSOR_H
#define GEUL_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Marks what the shared libraries export. */
#define GEUL_API __attribute__((visibility("default")))

/* ---------------------------------------------------------------------------------- contexts -- */
/* Stability: stable but for geul_context_options, which may still change (it may gain fields). */

enum geul_status {
    GEUL_OK = 0,
    GEUL_ERROR_ARGUMENT,    /* an argument or option is invalid */
    GEUL_ERROR_MEMORY,      /* an allocation failed or would exceed a limit */
    GEUL_ERROR_IO,          /* the operating system refused */
    GEUL_ERROR_FORMAT,      /* a file is not what it claims to be */
    GEUL_ERROR_UNSUPPORTED, /* valid, but this build or device cannot do it */
    GEUL_ERROR_CANCELLED,   /* a callback or geul_context_cancel() asked to stop */
    GEUL_ERROR_DEVICE, /* a device is lost, with all that was on it; what used it can only be freed, and made anew */
};

enum geul_log_level { GEUL_LOG_DEBUG, GEUL_LOG_INFO, GEUL_LOG_WARN };

struct geul_context;

/* All fields may be zero; copied by geul_context_new(). */
struct geul_context_options {
    /* Lua's allocator contract: size 0 frees ptr and returns NULL; ptr NULL allocates; otherwise reallocates.
     * NULL selects the C library. Must return memory aligned for any C type. It must be thread-safe if contexts that
     * share it, or objects made in one of them, are used from several threads. */
    void *(*allocate)(void *user, void *ptr, size_t old_size, size_t size);
    void *allocate_user;
    /* Receives notes and warnings for people. text is one line without newline, valid during the call. May be NULL. */
    void (*log)(void *user, enum geul_log_level level, const char *text);
    void *log_user;
};

/* A new context, or NULL when memory is short. options may be NULL. Free with geul_context_free(). */
GEUL_API struct geul_context *geul_context_new(const struct geul_context_options *options);
/* A new context with parent's allocator and log. Independent of parent's lifetime. */
GEUL_API struct geul_context *geul_context_new_like(const struct geul_context *parent);
/* Frees ctx with all its tensors and graphs. NULL is allowed. */
GEUL_API void geul_context_free(struct geul_context *ctx);
/* Discards every tensor and graph of ctx but keeps the memory for the next ones; clears the error. */
GEUL_API void geul_context_reset(struct geul_context *ctx);
/* The first failure since the last clear: a message, "" when there is none. Valid until the next call on ctx. */
GEUL_API const char *geul_error(const struct geul_context *ctx);
/* Its status, GEUL_OK when there is none. */
GEUL_API enum geul_status geul_error_status(const struct geul_context *ctx);
/* Clears it, so that the next failure is recorded. */
GEUL_API void geul_error_clear(struct geul_context *ctx);
/* From any thread and from signal handlers, while ctx exists: cancels what is being computed with ctx (that of the
 * runtime, session or trainer) within a few milliseconds, or else the next computation; that call fails with
 * GEUL_ERROR_CANCELLED and leaves what it was called on as its declaration says. A cancel takes effect once. What it
 * cancels: runs of graphs, and all calls of geul.h that evaluate, generate or train, in whose declarations there is
 * more. What is computed with other contexts, also on the same model, goes on. */
GEUL_API void geul_context_cancel(struct geul_context *ctx);
/* Likewise from anywhere: withdraws a cancel that came when there was nothing left to cancel, so that the next
 * computation is spared. No effect without one. */
GEUL_API void geul_context_uncancel(struct geul_context *ctx);

/* ------------------------------------------------------------------------------------- types -- */
/* Stability: stable. All of these may be called from any thread. */

/* GEUL_TYPE_F32 (0), _F16, _Q8_0, ... as geul_types.def lists them. */
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
/* Elements per block (1 for plain types) and bytes per block; 0 for a value outside the enum. */
GEUL_API int64_t geul_type_block(enum geul_type type);
GEUL_API size_t geul_type_bytes(enum geul_type type);

/* ----------------------------------------------------------------------------------- tensors -- */
/* Stability: stable. */

struct geul_tensor;

/* A tensor of shape[0..n_dims-1] whose values the caller writes with geul_tensor_write() once its graph is planned.
 * shape and name are copied (of name the first 63 bytes). NULL on failure. */
GEUL_API struct geul_tensor *geul_input(struct geul_context *ctx, enum geul_type type, int n_dims, const int64_t *shape,
                                        const char *name);
GEUL_API enum geul_type geul_tensor_type(const struct geul_tensor *t);
/* The number of dimensions, 1 to 4. */
GEUL_API int geul_tensor_dims(const struct geul_tensor *t);
/* Length of dimension i; i < 0 counts from the end as in PyTorch. 0 when out of range. */
GEUL_API int64_t geul_tensor_shape(const struct geul_tensor *t, int i);
/* The product of its shape. */
GEUL_API int64_t geul_tensor_elements(const struct geul_tensor *t);
/* Bytes of the tensor when contiguous. */
GEUL_API size_t geul_tensor_bytes(const struct geul_tensor *t);
/* An input's name; other tensors are named by their operation, views by what they view. Lives as long as t. */
GEUL_API const char *geul_tensor_name(const struct geul_tensor *t);
/* Copy values into an input and out of an output of a planned graph, in row-major order. The tensor must be contiguous
 * and bytes equal to geul_tensor_bytes(), or the call fails with GEUL_ERROR_ARGUMENT. */
GEUL_API enum geul_status geul_tensor_write(struct geul_tensor *t, const void *src, size_t bytes);
GEUL_API enum geul_status geul_tensor_read(const struct geul_tensor *t, void *dst, size_t bytes);

/* ---------------------------------------------------------------------------------- builders -- */
/* Stability: may still change (results in 16 bits; more operands and results of attention). */

/* Each returns a new node of ctx, or NULL (with the reason in ctx unless an operand was NULL already). Operands are
 * nodes and inputs of ctx, and weights of any context. A node is computed when a graph that needs it runs. */

enum geul_gelu { GEUL_GELU_ERF, GEUL_GELU_TANH };
/* How products are computed. WEIGHTS: the fastest way for the weights' type (block types with activations rounded to
 * int8, bf16 with activations rounded to bf16). F32: weights of any type decoded to float32. BF16: both sides rounded
 * to bf16. Sums are float32. */
enum geul_precision { GEUL_PRECISION_WEIGHTS, GEUL_PRECISION_F32, GEUL_PRECISION_BF16 };

/* The same elements with another shape; shares memory; t must be contiguous. */
GEUL_API struct geul_tensor *geul_reshape(struct geul_context *ctx, struct geul_tensor *t, int n_dims,
                                          const int64_t *shape);
/* Elements [start, start+length) of dimension dim, whole blocks where the type has blocks; shares memory. */
GEUL_API struct geul_tensor *geul_narrow(struct geul_context *ctx, struct geul_tensor *t, int dim, int64_t start,
                                         int64_t length);
/* The last dimension (..., n*m) seen as (..., n, m); shares memory, for strided rows too. */
GEUL_API struct geul_tensor *geul_split_last(struct geul_context *ctx, struct geul_tensor *t, int64_t n);
/* Swaps two dimensions; shares memory. */
GEUL_API struct geul_tensor *geul_transpose(struct geul_context *ctx, struct geul_tensor *t, int dim0, int dim1);
/* A contiguous float32 copy of t, which may be strided and of any type. */
GEUL_API struct geul_tensor *geul_contiguous(struct geul_context *ctx, struct geul_tensor *t);
/* a + b; b is broadcast over a's leading dimensions (b's shape is a suffix of a's). float32. */
GEUL_API struct geul_tensor *geul_add(struct geul_context *ctx, struct geul_tensor *a, struct geul_tensor *b);
/* GELU of every element of x: with erf, or the tanh approximation. float32. */
GEUL_API struct geul_tensor *geul_gelu(struct geul_context *ctx, struct geul_tensor *x, enum geul_gelu kind);
/* Rows of x (..., C) to mean 0 and variance 1, then * weight (C) + bias (C). */
GEUL_API struct geul_tensor *geul_layernorm(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *weight,
                                            struct geul_tensor *bias, float eps);
/* a (M, K) times b (K, N): (M, N) in float32. b has a plain type, or is the transpose of an (N, K) weight of any type.
 */
GEUL_API struct geul_tensor *geul_matmul(struct geul_context *ctx, struct geul_tensor *a, struct geul_tensor *b);
/* x (T, K) times transposed weight (N, K), plus bias (N) unless has_bias is false: (T, N). */
GEUL_API struct geul_tensor *geul_linear(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *weight,
                                         struct geul_tensor *bias, bool has_bias);
/* Rows ids (T) of table (V, C): (T, C) in float32. Ids outside the table give rows of NaN. */
GEUL_API struct geul_tensor *geul_embed(struct geul_context *ctx, struct geul_tensor *table, struct geul_tensor *ids);
/* Rotates the first n_rot dims of every head of x (T, H, D) by the angle of its position: dim i is paired with
 * i + n_rot/2, as in GPT-NeoX. seq_pos is int32 (T, 2): sequence, position. */
GEUL_API struct geul_tensor *geul_rope(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *seq_pos,
                                       int n_rot, float base);
/* Writes x (T, H, D) into cache (S, H, C, D), of a plain type or Q8_0, at seq_pos (T, 2) = sequence, position. The
 * result is the cache after the write: use it, not cache, as the operand of what reads the cache, so that the write
 * comes first. Positions outside the cache are not written. */
GEUL_API struct geul_tensor *geul_store(struct geul_context *ctx, struct geul_tensor *cache, struct geul_tensor *x,
                                        struct geul_tensor *seq_pos);
/* Causal softmax attention of q (T, H, D) over k and v (S, H, C, D): token t attends to positions 0..seq_pos[t][1] of
 * sequence seq_pos[t][0]. Scores are multiplied by scale. Result (T, H, D). Memory does not grow with T * C. Without a
 * cache k and v are (T, H, D), of the tokens themselves, with sequences one after the other: token t, at position
 * p = seq_pos[t][1], attends to tokens t - p to t. Only this form has a gradient. */
GEUL_API struct geul_tensor *geul_attention(struct geul_context *ctx, struct geul_tensor *q, struct geul_tensor *k,
                                            struct geul_tensor *v, struct geul_tensor *seq_pos, float scale);
/* x * factor. float32. */
GEUL_API struct geul_tensor *geul_scale(struct geul_context *ctx, struct geul_tensor *x, float factor);
/* Sets each element of x to 0 with probability p and divides the others by 1 - p. Which ones depends on seed, an i32
 * (2) input, and salt, which should differ between the nodes of a graph. float32. */
GEUL_API struct geul_tensor *geul_dropout(struct geul_context *ctx, struct geul_tensor *x, struct geul_tensor *seed,
                                          float p, uint32_t salt);
/* -log of the softmax of logits (R, V) at targets, i32 (R): (R), in nats. smoothing is label smoothing, that share of
 * the target spread over all V; z adds z * log(denominator of the softmax)^2. A target outside 0..V-1 gives 0. float32.
 */
GEUL_API struct geul_tensor *geul_cross_entropy(struct geul_context *ctx, struct geul_tensor *logits,
                                                struct geul_tensor *targets, float smoothing, float z);

/* ----------------------------------------------------------------- automatic differentiation -- */
/* Stability: stable but for geul_gradients_keep(), which may still change (keeping values off the device). */

/* Gradients of nodes of ctx are more nodes of ctx: they are planned, run and split over devices like any other.
 *
 *     struct geul_gradients *g = geul_gradients_new(ctx);
 *     geul_gradients_want(g, w, NULL);
 *     geul_gradients_flow(g, y, dy, NULL);                    // y was built from w
 *     struct geul_tensor *dw = geul_gradients_of(g, w);       // an output for geul_graph_new()
 */
struct geul_gradients;
/* In ctx's arena. NULL when memory is short. */
GEUL_API struct geul_gradients *geul_gradients_new(struct geul_context *ctx);
/* Requests the gradient of t, an input or weight of any context or a node of ctx; before the first flow. into, only
 * where t is an input or weight: a contiguous float32 one of the same shape, to which the gradient is added when the
 * graph runs. NULL: the gradient is a separate tensor. A failure is reported by geul_gradients_flow(). */
GEUL_API void geul_gradients_want(struct geul_gradients *g, struct geul_tensor *t, struct geul_tensor *into);
/* Activation checkpointing. Once called, of the forward pass only the tensors named here, inputs, weights, and what was
 * built after the last of them are kept; what else the gradients need is recomputed from those. */
GEUL_API void geul_gradients_keep(struct geul_gradients *g, struct geul_tensor *t);
/* Adds dy, float32 of y's shape (NULL: nothing), to y's gradient and propagates it back through what y was built from,
 * as far as that was made after `until` (NULL: all of it) and depends on a wanted tensor. Flows can be chained: a
 * gradient that has arrived at `until` waits there for the flow that starts from it. */
GEUL_API enum geul_status geul_gradients_flow(struct geul_gradients *g, struct geul_tensor *y, struct geul_tensor *dy,
                                              struct geul_tensor *until);
/* The gradient of a wanted tensor, float32 of its shape, or `into` after all additions; to be made an output of a
 * graph. NULL when no flow reached it (not an error) or a builder failed. */
GEUL_API struct geul_tensor *geul_gradients_of(struct geul_gradients *g, struct geul_tensor *t);

/* ----------------------------------------------------------------------------------- devices -- */
/* Stability: may still change (geul_device_info may gain fields). */

/* What graphs run on. Device 0 is the CPU, which is always there; the others are those of the backends that are found
 * as shared objects beside this library, or in the folder that GEUL_BACKENDS names, and whose drivers find a device.
 * May be called from any thread, each with a context of its own. */

/* The number of devices. */
GEUL_API int geul_device_count(void);

struct geul_device_info {
    char id[24];                    /* as options name it: "cpu", "cuda:0" */
    char name[64];                  /* "NVIDIA H200" */
    char backend[16];               /* "cpu", "cuda" */
    int n_threads;                  /* CPU threads that it computes with by default, 0: not on the CPU */
    size_t free_bytes, total_bytes; /* of its memory; 0: not known */
    size_t largest_buffer;          /* bytes; SIZE_MAX: only memory limits it */
};
/* Describes device i, which is opened for that. */
GEUL_API enum geul_status geul_device_describe(struct geul_context *ctx, int i, struct geul_device_info *out);
/* Writes the i-th reason, from 0, why there are no more devices than these: a shared object that is not there or was
 * refused, a driver that is missing. A line for people. false after the last. */
GEUL_API bool geul_backend_missing(int i, char *text, size_t size);

/* ------------------------------------------------------------------------------------ graphs -- */
/* Stability: may still change (geul_runtime_options may gain fields). */

struct geul_graph;
struct geul_runtime;

/* The nodes that the outputs need, in the order in which they were built. In ctx's arena. NULL when an output is NULL
 * because a builder failed (ctx has the first reason), or belongs to another context. */
GEUL_API struct geul_graph *geul_graph_new(struct geul_context *ctx, struct geul_tensor *const *outputs, int n_outputs);
/* Its nodes, inputs and weights not counted. */
GEUL_API int geul_graph_node_count(const struct geul_graph *graph);

struct geul_runtime_options {
    int n_threads; /* CPU threads; 0: one per core that this process may use */
    /* Devices besides the CPU, which is always used too, by their ids: "cuda:0,cuda:1"; a backend stands for all of its
     * devices ("cuda"). NULL, "none" or "cpu": the CPU alone. "auto": every device that can be opened; the log has why
     * others cannot. Any other that is not there is a failure. */
    const char *devices;
    /* Every product and sum has one order, whatever is computed beside it: a row of a result has the same bits with any
     * number of other rows. The CPU computes so in any case; a GPU is slower with it, most of all at many rows. */
    bool exact;
};

/* The devices that graphs run on. options may be NULL: the CPU. NULL on failure, with the reason in ctx, which
 * must outlive the runtime. Graphs may be of other contexts. One thread at a time. */
GEUL_API struct geul_runtime *geul_runtime_new(struct geul_context *ctx, const struct geul_runtime_options *options);
GEUL_API void geul_runtime_free(struct geul_runtime *rt);
/* CPU threads in use. */
GEUL_API int geul_runtime_thread_count(const struct geul_runtime *rt);
/* Assigns a device and memory to every node of graph and prepares to run it. Two graphs, of different contexts, can be
 * planned at a time, so that two shapes of one computation alternate; planning a third ends the use of the one that was
 * not used for longest. They share the runtime's memory: writing to one of them or running it ends what the other
 * holds, inputs and outputs. A graph that needs more memory than there is ends the use of the other, which can be
 * planned again. Failures are in the graph's context. */
GEUL_API enum geul_status geul_runtime_plan(struct geul_runtime *rt, struct geul_graph *graph);
/* Computes a graph that is planned; returns when its outputs can be read. Failures are in the graph's context.
 * Cancelled by geul_context_cancel() of the runtime's context: what the graph computes, and what it stores, is then
 * undefined until the next run. */
GEUL_API enum geul_status geul_runtime_run(struct geul_runtime *rt, struct geul_graph *graph);

#ifdef __cplusplus
}
#endif
#endif
