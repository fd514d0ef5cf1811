/* journal.c: see geul_tools.h. */
#include "journal/log_entry.h"

#include "core/check.h"

#include <stdio.h>
#include <string.h>

static const struct geul_log_format *const formats[] = {&geul_log_csv, &geul_log_jsonl, &geul_log_tensorboard,
                                                        &geul_log_report};
#define FORMATS    (sizeof formats / sizeof formats[0])
#define MOST_STEPS ((int64_t)1 << 48) /* more than any run has */

enum { FAILURE_BYTES = 1024 }; /* that hold any message of a context */

struct geul_journal {
    struct geul_context *ctx;
    char *dir, *title;
    struct geul_journal_setting *settings; /* names and values are ours */
    struct geul_journal_options options;
    struct geul_log_history history;
    struct geul_log_output outputs[FORMATS];
    size_t n_outputs;
};

/* Makes log->options a copy with its own copies of the texts. n_settings counts those that close has to free, also
 * after a failure in between. */
static bool copy_options(struct geul_journal *log, const struct geul_journal_options *o)
{
    if (geul_take_struct(log->ctx, &log->options, sizeof log->options, o, "geul_journal_options") != GEUL_OK)
        return false;
    const int n_settings = log->options.n_settings;
    const struct geul_journal_setting *settings = log->options.settings;
    const char *title = log->options.title ? log->options.title : "";
    log->options.n_settings = 0;
    if (geul_check_array(log->ctx, "settings", settings, "n_settings", n_settings, 0) != GEUL_OK)
        return false;
    log->title = geul_strndup(log->ctx, title, strlen(title));
    log->settings = geul_alloc(log->ctx, (size_t)n_settings, sizeof *log->settings);
    if (!log->title || !log->settings)
        return false;
    log->options.title = log->title;
    log->options.settings = log->settings;
    for (int i = 0; i < n_settings; i++) {
        const struct geul_journal_setting *from = &settings[i];
        if (geul_check_element(log->ctx, "settings", i, ".name", from->name) != GEUL_OK ||
            geul_check_element(log->ctx, "settings", i, ".value", from->value) != GEUL_OK)
            return false;
        char *name = geul_strndup(log->ctx, from->name, strlen(from->name));
        char *value = geul_strndup(log->ctx, from->value, strlen(from->value));
        log->settings[log->options.n_settings++] = (struct geul_journal_setting){name, value};
        if (!name || !value)
            return false;
    }
    return true;
}

/* Opens the requested files. On a resume each format cuts off or marks what is after the resume step. */
static enum geul_status open_outputs(struct geul_journal *log, int64_t resume_step)
{
    for (size_t i = 0; i < FORMATS; i++) {
        bool wanted;
        memcpy(&wanted, (const char *)&log->options + formats[i]->wanted, sizeof wanted);
        if (!wanted)
            continue;
        struct geul_log_output *out = &log->outputs[log->n_outputs++];
        *out = (struct geul_log_output){.format = formats[i],
                                        .ctx = log->ctx,
                                        .options = &log->options,
                                        .history = &log->history,
                                        .dir = log->dir,
                                        .resume_step = resume_step,
                                        .last_step = resume_step,
                                        .text = {.ctx = log->ctx}};
        enum geul_status status = formats[i]->open ? formats[i]->open(out) : GEUL_OK;
        if (status != GEUL_OK)
            return status;
    }
    return GEUL_OK;
}

/* Adds what a log of lines holds to the history. */
static enum geul_status read_lines(struct geul_journal *log, const struct geul_log_format *source)
{
    struct geul_map map;
    char *path = geul_os_join_path(log->ctx, log->dir, source->name);
    enum geul_status status = path ? geul_os_map(log->ctx, path, &map) : GEUL_ERROR_MEMORY;
    geul_free(log->ctx, path);
    if (status != GEUL_OK)
        return status;
    geul_os_disown(&map);
    if (map.size)
        status = geul_log_lines_read(&log->history, source->parse, (const char *)map.data, map.size);
    geul_os_unmap(&map);
    return status;
}

/* Restores the history of a resumed run, which only the report needs: from log.jsonl, which has everything, or, if that
 * holds no steps, from log.csv. Called after open_outputs(): the logs are cut to the resume step by then. */
static enum geul_status read_history(struct geul_journal *log)
{
    enum geul_status status = GEUL_OK;
    if (log->options.report && log->options.jsonl)
        status = read_lines(log, &geul_log_jsonl);
    if (log->options.report && log->options.csv && status == GEUL_OK && !log->history.n_points)
        status = read_lines(log, &geul_log_csv);
    return status;
}

struct geul_journal *geul_journal_open(struct geul_context *ctx, const char *dir, const struct geul_journal_options *o,
                                       int64_t resume_step)
{
    geul_error_clear(ctx);
    if (resume_step < 0 || resume_step > MOST_STEPS) {
        geul_fail(ctx, GEUL_ERROR_ARGUMENT, "a journal cannot be resumed at step %lld", (long long)resume_step);
        return NULL;
    }
    struct geul_journal *log = geul_alloc(ctx, 1, sizeof *log);
    if (!log)
        return NULL;
    log->ctx = ctx;
    log->history.ctx = ctx;
    log->dir = geul_strndup(ctx, dir, strlen(dir));
    if (log->dir && copy_options(log, o) && open_outputs(log, resume_step) == GEUL_OK &&
        (resume_step <= 0 || read_history(log) == GEUL_OK))
        return log;
    geul_journal_close(log);
    return NULL;
}

/* Gives the entry to every output, also after one has failed; returns the first failure. */
static enum geul_status log_entry(struct geul_journal *log, const struct geul_log_entry *e)
{
    geul_error_clear(log->ctx);
    enum geul_status first = log->options.report ? geul_log_history_add(&log->history, e) : GEUL_OK;
    for (size_t i = 0; i < log->n_outputs; i++) {
        struct geul_log_output *out = &log->outputs[i];
        if (!out->format->write[e->kind])
            continue;
        out->format->write[e->kind](out, e);
        enum geul_status status = geul_log_append(out);
        first = first == GEUL_OK ? status : first;
    }
    return first;
}

enum geul_status geul_journal_step(struct geul_journal *log, const struct geul_journal_record *record)
{
    struct geul_log_entry e = {.kind = GEUL_LOG_STEP, .label = "", .text = ""};
    geul_error_clear(log->ctx);
    enum geul_status status = geul_take_struct(log->ctx, &e.record, sizeof e.record, record, "geul_journal_record");
    return status == GEUL_OK ? log_entry(log, &e) : status;
}

enum geul_status geul_journal_evaluation(struct geul_journal *log, int64_t step, double loss, bool best)
{
    return log_entry(log, &(struct geul_log_entry){.kind = GEUL_LOG_EVALUATION,
                                                   .record = {.step = step, .loss = loss},
                                                   .best = best,
                                                   .label = "",
                                                   .text = ""});
}

enum geul_status geul_journal_sample(struct geul_journal *log, int64_t step, const char *prompt, const char *text)
{
    if (geul_check_given(log->ctx, "prompt", prompt) != GEUL_OK || geul_check_given(log->ctx, "text", text) != GEUL_OK)
        return GEUL_ERROR_ARGUMENT;
    return log_entry(
        log, &(struct geul_log_entry){.kind = GEUL_LOG_SAMPLE, .record.step = step, .label = prompt, .text = text});
}

enum geul_status geul_journal_event(struct geul_journal *log, int64_t step, const char *kind, const char *text)
{
    if (geul_check_given(log->ctx, "kind", kind) != GEUL_OK || geul_check_given(log->ctx, "text", text) != GEUL_OK)
        return GEUL_ERROR_ARGUMENT;
    char failure[FAILURE_BYTES]; /* the context's own, which log_entry() clears: programs log why a run stopped */
    if (text == geul_error(log->ctx)) {
        snprintf(failure, sizeof failure, "%s", text);
        text = failure;
    }
    return log_entry(
        log, &(struct geul_log_entry){.kind = GEUL_LOG_EVENT, .record.step = step, .label = kind, .text = text});
}

double geul_journal_seconds(const struct geul_journal *log)
{
    return log->history.seconds;
}

enum geul_status geul_journal_flush(struct geul_journal *log)
{
    enum geul_status first = GEUL_OK;
    geul_error_clear(log->ctx);
    for (size_t i = 0; i < log->n_outputs; i++) {
        enum geul_status status = log->outputs[i].format->flush(&log->outputs[i]);
        first = first == GEUL_OK ? status : first;
    }
    return first;
}

void geul_journal_close(struct geul_journal *log)
{
    if (!log)
        return;
    struct geul_context *ctx = log->ctx;
    for (size_t i = 0; i < log->n_outputs; i++) {
        geul_appendfile_close(log->outputs[i].file);
        geul_log_text_free(&log->outputs[i].text);
    }
    for (int i = 0; i < log->options.n_settings; i++) {
        geul_free(ctx, (void *)(uintptr_t)log->settings[i].name);
        geul_free(ctx, (void *)(uintptr_t)log->settings[i].value);
    }
    geul_log_history_free(&log->history);
    geul_free(ctx, log->settings);
    geul_free(ctx, log->title);
    geul_free(ctx, log->dir);
    geul_free(ctx, log);
}
