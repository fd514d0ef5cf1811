/* neox.h: GPT-NeoX in one place: its tensors by name and shape, and its forward graph.
 *
 * Legend used in models/: T tokens, C d_model, H heads, D d_head, F d_ff, V vocabulary rows, S sequences, P positions.
 */
#ifndef GEUL_NEOX_H
#define GEUL_NEOX_H

#include "geul.h"

#include "core/gguf.h"
#include "core/tensor.h"

/* Weights of one layer. The biases of qkv and out are NULL in models without attention bias. */
struct geul_neox_layer {
    struct geul_tensor *norm1_w, *norm1_b; /* (C) */
    struct geul_tensor *qkv_w, *qkv_b;     /* (3HD, C): all of Q, then K, then V; (3HD) */
    struct geul_tensor *out_w, *out_b;     /* (C, HD); (C) */
    struct geul_tensor *norm2_w, *norm2_b; /* (C) */
    struct geul_tensor *up_w, *up_b;       /* (F, C); (F) */
    struct geul_tensor *down_w, *down_b;   /* (C, F); (C) */
};

struct geul_neox {
    struct geul_model_shape shape;
    struct geul_tensor *embed;           /* (V, C) */
    struct geul_tensor *norm_w, *norm_b; /* (C) */
    struct geul_tensor *output;          /* (V, C) */
    struct geul_neox_layer *layers;      /* n_layers */
};

/* What a weight of the file becomes: given layer (-1 outside the layers), returns a leaf that holds it. */
typedef struct geul_tensor *(*geul_neox_place_weight)(void *user, const struct geul_gguf_tensor *t, int layer);

/* Reads and checks the hyper-parameters of a "gptneox" file. */
enum geul_status geul_neox_read_shape(struct geul_context *ctx, const struct geul_gguf *g,
                                      struct geul_model_shape *shape);
/* Finds every weight, checks its shape and places it; fills all of m, whose arrays live in ctx's arena. */
enum geul_status geul_neox_bind(struct geul_context *ctx, const struct geul_gguf *g, struct geul_neox *m,
                                geul_neox_place_weight place, void *user);
struct geul_neox_inputs {
    struct geul_tensor *ids;   /* i32 (T) */
    struct geul_tensor *place; /* i32 (T, 2): sequence and position of each token */
    struct geul_tensor *rows;  /* i32 (R): tokens whose logits are wanted */
};

/* Builds the forward pass in ctx: logits (R, V). k and v hold a cache (S, H, P, D) per layer. NULL as every builder. */
struct geul_tensor *geul_neox_forward(struct geul_context *ctx, const struct geul_neox *m,
                                      const struct geul_neox_inputs *in, struct geul_tensor *const *k,
                                      struct geul_tensor *const *v);

#endif
