/* neox_config.c: see neox_config.h. */
#include "convert/neox_config.h"

#include "formats/json_file.h"
#include "formats/json_text.h"
#include "models/neox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The whole numbers of config.json and of GGUF files, within the limits of models/neox.h. assumed: what transformers
 * takes where the key is missing, when the tensors do not tell; 0: the key is needed. */
/* clang-format off */
#define FIELD(name) offsetof(struct geul_neox_config, name)
static const struct {
    const char *json, *gguf;
    size_t field;
    int64_t most, assumed;
} numbers[] = {
    {"num_hidden_layers",       "gptneox.block_count",          FIELD(n_layers),  GEUL_NEOX_MOST_LAYERS,    0},
    {"hidden_size",             "gptneox.embedding_length",     FIELD(d_model),   GEUL_NEOX_MOST_WIDTH,     0},
    {"intermediate_size",       "gptneox.feed_forward_length",  FIELD(d_ff),      GEUL_NEOX_MOST_WIDTH,     0},
    {"num_attention_heads",     "gptneox.attention.head_count", FIELD(n_heads),   GEUL_NEOX_MOST_WIDTH,     0},
    {"max_position_embeddings", "gptneox.context_length",       FIELD(n_context), GEUL_NEOX_MOST_POSITIONS, 2048},
    {"vocab_size",              "gptneox.vocab_size",           FIELD(n_vocab),   GEUL_NEOX_MOST_VOCAB,     0},
};
/* clang-format on */

/* Names of activations, and the GELU that each is. The first of each kind is what geul writes. */
static const struct {
    const char *name;
    enum geul_gelu gelu;
} activations[] = {
    {"gelu", GEUL_GELU_ERF},           {"gelu_new", GEUL_GELU_TANH},          {"gelu_python", GEUL_GELU_ERF},
    {"gelu_fast", GEUL_GELU_TANH},     {"gelu_pytorch_tanh", GEUL_GELU_TANH}, {"gelu_python_tanh", GEUL_GELU_TANH},
    {"gelu_accurate", GEUL_GELU_TANH},
};

static int64_t *field(struct geul_neox_config *c, size_t offset)
{
    return (int64_t *)(void *)((char *)c + offset);
}

/* Derived values and what must hold whatever the source. name is for messages. */
static enum geul_status finish(struct geul_context *ctx, const char *name, struct geul_neox_config *c,
                               double rotary_share)
{
    if (c->d_model % c->n_heads != 0)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: the hidden size %lld is not a multiple of the %lld heads", name,
                         (long long)c->d_model, (long long)c->n_heads);
    c->d_head = c->d_model / c->n_heads;
    if (rotary_share >= 0)
        c->n_rot = (int64_t)((double)c->d_head * rotary_share); /* truncated, as transformers does */
    if (c->n_rot < 0 || c->n_rot > c->d_head || c->n_rot % 2 != 0)
        return geul_fail(ctx, GEUL_ERROR_FORMAT,
                         "%s: %lld rotary dimensions in heads of %lld; an even number up to that is possible", name,
                         (long long)c->n_rot, (long long)c->d_head);
    return GEUL_OK;
}

/* hidden_act. */
static void read_activation(struct geul_context *ctx, const char *name, const json_t *json, struct geul_neox_config *c)
{
    const char *act = "gelu";
    geul_json_string(ctx, name, json, "hidden_act", &act);
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(act, activations[i].name) == 0) {
            c->gelu = activations[i].gelu;
            return;
        }
    char text[40];
    geul_fail(ctx, GEUL_ERROR_UNSUPPORTED, "%s: hidden_act \"%s\" is not a GELU; geul computes gelu and its tanh forms",
              name, geul_printable(act, text, sizeof text));
}

/* Fails when the member is null: transformers takes that for no default. */
static void refuse_null(struct geul_context *ctx, const char *name, const json_t *object, const char *key)
{
    if (json_is_null(json_object_get(object, key)))
        geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: \"%s\" is null; give its value, or leave the key out for the default",
                  name, key);
}

/* Whether Python takes v for nothing: missing, null, false, 0 and what is empty. */
static bool is_nothing(const json_t *v)
{
    return !v || json_is_null(v) || json_is_false(v) || (json_is_integer(v) && json_integer_value(v) == 0) ||
           (json_is_string(v) && json_string_length(v) == 0) || (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

/* The object of rotary settings: rope_scaling, when it says anything, in place of rope_parameters, as transformers 5
 * takes them; NULL: neither is there. */
static const json_t *rope_object(struct geul_context *ctx, const char *name, const json_t *json)
{
    const char *key = is_nothing(json_object_get(json, "rope_scaling")) ? "rope_parameters" : "rope_scaling";
    const json_t *p = json_object_get(json, key);
    const char *odd = geul_json_oddity(p);
    if (!p || json_is_null(p) || (json_is_object(p) && !odd))
        return p;
    geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: \"%s\"%s%s; it must be an object", name, key, odd ? " is " : " is no object",
              odd ? odd : "");
    return NULL;
}

/* Fails for positions that are scaled. */
static void check_rope_type(struct geul_context *ctx, const char *name, const json_t *p)
{
    const char *key = json_object_get(p, "rope_type") ? "rope_type" : "type", *type = "default";
    char text[40];
    refuse_null(ctx, name, p, key);
    geul_json_string(ctx, name, p, key, &type);
    if (strcmp(type, "default") != 0)
        geul_fail(ctx, GEUL_ERROR_UNSUPPORTED,
                  "%s: rotary embedding of type \"%s\" (scaled positions); geul computes the plain one only", name,
                  geul_printable(type, text, sizeof text));
}

/* The number that p calls `key` and that otherwise the config itself calls `older`; *out stays where neither is. A
 * value of the config under the newer name is one that transformers passes over. */
static void read_rope_number(struct geul_context *ctx, const char *name, const json_t *p, const json_t *json,
                             const char *key, const char *older, double low, double high, double *out)
{
    const json_t *object = json_object_get(p, key) ? p : json, *ignored = json_object_get(json, key);
    const char *found = object == p ? key : older;
    refuse_null(ctx, name, object, found);
    geul_json_real(ctx, name, object, found, low, high, out);
    const double d = json_number_value(ignored);
    if (ignored && !json_is_null(ignored) && !(d <= *out && d >= *out))
        geul_log(ctx, GEUL_LOG_WARN,
                 "%s: \"%s\" outside of \"rope_parameters\" is not used, as in transformers 5; it is %g (\"%s\")", name,
                 key, *out, older);
}

/* Rotary settings. *share gets the part of a head's dimensions that is rotated. */
static void read_rope(struct geul_context *ctx, const char *name, const json_t *json, struct geul_neox_config *c,
                      double *share)
{
    const json_t *p = rope_object(ctx, name, json);
    c->rope_base = 10000;
    *share = 0.25;
    check_rope_type(ctx, name, p);
    read_rope_number(ctx, name, p, json, "rope_theta", "rotary_emb_base", 1, 1e12, &c->rope_base);
    read_rope_number(ctx, name, p, json, "partial_rotary_factor", "rotary_pct", 0, 1, share);
}

/* head_dim, from which transformers computes the angles, but not the size of the heads. */
static enum geul_status check_head_size(struct geul_context *ctx, const char *name, const json_t *json,
                                        const struct geul_neox_config *c)
{
    const json_t *v = json_object_get(json, "head_dim");
    double d = json_number_value(v), head = (double)c->d_head;
    if (is_nothing(v) || (d <= head && d >= head))
        return GEUL_OK;
    return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED,
                     "%s: \"head_dim\" is not %lld, the hidden size divided by the heads; geul knows no other heads",
                     name, (long long)c->d_head);
}

static enum geul_status check_type(struct geul_context *ctx, const char *name, const json_t *json)
{
    const char *type = NULL;
    char text[40];
    if (geul_json_string(ctx, name, json, "model_type", &type) && strcmp(type, "gpt_neox") == 0)
        return GEUL_OK;
    return geul_fail(ctx, GEUL_ERROR_UNSUPPORTED,
                     "%s: \"model_type\" is %s%s%s; geul converts \"gpt_neox\" (Polyglot-Ko, Pythia, GPT-NeoX)", name,
                     type ? "\"" : "missing", type ? geul_printable(type, text, sizeof text) : "", type ? "\"" : "");
}

enum geul_status geul_neox_config_read(struct geul_context *ctx, const char *name, const json_t *json,
                                       struct geul_neox_config *out)
{
    struct geul_neox_config c = {.norm_eps = 1e-5, .parallel_residual = true, .attention_bias = true};
    static const char *const never_null[] = {"layer_norm_eps", "use_parallel_residual", "tie_word_embeddings",
                                             "attention_bias", "hidden_act"};
    double share;
    c.bos = c.eos = -1;
    if (check_type(ctx, name, json) != GEUL_OK)
        return geul_error_status(ctx);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int64_t *n = field(&c, numbers[i].field);
        *n = json_object_get(json, numbers[i].json) ? 0 : numbers[i].assumed;
        if (!geul_json_int(ctx, name, json, numbers[i].json, 1, numbers[i].most, n) && *n == 0)
            geul_fail(ctx, GEUL_ERROR_FORMAT, "%s: \"%s\" is missing", name, numbers[i].json);
    }
    for (size_t i = 0; i < sizeof never_null / sizeof *never_null; i++)
        refuse_null(ctx, name, json, never_null[i]);
    geul_json_real(ctx, name, json, "layer_norm_eps", 0, 1, &c.norm_eps);
    geul_json_bool(ctx, name, json, "use_parallel_residual", &c.parallel_residual);
    geul_json_bool(ctx, name, json, "tie_word_embeddings", &c.tied_embeddings);
    geul_json_bool(ctx, name, json, "attention_bias", &c.attention_bias);
    if (json_is_integer(json_object_get(json, "bos_token_id"))) /* may be a list elsewhere; only these are used */
        c.bos = json_integer_value(json_object_get(json, "bos_token_id"));
    if (json_is_integer(json_object_get(json, "eos_token_id")))
        c.eos = json_integer_value(json_object_get(json, "eos_token_id"));
    read_activation(ctx, name, json, &c);
    read_rope(ctx, name, json, &c, &share);
    if (geul_error_status(ctx) != GEUL_OK) /* of all look-ups above: the first failure is the one recorded */
        return geul_error_status(ctx);
    enum geul_status status = finish(ctx, name, &c, share);
    if (status == GEUL_OK)
        status = check_head_size(ctx, name, json, &c);
    if (status == GEUL_OK)
        *out = c;
    return status;
}

enum geul_status geul_neox_config_from_gguf(struct geul_context *ctx, const struct geul_gguf *g,
                                            struct geul_neox_config *out)
{
    struct geul_model_shape s;
    enum geul_status status = geul_neox_read_shape(ctx, g, &s);
    if (status != GEUL_OK)
        return status;
    struct geul_neox_config c = {.n_layers = s.n_layers,
                                 .d_model = s.d_model,
                                 .d_ff = s.d_ff,
                                 .n_heads = s.n_heads,
                                 .d_head = s.d_head,
                                 .n_rot = s.n_rot,
                                 .n_context = s.n_context,
                                 .n_vocab = s.n_vocab,
                                 .norm_eps = (double)s.norm_eps,
                                 .rope_base = (double)s.rope_base,
                                 .parallel_residual = s.parallel_residual,
                                 .attention_bias = true,
                                 .gelu = s.gelu,
                                 .bos = -1,
                                 .eos = -1};
    uint64_t v;
    if (geul_gguf_u64(g, "tokenizer.ggml.bos_token_id", &v) && v < (uint64_t)c.n_vocab)
        c.bos = (int64_t)v;
    if (geul_gguf_u64(g, "tokenizer.ggml.eos_token_id", &v) && v < (uint64_t)c.n_vocab)
        c.eos = (int64_t)v;
    geul_gguf_bool(g, GEUL_NEOX_KEY_TIED, &c.tied_embeddings);
    geul_gguf_bool(g, GEUL_NEOX_KEY_BIAS, &c.attention_bias);
    *out = c;
    return GEUL_OK;
}

void geul_neox_config_to_gguf(const struct geul_neox_config *c, struct geul_gguf_writer *w)
{
    struct geul_neox_config copy = *c;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        geul_gguf_set_u32(w, numbers[i].gguf, (uint32_t)*field(&copy, numbers[i].field));
    geul_gguf_set_u32(w, "gptneox.rope.dimension_count", (uint32_t)c->n_rot);
    geul_gguf_set_f32(w, "gptneox.rope.freq_base", (float)c->rope_base);
    geul_gguf_set_f32(w, "gptneox.attention.layer_norm_epsilon", (float)c->norm_eps);
    geul_gguf_set_bool(w, "gptneox.use_parallel_residual", c->parallel_residual);
    const char *gelu = c->gelu == GEUL_GELU_TANH ? "tanh" : "erf";
    geul_gguf_set_string(w, "geul.gelu", gelu, strlen(gelu));
    if (c->tied_embeddings)
        geul_gguf_set_bool(w, GEUL_NEOX_KEY_TIED, true);
    if (!c->attention_bias)
        geul_gguf_set_bool(w, GEUL_NEOX_KEY_BIAS, false);
}

/* The shortest decimal that is v as float32: 1e-05 rather than 9.99999974737875e-06. */
static double round_decimal(double v)
{
    char text[40];
    for (int digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*e", digits - 1, v);
        if ((float)strtod(text, NULL) == (float)v)
            return strtod(text, NULL);
    }
    return v;
}

/* The part of the dimensions of a head that rotates, so that transformers, which truncates the product, finds their
 * number again: 44 * (30 / 44.0) is 29.999999999999996. */
static double rotary_share(const struct geul_neox_config *c)
{
    double head = (double)c->d_head, share = (double)c->n_rot / head;
    while ((int64_t)(head * share) < c->n_rot)
        share = nextafter(share, 2);
    return share;
}

json_t *geul_neox_config_to_json(const struct geul_neox_config *c, const char *dtype)
{
    struct geul_neox_config copy = *c;
    const char *act = c->gelu == GEUL_GELU_TANH ? "gelu_new" : "gelu";
    double share = rotary_share(c), base = round_decimal(c->rope_base);
    json_t *json = json_pack("{s:[s], s:s, s:s, s:f, s:f, s:f, s:b, s:b, s:b, s:s, s:f}", "architectures",
                             "GPTNeoXForCausalLM", "model_type", "gpt_neox", "hidden_act", act, "layer_norm_eps",
                             round_decimal(c->norm_eps), "rotary_pct", share, "rotary_emb_base", base,
                             "use_parallel_residual", c->parallel_residual, "tie_word_embeddings", c->tied_embeddings,
                             "attention_bias", c->attention_bias, "torch_dtype", dtype, "initializer_range", 0.02);
    bool ok = json != NULL;
    for (size_t i = 0; ok && i < sizeof numbers / sizeof *numbers; i++)
        ok = json_object_set_new(json, numbers[i].json, json_integer(*field(&copy, numbers[i].field))) == 0;
    if (ok && c->bos >= 0)
        ok = json_object_set_new(json, "bos_token_id", json_integer(c->bos)) == 0;
    if (ok && c->eos >= 0)
        ok = json_object_set_new(json, "eos_token_id", json_integer(c->eos)) == 0;
    if (ok)
        return json;
    json_decref(json);
    return NULL;
}

bool geul_neox_config_equal(const struct geul_neox_config *a, const struct geul_neox_config *b)
{
    struct geul_neox_config x = *a, y = *b;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (*field(&x, numbers[i].field) != *field(&y, numbers[i].field))
            return false;
    return a->n_rot == b->n_rot && a->parallel_residual == b->parallel_residual && a->gelu == b->gelu &&
           (float)a->norm_eps == (float)b->norm_eps && (float)a->rope_base == (float)b->rope_base;
}
