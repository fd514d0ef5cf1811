/* peft_config.c: see peft_config.h. */
#include "convert/peft_config.h"

#include "formats/json_file.h"
#include "geul_tools.h"

#include <stdio.h>
#include <string.h>

enum { MOST_RANK = 1 << 20, MOST_PATTERN = 512 };
#define LEAST_ALPHA 1e-6
#define MOST_ALPHA  1e6

/* Settings that change what an adapter computes, and what they request. */
static const struct {
    const char *key, *what;
} unknown[] = {
    {"use_dora", "DoRA"},
    {"use_qalora", "QA-LoRA"},
    {"use_bdlora", "BD-LoRA"},
    {"lora_bias", "biases beside lora_B"},
    {"fan_in_fan_out", "transposed weights"},
    {"modules_to_save", "whole modules beside the adapter"},
    {"trainable_token_indices", "changed token embeddings"},
    {"layer_replication", "repeated layers"},
    {"target_parameters", "parameters that belong to no linear layer"},
    {"alora_invocation_tokens", "an adapter that begins at certain tokens (aLoRA)"},
    {"arrow_config", "a choice between adapters (Arrow)"},
    {"kasa_config", "a changed base model (KaSA)"},
    {"monteclora_config", "random ranks (MonteCLoRA)"},
};

/* Whether a setting is off: missing, null, false, [] or {}. */
static bool is_off(const json_t *v)
{
    return !v || json_is_null(v) || json_is_false(v) || (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

/* The harmless initializations only choose the first A and B. The others also change the base model to match
 * them, so that such an adapter belongs to weights that are in no file. */
static enum geul_status check_start(struct geul_context *ctx, const char *name, const json_t *json)
{
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal"};
    const char *word = json_string_value(json_object_get(json, "init_lora_weights"));
    char text[40];
    for (size_t i = 0; word && i < sizeof harmless / sizeof *harmless; i++)
        if (strcmp(word, harmless[i]) == 0)
            word = NULL;
    if (word)
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED,
                         "%s: init_lora_weights \"%s\" changes the base model; save the adapter with PEFT's "
                         "path_initial_model_for_weight_conversion, which gives a plain one",
                         name, geul_printable(word, text, sizeof text));
    return GEUL_OK;
}

static enum geul_status check_supported(struct geul_context *ctx, const char *name, const json_t *json)
{
    const char *type = json_string_value(json_object_get(json, "peft_type"));
    const json_t *bias = json_object_get(json, "bias");
    char text[40];
    if (!type || strcmp(type, "LORA") != 0)
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: peft_type is \"%s\"; geul knows LORA", name,
                         geul_printable(type ? type : "", text, sizeof text));
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        if (!is_off(json_object_get(json, unknown[i].key)))
            return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: %s asks for %s, which geul cannot do", name,
                             unknown[i].key, unknown[i].what);
    if (!is_off(bias) && !(json_is_string(bias) && strcmp(json_string_value(bias), "none") == 0))
        return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: biases were trained too; geul takes adapters with \"none\"",
                         name);
    return check_start(ctx, name, json);
}

/* An object of patterns, NULL when there are none. */
static const json_t *read_patterns(struct geul_context *ctx, const char *name, const json_t *json, const char *key)
{
    const json_t *v = json_object_get(json, key);
    if (is_off(v))
        return NULL;
    if (!json_is_object(v))
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: \"%s\" must be an object", name, key);
    return v;
}

enum geul_status geul_peft_config_read(struct geul_context *ctx, const char *name, const json_t *json,
                                       struct geul_peft_config *out)
{
    struct geul_peft_config c = {.rank = 8, .alpha = 8}; /* PEFT's defaults */
    enum geul_status status = check_supported(ctx, name, json);
    if (status != GEUL_OK)
        return status;
    geul_json_int(ctx, name, json, "r", 1, MOST_RANK, &c.rank);
    geul_json_real(ctx, name, json, "lora_alpha", LEAST_ALPHA, MOST_ALPHA, &c.alpha);
    geul_json_bool(ctx, name, json, "use_rslora", &c.rslora);
    geul_json_string(ctx, name, json, "base_model_name_or_path", &c.base);
    c.rank_pattern = read_patterns(ctx, name, json, "rank_pattern");
    c.alpha_pattern = read_patterns(ctx, name, json, "alpha_pattern");
    *out = c;
    return geul_error_status(ctx);
}

/* Whether the pattern, a regular expression, matches all of module or all that follows one of its dots. */
static bool matches(struct geul_context *ctx, const char *name, const char *pattern, const char *module)
{
    const struct geul_regex_engine *engine = geul_regex_pcre2();
    char whole[MOST_PATTERN + 32], why[160], text[80];
    int n = snprintf(whole, sizeof whole, "^(.*\\.)?(%s)$", pattern);
    void *regex = NULL;
    if (n < (int)sizeof whole)
        regex = engine->compile(whole, (size_t)n, why, sizeof why);
    else
        snprintf(why, sizeof why, "it is too long");
    if (!regex) {
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: the pattern \"%s\" for modules is wrong: %s", name,
                  geul_printable(pattern, text, sizeof text), why);
        return false;
    }
    size_t from, to;
    bool found = engine->match(regex, module, strlen(module), 0, &from, &to);
    engine->free(regex);
    return found;
}

/* The value of the first pattern that matches module; NULL when none does or one is wrong. */
static const char *first_match(struct geul_context *ctx, const char *name, const json_t *patterns, const char *module)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)patterns, key, value)
    {
        if (matches(ctx, name, key, module))
            return key;
        if (geul_error_status(ctx) != GEUL_OK)
            break;
    }
    return NULL;
}

enum geul_status geul_peft_config_module(struct geul_context *ctx, const char *name, const struct geul_peft_config *c,
                                         const char *module, int64_t *rank, double *alpha)
{
    *rank = c->rank;
    *alpha = c->alpha;
    const char *key = first_match(ctx, name, c->rank_pattern, module);
    if (key)
        geul_json_int(ctx, name, c->rank_pattern, key, 1, MOST_RANK, rank);
    key = first_match(ctx, name, c->alpha_pattern, module);
    if (key)
        geul_json_real(ctx, name, c->alpha_pattern, key, LEAST_ALPHA, MOST_ALPHA, alpha);
    return geul_error_status(ctx);
}
