/* train_log.h: what a training run leaves for people to read: log.csv, log.jsonl, events for TensorBoard, report.html.
 *
 *     struct geul_train_log_options o = {.title = "finetune", .total_steps = 500, .csv = true, .report = true};
 *     struct geul_train_log *log = geul_train_log_open(ctx, "run", &o, 0);
 *     geul_train_log_step(log, &record); ... geul_train_log_evaluation(log, 100, 2.31, true); ...
 *     geul_train_log_flush(log);
 *     geul_train_log_close(log);
 *
 * Rows, lines and events are in their files when a call returns; report.html is rewritten by flush. A failing call has
 * served the other files all the same and says which one failed; the log can still be used. Nothing depends on the
 * locale. One thread at a time.
 */
#ifndef GEUL_TRAIN_LOG_H
#define GEUL_TRAIN_LOG_H

#include "core/context.h"

/* One optimizer step. A step number that was given before means that the run went back: the new one counts. */
struct geul_train_record {
    int64_t step;             /* from 1 */
    double loss;              /* mean nats per target */
    double learning_rate;     /* of this step */
    double grad_norm;         /* before clipping */
    double tokens_per_second; /* of this step */
    double seconds;           /* since the run began, resumes included */
    int64_t tokens, targets;  /* of this step */
    double epoch;             /* passes over the data so far */
    bool skipped;             /* the step was not applied */
};

/* A line of the report's table of settings. */
struct geul_train_setting {
    const char *name, *value;
};

struct geul_train_log_options {
    const char *title;                         /* "finetune geul-mini.gguf"; UTF-8, like all texts here; copied */
    const struct geul_train_setting *settings; /* copied */
    int n_settings;
    int64_t total_steps; /* 0: unknown */
    bool csv;            /* log.csv: a header, a row per step; an evaluation is a row with only step and eval_loss */
    bool jsonl;          /* log.jsonl: an object per line, "type" is step, evaluation, sample or event */
    bool tensorboard;    /* events.out.tfevents.SECONDS.geul; every resume adds a file */
    bool report;         /* report.html. After a resume its past comes from log.jsonl, or from log.csv, which knows no
                            events and samples; with neither it begins at the resume */
};

struct geul_train_log;

/* Opens the outputs in the folder dir, which exists. resume_step 0 begins anew and drops what earlier runs left (for
 * TensorBoard: hides it). Otherwise rows and events of later steps, left by a run that was interrupted, are dropped, so
 * that a resumed run leaves the log of an uninterrupted one but for times. Returns NULL on failure. */
struct geul_train_log *geul_train_log_open(struct geul_context *ctx, const char *dir,
                                           const struct geul_train_log_options *o, int64_t resume_step);
enum geul_status geul_train_log_step(struct geul_train_log *log, const struct geul_train_record *record);
/* The held-out loss after a step (0: before the first), in nats per target; best: the lowest so far. */
enum geul_status geul_train_log_evaluation(struct geul_train_log *log, int64_t step, double loss, bool best);
/* What the model wrote after a step. Broken UTF-8 is written as U+FFFD. */
enum geul_status geul_train_log_sample(struct geul_train_log *log, int64_t step, const char *prompt, const char *text);
/* Something that happened: kind is short ("loss spike", "rewind"), text says more. */
enum geul_status geul_train_log_event(struct geul_train_log *log, int64_t step, const char *kind, const char *text);
/* The seconds of the newest step, those before a resume included. 0 without a report, whose history knows them. */
double geul_train_log_seconds(const struct geul_train_log *log);
/* Everything so far is on the disk, and report.html shows it. Replaces report.html as a whole. */
enum geul_status geul_train_log_flush(struct geul_train_log *log);
/* Closes the files without a last flush. NULL is fine. */
void geul_train_log_close(struct geul_train_log *log);

#endif
