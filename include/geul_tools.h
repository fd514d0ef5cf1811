/* geul_tools.h: work on models and files around geul.h: what libgeul-tools adds to libgeul.
 *
 * Conventions  As in geul.h, of which this is a continuation: lifetime, errors, threads.
 * Structs      What the library hands out is opaque, or a struct that begins with its size. The caller sets it,
 *                  struct geul_journal_options o = {.size = sizeof o};
 *              and zero is a default for every field that does not say otherwise. So fields can be added at the end:
 *              what an older program does not know is zero for it.
 * Progress     A callback gets what is done and what there is in all; false stops the work, which then fails with
 *              GEUL_ERROR_CANCELLED. It is called on the thread that called the function.
 * Files        Appear under their name when they are whole; until then an older file of that name stays.
 */
#ifndef GEUL_TOOLS_H
#define GEUL_TOOLS_H

#include "geul.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ----------------------------------------------------------------------------------------------------- journal -- */

/* What a training run leaves for people to read: log.csv, log.jsonl, events for TensorBoard, report.html.
 *
 *     struct geul_journal_options o = {.size = sizeof o, .title = "finetune", .total_steps = 500, .csv = true};
 *     struct geul_journal *log = geul_journal_open(ctx, "run", &o, 0);
 *     geul_journal_step(log, &record); ... geul_journal_evaluation(log, 100, 2.31, true); ...
 *     geul_journal_flush(log);
 *     geul_journal_close(log);
 *
 * Rows, lines and events are in their files when a call returns; report.html is rewritten by flush. A failing call has
 * served the other files all the same and says which one failed; the journal can still be used. Nothing depends on the
 * locale. One thread at a time. */
struct geul_journal;

/* One optimizer step. A step number that was given before means that the run went back: the new one counts. */
struct geul_journal_record {
    size_t size;
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
struct geul_journal_setting {
    const char *name, *value;
};

struct geul_journal_options {
    size_t size;
    const char *title;                           /* "finetune geul-mini.gguf"; UTF-8, like all texts here; copied */
    const struct geul_journal_setting *settings; /* copied */
    int n_settings;
    int64_t total_steps; /* 0: unknown */
    bool csv;            /* log.csv: a header, a row per step; an evaluation is a row with only step and eval_loss */
    bool jsonl;          /* log.jsonl: an object per line, "type" is step, evaluation, sample or event */
    bool tensorboard;    /* events.out.tfevents.SECONDS.geul; every resume adds a file */
    bool report;         /* report.html. After a resume its past comes from log.jsonl, or from log.csv, which knows no
                            events and samples; with neither it begins at the resume */
};

/* Opens the outputs in the folder dir, which exists. resume_step 0 begins anew and drops what earlier runs left (for
 * TensorBoard: hides it). Otherwise rows and events of later steps, left by a run that was interrupted, are dropped, so
 * that a resumed run leaves the log of an uninterrupted one but for times. NULL on failure. */
GEUL_API struct geul_journal *geul_journal_open(struct geul_context *ctx, const char *dir,
                                                const struct geul_journal_options *o, int64_t resume_step);
GEUL_API enum geul_status geul_journal_step(struct geul_journal *log, const struct geul_journal_record *record);
/* The held-out loss after a step (0: before the first), in nats per target; best: the lowest so far. */
GEUL_API enum geul_status geul_journal_evaluation(struct geul_journal *log, int64_t step, double loss, bool best);
/* What the model wrote after a step. Broken UTF-8 is written as U+FFFD. */
GEUL_API enum geul_status geul_journal_sample(struct geul_journal *log, int64_t step, const char *prompt,
                                              const char *text);
/* Something that happened: kind is short ("loss spike", "rewind"), text says more. */
GEUL_API enum geul_status geul_journal_event(struct geul_journal *log, int64_t step, const char *kind,
                                             const char *text);
/* The seconds of the newest step, those before a resume included. 0 without a report, whose history knows them. */
GEUL_API double geul_journal_seconds(const struct geul_journal *log);
/* Everything so far is on the disk, and report.html shows it. Replaces report.html as a whole. */
GEUL_API enum geul_status geul_journal_flush(struct geul_journal *log);
/* Closes the files without a last flush. NULL is fine. */
GEUL_API void geul_journal_close(struct geul_journal *log);

#ifdef __cplusplus
}
#endif
#endif
