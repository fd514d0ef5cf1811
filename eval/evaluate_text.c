/* evaluate_text.c: geul_evaluate_text(), see geul_tools.h: from a text to its report, around the pass of evaluate.c. */
#include "eval/evaluate.h"
#include "eval/text_ids.h"

#include "core/os.h"

#include <string.h>

enum { BATCH = 512 }; /* tokens, when n_batch is 0 */

/* One call. */
struct job {
    struct geul_context *ctx;
    const struct geul_model *model;
    const struct geul_tokenizer *tok;
    struct geul_evaluation_options options;
    struct geul_evaluation_report report, *out; /* out: the caller's; may be NULL */
    int32_t *ids;                               /* of the text that was given; NULL: none */
    size_t n_ids;
    int n_usable; /* ids that have a text */
    struct geul_base_logits *base;
    struct geul_text_length *lengths;
    struct geul_session *session;
    struct geul_evaluation e;
    double start;
};

/* -------------------------------------------------------------------------- text and windows -- */

/* The ids of the text, when there is one. */
static enum geul_status read_text(struct job *j, const char *text, size_t length)
{
    const struct geul_evaluation_options *o = &j->options;
    if (!text && !o->compare_base)
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT, "there is no text to score: give one, or a base file with one");
    if (o->start && !text) {
        j->report.misfit = GEUL_EVALUATION_MISFIT_START;
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT, "nothing can be put before the text of %s", o->compare_base);
    }
    if (text && length == 0)
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT, "the text is empty: it has 0 tokens, and at least 2 are needed");
    if (o->start && geul_token_end(j->tok) < 0) {
        j->report.misfit = GEUL_EVALUATION_MISFIT_START;
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT, "the model has no end token, which the text would follow");
    }
    return text ? geul_text_ids(j->ctx, j->tok, text, length, o->start, &j->ids, &j->n_ids) : GEUL_OK;
}

/* The windows that the options request. */
static enum geul_status choose_windows(struct job *j)
{
    const struct geul_evaluation_options *o = &j->options;
    return geul_windows_make(j->ctx, o->method ? o->method : GEUL_WINDOWS_STRIDE, j->n_ids,
                             o->n_context ? o->n_context : geul_model_get_shape(j->model)->n_context, o->stride,
                             o->n_windows, &j->report.windows);
}

/* Fails when the options request other windows than those of the base file; what they leave at 0 is the base file's. */
static enum geul_status check_windows(struct job *j, const struct geul_windows *held)
{
    const struct geul_evaluation_options *o = &j->options;
    struct geul_windows asked;
    enum geul_windows_method method = o->method ? o->method : held->method;
    int n_context = o->n_context ? o->n_context : held->n_context;
    /* The base file's stride is a default only together with its method and context. */
    bool alike = method == held->method && n_context == held->n_context;
    if (geul_windows_make(j->ctx, method, held->n_tokens, n_context, o->stride || !alike ? o->stride : held->stride,
                          o->n_windows ? o->n_windows : held->n_windows, &asked) != GEUL_OK)
        return geul_error_status(j->ctx);
    if (alike && asked.stride == held->stride && asked.n_windows == held->n_windows)
        return GEUL_OK;
    j->report.misfit = GEUL_EVALUATION_MISFIT_WINDOWS;
    return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT,
                     "%s has %zu windows of %d tokens by the method %s, stride %d: use the same", o->compare_base,
                     held->n_windows, held->n_context, geul_windows_method_name(held->method), held->stride);
}

/* Opens the base file and uses its windows; a text and options, if given, have to be the same. */
static enum geul_status adopt_base(struct job *j)
{
    const char *path = j->options.compare_base;
    j->base = geul_base_logits_open(j->ctx, path);
    if (!j->base)
        return geul_error_status(j->ctx);
    if (j->base->n_vocab != j->n_usable)
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT, "%s is from a model with %d token ids, this one has %d", path,
                         j->base->n_vocab, j->n_usable);
    j->report.windows = j->base->windows;
    if (j->n_ids &&
        (j->n_ids != j->base->windows.n_tokens || memcmp(j->ids, j->base->ids, j->n_ids * sizeof *j->ids) != 0)) {
        j->report.misfit = GEUL_EVALUATION_MISFIT_TEXT;
        return geul_fail(j->ctx, GEUL_ERROR_ARGUMENT, "%s is from another text or tokenizer", path);
    }
    return check_windows(j, &j->base->windows);
}

/* ---------------------------------------------------------------------------------- the pass -- */

/* A session with as many sequences as windows fill a batch. */
static enum geul_status fit_session(struct job *j)
{
    const struct geul_windows *windows = &j->report.windows;
    int n_batch = j->options.n_batch ? j->options.n_batch : BATCH;
    struct geul_session_options o = {
        .n_context = windows->n_context,
        .n_sequences = geul_windows_sequences(windows, n_batch),
        .n_batch = n_batch,
        .cache_type = j->options.cache_type,
        .exact = j->options.exact,
    };
    j->session = geul_session_new(j->ctx, j->model, &o);
    return j->session ? GEUL_OK : geul_error_status(j->ctx);
}

/* Updates the caller's report and calls progress, which decides whether to continue. */
static bool show(void *user, uint64_t done, uint64_t total)
{
    struct job *j = user;
    j->report.scored = geul_perplexity_get(&j->e.perplexity);
    j->report.seconds = geul_os_seconds() - j->start;
    if (j->out)
        geul_give_struct(j->out, &j->report, sizeof j->report);
    return !j->options.progress || j->options.progress(j->options.user, done, total);
}

/* Everything that the pass needs, including the file to be written. */
static enum geul_status prepare(struct job *j)
{
    const struct geul_windows *windows = &j->report.windows;
    if (fit_session(j) != GEUL_OK)
        return geul_error_status(j->ctx);
    j->e = (struct geul_evaluation){
        .windows = *windows, .ids = j->base ? j->base->ids : j->ids, .base = j->base, .on_batch = show, .user = j};
    j->lengths = geul_text_lengths(j->ctx, j->tok, j->e.ids, windows->n_tokens);
    j->e.lengths = j->lengths;
    if (!j->lengths)
        return GEUL_ERROR_MEMORY;
    if (!j->options.save_base)
        return GEUL_OK;
    j->report.base_bytes = geul_base_logits_bytes(windows, j->n_usable);
    j->e.save = geul_base_writer_new(j->ctx, j->options.save_base, windows, j->e.ids, j->n_usable);
    return j->e.save ? GEUL_OK : geul_error_status(j->ctx);
}

/* Runs the windows; the file that is written appears only if all of them went well. */
static enum geul_status run(struct job *j)
{
    j->start = geul_os_seconds();
    if (!show(j, 0, geul_windows_work(&j->e.windows)))
        return geul_fail(j->ctx, GEUL_ERROR_CANCELLED, "stopped by the caller");
    enum geul_status status = geul_evaluate(j->session, &j->e);
    if (status != GEUL_OK)
        return status;
    j->report.scored = geul_perplexity_get(&j->e.perplexity);
    j->report.seconds = geul_os_seconds() - j->start;
    if (j->e.save) {
        status = geul_base_writer_commit(j->e.save);
        j->e.save = NULL;
    }
    if (status == GEUL_OK && j->base) {
        j->report.divergence = geul_divergence_get(&j->e.divergence);
        j->report.compared = true;
    }
    return status;
}

static void job_free(struct job *j)
{
    geul_base_writer_abandon(j->e.save);
    geul_divergence_free(j->ctx, &j->e.divergence);
    geul_base_logits_close(j->ctx, j->base);
    geul_free(j->ctx, j->lengths);
    geul_session_free(j->session);
    geul_tokens_free(j->ctx, j->ids);
}

/* Copies and checks what the caller gave. */
static enum geul_status take(struct job *j, const struct geul_evaluation_options *options)
{
    enum geul_status status = geul_check_struct(j->ctx, j->out, "geul_evaluation_report");
    if (status != GEUL_OK) {
        j->out = NULL;
        return status;
    }
    j->report = (struct geul_evaluation_report){.size = sizeof j->report};
    status = geul_take_struct(j->ctx, &j->options, sizeof j->options, options, "geul_evaluation_options");
    if (status == GEUL_OK && (unsigned)j->options.method > GEUL_WINDOWS_LLAMA)
        status = geul_fail(j->ctx, GEUL_ERROR_ARGUMENT, "there is no method %d of cutting a text into windows",
                           (int)j->options.method);
    if (status == GEUL_OK && !j->tok)
        status = geul_fail(j->ctx, GEUL_ERROR_UNSUPPORTED, "the model has no tokenizer: no text can be scored");
    return status;
}

enum geul_status geul_evaluate_text(struct geul_context *ctx, const struct geul_model *model, const char *text,
                                    size_t length, const struct geul_evaluation_options *options,
                                    struct geul_evaluation_report *report)
{
    struct job j = {.ctx = ctx, .model = model, .tok = geul_model_get_tokenizer(model), .out = report};
    geul_error_clear(ctx);
    enum geul_status status = take(&j, options);
    if (status == GEUL_OK) {
        j.n_usable = geul_tokenizer_size(j.tok);
        status = read_text(&j, text, length);
    }
    if (status == GEUL_OK)
        status = j.options.compare_base ? adopt_base(&j) : choose_windows(&j);
    if (status == GEUL_OK)
        status = prepare(&j);
    if (status == GEUL_OK)
        status = run(&j);
    job_free(&j);
    if (j.out)
        geul_give_struct(j.out, &j.report, sizeof j.report);
    return status;
}
