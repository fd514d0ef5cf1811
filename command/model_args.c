/* model_args.c: the options that several subcommands share, and what they open. */
#include "command/model_args.h"

#include "command/report.h"
#include "command/text_input.h"

#include "geul_tools.h"
#include "core/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const geul_cache_types[] = {"f16", "q8_0", "bf16", "f32", NULL};

#define MODEL(field)    offsetof(struct geul_model_args, field)
#define SAMPLING(field) offsetof(struct geul_sampling_args, sampling.field)

const struct geul_option geul_model_options[] = {
    {.kind = GEUL_OPTION_TEXT,
     .names = "-m, --model",
     .value = "FILE",
     .offset = MODEL(path),
     .help = "the model, a GGUF file (of a split one the first part)",
     .required = true},
    {.kind = GEUL_OPTION_GROUP, .offset = MODEL(adapters), .group = geul_adapter_options},
    {GEUL_OPTION_INT, "-t, --threads", "N", MODEL(n_threads), "threads, 0: one per core", 0, 1024, NULL, NULL, false},
    {GEUL_OPTION_INT, "-c, --ctx-size", "N", MODEL(n_context), "positions that are kept, 0: as many as the model has",
     0, 1 << 24, NULL, NULL, false},
    {GEUL_OPTION_INT, "-b, --batch-size", "N", MODEL(n_batch), "most prompt tokens computed at once", 1, 1 << 16, NULL,
     NULL, false},
    {GEUL_OPTION_INT, "-ngl, --gpu-layers, --n-gpu-layers", "N", MODEL(n_gpu_layers),
     "layers on the GPU; this build has none", 0, 100000, NULL, NULL, false},
    {GEUL_OPTION_CHOICE, GEUL_CACHE_TYPE_NAMES, "TYPE", MODEL(cache_type), GEUL_CACHE_TYPE_HELP, 0, 0, geul_cache_types,
     NULL, false},
    {GEUL_OPTION_FLAG, "-v, --verbose", NULL, MODEL(verbose), "notes and timings on stderr", 0, 0, NULL, NULL, false},
    {.kind = GEUL_OPTION_END},
};

const struct geul_option geul_sampling_options[] = {
    {GEUL_OPTION_REAL, "--temp", "X", SAMPLING(temperature), "temperature, 0: always the likeliest token", 0, 100, NULL,
     NULL, false},
    {GEUL_OPTION_INT, "--top-k", "N", SAMPLING(top_k), "only the N likeliest tokens, 0: all", 0, 1 << 24, NULL, NULL,
     false},
    {GEUL_OPTION_REAL, "--top-p", "X", SAMPLING(top_p), "only the likeliest tokens that sum up to X, 1: all", 0, 1,
     NULL, NULL, false},
    {GEUL_OPTION_REAL, "--min-p", "X", SAMPLING(min_p), "only tokens at least X times as likely as the best, 0: all", 0,
     1, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--typical", "X", SAMPLING(typical_p), "only the most typical tokens that sum up to X, 1: all",
     0, 1, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--repeat-penalty", "X", SAMPLING(repeat_penalty), "weakens tokens seen before, 1: off", 0.01,
     100, NULL, NULL, false},
    {GEUL_OPTION_INT, "--repeat-last-n", "N", SAMPLING(penalty_last_n), "how many tokens count as seen, -1: all", -1,
     1 << 24, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--presence-penalty", "X", SAMPLING(presence_penalty),
     "subtracted once from seen tokens, 0: off", -100, 100, NULL, NULL, false},
    {GEUL_OPTION_REAL, "--frequency-penalty", "X", SAMPLING(frequency_penalty),
     "subtracted for every time a token was seen, 0: off", -100, 100, NULL, NULL, false},
    {GEUL_OPTION_SEED, "-s, --seed", "N", offsetof(struct geul_sampling_args, seed),
     "random seed; a new one each time when not given", 0, 0, NULL, NULL, false},
    {.kind = GEUL_OPTION_END},
};

void geul_sampling_args_seed(struct geul_sampling_args *args)
{
    if (!args->seed.given)
        args->seed = (struct geul_seed){geul_os_entropy() & 0xffffffff, true};
    args->sampling.seed = args->seed.value;
}

const struct geul_regex_engine *geul_regex(void)
{
    return geul_regex_pcre2();
}

/* Loads into *out; false with the reason in its context. */
static bool load(const struct geul_model_args *args, bool tokenizer, struct geul_loaded *out)
{
    struct geul_model_options options = {
        .n_threads = args->n_threads, .regex = geul_regex(), .no_tokenizer = !tokenizer};
    out->model = geul_model_load(out->ctx, args->path, &options);
    if (!out->model)
        return false;
    if (geul_adapter_args_add(out->ctx, &args->adapters, out->model) != GEUL_OK)
        return false;
    if (tokenizer && !geul_model_get_tokenizer(out->model)) {
        geul_fail(out->ctx, GEUL_ERROR_FORMAT, "%s has no tokenizer; it knows only token ids", args->path);
        return false;
    }
    struct geul_session_options session = {
        .n_context = args->n_context,
        .n_sequences = args->n_sequences,
        .n_batch = args->n_batch,
        .cache_type = geul_type_from_name(args->cache_type),
    };
    out->session = geul_session_new(out->ctx, out->model, &session);
    return out->session != NULL;
}

int geul_loaded_open(const struct geul_model_args *args, bool tokenizer, struct geul_loaded *out)
{
    double start = geul_os_seconds();
    *out = (struct geul_loaded){.ctx = geul_report_context(args->verbose)};
    if (!out->ctx)
        return 1;
    if (args->n_gpu_layers > 0)
        geul_report_note("warning: -ngl %d: this build has no GPU; everything runs on the CPU", args->n_gpu_layers);
    if (!load(args, tokenizer, out)) {
        int code = geul_report_failure(out->ctx);
        geul_loaded_close(out);
        return code;
    }
    const struct geul_model_shape *shape = geul_model_get_shape(out->model);
    if (args->n_context > shape->n_context)
        geul_report_note("warning: -c %d: the model was trained for %d positions; beyond them it writes nonsense",
                         args->n_context, shape->n_context);
    out->load_seconds = geul_os_seconds() - start;
    return 0;
}

void geul_loaded_close(struct geul_loaded *l)
{
    geul_session_free(l->session);
    geul_model_free(l->model);
    geul_context_free(l->ctx);
    *l = (struct geul_loaded){.ctx = NULL};
}

bool geul_template_open(struct geul_context *ctx, const struct geul_model *model, const char *name,
                        struct geul_template **out)
{
    char *text = NULL;
    size_t length = 0;
    bool automatic = strcmp(name, "auto") == 0;
    *out = NULL;
    if (automatic)
        name = geul_model_get_template(model);
    if (!name)
        return true;
    if (!automatic && strpbrk(name, "/.") && !strstr(name, "{instruction}")) {
        text = geul_text_input_file(name, &length);
        if (!text)
            return false;
        if (length && text[length - 1] == '\n') /* the one that editors put at the end of every file */
            text[length - 1] = '\0';
    }
    *out = geul_template_new(ctx, text ? text : name);
    if (!*out && text)
        geul_report_error("%s holds no {instruction}, the place where the question goes", name);
    else if (!*out)
        geul_report_failure(ctx);
    free(text);
    return *out != NULL;
}
