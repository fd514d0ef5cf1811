/* new_model.h: an untrained GPT-NeoX model, as a float32 GGUF file to start training from. */
#ifndef GEUL_NEW_MODEL_H
#define GEUL_NEW_MODEL_H

#include "convert/neox_config.h"

enum geul_init {
    GEUL_INIT_SMALL, /* as EleutherAI's GPT-NeoX: deviation sqrt(2 / 5C) (Nguyen, Salazar 2019), and 2 / (L sqrt(C)) for
                      * what is added to the residual stream (Wang, Komatsuzaki 2021) */
    GEUL_INIT_NORMAL, /* as transformers: deviation 0.02 everywhere */
};

struct geul_new_model {
    struct geul_neox_config config; /* n_vocab 0: as many rows as the tokenizer needs, a multiple of 64 */
    const char *tokenizer;          /* a GGUF file, a tokenizer.json or a directory that holds one */
    const char *name;
    enum geul_init init;
    uint64_t seed;
};

/* Writes the file in one atomic step. Biases are 0 and norms 1; the same seed gives the same bytes. */
enum geul_status geul_new_model_write(struct geul_context *ctx, const struct geul_new_model *m, const char *path);

#endif
