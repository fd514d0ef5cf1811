/* training_run.h: the parts of a run that training.c, training_files.c and training_output.c share. */
#ifndef GEUL_TRAINING_RUN_H
#define GEUL_TRAINING_RUN_H

#include "command/learn/training.h"

#include "geul_tools.h"

/* What a checkpoint carries of the run beside the trainer's own; plain bytes. Nothing of the clock: checkpoints of the
 * same run are the same bytes. */
struct geul_run_state {
    unsigned char watch[GEUL_WATCH_STATE_BYTES]; /* filled in when a checkpoint is written */
    double best_loss;                            /* of held-out data; infinity: none yet */
    int64_t best_step;
    int64_t tokens;
    int64_t refused; /* steps in a row that were not applied */
    int64_t
        sound_step; /* of the newest checkpoint that was due while nothing was odd: the one to go back to; -1: none */
    int64_t rewinds;
};

struct geul_run {
    struct geul_training *job;
    struct geul_context *ctx;
    struct geul_trainer *trainer;
    struct geul_journal *log;
    struct geul_watch *watch;
    struct geul_run_state state;
    struct geul_settings settings;
    double started_at; /* clock when the run would have begun, had it never been interrupted */
    int64_t saved_at;  /* step of the newest checkpoint, -1: none */
    int64_t evaluate_every, save_every, sample_every;
    enum geul_watch_verdict verdict; /* of the step in work */
    char why[GEUL_WATCH_WHY];
    double shown; /* when the line was drawn last */
    double speed; /* tokens per second, smoothed */
};

/* training_files.c: all return a status with the reason in run->ctx. */
/* Saves checkpoint-STEP.gguf and removes those that are too many. due: at a step where the options ask for it. */
enum geul_status geul_run_save(struct geul_run *run, bool due);
/* Takes up the newest checkpoint, if there is one; *found. */
enum geul_status geul_run_load(struct geul_run *run, bool *found);
/* Takes up weights and states of the newest sound checkpoint, if there is one; *found. */
enum geul_status geul_run_rewind(struct geul_run *run, bool *found);
/* A checkpoint or result that an earlier run left in the directory, in a static buffer; NULL: none. */
const char *geul_run_older(const struct geul_run *run);
/* Adds to the failure in the context what can be done; returns its status. */
enum geul_status geul_run_advise(struct geul_run *run, const char *format, ...) GEUL_PRINTF(2, 3);
/* Writes what is best so far as best.gguf. */
enum geul_status geul_run_save_best(struct geul_run *run);
/* Writes the result and says where. */
enum geul_status geul_run_export(struct geul_run *run);
/* DIR/NAME in a static buffer, four of them in turn. */
const char *geul_run_path(const struct geul_run *run, const char *format, ...) GEUL_PRINTF(2, 3);

/* training_output.c */
/* What the run takes by the library's plan, and the texts that the model writes in between. */
enum geul_status geul_run_estimate(const struct geul_training *job, const struct geul_train_options *o, bool measure,
                                   struct geul_train_estimate *estimate);
/* Prints what memory and time the run takes, and what would make it fit. Returns whether it fits. */
bool geul_run_print_estimate(struct geul_training *job, const struct geul_train_estimate *estimate);
/* The line of progress, redrawn on a terminal, else now and then; and taking it away. */
void geul_run_show(struct geul_run *run, const struct geul_train_report *r);
void geul_run_hide(void);
/* Lets the model continue the beginnings of some samples, logs that, and names broken ones. */
enum geul_status geul_run_write_samples(struct geul_run *run);

#endif
