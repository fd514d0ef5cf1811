/* gguf_to_hf.h: a GGUF file of a GPT-NeoX model becomes a Hugging Face directory. */
#ifndef GEUL_GGUF_TO_HF_H
#define GEUL_GGUF_TO_HF_H

#include "core/context.h"

/* KEEP: the type of the matrices in the file; float16 where those are quantized. */
enum geul_export_dtype { GEUL_EXPORT_KEEP, GEUL_EXPORT_F32, GEUL_EXPORT_F16, GEUL_EXPORT_BF16 };

/* Zero is a default for every field. */
struct geul_export_options {
    enum geul_export_dtype dtype; /* of every tensor, norms and biases too */
    uint64_t max_shard_bytes;     /* 0: 5 GB */
    int n_threads;                /* 0: one per core */
    /* Bytes of the output that are done, of all; false stops. May be NULL. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* Writes into dir (made when it is missing) model.safetensors, or shards with their index when it would be larger than
 * max_shard_bytes; config.json (the original one where the file kept it, with dtype and activation made right);
 * tokenizer.json and its companions where they were kept. Each file appears when it is whole; weights come last.
 * options may be NULL. */
enum geul_status geul_export_hf(struct geul_context *ctx, const char *gguf_path, const char *dir,
                                const struct geul_export_options *options);

#endif
