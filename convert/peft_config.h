/* peft_config.h: reading the adapter_config.json of a LoRA adapter of PEFT. */
#ifndef GEUL_PEFT_CONFIG_H
#define GEUL_PEFT_CONFIG_H

#include "core/context.h"

#include <jansson.h>

struct geul_peft_config {
    int64_t rank;
    double alpha;
    bool rslora;
    const char *base;                           /* base_model_name_or_path; NULL: not given */
    const json_t *rank_pattern, *alpha_pattern; /* objects, or NULL */
};

/* Reads a parsed adapter_config.json, which has to outlive out; name is for messages. Whatever changes the computation
 * in a way that geul cannot follow (DoRA, biases, whole modules, weights that an initialization takes from the base
 * model) is refused. */
enum geul_status geul_peft_config_read(struct geul_context *ctx, const char *name, const json_t *json,
                                       struct geul_peft_config *out);
/* Rank and alpha of a module ("gpt_neox.layers.3.attention.dense"), by the first pattern of each kind that matches it,
 * as PEFT looks them up. */
enum geul_status geul_peft_config_module(struct geul_context *ctx, const char *name, const struct geul_peft_config *c,
                                         const char *module, int64_t *rank, double *alpha);

#endif
