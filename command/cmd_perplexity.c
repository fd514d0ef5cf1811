/* cmd_perplexity.c: `geul perplexity` scores a text, alone or against what a base model said about it. */
#include "command/command.h"
#include "command/generation.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"
#include "command/text_input.h"

#include "core/os.h"
#include "eval/evaluate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    struct geul_model_args model;
    const char *prompt, *file, *method, *kl_base;
    int stride, chunks;
    bool start, json;
};

static const char *const methods[] = {"stride", "llama", NULL};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    OPTION_PATH(  "-f, --file",   file,    "FILE", FILE,
                  "the text; - reads standard input; a newline at the end is left out"),
    OPTION_TEXT(  "-p, --prompt", prompt,  "TEXT", "the text itself, or -"),
    OPTION_CHOICE("--method",     method,  "NAME", methods,
                  "how the text is cut into windows of -c tokens: stride (as transformers does) or llama (as "
                  "llama.cpp's tool does); stride when not given"),
    OPTION_INT(   "--stride",     stride,  0, 1 << 24, "tokens from window to window, 0: half a window"),
    OPTION_INT(   "--chunks",     chunks,  0, 1 << 30, "at most so many windows, 0: all"),
    OPTION_FLAG(  "--start",      start,   "puts <|endoftext|> before the text, so that the first token is scored too"),
    OPTION_PATH(  "--kl-base",    kl_base, "FILE", FILE,
                  "a file that does not exist: saves all logits there, those of the base model; one that does: tells "
                  "how far this model is from it, on the text that it holds"),
    OPTION_FLAG(  "--json",       json,    "prints every figure as JSON"),
    OPTION_GROUP(model, geul_model_options),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "perplexity",
    .usage = "-m FILE -f TEXT [options]",
    .summary = "score a text, and compare models by it",
    .about =
        "Perplexity per token, and bits per token, per character and per byte, each with its standard error; the last "
        "two can be compared between models of different tokenizers. The windows of the default overlap by half: every "
        "token is scored once, with at least half a window before it, at twice the work. A stride of 1 gives every "
        "token the most there can be, a long one is faster and a little worse. With --method llama pieces lie side by "
        "side and the second half of each is scored, so that figures equal llama.cpp's for the same -c (512 there). "
        "These models begin no text with a special token: the first token has nothing before it and is not scored, "
        "unless --start is given. Characters are those of the text as the tokenizer normalizes it.",
    .example = "geul perplexity -m polyglot-f16.gguf -f korean.txt --kl-base korean.base\n"
               "geul perplexity -m polyglot-q4_k_m.gguf --kl-base korean.base\n"
               "geul perplexity -m polyglot-f16.gguf -f korean.txt --method llama -c 512",
    .options = options,
};

/* What an evaluation works with. */
struct work {
    const struct settings *s;
    struct geul_loaded l;
    struct geul_ids ids;
    struct geul_text_length *lengths;
    struct geul_base_logits *base;
    struct geul_evaluation e;
    int n_usable; /* ids that have a text */
    double seconds;
};

/* The ids of the text, <|endoftext|> before them when wanted. */
static enum geul_status read_text(struct work *w, const char *text, size_t length)
{
    if (!geul_ids_of_text(&w->l, text, length, &w->ids))
        return geul_error_status(w->l.ctx);
    if (!w->s->start)
        return GEUL_OK;
    int32_t end = geul_token_end(geul_model_get_tokenizer(w->l.model));
    if (end < 0)
        return geul_fail(w->l.ctx, GEUL_ERROR_ARGUMENT, "--start: the model has no <|endoftext|>");
    int32_t *ids = geul_alloc(w->l.ctx, w->ids.n + 1, sizeof *ids);
    if (!ids)
        return GEUL_ERROR_MEMORY;
    ids[0] = end;
    memcpy(ids + 1, w->ids.data, w->ids.n * sizeof *ids);
    geul_tokens_free(w->l.ctx, w->ids.data);
    w->ids.data = ids;
    w->ids.n++;
    return GEUL_OK;
}

static enum geul_windows_method method_of(const char *name)
{
    return strcmp(name, methods[GEUL_WINDOWS_LLAMA]) == 0 ? GEUL_WINDOWS_LLAMA : GEUL_WINDOWS_STRIDE;
}

/* The windows that the options ask for. */
static enum geul_status choose_windows(struct work *w)
{
    const struct settings *s = w->s;
    int n_context = s->model.n_context ? s->model.n_context : geul_model_get_shape(w->l.model)->n_context;
    return geul_windows_make(w->l.ctx, method_of(s->method ? s->method : methods[0]), w->ids.n, n_context, s->stride,
                             (size_t)s->chunks, &w->e.windows);
}

/* Takes the windows of the base file; a text and options that are given have to be the same. */
static enum geul_status adopt_base(struct work *w)
{
    const struct settings *s = w->s;
    struct geul_context *ctx = w->l.ctx;
    w->base = geul_base_logits_open(ctx, s->kl_base);
    if (!w->base)
        return geul_error_status(ctx);
    const struct geul_windows *held = &w->base->windows;
    struct geul_windows asked;
    if (w->base->n_vocab != w->n_usable)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT, "%s is of a model with %d token ids, this one has %d", s->kl_base,
                         w->base->n_vocab, w->n_usable);
    if (w->ids.n &&
        (w->ids.n != held->n_tokens || memcmp(w->ids.data, w->base->ids, w->ids.n * sizeof *w->ids.data) != 0))
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                         "%s is of another text or tokenizer; without -f its own text is used", s->kl_base);
    enum geul_windows_method method = s->method ? method_of(s->method) : held->method;
    int n_context = s->model.n_context ? s->model.n_context : held->n_context;
    bool alike = method == held->method && n_context == held->n_context;
    if (geul_windows_make(ctx, method, held->n_tokens, n_context, s->stride || !alike ? s->stride : held->stride,
                          s->chunks ? (size_t)s->chunks : held->n_windows, &asked) != GEUL_OK)
        return geul_error_status(ctx);
    if (asked.method != held->method || asked.n_context != held->n_context || asked.stride != held->stride ||
        asked.n_windows != held->n_windows)
        return geul_fail(ctx, GEUL_ERROR_ARGUMENT,
                         "%s has %zu windows of %d tokens by the method %s, stride %d: ask for the same, or leave "
                         "--method, -c, --stride and --chunks out",
                         s->kl_base, held->n_windows, held->n_context, geul_windows_method_name(held->method),
                         held->stride);
    w->e.windows = *held;
    w->e.base = w->base;
    return GEUL_OK;
}

/* A session that holds as many windows as fill a batch, instead of the one of l. */
static enum geul_status fit_session(struct work *w)
{
    struct geul_session_options o = {
        .n_context = w->e.windows.n_context,
        .n_sequences = geul_windows_sequences(&w->e.windows, w->s->model.n_batch),
        .n_batch = w->s->model.n_batch,
        .cache_type = geul_type_from_name(w->s->model.cache_type),
    };
    geul_session_free(w->l.session);
    w->l.session = geul_session_new(w->l.ctx, w->l.model, &o);
    return w->l.session ? GEUL_OK : geul_error_status(w->l.ctx);
}

/* The estimate so far, as the bar's label, and the bar. */
static bool show_progress(void *user, uint64_t done, uint64_t total)
{
    static char label[48] = "perplexity";
    const struct work *w = user;
    if (done == 0)
        geul_progress_begin(label, "tokens");
    if (w->e.perplexity.bytes.n > 0)
        snprintf(label, sizeof label, "perplexity %.4f", geul_perplexity_get(&w->e.perplexity).perplexity.value);
    return geul_progress_callback(NULL, done, total);
}

/* Runs the windows; with a file to write, that appears at the end. */
static enum geul_status evaluate(struct work *w, bool save)
{
    struct geul_context *ctx = w->l.ctx;
    const struct geul_windows *windows = &w->e.windows;
    if (save) {
        char size[32];
        w->e.save = geul_base_writer_new(ctx, w->s->kl_base, windows, w->e.ids, w->n_usable);
        if (!w->e.save)
            return geul_error_status(ctx);
        geul_progress_bytes(geul_base_logits_bytes(windows, w->n_usable), size, sizeof size);
        geul_report_note("%s does not exist; it becomes the base: %zu tokens x %d logits, %s", w->s->kl_base,
                         windows->n_scored, w->n_usable, size);
    }
    double start = geul_os_seconds();
    w->e.on_batch = show_progress;
    w->e.user = w;
    show_progress(w, 0, 0);
    enum geul_status status = geul_evaluate(w->l.session, &w->e);
    geul_progress_hide();
    w->seconds = geul_os_seconds() - start;
    if (status == GEUL_OK && save)
        return geul_base_writer_commit(w->e.save);
    geul_base_writer_abandon(w->e.save);
    return status;
}

/* ---------------------------------------------------------------------------------------------------- reporting -- */

static json_t *estimate(struct geul_estimate e, double factor)
{
    return json_pack("{s:o, s:o}", "value", geul_report_json_real(e.value * factor), "error",
                     geul_report_json_real(e.error * factor));
}

static json_t *divergence_json(const struct work *w, const struct geul_divergence_report *r)
{
    json_t *json = json_pack("{s:o, s:o, s:f}", "file", geul_report_json_name(w->s->kl_base), "mean",
                             estimate(r->mean, 1), "max", r->max);
    for (int i = 0; i < GEUL_DIVERGENCE_QUANTILES; i++)
        json_object_set_new(json, geul_divergence_quantile_names[i], json_real(r->quantiles[i]));
    json_object_set_new(json, "same_top", estimate(r->same_top, 1));
    json_object_set_new(json, "probability_difference_mean", estimate(r->probability_mean, 1));
    json_object_set_new(json, "probability_difference_rms", estimate(r->probability_rms, 1));
    json_object_set_new(json, "base_perplexity", estimate(r->base_perplexity, 1));
    json_object_set_new(json, "perplexity_ratio", estimate(r->perplexity_ratio, 1));
    return json;
}

static int print_json(const struct work *w, const struct geul_perplexity_report *p,
                      const struct geul_divergence_report *r)
{
    const struct geul_windows *windows = &w->e.windows;
    json_t *json = json_pack("{s:o, s:s, s:i, s:i, s:I, s:I, s:I}", "model", geul_report_json_name(w->s->model.path),
                             "method", geul_windows_method_name(windows->method), "n_context", windows->n_context,
                             "stride", windows->stride, "windows", (json_int_t)windows->n_windows, "tokens",
                             (json_int_t)windows->n_tokens, "tokens_scored", (json_int_t)p->n_tokens);
    json_object_set_new(json, "characters_scored", json_real(p->n_chars));
    json_object_set_new(json, "bytes_scored", json_real(p->n_bytes));
    json_object_set_new(json, "perplexity", estimate(p->perplexity, 1));
    json_object_set_new(json, "nats_per_token", estimate(p->nats_per_token, 1));
    json_object_set_new(json, "bits_per_token", estimate(p->bits_per_token, 1));
    json_object_set_new(json, "bits_per_character", estimate(p->bits_per_char, 1));
    json_object_set_new(json, "bits_per_byte", estimate(p->bits_per_byte, 1));
    json_object_set_new(json, "seconds", json_real(w->seconds));
    if (r)
        json_object_set_new(json, "divergence", divergence_json(w, r));
    return geul_report_json(json);
}

static void print_line(const char *name, struct geul_estimate e, const char *unit)
{
    printf("%-22s %.6g +- %.2g%s\n", name, e.value, e.error, unit);
}

static void print_divergence(const struct work *w, const struct geul_divergence_report *r)
{
    printf("\nagainst %s, nats and shares per token\n", w->s->kl_base);
    print_line("base perplexity", r->base_perplexity, "");
    print_line("perplexity / base's", r->perplexity_ratio, "");
    print_line("KL divergence, mean", r->mean, "");
    for (int i = 0; i < GEUL_DIVERGENCE_QUANTILES; i++)
        printf("  %-20s %.6g\n", geul_divergence_quantile_names[i], r->quantiles[i]);
    printf("  %-20s %.6g\n", "max", r->max);
    print_line("same likeliest token", geul_estimate_scale(r->same_top, 100), " %");
    print_line("p of the text, mean", geul_estimate_scale(r->probability_mean, 100), " % above the base's");
    print_line("p of the text, RMS", geul_estimate_scale(r->probability_rms, 100), " %");
}

static int report(struct work *w)
{
    const struct geul_windows *windows = &w->e.windows;
    struct geul_perplexity_report p = geul_perplexity_get(&w->e.perplexity);
    struct geul_divergence_report r;
    if (w->base)
        r = geul_divergence_get(&w->e.divergence);
    if (w->s->json)
        return print_json(w, &p, w->base ? &r : NULL);
    printf("%-22s %zu of %zu tokens scored: %.6g characters, %.0f bytes\n", "text", p.n_tokens, windows->n_tokens,
           p.n_chars, p.n_bytes);
    printf("%-22s %zu of %d tokens, method %s", "windows", windows->n_windows, windows->n_context,
           geul_windows_method_name(windows->method));
    printf(windows->stride ? ", stride %d\n" : "\n", windows->stride);
    print_line("perplexity", p.perplexity, " per token");
    print_line("nats per token", p.nats_per_token, "");
    print_line("bits per token", p.bits_per_token, "");
    print_line("bits per character", p.bits_per_char, "");
    print_line("bits per byte", p.bits_per_byte, "");
    if (w->base)
        print_divergence(w, &r);
    return 0;
}

/* -------------------------------------------------------------------------------------------------------- whole -- */

/* Everything behind loading. text may be NULL when the base file exists. */
static enum geul_status work_through(struct work *w, const char *text, size_t length, bool compare)
{
    struct geul_context *ctx = w->l.ctx;
    const struct geul_tokenizer *tok = geul_model_get_tokenizer(w->l.model);
    w->n_usable = geul_tokenizer_size(tok);
    enum geul_status status = text ? read_text(w, text, length) : GEUL_OK;
    if (status == GEUL_OK)
        status = compare ? adopt_base(w) : choose_windows(w);
    if (status == GEUL_OK)
        status = fit_session(w);
    if (status != GEUL_OK)
        return status;
    w->e.ids = compare ? w->base->ids : w->ids.data;
    w->lengths = geul_text_lengths(ctx, tok, w->e.ids, w->e.windows.n_tokens);
    if (!w->lengths)
        return GEUL_ERROR_MEMORY;
    w->e.lengths = w->lengths;
    return evaluate(w, w->s->kl_base && !compare);
}

static void work_free(struct work *w)
{
    geul_divergence_free(w->l.ctx, &w->e.divergence);
    geul_base_logits_close(w->l.ctx, w->base);
    geul_free(w->l.ctx, w->lengths);
    geul_ids_free(&w->l, &w->ids);
    geul_loaded_close(&w->l);
}

int geul_cmd_perplexity(int argc, char **argv)
{
    struct settings s = {.model = GEUL_MODEL_ARGS_DEFAULT};
    s.model.cache_type = "f32"; /* these numbers are for comparing */
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    size_t length = 0;
    char *text = NULL;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    bool compare = s.kl_base && geul_os_exists(s.kl_base);
    if (s.start && compare && !s.prompt && !s.file)
        return geul_report_usage("--start belongs to -f and -p; %s has its own text", s.kl_base);
    if ((!compare || s.prompt || s.file) && !(text = geul_text_input_prompt(s.prompt, s.file, &length, &code)))
        return code;
    geul_interrupt_catch(1);
    struct work w = {.s = &s};
    code = geul_loaded_open(&s.model, true, &w.l);
    if (code == 0) {
        geul_error_clear(w.l.ctx);
        code = work_through(&w, text, length, compare) == GEUL_OK ? report(&w) : geul_report_failure(w.l.ctx);
        work_free(&w);
    }
    free(text);
    return code;
}
