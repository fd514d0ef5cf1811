/* lora.h: low-rank adapters (LoRA) in host memory, as files hold them; read and written as GGUF.
 *
 * The form is llama.cpp's: general.type "adapter", adapter.type "lora", adapter.lora.alpha, and for every adapted
 * matrix blk.N.attn_qkv.weight.lora_a (r, K) and .lora_b (N, r), row-major. geul adds keys that others skip:
 * geul.lora.rslora and geul.lora.alpha (as the trainer was given them), geul.template, and of the model that it was
 * made for gptneox.block_count, .attention.head_count (PEFT's order of rows needs it), .embedding_length and
 * .feed_forward_length.
 */
#ifndef GEUL_LORA_H
#define GEUL_LORA_H

#include "models/neox.h"

/* The low-rank change of one product: y = W x + scale * B A x. */
struct geul_lora_pair {
    int layer;
    enum geul_neox_target target;
    int rank;
    int64_t n, k;   /* rows and columns of the weight */
    const float *a; /* (rank, k) */
    const float *b; /* (n, rank); of attn_qkv all of Q, then K, then V */
};

/* Sizes of the model that an adapter was made for; 0: not known. */
struct geul_lora_shape {
    int n_layers, n_heads, d_model, d_ff;
};

struct geul_lora {
    struct geul_lora_pair *pairs; /* at most one for each product of each layer */
    int n_pairs;
    float alpha; /* > 0; scale = alpha / rank */
    bool rslora; /* scale = alpha / sqrt(rank) instead (Kalajdzievski 2023) */
    struct geul_lora_shape made_for;
    const char *name; /* the adapter's own; NULL: not known, here and in the next two */
    const char *base; /* name of the model it is for */
    const char *template_text;
    struct geul_context *own; /* holds all of this when it was read from a file; NULL: the pointers are the caller's */
};

/* Writes the name that half a pair ('a' or 'b') has in GGUF: "blk.3.attn_qkv.weight.lora_a". */
void geul_adapter_tensor_name(char out[GEUL_MAX_NAME], int layer, enum geul_neox_target target, char half);
/* What B A is multiplied with: alpha / rank, or with rslora alpha / sqrt(rank). */
float geul_lora_scale(float alpha, int rank, bool rslora);
/* The same for an adapter's matrices of that rank. */
float geul_lora_pair_scale(const struct geul_lora *d, int rank);
/* The pair of a product, NULL when it is not adapted. */
const struct geul_lora_pair *geul_lora_find(const struct geul_lora *d, int layer, enum geul_neox_target target);

/* Reads a GGUF adapter with matrices of any float or block type. NULL on failure; free with geul_lora_free(). */
struct geul_lora *geul_lora_read(struct geul_context *ctx, const char *path);
/* The same from an open file. */
struct geul_lora *geul_lora_parse(struct geul_context *ctx, const struct geul_gguf *g);
/* Writes d in float32; the file appears when it is complete. With rsLoRA and different ranks, where one alpha cannot
 * express every scale, the rest goes into B. */
enum geul_status geul_lora_save(struct geul_context *ctx, const struct geul_lora *d, const char *path);

/* For readers of other formats: an adapter without pairs, with room for `most`. NULL (recorded in ctx) when memory is
 * short. */
struct geul_lora *geul_lora_new(struct geul_context *ctx, int most);
void geul_lora_free(struct geul_lora *d);
/* Appends a pair with new matrices, to be filled through *a and *b. */
enum geul_status geul_lora_add_pair(struct geul_context *ctx, struct geul_lora *d, const struct geul_lora_pair *shape,
                                    float **a, float **b);
/* A copy of a text that lives as long as d; NULL (recorded in ctx) when memory is short. */
const char *geul_lora_copy_text(struct geul_context *ctx, struct geul_lora *d, const char *s, size_t n);
/* Checks that there are pairs, that alpha is positive and that every value is finite. where begins the message, here
 * and below. */
enum geul_status geul_lora_check(struct geul_context *ctx, const struct geul_lora *d, const char *where);
/* The sizes of a model of that shape. */
struct geul_lora_shape geul_lora_shape_of(const struct geul_model_shape *shape);
/* Fails unless every size that both know is the same. */
enum geul_status geul_lora_check_made_for(struct geul_context *ctx, const struct geul_lora_shape *made_for,
                                          const struct geul_lora_shape *model, const char *where);
/* Checks what it was made for, layers and sizes against a model's. */
enum geul_status geul_lora_check_shape(struct geul_context *ctx, const struct geul_lora *d,
                                       const struct geul_model_shape *shape, const char *where);

#endif
