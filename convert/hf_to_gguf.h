/* hf_to_gguf.h: a Hugging Face directory of a GPT-NeoX model becomes one GGUF file. */
#ifndef GEUL_HF_TO_GGUF_H
#define GEUL_HF_TO_GGUF_H

#include "core/context.h"

enum geul_convert_gelu { GEUL_CONVERT_GELU_CONFIG, GEUL_CONVERT_GELU_ERF, GEUL_CONVERT_GELU_TANH };

/* Zero is a default for every field. */
struct geul_convert_options {
    enum geul_type type;         /* of the matrices: F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0 */
    enum geul_convert_gelu gelu; /* overrides hidden_act */
    const char *name;            /* general.name; NULL: the directory's name */
    int n_threads;               /* 0: one per core */
    /* Bytes of the checkpoint that are done, of all; false stops. May be NULL. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* Converts the directory into out_path, which appears when it is whole. options may be NULL.
 *
 * Matrices get options->type; biases and norms stay float32; a matrix whose rows are no multiple of the block stays
 * float16. With blocks of 4 or 5 bits the output matrix is q8_0: it decides every token, has no activation after it
 * that would forgive an error, and llama.cpp's users expect it in a better type than the rest. token_embd is as the
 * rest.
 *
 * What the file cannot express otherwise is kept in keys: tokenizer.huggingface.json, geul.hf.config and its like, so
 * that geul_export_hf() gives the directory back. */
enum geul_status geul_convert_hf(struct geul_context *ctx, const char *dir, const char *out_path,
                                 const struct geul_convert_options *options);

#endif
