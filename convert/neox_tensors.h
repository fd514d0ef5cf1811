/* neox_tensors.h: the tensors of a GPT-NeoX model under both of their names. */
#ifndef GEUL_NEOX_TENSORS_H
#define GEUL_NEOX_TENSORS_H

#include "convert/neox_config.h"
#include "formats/checkpoint.h"
#include "models/neox.h"

/* The start of the names of a layer's modules in Hugging Face's models; its number follows. */
#define GEUL_NEOX_HF_LAYERS "gpt_neox.layers."
enum { GEUL_NEOX_HF_NAME = 96 };

struct geul_neox_tensor {
    const struct geul_neox_tensor_info *info;
    char hf[GEUL_NEOX_HF_NAME];    /* "gpt_neox.layers.3.mlp.dense_h_to_4h.weight" */
    char alias[GEUL_NEOX_HF_NAME]; /* another name that HF uses for it, or "" */
    char gguf[GEUL_MAX_NAME];      /* "blk.3.ffn_up.weight" */
    int n_dims;
    int64_t shape[2]; /* row-major, the same on both sides; shape[1] of a vector is 1 */
};

/* The *count tensors of a model of that shape in the order in which geul writes them; free with geul_free(). NULL when
 * memory is short. */
struct geul_neox_tensor *geul_neox_tensor_list(struct geul_context *ctx, const struct geul_neox_config *c,
                                               size_t *count);
/* Writes HF's name for a module: "gpt_neox.layers.3.mlp.dense_h_to_4h". */
void geul_neox_hf_module(char out[GEUL_NEOX_HF_NAME], const struct geul_neox_tensor_info *t, int layer);
/* The last part of HF's name for a target's module, by which PEFT's users know it: "dense_h_to_4h". */
const char *geul_neox_hf_target(enum geul_neox_target target);
/* Names as HF's GPTNeoXForCausalLM has them, out of a checkpoint whose names have what wrappers put around them
 * ("module." of DDP and DeepSpeed, "_orig_mod." of torch.compile(), those of FSDP and activation checkpointing,
 * "base_model.model." of PEFT, "model." of trainers) or lack "gpt_neox.", as GPTNeoXModel saves them; and its buffers.
 */
extern const struct geul_checkpoint_names geul_neox_hf_names;
/* The HF row that GGUF's row r of a qkv tensor is, and the inverse. config is a struct geul_neox_config; these are row
 * orders for quantize/transcode.h. */
int64_t geul_neox_qkv_row(const void *config, int64_t r);
int64_t geul_neox_qkv_row_back(const void *config, int64_t r);
/* Whether a checkpoint's tensor is a buffer that holds no weights (attention.bias, .masked_bias,
 * rotary_emb.inv_freq). */
bool geul_neox_is_buffer(const char *hf_name);

#endif
