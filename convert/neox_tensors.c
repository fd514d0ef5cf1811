/* neox_tensors.c: see neox_tensors.h. */
#include "convert/neox_tensors.h"

#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* HF's second names of modules. */
static const struct {
    const char *name, *alias;
} aliases[] = {
#define HF_ALIAS(name, alias) {name, alias},
#include "models/neox.def"
};

void geul_neox_hf_module(char out[GEUL_NEOX_HF_NAME], const struct geul_neox_tensor_info *t, int layer)
{
    if (t->in_layer)
        snprintf(out, GEUL_NEOX_HF_NAME, GEUL_NEOX_HF_LAYERS "%d.%s", layer, t->hf);
    else
        snprintf(out, GEUL_NEOX_HF_NAME, "%s", t->hf);
}

const char *geul_neox_hf_target(enum geul_neox_target target)
{
    const char *name = geul_neox_target_info(target)->hf, *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

static void fill(struct geul_neox_tensor *t, const struct geul_neox_tensor_info *info, int layer,
                 const struct geul_model_shape *shape)
{
    t->info = info;
    geul_neox_tensor_name(t->gguf, info, layer);
    geul_neox_hf_module(t->hf, info, layer);
    size_t n = strlen(t->hf);
    snprintf(t->hf + n, sizeof t->hf - n, ".%s", info->part);
    t->alias[0] = '\0';
    for (size_t i = 0; i < COUNT(aliases); i++)
        if (strcmp(aliases[i].name, info->hf) == 0)
            snprintf(t->alias, sizeof t->alias, "%s.%s", aliases[i].alias, info->part);
    t->n_dims = geul_neox_tensor_dims(info, shape, t->shape);
    if (t->n_dims == 1)
        t->shape[1] = 1;
}

struct geul_neox_tensor *geul_neox_tensor_list(struct geul_context *ctx, const struct geul_neox_config *c,
                                               size_t *count)
{
    const struct geul_model_shape shape = {.n_layers = (int)c->n_layers,
                                           .d_model = (int)c->d_model,
                                           .d_ff = (int)c->d_ff,
                                           .n_heads = (int)c->n_heads,
                                           .d_head = (int)c->d_head,
                                           .n_vocab = (int)c->n_vocab};
    size_t n = (size_t)geul_neox_tensor_count(shape.n_layers);
    struct geul_neox_tensor *list = geul_alloc(ctx, n, sizeof *list);
    if (!list)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        int layer;
        const struct geul_neox_tensor_info *info = geul_neox_tensor_at(shape.n_layers, (int64_t)i, &layer);
        fill(&list[i], info, layer, &shape);
    }
    *count = n;
    return list;
}

/* The rows of a QKV tensor, with two heads; q0 stands for the d_head rows of head 0's query:
 *
 *   Hugging Face, by head        q0 k0 v0 q1 k1 v1      row = (head * 3 + part) * d_head + i
 *   GGUF, all Q, all K, all V    q0 q1 k0 k1 v0 v1      row = part * d_model + head * d_head + i
 */
int64_t geul_neox_qkv_row(const void *config, int64_t r)
{
    const struct geul_neox_config *c = config;
    int64_t part = r / c->d_model, head = r % c->d_model / c->d_head, i = r % c->d_head;
    return (head * 3 + part) * c->d_head + i;
}

int64_t geul_neox_qkv_row_back(const void *config, int64_t r)
{
    const struct geul_neox_config *c = config;
    int64_t head = r / (3 * c->d_head), part = r / c->d_head % 3, i = r % c->d_head;
    return part * c->d_model + head * c->d_head + i;
}

bool geul_neox_is_buffer(const char *hf_name)
{
    static const char *const tails[] = {
        ".attention.bias",        ".attention.masked_bias", ".rotary_emb.inv_freq",  ".rotary_emb.original_inv_freq",
        ".rotary_emb.cos_cached", ".rotary_emb.sin_cached", ".attention.norm_factor"};
    size_t n = strlen(hf_name);
    for (size_t i = 0; i < COUNT(tails); i++) {
        size_t k = strlen(tails[i]);
        if (n >= k && strcmp(hf_name + n - k, tails[i]) == 0)
            return true;
    }
    return false;
}

/* Parts of names that wrappers add: anywhere, and at the start. */
static const char *const wrappers[] = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
                                       "_forward_module"};
static const char *const starts[] = {"module", "base_model", "model"};
/* Modules of GPTNeoXModel, which GPTNeoXForCausalLM calls gpt_neox. */
static const char *const inner[] = {"layers", "embed_in", "final_layer_norm", "rotary_emb"};

/* Whether the first n bytes of s are one of the words. */
static bool is_one_of(const char *s, size_t n, const char *const *words, size_t n_words)
{
    for (size_t i = 0; i < n_words; i++)
        if (strlen(words[i]) == n && memcmp(s, words[i], n) == 0)
            return true;
    return false;
}

static char *plain_name(struct geul_context *ctx, const char *name)
{
    static const char whole[] = "gpt_neox.";
    char *out = geul_alloc(ctx, strlen(name) + sizeof whole, 1);
    size_t n = 0;
    const char *dot;
    if (!out)
        return NULL;
    for (const char *s = name; *s; s = dot + 1) {
        dot = strchr(s, '.');
        size_t part = dot ? (size_t)(dot - s) : strlen(s);
        /* the last part stays in any case, so that a name never becomes empty */
        bool skip = dot && (is_one_of(s, part, wrappers, COUNT(wrappers)) ||
                            (n == 0 && is_one_of(s, part, starts, COUNT(starts))));
        if (!skip && n == 0 && is_one_of(s, part, inner, COUNT(inner))) {
            memcpy(out, whole, sizeof whole - 1);
            n = sizeof whole - 1;
        }
        if (!skip) {
            memcpy(out + n, s, part + (dot != NULL));
            n += part + (dot != NULL);
        }
        if (!dot)
            break;
    }
    out[n] = '\0';
    return out;
}

const struct geul_checkpoint_names geul_neox_hf_names = {plain_name, geul_neox_is_buffer};
