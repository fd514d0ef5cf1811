/* samples.h: files of rows to datasets: templates, masks, the context's bound, and rows held out. */
#ifndef GEUL_SAMPLES_H
#define GEUL_SAMPLES_H

#include "corpus/rows.h"
#include "data/encode_sample.h"

/* What becomes of a conversation that is longer than the context. (A text is cut into windows instead.) */
enum geul_samples_long {
    GEUL_SAMPLES_TRUNCATE, /* its beginning is kept; without a target in it the row is a problem */
    GEUL_SAMPLES_SKIP,
    GEUL_SAMPLES_REFUSE, /* the reading fails */
};

struct geul_samples_options {
    const struct geul_template *t; /* NULL: questions and answers are joined as they are */
    bool whole;                    /* prompts are learned too */
    int n_context;                 /* tokens that the model sees at once; a sample may have one more, which is only
                                    * predicted. 0: no bound */
    enum geul_samples_long too_long;
    double held_out; /* share of the rows that is kept from training, 0 to 0.5; each is drawn by itself, from seed and
                      * its number over all files */
    uint64_t seed;
    /* After every row: bytes of all files read so far, and in all. false stops. May be NULL. */
    bool (*on_progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

enum { GEUL_SAMPLES_LONG_KEPT = 8 };

struct geul_samples_report {
    int64_t rows;                   /* usable ones */
    int64_t held_out;               /* of these */
    int64_t too_long, joined_input; /* joined: the template has no place for the row's input or system text */
    int64_t long_lines[GEUL_SAMPLES_LONG_KEPT];     /* of the first rows that are too long, */
    const char *long_paths[GEUL_SAMPLES_LONG_KEPT]; /* and their files, as the caller named them */
    int n_long_lines;
    int64_t longest; /* tokens of the longest row before anything was cut */
};

struct geul_samples {
    struct geul_dataset *train, *held_out; /* held_out is empty unless rows were held out */
    struct geul_row_problems problems;
    struct geul_samples_report report;
};

/* Reads all files. A row that cannot be used becomes a problem; it fails when a file cannot be read or has neither rows
 * nor problems, or when nothing is left to train on. Free with geul_samples_free(), also after a failure. */
enum geul_status geul_samples_read(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *const *paths,
                                   int n_paths, const struct geul_samples_options *options, struct geul_samples *out);
void geul_samples_free(struct geul_context *ctx, struct geul_samples *s);

/* The ids of one row; free with geul_sample_free(), also after a failure. *joined is set where an input or the system's
 * text went into the question, because the template has no place for it. */
enum geul_status geul_samples_encode(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                     const struct geul_row *row, const struct geul_template *t, bool whole,
                                     struct geul_sample *out, bool *joined);

#endif
