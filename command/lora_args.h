/* lora_args.h: the options that name adapters, and opening what they name. */
#ifndef GEUL_LORA_ARGS_H
#define GEUL_LORA_ARGS_H

#include "command/options.h"

#include "geul_tools.h"

/* --lora --lora-scaled */
struct geul_lora_args {
    struct geul_text_list plain, scaled;
};
extern const struct geul_option geul_lora_option_rows[];

/* An adapter that an option names. */
struct geul_lora_choice {
    char *path; /* a GGUF file or a directory of PEFT */
    float scale;
};
enum { GEUL_LORAS_MAX = 2 * GEUL_TEXT_LIST_MAX };

/* Those of the options, --lora first; returns their number, -1 after a failure (recorded in ctx). Free each path with
 * geul_free(), also after a failure. */
int geul_lora_args_choices(struct geul_context *ctx, const struct geul_lora_args *args,
                           struct geul_lora_choice choices[GEUL_LORAS_MAX]);
/* Adds those of the options to a model that has no session yet. */
enum geul_status geul_lora_args_add(struct geul_context *ctx, const struct geul_lora_args *args,
                                    struct geul_model *model);

#endif
