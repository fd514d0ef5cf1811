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
    static const char *const tails[] = {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"};
    size_t n = strlen(hf_name);
    for (size_t i = 0; i < COUNT(tails); i++) {
        size_t k = strlen(tails[i]);
        if (n >= k && strcmp(hf_name + n - k, tails[i]) == 0)
            return true;
    }
    return false;
}
