/* neox_tensors.h: the tensors of a GPT-NeoX model under both of their names. */
#ifndef GEUL_NEOX_TENSORS_H
#define GEUL_NEOX_TENSORS_H

#include "convert/neox_config.h"

struct geul_neox_tensor {
    char hf[96];    /* "gpt_neox.layers.3.mlp.dense_h_to_4h.weight" */
    char alias[96]; /* another name that HF uses for it, or "" */
    char gguf[64];  /* "blk.3.ffn_up.weight" */
    int n_dims;
    int64_t shape[2]; /* row-major, the same on both sides */
    bool qkv;         /* rows interleaved by head in HF, parted into Q, K and V in GGUF */
    bool output;      /* the rows that give the logits */
    bool optional;    /* absent from HF models without attention bias: zeros in GGUF */
};

/* The *count tensors of a model of that shape in the order in which geul writes them; free with geul_free(). NULL when
 * memory is short. */
struct geul_neox_tensor *geul_neox_tensor_list(struct geul_context *ctx, const struct geul_neox_config *c,
                                               size_t *count);
/* The HF row that GGUF's row r of a qkv tensor is, and the inverse. config is a struct geul_neox_config; these are row
 * orders for quantize/transcode.h. */
int64_t geul_neox_qkv_row(const void *config, int64_t r);
int64_t geul_neox_qkv_row_back(const void *config, int64_t r);
/* Whether a checkpoint's tensor is a buffer that holds no weights (attention.bias, .masked_bias, rotary_emb.inv_freq)*/
bool geul_neox_is_buffer(const char *hf_name);

#endif
