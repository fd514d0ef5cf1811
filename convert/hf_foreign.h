/* hf_foreign.h: Hugging Face directories that hold something else than the plain weights of a model. */
#ifndef GEUL_HF_FOREIGN_H
#define GEUL_HF_FOREIGN_H

#include "formats/checkpoint.h"

#include <jansson.h>

/* Fails, with the method and the way out, when a parsed config.json says that the weights are quantized. name is for
 * messages. */
enum geul_status geul_hf_check_config(struct geul_context *ctx, const char *name, const json_t *json);
/* Fails when the names of tensors say that they are quantized, or an adapter that was not merged. */
enum geul_status geul_hf_check_tensors(struct geul_context *ctx, const char *dir, const struct geul_checkpoint *c);

#endif
