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

/* The directory of a run, which is this process's alone while it works there. */
struct geul_run_dir {
    struct geul_dirlock *lock; /* NULL: the run writes nothing */
    const char *path;
    bool made; /* it did not exist before */
};
/* Makes and locks the directory, before anything is written or read: a directory in use, or one that an earlier run
 * left and that is not to be resumed, is refused. With --plan and --preview it does nothing. Returns 0 or the exit code
 * after a message. */
int geul_run_dir_take(struct geul_context *ctx, const struct geul_train_args *args, struct geul_run_dir *dir);
/* Ends that; a directory that was made and is still empty goes again. */
void geul_run_dir_leave(struct geul_run_dir *dir);

/* Does what args say: an estimate, or the whole run. Returns the exit code. */
int geul_training_run(struct geul_training *job);

#endif
