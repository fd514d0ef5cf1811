/* log_entry.h: what the outputs of a journal share: the entry, its columns, the history, the table of formats. */
#ifndef GEUL_LOG_ENTRY_H
#define GEUL_LOG_ENTRY_H

#include "core/os.h"
#include "journal/log_text.h"
#include "geul_tools.h"

enum geul_log_kind { GEUL_LOG_STEP, GEUL_LOG_EVALUATION, GEUL_LOG_SAMPLE, GEUL_LOG_EVENT, GEUL_LOG_KINDS };

/* One thing to log. The step is in record whatever the kind. */
struct geul_log_entry {
    enum geul_log_kind kind;
    struct geul_journal_record record; /* STEP; EVALUATION has its loss here too */
    bool best;                         /* EVALUATION */
    const char *label, *text;          /* SAMPLE: prompt and text; EVENT: kind and text */
};

/* The fields of a step, in the order of the CSV. */
enum geul_log_value { GEUL_LOG_INT, GEUL_LOG_DOUBLE, GEUL_LOG_BOOL };
struct geul_log_column {
    const char *name;
    enum geul_log_value value;
    size_t offset; /* in struct geul_journal_record */
};
#define GEUL_LOG_COLUMNS 10
extern const struct geul_log_column geul_log_columns[GEUL_LOG_COLUMNS];
/* The double of that column; only for GEUL_LOG_DOUBLE. */
double geul_log_column_double(const struct geul_journal_record *r, const struct geul_log_column *c);

/* ----------------------------------------------------------------------------------- history -- */

/* A step as the report needs it. */
struct geul_log_point {
    int64_t step;
    float loss, learning_rate, grad_norm, tokens_per_second;
    bool skipped;
};
struct geul_log_evaluation {
    int64_t step;
    double loss;
};
struct geul_log_note { /* a sample or an event */
    int64_t step;
    char *label, *text;
};
struct geul_log_notes {
    struct geul_log_note *items;
    size_t n, capacity;
};
/* All of a run so far. Steps of points and evaluations ascend: a rewind drops what it undoes. Zero all but ctx. */
struct geul_log_history {
    struct geul_context *ctx;
    struct geul_log_point *points;
    size_t n_points, points_capacity;
    struct geul_log_evaluation *evaluations;
    size_t n_evaluations, evaluations_capacity;
    struct geul_log_notes samples, events;
    int64_t tokens; /* of all steps that were computed, including undone ones */
    double seconds, epoch;
};
/* Adds an entry; texts are copied. */
enum geul_status geul_log_history_add(struct geul_log_history *h, const struct geul_log_entry *e);
void geul_log_history_free(struct geul_log_history *h);

/* ----------------------------------------------------------------------------------- formats -- */

/* One line of a log, without its end, as an entry whose texts live in scratch. GEUL_ERROR_FORMAT (nothing recorded):
 * not such a line; GEUL_ERROR_MEMORY. */
typedef enum geul_status (*geul_log_parse)(struct geul_log_text *scratch, const char *line, size_t n,
                                           struct geul_log_entry *e);

/* One file of an open log. */
struct geul_log_output {
    const struct geul_log_format *format;
    struct geul_context *ctx;
    const struct geul_journal_options *options;
    const struct geul_log_history *history;
    const char *dir;
    int64_t resume_step, last_step;
    struct geul_appendfile *file; /* NULL: this format has none that grows */
    struct geul_log_text text;    /* what is about to be written; its memory is reused */
};

struct geul_log_format {
    const char *name;     /* of the file; of an events file, how it begins */
    size_t wanted;        /* offset of its bool in struct geul_journal_options */
    const char *header;   /* first line of a new file, or NULL */
    geul_log_parse parse; /* NULL: cannot be read back */
    enum geul_status (*open)(struct geul_log_output *o);
    /* Per kind; NULL: not in this format. What write puts into o->text is appended to o->file. */
    void (*write[GEUL_LOG_KINDS])(struct geul_log_output *o, const struct geul_log_entry *e);
    enum geul_status (*flush)(struct geul_log_output *o);
};
extern const struct geul_log_format geul_log_csv, geul_log_jsonl, geul_log_tensorboard, geul_log_report;

/* Appends o->text, unless putting it together failed, and empties it. */
enum geul_status geul_log_append(struct geul_log_output *o);

/* open and flush of formats that are lines: the file is cut to what belongs to steps up to the resume step. */
enum geul_status geul_log_lines_open(struct geul_log_output *o);
enum geul_status geul_log_file_flush(struct geul_log_output *o);
/* How many of the bytes of a log lead to the state after resume_step: up to the last entry of a step that is not later
 * (log_lines.c has a picture). */
enum geul_status geul_log_lines_resume_size(struct geul_context *ctx, geul_log_parse parse, const char *data,
                                            size_t size, int64_t resume_step, size_t *resume_size);
/* Adds the lines of a log to h; lines that do not parse are skipped. */
enum geul_status geul_log_lines_read(struct geul_log_history *h, geul_log_parse parse, const char *data, size_t size);

/* report.html of a history, into t. */
void geul_log_report_page(struct geul_log_text *t, const struct geul_log_history *h,
                          const struct geul_journal_options *o);

#endif
