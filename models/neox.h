/* neox.h: GPT-NeoX in one place: its tensors, which neox.def lists, and its forward graph.
 *
 * Legend used in models/: T tokens, C d_model, H heads, D d_head, F d_ff, V vocabulary rows, S sequences, P positions.
 */
#ifndef GEUL_NEOX_H
#define GEUL_NEOX_H

#include "geul.h"

#include "core/gguf.h"
#include "core/tensor.h"

/* Limits far above any model, so that products of sizes cannot overflow. */
enum {
    GEUL_NEOX_MOST_LAYERS = 4096,
    GEUL_NEOX_MOST_WIDTH = 1 << 20,
    GEUL_NEOX_MOST_POSITIONS = 1 << 24,
    GEUL_NEOX_MOST_VOCAB = 1 << 24
};

/* Keys, true or false, of models whose output is the embedding and of models without attention biases. Their files have
 * these tensors none the less, a copy and zeros, because llama.cpp asks for them. Where a key is missing the tensors
 * are the model's own. */
#define GEUL_NEOX_KEY_TIED "geul.tied_embeddings"
#define GEUL_NEOX_KEY_BIAS "geul.attention_bias"

/* The weights of one layer, shaped as neox.def says. Biases are NULL in models without attention bias. */
struct geul_neox_layer {
#define LAYER(field, ...) struct geul_tensor *field;
#include "models/neox.def"
};

/* The products that low-rank adapters may change. */
/* clang-format off */
enum geul_neox_target {
#define NONE
#define ADAPT(id, word) GEUL_NEOX_##id,
#define LAYER(field, gguf, hf, part, rows, cols, order, role, target, when, start) target
#include "models/neox.def"
#undef NONE
#undef ADAPT
    GEUL_NEOX_TARGETS
};
/* clang-format on */

/* The values that the columns role, when and start of neox.def have; its head explains them. */
enum geul_neox_role {
    GEUL_NEOX_ROLE_PLAIN, /* norms, biases and whatever else has one dimension */
    GEUL_NEOX_ROLE_EMBEDDING,
    GEUL_NEOX_ROLE_OUTPUT,
    GEUL_NEOX_ROLE_QKV,
    GEUL_NEOX_ROLE_ATTN_OUTPUT,
    GEUL_NEOX_ROLE_FFN_UP,
    GEUL_NEOX_ROLE_FFN_DOWN,
    GEUL_NEOX_ROLE_OTHER, /* a matrix that neox.def does not list */
    GEUL_NEOX_ROLES
};

enum geul_neox_when { GEUL_NEOX_WHEN_ALWAYS, GEUL_NEOX_WHEN_BIAS, GEUL_NEOX_WHEN_UNTIED };

enum geul_neox_start {
    GEUL_NEOX_START_ZEROS,
    GEUL_NEOX_START_ONES,
    GEUL_NEOX_START_SMALL,
    GEUL_NEOX_START_RESIDUAL,
    GEUL_NEOX_STARTS
};

/* One row of neox.def. */
struct geul_neox_tensor_info {
    bool in_layer;
    const char *gguf, *hf; /* the module: "attn_qkv", "attention.query_key_value" */
    const char *part;      /* "weight" or "bias" */
    bool by_head;          /* Hugging Face orders the rows by head */
    enum geul_neox_role role;
    enum geul_neox_when when;
    enum geul_neox_start start;
    enum geul_neox_target target; /* GEUL_NEOX_TARGETS: none */
    const char *word;             /* of the target: "qkv"; NULL: none */
};

/* The low-rank change of one product (Hu et al. 2021): y = W x + scale * B A x. Both NULL: none. */
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
#define MODEL(field, ...) struct geul_tensor *field;
#include "models/neox.def"
    struct geul_neox_layer *layers; /* n_layers */
    const struct geul_neox_adapter *const *adapters;
    int n_adapters;
};

/* Makes the leaf that holds a weight of the file; layer is -1 outside the layers. NULL on failure. */
typedef struct geul_tensor *(*geul_neox_make_weight)(void *user, const struct geul_gguf_tensor *t, int layer);

/* Reads and checks the hyper-parameters of a "gptneox" file. */
enum geul_status geul_neox_read_shape(struct geul_context *ctx, const struct geul_gguf *g,
                                      struct geul_model_shape *shape);
/* Finds every weight, checks its shape and makes its leaf; fills all of m, whose arrays live in ctx's arena. trained:
 * the weights are going to change, so that copies and zeros which the file has by the keys above are not bound: tied
 * weights stay one tensor, and absent biases absent. */
enum geul_status geul_neox_bind(struct geul_context *ctx, const struct geul_gguf *g, struct geul_neox *m,
                                geul_neox_make_weight make_weight, void *user, bool trained);
/* Every weight once, in the order of neox.def; returns their number. out may be NULL. */
int geul_neox_weights(const struct geul_neox *m, struct geul_tensor **out);

/* How many tensors a model of so many layers has when none is absent. */
int64_t geul_neox_tensor_count(int n_layers);
/* Number i of them in the order in which geul writes them; *layer gets its layer, -1 outside of the layers. */
const struct geul_neox_tensor_info *geul_neox_tensor_at(int n_layers, int64_t i, int *layer);
/* The first row of that role, which must not be OTHER. */
const struct geul_neox_tensor_info *geul_neox_role_info(enum geul_neox_role role);
/* The matrix of a target. */
const struct geul_neox_tensor_info *geul_neox_target_info(enum geul_neox_target target);
/* The dimensions of t, dims[1] 0 where there is only one; returns their number. */
int geul_neox_tensor_dims(const struct geul_neox_tensor_info *t, const struct geul_model_shape *s, int64_t dims[2]);
/* The weight that t is in m; NULL where m lacks it. */
struct geul_tensor *geul_neox_weight(const struct geul_neox *m, const struct geul_neox_tensor_info *t, int layer);

/* Writes the name of t in GGUF: "blk.3.attn_qkv.weight". */
void geul_neox_tensor_name(char out[GEUL_MAX_NAME], const struct geul_neox_tensor_info *t, int layer);
/* N of a name that begins with "blk.N."; -1: outside of the layers. */
int geul_neox_layer_of(const char *name);
/* The role of the tensor of that name with n_dims dimensions. */
enum geul_neox_role geul_neox_role_of(const char *name, int n_dims);

/* The GGUF module of a target, "attn_qkv", and the word for it in options, "qkv". */
const char *geul_neox_target_name(enum geul_neox_target target);
const char *geul_neox_target_word(enum geul_neox_target target);
/* Writes name() of every target, joined by `between`, the last one by `last`: "a, b and c". Returns out. */
const char *geul_neox_list_targets(char *out, size_t size, const char *(*name)(enum geul_neox_target),
                                   const char *between, const char *last);

struct geul_neox_inputs {
    struct geul_tensor *ids;     /* i32 (T) */
    struct geul_tensor *seq_pos; /* i32 (T, 2): sequence and position of each token */
    struct geul_tensor *rows;    /* i32 (R): tokens whose logits are wanted; NULL: all */
};

enum { GEUL_NEOX_COSTLY = 3 };

/* How a forward pass is made. */
struct geul_neox_pass {
    struct geul_neox_inputs in;
    /* Per layer a cache (S, H, P, D). NULL: tokens attend within their own sequence of the batch, where sequences are
     * contiguous; this form has gradients. */
    struct geul_tensor *const *k, *const *v;
    enum geul_precision precision;
    float dropout;                  /* on the input of adapters, in training */
    struct geul_tensor *seed;       /* i32 (2), for dropout; may be NULL where that is 0 */
    struct geul_tensor **layer_out; /* gets the output (T, C) of each layer; may be NULL */
    /* Gets each layer's activations that are costly to recompute and needed by its gradient: qkv, attention, up. May be
     * NULL. */
    struct geul_tensor **costly; /* GEUL_NEOX_COSTLY per layer */
};

/* Builds the forward pass in ctx up to the last norm: (R, C). NULL as every builder. */
struct geul_tensor *geul_neox_hidden(struct geul_context *ctx, const struct geul_neox *m,
                                     const struct geul_neox_pass *pass);
/* Logits (R, V) of rows (R, C) that geul_neox_hidden() gave. */
struct geul_tensor *geul_neox_logits(struct geul_context *ctx, const struct geul_neox *m, struct geul_tensor *hidden,
                                     enum geul_precision precision);

#endif
