/* device_args.h: the options that say on which devices a model is computed. */
#ifndef GEUL_DEVICE_ARGS_H
#define GEUL_DEVICE_ARGS_H

#include "command/options.h"

#include "geul.h"

/* --device -ngl -ts --exact */
struct geul_device_args {
    const char *names; /* NULL: $GEUL_DEVICE, else auto */
    int n_gpu_layers;  /* as in geul_model_options */
    const char *split; /* "3,1" */
    bool exact;
};
extern const struct geul_option geul_device_options[];
#define GEUL_FIT_HELP                                                                                                  \
    "prints what would lie where, in bytes, what would fit if it does not, and how fast it could be; then ends"

/* Puts the options into those of a model. Returns 0, or 2 after a message. */
int geul_device_args_apply(const struct geul_device_args *args, struct geul_model_options *options);
/* After the failure in ctx, if a device is missing: says where its name came from if nobody typed it. */
void geul_device_args_explain(const struct geul_device_args *args, const struct geul_context *ctx);
/* Says why nothing is computed on a card though layers were meant for one. */
void geul_device_args_tell_missing(const struct geul_device_args *args);

#endif
