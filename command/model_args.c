/* model_args.c: the options that several subcommands share, and what they open. */
#include "command/model_args.h"

#include "command/paths.h"
#include "command/report.h"
#include "command/text_input.h"

#include "geul_tools.h"
#include "core/os.h"
#include "models/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const geul_cache_types[] = {"f16", "q8_0", "bf16", "f32", NULL};

/* clang-format off */
#define SETTINGS struct geul_model_args
static const struct geul_option how_options[] = {
    OPTION_GROUP(adapters, geul_lora_option_rows),
    OPTION_INT(   "-t, --threads",            n_threads,    0, 1024, "threads, 0: one per core"),
    OPTION_INT(   "-c, --ctx-size",           n_context,    0, 1 << 24,
                  "positions of the KV cache, 0: the model's context"),
    OPTION_INT(   "-b, --batch-size",         n_batch,      1, 1 << 16, "most prompt tokens computed at once"),
    OPTION_CHOICE(GEUL_CACHE_TYPE_NAMES,      cache_type,   "TYPE", geul_cache_types, GEUL_CACHE_TYPE_HELP),
    OPTION_GROUP(where, geul_device_options),
    OPTION_FLAG(  "-v, --verbose",            verbose,      "notes and timings on stderr"),
    OPTION_END,
};
#define HOW {.kind = GEUL_OPTION_GROUP, .group = how_options}
const struct geul_option geul_model_options[] = {
    REQUIRED_PATH("-m, --model",              path,         "FILE", FILE,
                  "the model, a GGUF file (of a split one the first part)"),
    HOW,
    OPTION_END,
};
const struct geul_option geul_any_model_options[] = {
    OPTION_PATH(  "-m, --model",              path,         "FILE", FILE,
                  "the model, a GGUF file (of a split one the first part); the small one that comes with geul when "
                  "not given"),
    HOW,
    OPTION_END,
};
#undef HOW
#undef SETTINGS

#define SETTINGS struct geul_sampling_args
const struct geul_option geul_sampling_options[] = {
    OPTION_REAL("--temp",              sampling.temperature,       0, 100,
                "temperature, 0: always the likeliest token"),
    OPTION_INT( "--top-k",             sampling.top_k,             0, 1 << 24, "only the N likeliest tokens, 0: all"),
    OPTION_REAL("--top-p",             sampling.top_p,             0, 1,
                "only the likeliest tokens whose probabilities sum to X, 1: all"),
    OPTION_REAL("--min-p",             sampling.min_p,             0, 1,
                "only tokens at least X times as likely as the best, 0: all"),
    OPTION_REAL("--typical",           sampling.typical_p,         0, 1,
                "only the most typical tokens whose probabilities sum to X, 1: all"),
    OPTION_REAL("--repeat-penalty",    sampling.repeat_penalty,    0.01, 100, "weakens tokens seen before, 1: off"),
    OPTION_INT( "--repeat-last-n",     sampling.penalty_last_n,    -1, 1 << 24,
                "how many tokens count as seen, -1: all"),
    OPTION_REAL("--presence-penalty",  sampling.presence_penalty,  -100, 100,
                "subtracted once from seen tokens, 0: off"),
    OPTION_REAL("--frequency-penalty", sampling.frequency_penalty, -100, 100,
                "subtracted for every time a token was seen, 0: off"),
    OPTION_WORD("--sampler-order, --samplers", order,              "LIST",
                "order of the steps: llama.cpp (top_k;typ_p;top_p;min_p;temperature), hf as in transformers "
                "(temperature;top_k;top_p;min_p;typ_p), or a list like these; what a list leaves out is not done. "
                "Penalties come first"),
    OPTION_SEED("-s, --seed",          seed,                       "random seed; a new one each time when not given"),
    OPTION_END,
};
/* clang-format on */

static const char usual_order[] = "llama.cpp";

struct geul_sampling_args geul_sampling_args_default(void)
{
    struct geul_sampling_args args = {.sampling = geul_sampling_default()};
    strcpy(args.order.text, usual_order);
    return args;
}

int geul_sampling_args_order(struct geul_sampling_args *args)
{
    struct geul_context *ctx = geul_context_new(NULL);
    if (!ctx)
        return 1;
    bool ok = geul_sampling_set_order(ctx, &args->sampling, args->order.text) == GEUL_OK;
    int code = ok ? 0 : geul_report_usage("--sampler-order: %s", geul_error(ctx));
    geul_context_free(ctx);
    return code;
}

void geul_sampling_args_seed(struct geul_sampling_args *args)
{
    if (!args->seed.given)
        args->seed = (struct geul_seed){geul_os_entropy() & 0xffffffff, true};
    args->sampling.seed = args->seed.value;
}

int geul_model_args_choose(struct geul_model_args *args)
{
    if (args->path)
        return 0;
    args->path = geul_path_small_model();
    if (!args->path)
        return geul_report_usage("-m, --model FILE is missing, and the small model is not where it was installed");
    fprintf(stderr, "model: %s (comes with geul; -m FILE takes another)\n", args->path);
    return 0;
}

const struct geul_regex_engine *geul_regex(void)
{
    return geul_regex_pcre2();
}

/* Bytes of the adapters' files: about what they take on a device. */
static size_t adapter_bytes(const struct geul_lora_args *args, struct geul_context *ctx)
{
    struct geul_lora_choice choices[GEUL_LORAS_MAX];
    size_t bytes = 0;
    int n = geul_lora_args_choices(ctx, args, choices);
    for (int i = 0; i < GEUL_LORAS_MAX; i++) {
        uint64_t size;
        if (i < n && geul_os_file_size(choices[i].path, &size))
            bytes += (size_t)size;
        geul_free(ctx, choices[i].path);
    }
    return bytes;
}

int geul_model_args_options(const struct geul_model_args *args, struct geul_context *ctx,
                            struct geul_model_options *model, struct geul_session_options *session)
{
    *session = (struct geul_session_options){
        .n_context = args->n_context,
        .n_sequences = args->n_sequences,
        .n_batch = args->n_batch,
        .cache_type = geul_type_from_name(args->cache_type),
        .exact = args->where.exact,
    };
    *model = (struct geul_model_options){
        .n_threads = args->n_threads,
        .regex = geul_regex(),
        .session = session,
        .reserve_bytes = args->reserve + adapter_bytes(&args->adapters, ctx),
    };
    return geul_device_args_apply(&args->where, model);
}

/* Loads into *out; false with the reason in its context. */
static bool load(const struct geul_model_args *args, bool tokenizer, const struct geul_model_options *options,
                 struct geul_loaded *out)
{
    out->model = geul_model_load(out->ctx, args->path, options);
    if (!out->model)
        return false;
    /* Before the session: a model with sessions takes no adapters. */
    if (geul_lora_args_add(out->ctx, &args->adapters, out->model) != GEUL_OK)
        return false;
    if (tokenizer && !geul_model_get_tokenizer(out->model)) {
        geul_fail(out->ctx, GEUL_ERROR_FORMAT, "%s has no tokenizer; it knows only token ids", args->path);
        return false;
    }
    out->session = geul_session_new(out->ctx, out->model, options->session);
    return out->session != NULL;
}

int geul_loaded_open(const struct geul_model_args *args, bool tokenizer, struct geul_loaded *out)
{
    double start = geul_os_seconds();
    struct geul_model_options options;
    struct geul_session_options session;
    *out = (struct geul_loaded){.ctx = geul_report_context(args->verbose)};
    if (!out->ctx)
        return 1;
    int code = geul_model_args_options(args, out->ctx, &options, &session);
    options.no_tokenizer = !tokenizer;
    if (code == 0 && !load(args, tokenizer, &options, out)) {
        code = geul_report_failure(out->ctx);
        if (!out->model)
            geul_device_args_explain(&args->where, out->ctx);
    }
    if (code != 0) {
        geul_loaded_close(out);
        return code;
    }
    if (out->model->n_devices == 1)
        geul_device_args_tell_missing(&args->where);
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
    geul_report_context_free(l->ctx);
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
        text = geul_text_input_file(name, NULL, &length);
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
