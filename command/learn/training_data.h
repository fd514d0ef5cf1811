/* training_data.h: the options that name data, and a run over what they name. */
#ifndef GEUL_TRAINING_DATA_H
#define GEUL_TRAINING_DATA_H

#include "command/learn/train_args.h"

struct geul_data_args {
    const char *template_name, *mask_prompt, *too_long, *encoding, *nfc;
    struct geul_text_list files, held_out_files;
    float held_out; /* -1: 2 % of 100 rows or more */
};
#define GEUL_DATA_ARGS_DEFAULT                                                                                         \
    {                                                                                                                  \
        .template_name = "auto", .mask_prompt = "on", .too_long = "truncate", .nfc = "auto", .held_out = -1            \
    }
extern const struct geul_option geul_data_option_rows[];

/* Reads the data for the model that o names, prints what was read, and previews, estimates or runs (training.h). type:
 * of a whole model's result. Returns the exit code. */
int geul_train_on_data(struct geul_context *ctx, const struct geul_train_args *args, const struct geul_data_args *data,
                       const struct geul_train_options *o, const char *title, enum geul_type type);

#endif
