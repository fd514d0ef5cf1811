/* checkpoint.h: the tensors of a Hugging Face directory, whatever files they are in. */
#ifndef GEUL_CHECKPOINT_H
#define GEUL_CHECKPOINT_H

#include "formats/source_tensor.h"

/* Maps, in this order of preference, model.safetensors, the shards of model.safetensors.index.json,
 * pytorch_model.bin, the shards of pytorch_model.bin.index.json. NULL when there is none or one is damaged. */
struct geul_checkpoint;
/* What a reader knows of the names in a checkpoint. */
struct geul_checkpoint_names {
    /* The name that a tensor has in the checkpoint to be, in new memory; NULL when memory is short. Two tensors that
     * become one name are an error. */
    char *(*plain)(struct geul_context *ctx, const char *name);
    /* Whether a plain name is that of a buffer, which an index may list although no shard holds it. */
    bool (*is_buffer)(const char *plain);
};
/* names: NULL: they stay as they are. */
struct geul_checkpoint *geul_checkpoint_open(struct geul_context *ctx, const char *dir,
                                             const struct geul_checkpoint_names *names);
/* The same for a directory of PEFT: adapter_model.safetensors or adapter_model.bin. */
struct geul_checkpoint *geul_checkpoint_open_peft(struct geul_context *ctx, const char *dir,
                                                  const struct geul_checkpoint_names *names);
/* Whether dir holds a model's weights, in any form. */
bool geul_checkpoint_has_model(const char *dir);
void geul_checkpoint_close(struct geul_checkpoint *c);
size_t geul_checkpoint_count(const struct geul_checkpoint *c);
/* In order of the names. */
const struct geul_source_tensor *geul_checkpoint_at(const struct geul_checkpoint *c, size_t i);
/* NULL when there is none (not an error). */
const struct geul_source_tensor *geul_checkpoint_find(const struct geul_checkpoint *c, const char *name);

#endif
