/* training_run.h: the parts of a run that training.c, training_files.c and training_words.c share. */
#ifndef GEUL_TRAINING_RUN_H
#define GEUL_TRAINING_RUN_H

#include "examples/geul/training.h"

#include "train/trainer.h"
#include "train/watch.h"

/* What a checkpoint carries of the run beside the trainer's own; plain bytes. */
struct geul_run_state {
    struct geul_watch watch;
    double best_loss; /* of held-out data; infinity: none yet */
    int64_t best_step;
    double seconds; /* that the run has taken */
    int64_t tokens;
    int64_t refused; /* steps in a row that were not applied */
    int64_t rewinds;
};

struct geul_run {
    struct geul_training *job;
    struct geul_context *ctx;
    struct geul_trainer *trainer;
    struct geul_train_log *log;
    struct geul_run_state state;
    struct geul_settings settings;
    double begun;     /* clock when seconds of the state were counted last */
    int64_t saved_at; /* step of the newest checkpoint, -1: none */
    int64_t evaluate_every, save_every, sample_every;
    enum geul_watch_verdict verdict; /* of the step in work */
    char why[GEUL_WATCH_WHY];
    double shown; /* when the line was drawn last */
    double speed; /* tokens per second, smoothed */
};

/* training_files.c: all return a status with the reason in run->ctx. */
/* Saves checkpoint-STEP.gguf and removes those that are too many. */
enum geul_status geul_run_save(struct geul_run *run);
/* Takes up the newest checkpoint, if there is one; *found. back: only weights and states, after a mishap. */
enum geul_status geul_run_load(struct geul_run *run, bool back, bool *found);
/* Writes what is best so far as best.gguf. */
enum geul_status geul_run_save_best(struct geul_run *run);
/* Writes the result and says where. */
enum geul_status geul_run_export(struct geul_run *run);
/* DIR/NAME in a static buffer, four of them in turn. */
const char *geul_run_path(const struct geul_run *run, const char *format, ...) GEUL_PRINTF(2, 3);

/* training_words.c */
/* Prints what memory and time the run takes, and what would make it fit. Returns whether it fits. */
bool geul_run_print_plan(struct geul_training *job, const struct geul_train_plan *plan);
/* The line of progress, redrawn on a terminal, else now and then; and taking it away. */
void geul_run_show(struct geul_run *run, const struct geul_train_report *r);
void geul_run_hide(void);
/* Lets the model continue the beginnings of some samples, logs that, and names broken ones. */
enum geul_status geul_run_write_samples(struct geul_run *run);

#endif
