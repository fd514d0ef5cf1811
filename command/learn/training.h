/* training.h: a run from its first step to its result: progress, logs, evaluation, checkpoints, recovery. */
#ifndef GEUL_TRAINING_H
#define GEUL_TRAINING_H

#include "command/learn/train_args.h"

struct geul_training {
    struct geul_context *ctx;
    const struct geul_train_args *args;
    struct geul_train_options options;
    const char *title;                           /* "finetune geul-mini.gguf" */
    const struct geul_dataset *train, *held_out; /* held_out may be NULL or empty */
    const char *data_name;                       /* for the settings */
    enum geul_type type;                         /* of a whole model's matrices in the result */
    const struct geul_model_shape *shape;        /* of the model */
};

/* Does what args say: an estimate, or the whole run. Returns the exit code. */
int geul_training_run(struct geul_training *job);

#endif
