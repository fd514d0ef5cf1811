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

/* ------------------------------------------------------------------------------------ rows, samples and shards -- */
/* Stability: may still change (more shapes of rows, more in the reports; what is here stays). */

/* Training data as people keep it, row by row:
 *
 *     {"instruction": ..., "input": ..., "output": ...}       input may be missing, null or ""
 *     {"messages": [{"role": "user", "content": ...}, ...]}   user and assistant in turn, before them perhaps system
 *     {"question": ..., "answer": ...}
 *     {"prompt": ..., "completion": ...}
 *     {"text": ...}
 *
 * A file is JSON Lines, one of these a line, or one plain text when its name ends in .txt. Shapes may be mixed. The
 * first shape whose keys a line has is taken, other keys are ignored, blank lines skipped. A line that is none of them
 * is a problem, which has no effect on the other lines. Files are mapped, never loaded.
 *
 * Rows become samples (a dataset for geul_trainer_new()) or documents in token shards, which geul_dataset_add_shard()
 * maps. A context serves one thread at a time, and so do the calls and objects that are given it.
 *
 *     struct geul_row_problems *problems = geul_row_problems_new(ctx);
 *     struct geul_dataset *train = geul_dataset_new(ctx), *held_out = geul_dataset_new(ctx);
 *     struct geul_samples_options how = {.size = sizeof how, .prompt_template = koalpaca, .n_context = 512,
 *                                        .held_out = 0.02, .problems = problems};
 *     if (geul_samples_read(ctx, tok, paths, n_paths, &how, train, held_out, NULL) != GEUL_OK)
 *         fprintf(stderr, "%s\n", geul_error(ctx));
 *     for (int i = 0; geul_row_problems_text(problems, i); i++)
 *         fprintf(stderr, "%s\n", geul_row_problems_text(problems, i));
 *     ... geul_row_problems_free(problems);
 */

/* What was wrong with rows: all are counted, the texts of the first ones kept. A list may serve several calls, which
 * add to it. */
struct geul_row_problems;

/* An empty list, NULL when memory is short. */
GEUL_API struct geul_row_problems *geul_row_problems_new(struct geul_context *ctx);
/* NULL is fine. */
GEUL_API void geul_row_problems_free(struct geul_row_problems *p);
GEUL_API int64_t geul_row_problems_count(const struct geul_row_problems *p);
/* "FILE:LINE: what", without control characters; lives as long as p. NULL from the end of the texts on: 20 are kept. */
GEUL_API const char *geul_row_problems_text(const struct geul_row_problems *p, int i);

enum geul_row_kind { GEUL_ROW_TURNS, GEUL_ROW_TEXT };

/* A row, which only the library makes: fields may be added. */
struct geul_row {
    enum geul_row_kind kind;
    int64_t line;                  /* in the file, from 1 */
    const struct geul_turn *turns; /* of TURNS: each with a question and an answer that is not empty */
    int n_turns;                   /* at least 1; 0 for TEXT */
    const char *input;             /* extra context of the first question, NULL: none */
    const char *system;            /* the text of the system, NULL: none; at most one of the two is there */
    const char *text;              /* of TEXT: length bytes of UTF-8 without NUL, not NUL-terminated */
    size_t length;
};

/* A file that is being read. */
struct geul_rows;

/* problems gets what is no row, and must live until geul_rows_close(); NULL: such lines are only passed over. NULL when
 * the file cannot be read, or holds one JSON array instead of a line per row. */
GEUL_API struct geul_rows *geul_rows_open(struct geul_context *ctx, const char *path,
                                          struct geul_row_problems *problems);
/* *row gets the next row, NULL at the end; it and all it names live until the next call on rows. Fails when memory is
 * short, and at the end of a file that held neither rows nor problems. */
GEUL_API enum geul_status geul_rows_next(struct geul_rows *rows, const struct geul_row **row);
/* NULL is fine. */
GEUL_API void geul_rows_close(struct geul_rows *rows);

/* What becomes of a conversation that is longer than the context. (A text is cut into windows instead.) */
enum geul_samples_long {
    GEUL_SAMPLES_TRUNCATE, /* its beginning is kept; without a target in it the row is a problem */
    GEUL_SAMPLES_SKIP,
    GEUL_SAMPLES_REFUSE, /* the reading fails */
};

struct geul_samples_options {
    size_t size;
    const struct geul_template *prompt_template; /* NULL: questions and answers are joined as they are */
    bool whole;                                  /* prompts are learned too */
    int n_context; /* tokens that the model sees at once; a sample may have one more, which is only predicted. 0: no
                      bound */
    enum geul_samples_long too_long;
    double held_out; /* share of the rows that is kept from training, 0 to 0.5; each row is drawn by itself, from seed
                        and its number over all files */
    uint64_t seed;
    struct geul_row_problems *problems; /* gets the rows that cannot be used; may be NULL */
    /* After every row: bytes of all files read so far, of all. May be NULL. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

struct geul_samples_report {
    size_t size;
    int64_t rows;          /* that could be used */
    int64_t held_out;      /* of these */
    int64_t too_long;      /* conversations longer than the context */
    const char *long_path; /* of the first of them: the file as the caller named it, NULL: there is none; */
    int64_t long_line;     /* and the line */
    int64_t joined_input; /* rows whose input or system text went into the question: the template has no place for it */
    int64_t longest;      /* tokens of the longest row before anything was cut */
};

/* Appends the rows of all files as samples, in order, to train and, those that are kept from training, to held_out,
 * which may be NULL when the share is 0. tok must have an end token. A row that cannot be used becomes a problem. Fails
 * when a file cannot be read or has neither rows nor problems, and when nothing was added to train; the datasets then
 * hold what was read before. report may be NULL and is filled after a failure too. */
GEUL_API enum geul_status geul_samples_read(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                            const char *const *paths, int n_paths,
                                            const struct geul_samples_options *options, struct geul_dataset *train,
                                            struct geul_dataset *held_out, struct geul_samples_report *report);

struct geul_shards_options {
    size_t size;
    const struct geul_template *prompt_template; /* as for samples */
    uint64_t shard_tokens;                       /* most tokens of a file, at least 2; 0: 2^27, which is 256 MiB */
    struct geul_row_problems *problems;
    bool (*progress)(void *user, uint64_t done, uint64_t total); /* as for samples */
    void *user;
};

struct geul_shards_report {
    size_t size;
    int64_t documents, tokens;
    int files; /* PREFIX-00000.geulshard and so on */
};

/* Writes every row of the files as a document with its end token into token shards: files of ids, together one stream.
 * All of them appear at the end, or none does. tok must have an end token. Fails when a file cannot be read, when no
 * row can be used, and when the file after the last one exists, left from a longer run: a reader of PREFIX-* would take
 * it along. options and report may be NULL. */
GEUL_API enum geul_status geul_shards_write(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                            const char *const *paths, int n_paths, const char *prefix,
                                            const struct geul_shards_options *options,
                                            struct geul_shards_report *report);

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

/* ----------------------------------------------------------------------------------------------- trouble watch -- */
/* Stability: may still change (what is found odd, and how it is said). */

/* What goes wrong while a model trains, by name. The makers of Polyglot-Ko report sudden drops of the loss and broken
 * generations among their troubles. A drop is no error, but suspicious: text that comes twice, labels that can be seen.
 *
 *     struct geul_watch *w = geul_watch_new(ctx);
 *     char why[GEUL_WATCH_WHY];
 *     if (geul_watch_step(w, loss, grad_norm, why, sizeof why) == GEUL_WATCH_LOSS_SPIKE) ...
 *
 * The place for it is the judge of struct geul_train_options. One thread at a time. */
struct geul_watch;

enum geul_watch_verdict {
    GEUL_WATCH_FINE,
    GEUL_WATCH_NOT_FINITE,
    GEUL_WATCH_LOSS_SPIKE,
    GEUL_WATCH_LOSS_DROP,
    GEUL_WATCH_GRADIENT_SPIKE,
};

enum {
    GEUL_WATCH_WHY = 160, /* bytes that hold any reason */
    GEUL_WATCH_STATE_BYTES = 64,
};

/* A watch that has seen nothing. NULL when memory is short. */
GEUL_API struct geul_watch *geul_watch_new(struct geul_context *ctx);
/* NULL is fine. */
GEUL_API void geul_watch_free(struct geul_watch *w);
/* Judges a step by the steps before. why (may be NULL) gets one line that says more, "" when it is fine.
 * Nothing but NOT_FINITE is said in the first 20 steps. What was judged odd does not enter the levels, until it lasts:
 * after 10 odd steps in a row the level begins anew where the run is now. */
GEUL_API enum geul_watch_verdict geul_watch_step(struct geul_watch *w, double loss, double grad_norm, char *why,
                                                 size_t size);
/* "loss spike"; never NULL. */
GEUL_API const char *geul_watch_name(enum geul_watch_verdict v);
/* Everything that the verdicts to come depend on, to be kept in checkpoints, and a watch put back to it. The bytes are
 * this machine's; of a watch that has seen nothing they are zero. */
GEUL_API void geul_watch_get_state(const struct geul_watch *w, unsigned char state[GEUL_WATCH_STATE_BYTES]);
GEUL_API void geul_watch_set_state(struct geul_watch *w, const unsigned char state[GEUL_WATCH_STATE_BYTES]);

/* What is wrong with a text that a model wrote: "empty", "broken characters", "mostly one character", "repeats itself".
 * NULL: it looks fine. Of long texts the last 4 KiB are looked at. A character cut off at the very end is fine. */
GEUL_API const char *geul_watch_text(const char *text, size_t length);

#ifdef __cplusplus
}
#endif
#endif
