/* model_args.h: the options that several subcommands share, and what they open. */
#ifndef GEUL_MODEL_ARGS_H
#define GEUL_MODEL_ARGS_H

#include "command/device_args.h"
#include "command/lora_args.h"
#include "command/options.h"

#include "core/context.h"
#include "geul.h"

/* -m --lora --lora-scaled --device -ngl -ts --exact -t -c -b --cache-type -v */
struct geul_model_args {
    const char *path;
    struct geul_lora_args adapters;
    struct geul_device_args where;
    int n_threads, n_context, n_batch;
    const char *cache_type; /* one of geul_cache_types */
    bool verbose;
    int n_sequences; /* texts in the cache, 0: 1; no option */
    bool fit;        /* --fit, where a subcommand has that */
    size_t reserve;  /* bytes that the subcommand needs on devices besides what is planned for a session */
};
#define GEUL_MODEL_ARGS_DEFAULT                                                                                        \
    {                                                                                                                  \
        .cache_type = "f16", .n_batch = 512                                                                            \
    }
extern const struct geul_option geul_model_options[];
/* The same where -m may be left out, for geul_model_args_choose(). */
extern const struct geul_option geul_any_model_options[];
extern const char *const geul_cache_types[]; /* NULL at the end */
/* llama.cpp has an option each for keys and values; here both have the same type, so the names are synonyms. */
#define GEUL_CACHE_TYPE_NAMES "-ctk, -ctv, --cache-type, --cache-type-k, --cache-type-v"
#define GEUL_CACHE_TYPE_HELP  "type of the KV cache, the same for keys and values"

/* --temp --top-k ... --seed */
struct geul_sampling_args {
    struct geul_sampling sampling;
    struct geul_word order; /* as geul_sampling_set_order() takes it */
    struct geul_seed seed;
};
/* The values before any option. */
struct geul_sampling_args geul_sampling_args_default(void);
extern const struct geul_option geul_sampling_options[];
/* Chooses a seed when none was given, and puts it into sampling. */
void geul_sampling_args_seed(struct geul_sampling_args *args);
/* Puts the order into sampling. Returns 0, or the exit code after a message. */
int geul_sampling_args_order(struct geul_sampling_args *args);

/* Takes the small model that comes with geul when none was named, and says so. Returns the exit code: 0, or 2 after a
 * message where it is not there. */
int geul_model_args_choose(struct geul_model_args *args);

/* What a subcommand works with. */
struct geul_loaded {
    struct geul_context *ctx;
    struct geul_model *model;
    struct geul_session *session;
    double load_seconds;
};
/* The options of the model and of its session. Returns 0, or 2 after a message. */
int geul_model_args_options(const struct geul_model_args *args, struct geul_context *ctx,
                            struct geul_model_options *model, struct geul_session_options *session);
/* Loads the model, with its tokenizer when wanted, and opens a session. Returns the exit code; after a failure (its
 * message was printed) *out holds nothing. Close with geul_loaded_close(). */
int geul_loaded_open(const struct geul_model_args *args, bool tokenizer, struct geul_loaded *out);
void geul_loaded_close(struct geul_loaded *l);

/* The regular expressions for tokenizers that geul has no scanner for. */
const struct geul_regex_engine *geul_regex(void);

/* The template that --template names: a built-in one, a file, or "auto", the one of the model's metadata (*out is then
 * NULL for a base model). false after a message. */
bool geul_template_open(struct geul_context *ctx, const struct geul_model *model, const char *name,
                        struct geul_template **out);

#endif
