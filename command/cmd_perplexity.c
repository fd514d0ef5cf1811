/* cmd_perplexity.c: `geul perplexity` scores a text, alone or against the logits of a base model. */
#include "command/command.h"
#include "command/model_args.h"
#include "command/progress.h"
#include "command/report.h"
#include "command/terminal.h"
#include "command/text_input.h"

#include "core/bytes.h"
#include "core/os.h"
#include "geul_tools.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings {
    struct geul_model_args model;
    const char *prompt, *file, *encoding, *method, *kl_base;
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
    GEUL_ENCODING_OPTION,
    OPTION_CHOICE("--method",     method,  "NAME", methods,
                  "how the text is cut into windows of -c tokens: stride (as transformers does) or llama (as "
                  "llama.cpp's tool does); stride when not given"),
    OPTION_INT(   "--stride",     stride,  0, 1 << 24, "tokens from one window to the next, 0: half a window"),
    OPTION_INT(   "--chunks",     chunks,  0, 1 << 30, "at most this many windows, 0: all"),
    OPTION_FLAG(  "--start",      start,   "puts <|endoftext|> before the text, so that the first token is scored too"),
    OPTION_PATH(  "--kl-base",    kl_base, "FILE", FILE,
                  "when FILE does not exist, saves this model's logits there as the base; when it does, measures how far this model is from that base, on the text that it holds"),
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
        "token the longest context there can be; a long stride is faster and a little worse. With --method llama the "
        "windows do not overlap and the second half of each is scored, so that figures equal llama.cpp's for the same "
        "-c (512 there). "
        "These models do not begin a text with a special token: the first token has nothing before it and is not "
        "scored, "
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
    bool compare; /* the base file exists */
    struct geul_evaluation_report r;
};

/* The method of that name; NULL: none was named. */
static enum geul_windows_method method_of(const char *name)
{
    if (!name)
        return GEUL_WINDOWS_DEFAULT;
    return strcmp(name, methods[0]) == 0 ? GEUL_WINDOWS_STRIDE : GEUL_WINDOWS_LLAMA;
}

static const char *method_name(enum geul_windows_method method)
{
    return methods[method - GEUL_WINDOWS_STRIDE];
}

/* Prints the size of the base file before the work begins. */
static void note_base(const struct work *w)
{
    char size[32];
    geul_bytes_text(w->r.base_bytes, size, sizeof size);
    geul_report_note("%s does not exist; it becomes the base: %zu tokens x %d logits, %s", w->s->kl_base,
                     w->r.windows.n_scored, geul_tokenizer_size(geul_model_get_tokenizer(w->l.model)), size);
}

/* The estimate so far, as the bar's label, and the bar. */
static bool show_progress(void *user, uint64_t done, uint64_t total)
{
    static char label[48] = "perplexity";
    const struct work *w = user;
    if (done == 0 && w->r.base_bytes)
        note_base(w);
    if (done == 0)
        geul_progress_start(label, "tokens");
    if (w->r.scored.n_tokens > 0)
        snprintf(label, sizeof label, "perplexity %.4f", w->r.scored.perplexity.value);
    return geul_progress_callback(NULL, done, total);
}

/* Scores the text; it may be NULL when the base file exists. */
static enum geul_status evaluate(struct work *w, const char *text, size_t length)
{
    const struct settings *s = w->s;
    struct geul_evaluation_options o = {
        .size = sizeof o,
        .method = method_of(s->method),
        .n_context = s->model.n_context,
        .stride = s->stride,
        .n_windows = (size_t)s->chunks,
        .n_batch = s->model.n_batch,
        .cache_type = geul_type_from_name(s->model.cache_type),
        .start = s->start,
        .exact = s->model.where.exact,
        .save_base = w->compare ? NULL : s->kl_base,
        .compare_base = w->compare ? s->kl_base : NULL,
        .progress = show_progress,
        .user = w,
    };
    geul_session_free(w->l.session); /* evaluating makes one that fits its windows */
    w->l.session = NULL;
    enum geul_status status = geul_evaluate_text(w->l.ctx, w->l.model, text, length, &o, &w->r);
    geul_progress_hide();
    return status;
}

/* The failure that the context holds, in terms of the options. Returns the exit code. */
static int report_failure(const struct work *w)
{
    static const struct {
        const char *before, *after;
    } hints[] = {
        [GEUL_EVALUATION_MISFIT_START] = {"--start: ", ""},
        [GEUL_EVALUATION_MISFIT_TEXT] = {"", "; without -f its own text is used"},
        [GEUL_EVALUATION_MISFIT_WINDOWS] = {"", ", or leave --method, -c, --stride and --chunks out"},
    };
    if (w->r.misfit == GEUL_EVALUATION_FITS)
        return geul_report_failure(w->l.ctx);
    return geul_report_error("%s%s%s", hints[w->r.misfit].before, geul_error(w->l.ctx), hints[w->r.misfit].after);
}

/* --------------------------------------------------------------------------------- reporting -- */

static const char *const quantile_names[GEUL_DIVERGENCE_QUANTILES] = {"median", "90%", "95%", "99%", "99.9%"};

static json_t *estimate(struct geul_estimate e)
{
    return json_pack("{s:o, s:o}", "value", geul_report_json_real(e.value), "error", geul_report_json_real(e.error));
}

static json_t *divergence_json(const struct work *w)
{
    const struct geul_divergence_report *r = &w->r.divergence;
    json_t *json = json_pack("{s:o, s:o, s:f}", "file", geul_report_json_name(w->s->kl_base), "mean", estimate(r->mean),
                             "max", r->max);
    for (int i = 0; i < GEUL_DIVERGENCE_QUANTILES; i++)
        json_object_set_new(json, quantile_names[i], json_real(r->quantiles[i]));
    json_object_set_new(json, "same_top", estimate(r->same_top));
    json_object_set_new(json, "probability_difference_mean", estimate(r->probability_mean));
    json_object_set_new(json, "probability_difference_rms", estimate(r->probability_rms));
    json_object_set_new(json, "base_perplexity", estimate(r->base_perplexity));
    json_object_set_new(json, "perplexity_ratio", estimate(r->perplexity_ratio));
    return json;
}

static int print_json(const struct work *w)
{
    const struct geul_windows *windows = &w->r.windows;
    const struct geul_perplexity_report *p = &w->r.scored;
    json_t *json = json_pack("{s:o, s:s, s:i, s:i, s:I, s:I, s:I}", "model", geul_report_json_name(w->s->model.path),
                             "method", method_name(windows->method), "n_context", windows->n_context, "stride",
                             windows->stride, "windows", (json_int_t)windows->n_windows, "tokens",
                             (json_int_t)windows->n_tokens, "tokens_scored", (json_int_t)p->n_tokens);
    json_object_set_new(json, "characters_scored", json_real(p->n_chars));
    json_object_set_new(json, "bytes_scored", json_real(p->n_bytes));
    json_object_set_new(json, "perplexity", estimate(p->perplexity));
    json_object_set_new(json, "nats_per_token", estimate(p->nats_per_token));
    json_object_set_new(json, "bits_per_token", estimate(p->bits_per_token));
    json_object_set_new(json, "bits_per_character", estimate(p->bits_per_char));
    json_object_set_new(json, "bits_per_byte", estimate(p->bits_per_byte));
    json_object_set_new(json, "seconds", json_real(w->r.seconds));
    if (w->r.compared)
        json_object_set_new(json, "divergence", divergence_json(w));
    return geul_report_json(json);
}

/* No error is known from a single token. */
static void print_line(const char *name, struct geul_estimate e, const char *unit)
{
    printf("%-22s %.6g", name, e.value);
    if (isfinite(e.error))
        printf(" +- %.2g", e.error);
    printf("%s\n", unit);
}

static struct geul_estimate percent(struct geul_estimate e)
{
    return (struct geul_estimate){e.value * 100, e.error * 100};
}

static void print_divergence(const struct work *w)
{
    const struct geul_divergence_report *r = &w->r.divergence;
    putchar('\n');
    geul_report_line("against %s, nats and probabilities of the text's tokens", w->s->kl_base);
    print_line("base perplexity", r->base_perplexity, "");
    print_line("perplexity / base's", r->perplexity_ratio, "");
    print_line("KL divergence, mean", r->mean, "");
    for (int i = 0; i < GEUL_DIVERGENCE_QUANTILES; i++)
        printf("  %-20s %.6g\n", quantile_names[i], r->quantiles[i]);
    printf("  %-20s %.6g\n", "max", r->max);
    print_line("same likeliest token", percent(r->same_top), " %");
    print_line("probability, mean", percent(r->probability_mean), " percentage points above the base's");
    print_line("probability, RMS", percent(r->probability_rms), " percentage points from the base's");
}

static int report(const struct work *w)
{
    const struct geul_windows *windows = &w->r.windows;
    const struct geul_perplexity_report *p = &w->r.scored;
    if (w->s->json)
        return print_json(w);
    printf("%-22s %zu of %zu tokens scored: %.6g characters, %.0f bytes%s\n", "text", p->n_tokens, windows->n_tokens,
           p->n_chars, p->n_bytes, p->n_tokens == 1 ? "; no error is known from one" : "");
    printf("%-22s %zu of %d tokens, method %s", "windows", windows->n_windows, windows->n_context,
           method_name(windows->method));
    printf(windows->stride ? ", stride %d\n" : "\n", windows->stride);
    print_line("perplexity", p->perplexity, " per token");
    print_line("nats per token", p->nats_per_token, "");
    print_line("bits per token", p->bits_per_token, "");
    print_line("bits per character", p->bits_per_char, "");
    print_line("bits per byte", p->bits_per_byte, "");
    if (w->r.compared)
        print_divergence(w);
    return 0;
}

/* ------------------------------------------------------------------------------------- whole -- */

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
    struct work w = {.s = &s, .compare = s.kl_base && geul_os_exists(s.kl_base), .r = {.size = sizeof w.r}};
    if (s.start && w.compare && !s.prompt && !s.file)
        return geul_report_usage("--start applies to -f and -p; %s has its own text", s.kl_base);
    if ((!w.compare || s.prompt || s.file) &&
        !(text = geul_text_input_prompt(s.prompt, s.file, s.encoding, &length, &code)))
        return code;
    geul_interrupt_catch(1);
    geul_terminate_catch();
    if (s.model.n_context > 1) /* as many short windows as evaluating computes together */
        s.model.n_sequences = s.model.n_batch / (s.model.n_context - 1);
    code = geul_loaded_open(&s.model, true, &w.l);
    if (code == 0) {
        code = evaluate(&w, text, length) == GEUL_OK ? report(&w) : report_failure(&w);
        geul_loaded_close(&w.l);
    }
    free(text);
    return code;
}
