/* training_run.h: the parts of a run that training.c, training_files.c and training_output.c share. */
#ifndef GEUL_TRAINING_RUN_H
#define GEUL_TRAINING_RUN_H

#include "command/learn/training.h"

#include "geul_tools.h"

/* The run's own state in a checkpoint, in addition to the trainer's; stored as raw bytes. Nothing in it depends on the
 * clock: two runs of the same settings write the same bytes. */
struct geul_run_state {
    unsigned char watch[GEUL_WATCH_STATE_BYTES]; /* filled in when a checkpoint is written */
    double best_loss;                            /* of held-out data; infinity: none yet */
    double first_loss, last_loss;                /* of held-out data, before the first step and the last time; NaN */
    double began;                                /* training loss of the first step, which no update has changed */
    double rate_scale;                           /* halved by every climb that was rewound */
    int64_t best_step;
    int64_t tokens;
    int64_t refused; /* steps in a row that were not applied */
    int64_t
        sound_step; /* of the newest checkpoint that was due while nothing was odd: the one to go back to; -1: none */
    int64_t rewinds;
    double level;           /* of the training loss, over about 10 steps */
    int64_t evaluated_step; /* of the newest evaluation, -1: none yet */
};

struct geul_run {
    struct geul_training *job;
    struct geul_context *ctx;
    struct geul_trainer *trainer;
    struct geul_journal *log;
    struct geul_watch *watch;
    struct geul_run_state state;
    struct geul_settings settings;
    char *changes; /* from the settings of the checkpoint that the run was resumed from; NULL: none. "\n" ends each */
    double started_at; /* clock when the run would have begun, had it never been interrupted */
    int64_t saved_at;  /* step of the newest checkpoint, -1: none */
    int64_t evaluate_every, save_every, sample_every;
    enum geul_watch_verdict verdict; /* of the current step */
    char why[GEUL_WATCH_WHY];
    double shown; /* when the progress line was last drawn */
    double speed; /* tokens per second, smoothed */
};

/* training_files.c: all return a status with the reason in run->ctx. */
/* Saves checkpoint-STEP.gguf and removes the oldest beyond --keep. due: false for one that an interrupt caused. */
enum geul_status geul_run_save(struct geul_run *run, bool due);
/* Restores everything from the newest checkpoint; *found: whether there was one. */
enum geul_status geul_run_load(struct geul_run *run, bool *found);
/* Restores weights and optimizer states from the newest sound checkpoint; *found: whether there was one. */
enum geul_status geul_run_rewind(struct geul_run *run, bool *found);
/* Appends advice to the failure in the context; returns its status. */
enum geul_status geul_run_advise(struct geul_run *run, const char *format, ...) GEUL_PRINTF(2, 3);
/* Writes the current weights as best.gguf. */
enum geul_status geul_run_save_best(struct geul_run *run);
/* Says so when the run ended worse than it began: as a warning and an event. */
enum geul_status geul_run_judge_end(struct geul_run *run);
/* Writes the result and prints where it is. */
enum geul_status geul_run_export(struct geul_run *run);
/* DIR/NAME in one of four static buffers, which are used in turn. */
const char *geul_run_checkpoint(const struct geul_run *run, int64_t step);
const char *geul_run_path(const struct geul_run *run, const char *format, ...) GEUL_PRINTF(2, 3);

/* training_output.c */
/* The memory and time of the run as the library estimates them, plus what the model's sample texts take. */
enum geul_status geul_run_estimate(const struct geul_training *job, const struct geul_train_options *o, bool measure,
                                   struct geul_train_estimate *estimate);
/* Prints the estimate and, when the run does not fit, a setting that would. Returns whether it fits. */
bool geul_run_print_estimate(struct geul_training *job, const struct geul_train_estimate *estimate);
/* Prints the progress line, redrawn on a terminal, otherwise every 10 seconds; and removes it. */
void geul_run_show(struct geul_run *run, const struct geul_train_report *r);
void geul_run_hide(void);
/* Lets the model continue the beginnings of a few samples, logs the texts, and reports broken ones. */
enum geul_status geul_run_write_samples(struct geul_run *run);

#endif
