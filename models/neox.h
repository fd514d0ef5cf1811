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

/* The products that low-rank adapters may change. */
enum geul_neox_target { GEUL_NEOX_QKV, GEUL_NEOX_OUT, GEUL_NEOX_UP, GEUL_NEOX_DOWN, GEUL_NEOX_TARGETS };

/* A low-rank change of one product (Hu et al. 2021): y = W x + scale * B A x. Both NULL: none. */
struct geul_neox_pair {
    struct geul_tensor *a; /* (r, K) */
    struct geul_tensor *b; /* (N, r) */
};

struct geul_neox_adapter {
    struct geul_neox_pair *pairs; /* n_layers * GEUL_NEOX_TARGETS, layer by layer */
    float scale;
};

struct geul_neox {
    struct geul_model_shape shape;
    struct geul_tensor *embed;           /* (V, C) */
    struct geul_tensor *norm_w, *norm_b; /* (C) */
    struct geul_tensor *output;          /* (V, C) */
    struct geul_neox_layer *layers;      /* n_layers */
    const struct geul_neox_adapter *const *adapters;
    int n_adapters;
};

/* What a weight of the file becomes: given layer (-1 outside the layers), returns a leaf that holds it. */
typedef struct geul_tensor *(*geul_neox_place_weight)(void *user, const struct geul_gguf_tensor *t, int layer);

/* Reads and checks the hyper-parameters of a "gptneox" file. */
enum geul_status geul_neox_read_shape(struct geul_context *ctx, const struct geul_gguf *g,
                                      struct geul_model_shape *shape);
/* Finds every weight, checks its shape and places it; fills all of m, whose arrays live in ctx's arena. */
enum geul_status geul_neox_bind(struct geul_context *ctx, const struct geul_gguf *g, struct geul_neox *m,
                                geul_neox_place_weight place, void *user);
/* Every weight once, in the order of the list in neox.c; returns their number. out may be NULL. */
int geul_neox_weights(const struct geul_neox *m, struct geul_tensor **out);
/* The GGUF name of a target's weight, without "blk.N." and ".weight": "attn_qkv". */
const char *geul_neox_target_name(enum geul_neox_target target);
/* A target's weight (N, K) in a layer. */
struct geul_tensor *geul_neox_target_weight(const struct geul_neox_layer *l, enum geul_neox_target target);

struct geul_neox_inputs {
    struct geul_tensor *ids;   /* i32 (T) */
    struct geul_tensor *place; /* i32 (T, 2): sequence and position of each token */
    struct geul_tensor *rows;  /* i32 (R): tokens whose logits are wanted; NULL: all */
};

enum { GEUL_NEOX_COSTLY = 3 };

/* How a forward pass is made. */
struct geul_neox_pass {
    struct geul_neox_inputs in;
    /* Per layer a cache (S, H, P, D). NULL: tokens see those of their own sequence in the batch, which lie one after
     * the other; this form has gradients. */
    struct geul_tensor *const *k, *const *v;
    enum geul_precision precision;
    float dropout;                  /* of what enters adapters, in training */
    struct geul_tensor *seed;       /* i32 (2), for dropout; may be NULL where that is 0 */
    struct geul_tensor **layer_out; /* gets the output (T, C) of each layer; may be NULL */
    /* Gets what is expensive of each layer and read by its gradient: qkv, attention, up. May be NULL. */
    struct geul_tensor **costly; /* GEUL_NEOX_COSTLY per layer */
};

/* Builds the forward pass in ctx up to the last norm: (R, C). NULL as every builder. */
struct geul_tensor *geul_neox_hidden(struct geul_context *ctx, const struct geul_neox *m,
                                     const struct geul_neox_pass *pass);
/* Logits (R, V) of such rows (R, C). */
struct geul_tensor *geul_neox_logits(struct geul_context *ctx, const struct geul_neox *m, struct geul_tensor *hidden,
                                     enum geul_precision precision);

#endif
