/* neox_config.h: the config.json of a GPT-NeoX model, in the forms of transformers 4 and 5, and the same as GGUF keys.
 */
#ifndef GEUL_NEOX_CONFIG_H
#define GEUL_NEOX_CONFIG_H

#include "core/gguf.h"
#include "geul_tensor.h"

#include <jansson.h>

struct geul_neox_config {
    int64_t n_layers, d_model, d_ff, n_heads, d_head;
    int64_t n_rot;     /* rotary dims per head, even */
    int64_t n_context; /* positions it was trained for */
    int64_t n_vocab;   /* rows of the embedding */
    double norm_eps, rope_base;
    bool parallel_residual, tied_embeddings, attention_bias;
    enum geul_gelu gelu;
    int64_t bos, eos; /* -1: not given */
};

/* Reads a parsed config.json; name is for messages. Missing members get transformers' defaults where the others still
 * determine the model, and are an error elsewhere. */
enum geul_status geul_neox_config_read(struct geul_context *ctx, const char *name, const json_t *json,
                                       struct geul_neox_config *out);
/* Reads the gptneox.* keys of a GGUF file. */
enum geul_status geul_neox_config_from_gguf(struct geul_context *ctx, const struct geul_gguf *g,
                                            struct geul_neox_config *out);
/* Writes the keys that llama.cpp knows and geul.gelu. */
void geul_neox_config_to_gguf(const struct geul_neox_config *c, struct geul_gguf_writer *w);
/* A config.json that transformers 4 and 5 read. dtype: "float16". NULL when memory is short. */
json_t *geul_neox_config_to_json(const struct geul_neox_config *c, const char *dtype);
/* Whether both describe the same tensors and the same computation (end tokens aside). */
bool geul_neox_config_equal(const struct geul_neox_config *a, const struct geul_neox_config *b);

#endif
