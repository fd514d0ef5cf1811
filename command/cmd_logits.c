/* cmd_logits.c: `geul logits` writes the logits of every position of a text as a NumPy file. */
#include "command/command.h"
#include "command/generation.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"
#include "command/text_input.h"

#include "formats/npy.h"
#include "core/os.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    struct geul_model_args model;
    const char *prompt, *file, *encoding, *ids, *output;
    bool json;
};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    OPTION_TEXT(  "-p, --prompt", prompt, "TEXT", "the text; - reads standard input, without its last newline"),
    OPTION_PATH(  "-f, --file",   file,   "FILE", FILE, "reads the text from a file, without its last newline"),
    GEUL_ENCODING_OPTION,
    OPTION_TEXT(  "--ids",        ids,    "\"1 2 3\"", "token ids instead of a text"),
    REQUIRED_PATH("-o, --output", output, "FILE", FILE, "the .npy file: float32 (positions, vocabulary)"),
    OPTION_FLAG(  "--json",       json,   "prints token ids, shape and time as JSON"),
    OPTION_GROUP(model, geul_model_options),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "logits",
    .usage = "-m FILE -p TEXT -o FILE.npy [options]",
    .summary = "write the logits of every position of a text, in NumPy's format",
    .example = "geul logits -m polyglot.gguf -p \"한국의 수도는\" -o logits.npy\n"
               "python3 -c 'import numpy; print(numpy.load(\"logits.npy\")[-1].argmax())'",
    .options = options,
};

/* What the callback needs. */
struct sink {
    struct geul_npy_writer *npy;
    uint64_t done, total;
    uint64_t wrong, first_wrong; /* positions with logits that are not finite; the first of them */
};

static bool take_row(void *user, int item, const float *logits, int n_vocab)
{
    struct sink *sink = user;
    bool finite = true;
    for (int i = 0; i < n_vocab; i++)
        finite &= isfinite(logits[i]) != 0;
    if (!finite && sink->wrong++ == 0)
        sink->first_wrong = (uint64_t)item;
    geul_npy_write_rows(sink->npy, logits, (size_t)n_vocab);
    geul_progress_update(++sink->done, sink->total);
    return !geul_interrupted();
}

/* The ids of the option; false after a message. */
static bool parse_ids(struct geul_loaded *l, const char *text, struct geul_ids *ids)
{
    int n_vocab = geul_model_get_shape(l->model)->n_vocab;
    /* n characters hold at most (n + 1) / 2 ids: a digit each, with something between them. */
    ids->data = geul_alloc(l->ctx, strlen(text) / 2 + 1, sizeof *ids->data);
    if (!ids->data) {
        geul_report_failure(l->ctx);
        return false;
    }
    for (const char *at = text + strspn(text, " ,\t\n"); *at; at += strspn(at, " ,\t\n")) {
        char *end;
        errno = 0;
        long v = strtol(at, &end, 10);
        if (end == at || errno || v < 0 || v >= n_vocab) {
            geul_report_error("--ids: \"%.20s\" does not begin with an id from 0 to %d", at, n_vocab - 1);
            return false;
        }
        ids->data[ids->n++] = (int32_t)v;
        at = end;
    }
    if (ids->n == 0)
        geul_report_error("--ids: no id is given");
    return ids->n > 0;
}

/* Evaluates ids and writes every row. */
static enum geul_status write_rows(const struct settings *s, struct geul_loaded *l, const struct geul_ids *ids,
                                   struct sink *sink)
{
    int capacity = geul_session_capacity(l->session);
    geul_error_clear(l->ctx);
    if (ids->n > (size_t)capacity)
        return geul_fail(l->ctx, GEUL_ERROR_ARGUMENT, "the text has %zu tokens, the context holds %d", ids->n,
                         capacity);
    struct geul_batch_item *items = geul_alloc(l->ctx, ids->n, sizeof *items);
    if (!items)
        return GEUL_ERROR_MEMORY;
    for (size_t i = 0; i < ids->n; i++)
        items[i] = (struct geul_batch_item){ids->data[i], 0, true};
    int64_t shape[2] = {(int64_t)ids->n, geul_model_get_shape(l->model)->n_vocab};
    *sink = (struct sink){.npy = geul_npy_writer_new(l->ctx, s->output, 2, shape), .total = ids->n};
    enum geul_status status = sink->npy ? GEUL_OK : geul_error_status(l->ctx);
    geul_progress_start("evaluating", "tokens");
    if (status == GEUL_OK)
        status = geul_session_eval(l->session, items, (int)ids->n, take_row, sink);
    geul_progress_hide();
    /* The header promised the shape; a file with fewer rows never gets its name. */
    if (status == GEUL_OK)
        status = geul_npy_commit(sink->npy);
    else if (sink->npy)
        geul_npy_abandon(sink->npy);
    geul_free(l->ctx, items);
    return status;
}

/* Evaluates and reports. Returns the exit code: also 1 for logits that are of no use. */
static int run(const struct settings *s, struct geul_loaded *l, const struct geul_ids *ids)
{
    double start = geul_os_seconds();
    struct sink sink;
    if (write_rows(s, l, ids, &sink) != GEUL_OK)
        return geul_report_failure(l->ctx);
    double seconds = geul_os_seconds() - start;
    int n_vocab = geul_model_get_shape(l->model)->n_vocab;
    if (sink.wrong > 0) /* written all the same: it shows which positions are affected */
        return geul_report_error(
            "%llu of %zu positions in %s have logits that are not finite, the first is number %llu: "
            "the model's file is damaged, or holds values that were too large for their type",
            (unsigned long long)sink.wrong, ids->n, s->output, (unsigned long long)sink.first_wrong);
    if (s->json)
        return geul_report_json_line(json_pack("{s:o, s:o, s:[I, i], s:f}", "file", geul_report_json_name(s->output),
                                               "tokens", geul_report_json_ids(ids->data, ids->n), "shape",
                                               (json_int_t)ids->n, n_vocab, "seconds", seconds));
    geul_report_line("%s: %zu positions x %d logits, float32", s->output, ids->n, n_vocab);
    return 0;
}

int geul_cmd_logits(int argc, char **argv)
{
    struct settings s = {.model = GEUL_MODEL_ARGS_DEFAULT};
    s.model.cache_type = "f32"; /* these numbers are for comparing */
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    size_t length = 0;
    char *text = NULL;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    if (s.ids && (s.prompt || s.file))
        return geul_report_usage("--ids replaces -p and -f; give one of the three");
    if (!s.ids && !(text = geul_text_input_prompt(s.prompt, s.file, s.encoding, &length, &code)))
        return code;
    geul_interrupt_catch(1);
    geul_terminate_catch();
    struct geul_loaded l;
    struct geul_ids ids = {NULL, 0};
    code = geul_loaded_open(&s.model, !s.ids, &l);
    if (code == 0) {
        if (s.ids)
            code = parse_ids(&l, s.ids, &ids) ? run(&s, &l, &ids) : 1;
        else
            code = geul_ids_of_text(&l, text, length, &ids) ? run(&s, &l, &ids) : geul_report_failure(l.ctx);
        geul_ids_free(&l, &ids);
        geul_loaded_close(&l);
    }
    free(text);
    return code;
}
